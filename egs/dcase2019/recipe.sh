# shellcheck shell=bash disable=SC2034,SC2086,SC2154  # read by run.sh
# dcase2019: the paper. TAU Urban Acoustic Scenes 2019 (task 1a) with a tagger trained on FSDKaggle2019 (task 2).
# Every variable is an option of ./run.sh.

summary="the paper's experiment, on the data sets as published; wants a GPU"
note="" # stands over the results

systems=all
seeds="1 2 3"
trunk=table1       # table1 (the paper's text) or released (the authors' code): conf/trunk_<trunk>.yaml
tagger=resnet34    # trained from conf/tagger_<tagger>.yaml (fast) or conf/tagger.yaml; or FILE.npz; or hf:NAME_OR_DIR
noisy=true     # train the tagger's noisy head too

scene_corpus=tau2019         # local/<scene_corpus>.py makes its manifests
scene_dir=$dir/corpora/TAU-urban-acoustic-scenes-2019-development # folder of the corpus
scene_seconds=10             # length of a scene clip
event_labels=                # table of the events that each scene clip holds; unknown here

tagging_corpus=fsdkaggle2019 # local/<tagging_corpus>.py makes its manifests
tagging_dir=$dir/corpora/FSDKaggle2019 # folder of the corpus

allow_partial=false          # take corpora that lack clips

costs=("not run, 155 GB" "not run" "not run, 61 GB" "not run" "not run" "not run" "not run" "not run" "not run")

download() {
    fetch download_tau2019.sh "$scene_dir" TAU-urban-acoustic-scenes-2019-development
    ! $own_tagger || fetch download_fsdkaggle2019.sh "$tagging_dir" FSDKaggle2019
}
fetch() { # SCRIPT FOLDER NAME: fetch a corpus unless its folder is there
    local folder=${2%/}
    if [[ -d $folder ]]; then $dry_run || say "stage 0 (download): $folder is there"; return; fi
    [[ ${folder##*/} == "$3" ]] || die "$2 does not exist; a corpus kept elsewhere must be there, one to be fetched is called $3"
    step "${1%.sh}" "$here/local/$1" "$(dirname "$folder")"
}
workload() { echo --work.seconds "$scene_seconds"; } # as published; for --estimate
scene_manifest_options() { echo --seconds "$scene_seconds" --allow-partial "$allow_partial"; }
tagging_manifest_options() { echo --allow-partial "$allow_partial"; }
