#!/usr/bin/env bash
# Trains on all GPUs of this machine: one process drives them all. Continues by itself
# after a stop that can be resumed (exit code 75) and was not asked for by a signal.
#
#   launch/local_gpus.sh [--dry-run] [flags of btsrn_jax.main ...]
set -euo pipefail

CONFIG="${CONFIG:-configs/x4.py}"
WORKDIR="${WORKDIR:-runs/$(basename "${CONFIG%%.py*}")}" # checkpoints and metrics
DATA_DIR="${DATA_DIR:-data}"                             # of launch/prepare_div2k.sh
GPUS="${GPUS:-}"         # such as 0,1,2; empty: all
RESTARTS="${RESTARTS:-3}" # how often to continue after 75

dry_run=0
if [[ "${1:-}" == --dry-run ]]; then
  dry_run=1
  shift
fi
if [[ -n "$GPUS" ]]; then
  export CUDA_VISIBLE_DEVICES="$GPUS"
fi
command=(python -m btsrn_jax.main --config "$CONFIG" --workdir "$WORKDIR"
  "--config.data.root=$DATA_DIR" "$@")
echo "${GPUS:+CUDA_VISIBLE_DEVICES=$GPUS }${command[*]}"
if ((dry_run)); then
  exit 0
fi
stopped=0 child=
stop() { # Ctrl-C or SIGTERM: the run saves and ends, and is not continued
  stopped=1
  kill -TERM "$child"
}
trap stop INT TERM
for ((i = 0; ; i++)); do
  code=0
  "${command[@]}" &
  child=$!
  wait "$child" || code=$?
  if ((stopped)); then
    code=0
    wait "$child" || code=$?
  fi
  if ((code != 75 || stopped || i >= RESTARTS)); then
    exit "$code"
  fi
  echo "stopped early; continuing ($((i + 1)) of $RESTARTS)" >&2
done
