#!/usr/bin/env bash
# Fetches TAU Urban Acoustic Scenes 2019, development set (Zenodo record 2589280, 35.6 GB) into a folder:
# local/download_tau2019.sh FOLDER [--delete-archives]. Interrupted, the same command goes on. Needs about 80 GB.
# Licence: non-commercial, for experiments.
set -euo pipefail
[[ $# -ge 1 && $1 != --* ]] || { echo "error: which folder? local/download_tau2019.sh FOLDER" >&2; exit 2; }
# shellcheck source=path.sh
. "$(dirname "${BASH_SOURCE[0]}")/../path.sh"
exec "$PYTHON" "$root/local/zenodo.py" --record 2589280 --name TAU-urban-acoustic-scenes-2019-development --out "$@"
