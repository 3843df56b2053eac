# shellcheck shell=bash disable=SC2034,SC2086,SC2154  # read by run.sh
# dcase2019: the paper's experiment. TAU Urban Acoustic Scenes 2019 (task 1a), with a tagger trained on FSDKaggle2019
# (task 2). It needs a GPU.

systems=all                  # systems or tables of egs/systems.yaml, or all
seeds="1 2 3"                # random seeds, one network per system and seed
trunk=table1                 # scene network, conf/trunk_<trunk>.yaml: table1 (the paper) or released (the authors' code)
training=paper               # training of the scene networks: paper (whole clips) or released (5-s crops, [21]'s code)
tagger=resnet34              # name of the tagger; trained from conf/tagger_<tagger>.yaml (fast) or conf/tagger.yaml
noisy=true                   # train the tagger's noisy head as well

scene_corpus=tau2019         # corpus of the scenes, prepared by local/<scene_corpus>.py
scene_dir=corpora/TAU-urban-acoustic-scenes-2019-development # folder of the scene corpus; downloaded if it does not exist
event_labels=                # table of the events in each scene clip; unknown for this corpus
tagging_corpus=fsdkaggle2019 # corpus of the tagger, prepared by local/<tagging_corpus>.py
tagging_dir=corpora/FSDKaggle2019 # folder of the tagging corpus; downloaded if it does not exist
allow_partial=false          # accept corpora with fewer clips than published

note=                        # sentence at the top of the report

download() {
    run tau2019 download_tau2019.sh "$scene_dir"
    [[ -z $tagging_corpus ]] || run fsdkaggle2019 download_fsdkaggle2019.sh "$tagging_dir"
}
