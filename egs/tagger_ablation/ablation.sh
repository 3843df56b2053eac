#!/usr/bin/env bash
# egs/tagger_ablation/ablation.sh SOUNDS_DIR: what the tagger's noisy head, with either loss, and its second stage bring
# (docs/tagger.md).
#
# Trains the tagger on curated clips only and, for both losses of the noisy head, in both stages, for each of five test
# sets and three seeds, on a small corpus of recorded sounds with wrong labels. Run again, it resumes. The variables of
# the environment groups="1 2" and seeds=1 choose fewer.
set -euo pipefail
sounds=$(realpath "${1:?usage: egs/tagger_ablation/ablation.sh SOUNDS_DIR}")
CDPATH="" cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=path.sh
. ../../path.sh
for g in ${groups:-1 2 3 4 5}; do # the next two groups of recordings are curated, the last two noisy
    [[ $g == [1-5] ]] || { echo "error: groups must be among 1 to 5, not '$g'" >&2; exit 2; }
    echo wrong_labels.py "'$sounds'" "corpora/test$g" --group "'^([0-9]+)-'" --label-noise 0.4 --sampling-rate 16000 \
        --parts.test "$g" --parts.curated "'$((g % 5 + 1)) $(((g + 1) % 5 + 1))'" \
        --parts.noisy "'$(((g + 2) % 5 + 1)) $(((g + 3) % 5 + 1))'"
    echo fsdkaggle2019.py "corpora/test$g" "data/test$g" --sampling-rate 16000 --allow-partial true
    echo pack_audio.py --manifests "data/test$g" --out "dump/test$g"
    for seed in ${seeds:-1 2 3}; do
        for training in "curated --noisy false" "released --stages 2" "bce --stages 2 --training.noisy_loss bce"; do
            read -r name options <<<"$training"
            for program in train_tagger make_pseudo_labels train_tagger_semi score_tagger; do
                echo $program.py --config conf/tagger.yaml --audio "dump/test$g" --seed "$seed" "$options" \
                    --out "exp/tagger/${name}_test${g}_seed$seed"
            done
        done
    done
done | "$PYTHON" -P in_one_process.py
compare_taggers.py --taggers exp/tagger --out exp/ABLATION.md \
    --groups "curated clips only: curated_test/stage1; and noisy head, released loss: released_test/stage1; and stage 2: released_test/stage2; and noisy head, bce: bce_test/stage1; and stage 2, bce: bce_test/stage2"
for stage in 1 2; do # the two losses with each other
    compare_taggers.py --taggers exp/tagger --out "exp/LOSSES$stage.md" \
        --groups "bce: bce_test/stage$stage; released loss: released_test/stage$stage"
done
