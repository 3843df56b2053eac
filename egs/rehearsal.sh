#!/usr/bin/env bash
# egs/rehearsal.sh FOLDER [OPTIONS]: rehearse the paper's experiment before anything is downloaded.
#
# Runs mini with as many clips as the published corpora have, the paper's networks, and two epochs. It shows whether a
# machine can carry the experiment, and what that takes. A few hundred distinct clips are repeated up to the published
# sizes, so it does not show the time to read 74 GB from disk. Tagging clips last 2 s, those of FSDKaggle2019 13 s.
# Its scene networks train on 5-s crops, as with --training released; whole clips, the default of dcase2019, take about
# twice the time in stage 5. FOLDER is a copy of egs/mini. Without a GPU: --trunk narrow --tagger narrow.
set -euo pipefail
folder=${1:?usage: egs/rehearsal.sh FOLDER [OPTIONS of run.sh]}
egs=$(CDPATH="" cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$folder"
cp -r "$egs/mini/recipe.sh" "$egs/mini/conf" "$folder"
exec "$egs/../run.sh" --recipe "$folder" --scale published --scene-seconds 10 --scene-rate 48000 --tagging-rate 44100 \
    --event-labels '' --systems "baseline shared_h4_l3" --protocol both --noisy true --trunk paper \
    --training scene_rehearsal --tagger rehearsal \
    --note "Synthetic corpus: a few hundred distinct clips, repeated up to the published sizes. For time and memory only; the accuracies mean nothing." \
    "${@:2}"
