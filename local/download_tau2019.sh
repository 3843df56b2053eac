#!/usr/bin/env bash
# local/download_tau2019.sh FOLDER [--delete-archives]: download TAU Urban Acoustic Scenes 2019, the development set
# (Zenodo record 2589280, 35.6 GB), to FOLDER, unless that exists. Run again, it resumes. It needs about 80 GB.
# Licence: non-commercial, for experiments.
set -euo pipefail
name=TAU-urban-acoustic-scenes-2019-development
folder=${1:?usage: local/download_tau2019.sh FOLDER [--delete-archives]}
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
exec "$PYTHON" "$root/local/zenodo.py" --record 2589280 --name "$name" --out "$(dirname "$folder")" "${@:2}"
