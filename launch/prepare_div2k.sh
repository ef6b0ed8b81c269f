#!/usr/bin/env bash
# Prepares DIV2K for training: once per machine, once on a file system that all share, or
# once for a bucket, to which a copy goes.
#
#   launch/prepare_div2k.sh [--dry-run]      (the variables can be set from outside)
#
# What is prepared already is left alone, and an interrupted run is continued, so the
# script may simply be called again.
set -euo pipefail

CONFIGS="${CONFIGS:-bicubic_x2 bicubic_x3 bicubic_x4}" # or unknown_x2 ... unknown_x4
DATA_DIR="${DATA_DIR:-data}" # of the other scripts, too; 4.2 to 5.0 GB for each config
BUCKET="${BUCKET:-}" # Cloud Storage; a copy goes to gs://BUCKET/data
ZIPS="${ZIPS:-}" # folder of DIV2K's own archives, where they are at hand already

dry_run=0
for word in "$@"; do
  case "$word" in
    --dry-run) dry_run=1 ;;
    *) echo "usage: $0 [--dry-run]" >&2 && exit 2 ;;
  esac
done

run() {
  echo "${*@Q}"
  if ((!dry_run)); then
    "$@"
  fi
}

for config in $CONFIGS; do
  command=(btsrn prepare "div2k/$config" --data-dir "$DATA_DIR")
  if [[ -n "$ZIPS" ]]; then
    command+=(--zips "$ZIPS")
  fi
  run "${command[@]}"
  if [[ -n "$BUCKET" ]]; then
    folder="div2k/$config"
    run gcloud storage rsync --recursive "$DATA_DIR/$folder" "gs://$BUCKET/data/$folder"
  fi
done
