# shellcheck shell=bash disable=SC2034,SC2086,SC2154  # read by run.sh
# dcase2020: TAU Urban Acoustic Scenes 2020 Mobile (DCASE 2020, task 1a), nine devices, three of which no training clip
# has. Tagger and settings are those of dcase2019, of whose conf/ this recipe has a copy. It needs a GPU.
# shellcheck source=egs/dcase2019/recipe.sh
. "$root/egs/dcase2019/recipe.sh"

systems="baseline beforecode_l3 att_h2_l1 shared_h4_l3 shared_h4_l3@shuffled" # systems or tables of egs/systems.yaml, or all
protocol=ours                # ours | paper | both: how epoch and SVM are selected; the paper has no results for this corpus

scene_corpus=tau2020         # corpus of the scenes, prepared by local/<scene_corpus>.py
scene_dir=corpora/TAU-urban-acoustic-scenes-2020-mobile-development # folder of the scene corpus; downloaded if it does not exist

download() {
    run tau2020 download_tau2020.sh "$scene_dir"
    [[ -z $tagging_corpus ]] || run fsdkaggle2019 download_fsdkaggle2019.sh "$tagging_dir"
}
