#!/usr/bin/env bash
# local/download_tau2020.sh FOLDER [--delete-archives]: download TAU Urban Acoustic Scenes 2020 Mobile, the development set
# (Zenodo record 3819968, 27.4 GB), to FOLDER, unless that exists. Run again, it resumes. It needs about 60 GB.
# Licence: non-commercial, for experiments.
set -euo pipefail
folder=${1:?usage: local/download_tau2020.sh FOLDER [--delete-archives]}
# shellcheck source=path.sh
. "$(dirname "${BASH_SOURCE[0]}")/../path.sh"
exec "$PYTHON" "$root/local/zenodo.py" --folder "$folder" --record 3819968 --name TAU-urban-acoustic-scenes-2020-mobile-development \
    --holds "meta.csv audio" "${@:2}"
