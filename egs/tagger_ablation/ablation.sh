#!/usr/bin/env bash
# ablation.sh SOUNDS_DIR: trains the tagger with curated clips only, and with noisy ones in both stages, for each of five
# test sets and three seeds, and compares. Run again, it goes on where it stopped. $seeds and $groups choose fewer.
set -euo pipefail
sounds=${1:?usage: ablation.sh SOUNDS_DIR}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=path.sh
. "$here/../../path.sh"
for group in ${groups:-1 2 3 4 5}; do
    "$here/run.sh" --sounds "$sounds" --test-group "$group" --stop-stage 2
    for seed in ${seeds:-1 2 3}; do
        "$here/run.sh" --stage 3 --tagger "curated_test${group}_seed$seed" --noisy false --tagger-seed "$seed"
        "$here/run.sh" --stage 3 --tagger "both_test${group}_seed$seed" --tagger-stages 2 --tagger-seed "$seed"
    done
done
"$PYTHON" "$root/steps/compare_taggers.py" --taggers "$here/exp/tagger" --out "$here/exp/ABLATION.md" \
    --groups "curated clips only: curated_test/stage1; and noisy head: both_test/stage1; and stage 2: both_test/stage2"
