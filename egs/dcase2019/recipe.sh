# shellcheck shell=bash disable=SC2034,SC2086,SC2154  # read by run.sh
# dcase2019: the paper. TAU Urban Acoustic Scenes 2019 (task 1a) with a tagger trained on FSDKaggle2019 (task 2).
# Every variable is an option of ./run.sh.

summary="the paper's experiment, on the data sets as published; wants a GPU"
note=

systems=all
seeds="1 2 3"
trunk=table1       # table1 (the paper's text) or released (the authors' code): conf/trunk_<trunk>.yaml
tagger=resnet34    # name of the tagger trained from conf/tagger.yaml

scene_corpus=tau2019         # local/<scene_corpus>.py makes its manifests
scene_corpus_dir=$dir/corpora/TAU-urban-acoustic-scenes-2019-development
scene_seconds=10             # length of a scene clip
events_table=                # table of the events that each scene clip holds; unknown here

tagging_corpus=fsdkaggle2019 # local/<tagging_corpus>.py makes its manifests
tagging_corpus_dir=$dir/corpora/FSDKaggle2019

allow_partial=false          # take corpora that lack clips

costs=("hours, 70 GB" "not run" "not run, 53 GB" "not run" "not run" "not run" "not run" "not run" "not run")

download() {
    local corpus
    for corpus in "$scene_corpus_dir" "$tagging_corpus_dir"; do
        $dry_run || [[ -d $corpus ]] || die "$corpus does not exist; unpack Zenodo's records 2589280 (TAU 2019) and 3612637 (FSDKaggle2019), and give --scene-corpus-dir and --tagging-corpus-dir"
    done
}
scene_manifest_options() { echo --seconds "$scene_seconds" --allow-partial "$allow_partial"; }
tagging_manifest_options() { echo --allow-partial "$allow_partial"; }
