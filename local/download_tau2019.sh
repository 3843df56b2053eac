#!/usr/bin/env bash
# local/download_tau2019.sh FOLDER [--delete-archives]: download TAU Urban Acoustic Scenes 2019, the development set
# (Zenodo record 2589280, 35.6 GB), to FOLDER, unless that exists. Run again, it resumes. It needs about 80 GB.
# Licence: non-commercial, for experiments.
set -euo pipefail
folder=${1:?usage: local/download_tau2019.sh FOLDER [--delete-archives]}
# shellcheck source=path.sh
. "$(dirname "${BASH_SOURCE[0]}")/../path.sh"
exec "$PYTHON" "$root/local/zenodo.py" --folder "$folder" --record 2589280 --name TAU-urban-acoustic-scenes-2019-development \
    --holds "meta.csv audio" "${@:2}"
