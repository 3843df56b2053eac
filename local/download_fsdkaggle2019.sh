#!/usr/bin/env bash
# Fetches FSDKaggle2019 (Zenodo record 3612637) into a folder:
# local/download_fsdkaggle2019.sh FOLDER [--delete-archives]. Interrupted, the same command goes on. Needs the program
# zip, since the noisy set is a split archive. Each clip has a Creative Commons licence of its own, some non-commercial.
set -euo pipefail
[[ $# -ge 1 && $1 != --* ]] || { echo "error: which folder? local/download_fsdkaggle2019.sh FOLDER" >&2; exit 2; }
# shellcheck source=path.sh
. "$(dirname "${BASH_SOURCE[0]}")/../path.sh"
exec "$PYTHON" "$root/local/zenodo.py" --record 3612637 --name FSDKaggle2019 --out "$@"
