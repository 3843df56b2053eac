#!/usr/bin/env bash
# local/download_fsdkaggle2019.sh FOLDER [--delete-archives]: download FSDKaggle2019 (Zenodo record 3612637) to FOLDER,
# unless that exists. Run again, it resumes. It needs the program zip, since the noisy set is a split archive.
# Each clip has its own Creative Commons licence, some non-commercial.
set -euo pipefail
name=FSDKaggle2019
folder=${1:?usage: local/download_fsdkaggle2019.sh FOLDER [--delete-archives]}
if [[ -d $folder ]]; then
    echo "$folder exists"
    exit
fi
if [[ ${folder##*/} != "$name" ]]; then
    echo "error: $folder does not exist; give the corpus's folder, or a folder called $name to download to" >&2
    exit 1
fi
# shellcheck source=path.sh
. "$(dirname "${BASH_SOURCE[0]}")/../path.sh"
exec "$PYTHON" "$root/local/zenodo.py" --record 3612637 --name "$name" --out "$(dirname "$folder")" "${@:2}"
