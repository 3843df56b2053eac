# shellcheck shell=bash disable=SC2034,SC2086,SC2154  # read by run.sh
# dcase2022: TAU Urban Acoustic Scenes 2022 Mobile (DCASE 2022 to 2025, task 1), clips of one second from nine devices.
# Tagger and settings are those of dcase2019, of whose conf/ this recipe has a copy: clips of a second are taken whole. It
# needs a GPU.
# shellcheck source=egs/dcase2020/recipe.sh
. "$root/egs/dcase2020/recipe.sh"

train_split=100              # 5 | 10 | 25 | 50 | 100: part of the training clips, in per cent (DCASE 2024)
join_segments=none           # none | tags | clips: join ten seconds for nothing, the tagger, or tagger and network; marked in the report

scene_corpus=tau2022         # corpus of the scenes, prepared by local/<scene_corpus>.py
scene_dir=corpora/TAU-urban-acoustic-scenes-2022-mobile-development # folder of the scene corpus; downloaded if it does not exist

download() {
    run tau2022 download_tau2022.sh "$scene_dir"
    [[ -z $tagging_corpus ]] || run fsdkaggle2019 download_fsdkaggle2019.sh "$tagging_dir"
}
