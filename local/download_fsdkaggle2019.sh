#!/usr/bin/env bash
# local/download_fsdkaggle2019.sh FOLDER [--delete-archives]: download FSDKaggle2019 (Zenodo record 3612637) to FOLDER,
# unless that exists. Run again, it resumes. It needs the program zip, since the noisy set is a split archive.
# Each clip has its own Creative Commons licence, some non-commercial.
set -euo pipefail
folder=${1:?usage: local/download_fsdkaggle2019.sh FOLDER [--delete-archives]}
# shellcheck source=path.sh
. "$(dirname "${BASH_SOURCE[0]}")/../path.sh"
exec "$PYTHON" "$root/local/zenodo.py" --folder "$folder" --record 3612637 --name FSDKaggle2019 \
    --holds "FSDKaggle2019.meta FSDKaggle2019.audio_train_curated" "${@:2}"
