#!/usr/bin/env bash
# Trains on a TPU VM slice of Google Cloud (v4 to v6e), from this machine: creates the
# slice or takes the one that is there, installs, runs on all its hosts. A slice that was
# preempted is deleted and created again; training continues from its checkpoints.
#
#   PROJECT=my-project BUCKET=my-bucket launch/tpu_vm.sh [--dry-run] [flags of main ...]
set -euo pipefail

PROJECT="${PROJECT:?the Google Cloud project}"
BUCKET="${BUCKET:?a Cloud Storage bucket for data and checkpoints}"
ZONE="${ZONE:-us-west4-a}"
NAME="${NAME:-btsrn}"
TYPE="${TYPE:-v5litepod-8}"                     # v4-8, v5litepod-8, v5p-8, v6e-8, ...
RUNTIME="${RUNTIME:-}"                          # empty: the usual one for TYPE
SPOT="${SPOT:-1}"                               # 1: cheap and preemptible
SOURCE="${SOURCE:-}" # what to install, such as git+https://...; empty: this checkout
CONFIG="${CONFIG:-configs/x4.py}"
RUN="${RUN:-}"                                  # folder in the bucket; empty: CONFIG[-ARG]
ATTEMPTS="${ATTEMPTS:-10}"                      # how often a slice may be lost
WAIT="${WAIT:-60}"                              # seconds before it is created again

dry_run=0 flags=()
for word in "$@"; do
  case "$word" in
    --dry-run) dry_run=1 ;;
    --config | --config=*)
      echo "$0: the config is a variable: CONFIG=FILE.py[:ARG] $0 ..." >&2
      exit 2
      ;;
    *) flags+=("$word") ;;
  esac
done
if [[ -z "$RUN" ]]; then # as the run directory is named without these scripts
  file="$(basename "${CONFIG%%:*}")"
  RUN="${file%.py}"
  if [[ "$CONFIG" == *:?* ]]; then
    RUN+="-${CONFIG#*:}"
  fi
fi
if [[ -z "$RUNTIME" ]]; then
  case "$TYPE" in
    v4-*) RUNTIME="tpu-ubuntu2204-base" ;;
    v5litepod-*) RUNTIME="v2-alpha-tpuv5-lite" ;;
    v5p-*) RUNTIME="v2-alpha-tpuv5" ;;
    v6e-*) RUNTIME="v2-alpha-tpuv6e" ;;
    *) echo "$0: TYPE $TYPE: v4-N, v5litepod-N, v5p-N or v6e-N" >&2 && exit 2 ;;
  esac
fi

where=("$NAME" "--project=$PROJECT" "--zone=$ZONE")
tpu=(gcloud compute tpus tpu-vm)
create=("${tpu[@]}" create "${where[@]}" "--accelerator-type=$TYPE" "--version=$RUNTIME")
if ((SPOT)); then
  create+=(--spot)
fi
delete=("${tpu[@]}" delete "${where[@]}" --quiet)
describe=("${tpu[@]}" describe "${where[@]}" "--format=value(state)")
everywhere=("${tpu[@]}" ssh "${where[@]}" --worker=all)

# On every host; all of it can be run again and again. uv brings a Python of its own:
# that of the TPU images is too old.
root="$(cd "$(dirname "$0")/.." && pwd)"
archive="${TMPDIR:-/tmp}/btsrn-jax.tar.gz"
pack=(tar --create --gzip --file "$archive" --directory "$root" --exclude=__pycache__
  pyproject.toml README.md LICENSE btsrn_jax configs)
copy=("${tpu[@]}" scp "$archive" "$NAME:btsrn-jax.tar.gz" "${where[@]:1}" --worker=all)
package="btsrn-jax[gcs,tpu] @ ${SOURCE:-file://\$HOME/btsrn-jax.tar.gz}"
install="set -e; python3 -m pip install --quiet --user uv"
install+="; ~/.local/bin/uv venv --quiet --allow-existing --python 3.12 ~/venv"
install+="; ~/.local/bin/uv pip install --quiet --python ~/venv/bin/python \"$package\""
train=(--distributed --config "$CONFIG" --workdir "gs://$BUCKET/runs/$RUN"
  "--config.data.root=gs://$BUCKET/data" "${flags[@]}")
printf -v train ' %q' "${train[@]}"
train="exec ~/venv/bin/python -m btsrn_jax.main$train"

run() {
  echo "${*@Q}"
  if ((!dry_run)); then
    "$@"
  fi
}

state() { # READY, PREEMPTED, ... or nothing where there is no slice
  "${describe[@]}" 2>/dev/null || true
}

attempt() { # an exit code of main, or of what came before it
  local now=""
  if ((!dry_run)); then
    now=$(state)
  fi
  if [[ -n "$now" && "$now" != READY ]]; then
    echo "slice $NAME is $now" >&2
    run "${delete[@]}"
    now=""
  fi
  if [[ -z "$now" ]]; then
    run "${create[@]}" || return
  fi
  if [[ -z "$SOURCE" ]]; then
    run "${pack[@]}" || return
    run "${copy[@]}" || return
  fi
  run "${everywhere[@]}" "--command=$install" || return
  run "${everywhere[@]}" "--command=$train"
}

for ((i = 1; ; i++)); do
  code=0
  attempt || code=$?
  if ((dry_run)); then
    exit
  fi
  if ((code == 0)); then
    echo "done; the slice is still there, and costs: ${delete[*]}"
    exit 0
  fi
  # 75: stopped early and resumable. Any other failure of a slice that is still whole is
  # one of the program itself: trying again would not help.
  if ((code != 75)) && [[ "$(state)" == READY ]]; then
    exit "$code"
  fi
  if ((i >= ATTEMPTS)); then
    echo "given up after $i attempts" >&2
    exit 75
  fi
  echo "attempt $i ended with $code; again in $WAIT s" >&2
  sleep "$WAIT"
done
