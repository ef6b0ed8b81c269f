#!/usr/bin/env bash
# Trains on all GPUs of this machine: one process drives them all. Continues by itself
# after a stop that can be resumed (exit code 75) and was not asked for by a signal.
#
#   launch/local_gpus.sh [--dry-run] [flags of btsrn_jax.main ...]
#
# Without WORKDIR the run is in runs/CONFIG[-ARG], as without this script.
set -euo pipefail

CONFIG="${CONFIG:-configs/x4.py}"
WORKDIR="${WORKDIR:-}"       # checkpoints and metrics
DATA_DIR="${DATA_DIR:-data}" # of launch/prepare_div2k.sh
GPUS="${GPUS:-}"             # such as 0,1,2; empty: all
RESTARTS="${RESTARTS:-3}"    # how often to continue after 75

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
if [[ -n "$GPUS" ]]; then
  export CUDA_VISIBLE_DEVICES="$GPUS"
fi
command=(python -m btsrn_jax.main --config "$CONFIG" ${WORKDIR:+--workdir "$WORKDIR"}
  "--config.data.root=$DATA_DIR" "${flags[@]}")
printf -v line ' %q' "${command[@]}"
echo "${GPUS:+CUDA_VISIBLE_DEVICES=$GPUS }${line:1}"
if ((dry_run)); then
  exit 0
fi
stopped=0 child=
stop() { # Ctrl-C or SIGTERM: the run saves and ends, and is not continued
  stopped=1
  if [[ -n "$child" ]]; then
    kill -TERM "$child" 2>/dev/null || true # it may have ended by itself
  fi
}
trap stop INT TERM
for ((i = 0; ; i++)); do
  "${command[@]}" &
  child=$!
  if ((stopped)); then # by a signal before it had started
    stop
  fi
  while kill -0 "$child" 2>/dev/null; do
    wait "$child" || true # every signal ends a wait
  done
  code=0
  wait "$child" || code=$?
  if ((code != 75 || stopped || i >= RESTARTS)); then
    exit "$code"
  fi
  echo "stopped early; continuing ($((i + 1)) of $RESTARTS)" >&2
done
