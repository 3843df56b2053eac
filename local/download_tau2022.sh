#!/usr/bin/env bash
# local/download_tau2022.sh FOLDER [--delete-archives]: download TAU Urban Acoustic Scenes 2022 Mobile, the development set
# (Zenodo record 6337421, 27.5 GB), and DCASE 2024's splits to FOLDER, unless they exist. Run again, it resumes. It needs
# about 60 GB. Licence: non-commercial, for experiments.
set -euo pipefail
folder=${1:?usage: local/download_tau2022.sh FOLDER [--delete-archives]}
# shellcheck source=path.sh
. "$(dirname "${BASH_SOURCE[0]}")/../path.sh"
"$PYTHON" "$root/local/zenodo.py" --folder "$folder" --record 6337421 --name TAU-urban-acoustic-scenes-2022-mobile-development \
    --holds "meta.csv audio" "${@:2}"
splits=https://github.com/CPJKU/dcase2024_task1_baseline/releases/download/files
for n in 5 10 25 50; do # 100 is fold 1
    table=$folder/evaluation_setup/split$n.csv
    [[ ! -f $table ]] || continue
    curl --fail --silent --show-error --location --retry 4 --output "$table.part" "$splits/split$n.csv" ||
        { echo "error: $splits/split$n.csv could not be downloaded; put it into $folder/evaluation_setup" >&2; exit 1; }
    mv "$table.part" "$table"
done
