#!/usr/bin/env bash
# Applies launch/gke_jobset.yaml, with its variables filled in, to the current cluster.
#
#   IMAGE=... BUCKET=... launch/gke.sh [--dry-run] tpu|gpu [flags of btsrn_jax.main ...]
#   SLICES=2 IMAGE=... BUCKET=... launch/gke.sh tpu
set -euo pipefail

dry_run=0 kind="" flags=()
for word in "$@"; do
  case "$word" in
    --dry-run) dry_run=1 ;;
    --config | --config=*)
      echo "$0: the config is a variable: CONFIG=FILE.py[:ARG] $0 ..." >&2
      exit 2
      ;;
    -*) flags+=("$word") ;; # as --FLAG=VALUE
    *) kind="$kind$word" ;; # two words are no kind
  esac
done
case "$kind" in
  tpu) document=1 accelerator=tpu-v5-lite-podslice hosts=2 chips=4 ;;
  gpu) document=2 accelerator=nvidia-h100-80gb hosts=2 chips=8 ;;
  *) echo "usage: $0 [--dry-run] tpu|gpu [--FLAG=VALUE ...]" >&2 && exit 2 ;;
esac

export NAME="${NAME:-btsrn}" # of the JobSet
export IMAGE="${IMAGE:?an image with btsrn-jax[gcs,tpu] or btsrn-jax[gcs,cuda]}"
export BUCKET="${BUCKET:?a Cloud Storage bucket for data and checkpoints}"
export SERVICE_ACCOUNT="${SERVICE_ACCOUNT:-default}" # may read and write the bucket
export CONFIG="${CONFIG:-configs/x4.py}"
export RUN="${RUN:-}"                       # folder in the bucket; empty: CONFIG[-ARG]
export HOSTS="${HOSTS:-$hosts}"             # TPU: as TOPOLOGY has; 4 chips each
export CHIPS="${CHIPS:-$chips}"             # TPU chips or GPUs of one host
export ACCELERATOR="${ACCELERATOR:-$accelerator}"
export TOPOLOGY="${TOPOLOGY:-2x4}"          # TPU alone
export SLICES="${SLICES:-1}"               # TPU alone: slices that train together
export RESTARTS="${RESTARTS:-100}"
if [[ "$kind" == gpu && "$SLICES" != 1 ]]; then
  echo "$0: SLICES is for TPUs; more nodes with GPUs are HOSTS=$SLICES" >&2
  exit 2
fi
if [[ -z "$RUN" ]]; then # as the run directory is named without these scripts
  file="$(basename "${CONFIG%%:*}")"
  RUN="${file%.py}"
  if [[ "$CONFIG" == *:?* ]]; then
    RUN+="-${CONFIG#*:}"
  fi
fi

template="$(dirname "$0")/gke_jobset.yaml"
manifest=$(awk -v n="$document" '/^---$/ { k++ } k == n' "$template")
FLAGS="" # YAML of one more item each; Kubernetes takes $$ for $
for flag in "${flags[@]}"; do
  flag=${flag//\\/\\\\} flag=${flag//\"/\\\"} flag=${flag//\$/\$\$}
  FLAGS+=$'\n'"                    - \"$flag\""
done
for name in NAME IMAGE BUCKET SERVICE_ACCOUNT CONFIG RUN HOSTS CHIPS ACCELERATOR \
  TOPOLOGY SLICES RESTARTS FLAGS; do
  manifest=${manifest//"\$$name"/"${!name}"}
done
if ((dry_run)); then
  echo "$manifest"
else
  kubectl apply -f - <<<"$manifest"
fi
