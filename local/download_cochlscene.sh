#!/usr/bin/env bash
# local/download_cochlscene.sh FOLDER [--delete-archives]: download CochlScene (Zenodo record 7080122, 53.9 GB) to FOLDER,
# unless that exists. Run again, it resumes. It needs about 170 GB, and the program zip, since it is a split archive.
set -euo pipefail
folder=${1:?usage: local/download_cochlscene.sh FOLDER [--delete-archives]}
# shellcheck source=path.sh
. "$(dirname "${BASH_SOURCE[0]}")/../path.sh"
exec "$PYTHON" "$root/local/zenodo.py" --folder "$folder" --record 7080122 --name CochlScene --holds "Train Val Test" "${@:2}"
