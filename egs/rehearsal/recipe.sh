# shellcheck shell=bash disable=SC2034,SC2086,SC2154  # read by run.sh
# rehearsal: the paper's experiment with as many clips as the published corpora have, but few epochs and synthetic clips.
# It shows whether a machine can carry the whole, and what it takes, before anything is downloaded: docs/performance.md.
# What it does not show: reading 74 GB off the disk (few different clips lie there), and the length of FSDKaggle2019's
# clips (2 s here, 13 s there: a seventh of the packed tagging audio, and of the time to read and tag it).
# Every variable is an option of ./run.sh.

summary="the paper's numbers of clips, synthetic, two epochs: does this machine carry it? (without a GPU: --trunk narrow --tagger narrow)"
note="Synthetic corpus: some hundreds of different clips, each many times, under the numbers of the published corpora. For time and memory only; the accuracies say nothing." # stands over the results

systems="baseline shared_h4_l3"
seeds=1
trunk=table1       # table1, released, or narrow: conf/trunk_<trunk>.yaml
tagger=resnet34    # trained from conf/tagger_<tagger>.yaml (narrow) or conf/tagger.yaml; or FILE.npz; or hf:NAME_OR_DIR
noisy=true         # train the tagger's noisy head too

scene_corpus=tau2019         # local/<scene_corpus>.py makes its manifests
scene_dir=$dir/corpora/TAU-urban-acoustic-scenes-2019-development # folder of the corpus
scene_seconds=10             # length of a scene clip
scene_unique_clips=20            # of each scene's training, test and unused clips so many differ
event_labels=                # table of the events that each scene clip holds; not wanted here

tagging_corpus=fsdkaggle2019 # local/<tagging_corpus>.py makes its manifests
tagging_dir=$dir/corpora/FSDKaggle2019 # folder of the corpus
tagging_unique_clips=340         # of each part's clips so many differ; they last 2 s or so, FSDKaggle2019's 13

# on two cores, with --trunk narrow --tagger narrow
costs=("5 min, 1.8 GB" "15 s" "4 min, 33 GB" "3 min" "8 min" "45 min" "11 min" "1 min" "25 s")

download() {
    step soundscapes $cpu_cmd "$PYTHON" "$here/local/synthetic/compose.py" --out "$dir/corpora" --nj "$nj" \
        --scenes.published true --scenes.seconds "$scene_seconds" --scenes.unique_clips "$scene_unique_clips" \
        --tagging.curated 4970 --tagging.noisy 19815 --tagging.test 4481 --tagging.unique_clips "$tagging_unique_clips" "${again[@]}"
}
workload() { echo --work.seconds "$scene_seconds" --work.tagging_seconds 1.8; } # for --estimate
scene_manifest_options() { echo --seconds "$scene_seconds"; }
tagging_manifest_options() { echo --allow-partial; } # 17 classes
