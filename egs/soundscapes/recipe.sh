# shellcheck shell=bash disable=SC2034,SC2086,SC2154  # read by run.sh
# soundscapes: the chain on scenes composed of recorded events and recorded ambiences, larger than mini.
# ./run.sh --recipe soundscapes --events DIR --backgrounds DIR; docs/soundscapes.md says where such sounds come from.

# shellcheck source=egs/mini/recipe.sh
. "$here/egs/mini/recipe.sh"

summary="composed scenes out of recorded events and ambiences (--events, --backgrounds)"
note="Synthetic corpus: scenes composed by local/synthetic/compose.py out of recorded events and ambiences. Real sounds, but no real scenes." # stands over the results

seeds="1 2 3"
tagger=small
scene_train=72
scene_test=48
clips_per_location=6
tagging_train=800
group='^([0-9]+)-'     # which event files may come from one recording: here ESC-10's fold, before the first dash

costs=("1 min, 0.7 GB" "10 s" "10 s, 0.6 GB" "3 min" "15 s" "20 min" "2 min" "10 s" "15 s")  # with --protocol ours

download() {
    $dry_run || [[ -n $events && -n $backgrounds ]] || die "this recipe needs recorded sounds: give --events DIR and --backgrounds DIR"
    compose_corpora
}
