# shellcheck shell=bash disable=SC2034,SC2086,SC2154  # read by run.sh
# mini: the whole chain on a synthetic corpus that stage 0 composes, in minutes on two CPU cores.

# Systems that learn in few steps, chosen on a corpus of another seed (docs/synthetic.md).
systems="baseline codecat att_h32_l1 codecat@shuffled" # systems or tables of egs/systems.yaml, or all
seeds=1                      # random seeds, one network per system and seed
trunk=table1                 # scene network: conf/trunk_<trunk>.yaml
training=scene               # training settings of the scene networks: conf/<training>.yaml
tagger=mini                  # name of the tagger; trained from conf/tagger_<tagger>.yaml or conf/tagger.yaml
noisy=false                  # train the tagger's noisy head as well; more curated steps bring more here
protocol=ours                # ours | paper | both: how epoch and SVM are selected; both takes three times as long

scene_corpus=tau2019         # corpus of the scenes, prepared by local/<scene_corpus>.py
scene_dir=corpora/TAU-urban-acoustic-scenes-2019-development # folder of the scene corpus
scene_seconds=4              # length of a scene clip, s
scene_rate=16000             # sampling rate of the scene clips, Hz
event_labels=corpora/TAU-urban-acoustic-scenes-2019-development/event_labels.csv # table of the events in each scene clip
tagging_corpus=fsdkaggle2019 # corpus of the tagger, prepared by local/<tagging_corpus>.py
tagging_dir=corpora/FSDKaggle2019 # folder of the tagging corpus
tagging_rate=16000           # sampling rate of the tagging clips, Hz
allow_partial=true           # accept corpora with fewer clips than published

scale=mini                   # mini | published: numbers of clips, as below or as in the published corpora
scene_train=48               # training clips of each scene
scene_test=30                # test clips of each scene
clips_per_location=3         # clips recorded at one location
event_rate=1                 # factor on the rates of the events
tagging_train=510            # curated clips
tagging_noisy=102            # noisy clips
corpus_seed=2019             # random seed of the corpora
events=                      # folder of recorded events, a subfolder per class; empty: synthesised
backgrounds=                 # folder of recorded ambiences; needed with events
group='^(.*?)(?:-[A-Z])?$'   # event files with the same match are from one recording

note="Synthetic corpus, composed by local/synthetic/compose.py. The figures show that the recipe works, nothing about real scenes; for these: ./run.sh --recipe dcase2019" # sentence at the top of the report

download() {
    local sizes=(--scenes.sampling_rate "$scene_rate" --scenes.train "$scene_train" --scenes.test "$scene_test"
        --scenes.unused 3 --scenes.clips_per_location "$clips_per_location" --scenes.event_rate "$event_rate"
        --tagging.sampling_rate "$tagging_rate" --tagging.longest 5
        --tagging.curated "$tagging_train" --tagging.noisy "$tagging_noisy" --tagging.test 204)
    if [[ $scale == published ]]; then # few different clips, each repeated
        sizes=(--scenes.published true --scenes.sampling_rate "$scene_rate" --scenes.unique_clips 20
            --tagging.sampling_rate "$tagging_rate" --tagging.curated 4970 --tagging.noisy 19815 --tagging.test 4481
            --tagging.unique_clips 340)
    fi
    run compose $cpu_cmd compose.py --out corpora --seed "$corpus_seed" --nj "$nj" --scenes.seconds "$scene_seconds" \
        "${sizes[@]}" ${events:+--events "$events" --backgrounds "$backgrounds" --group "$group"} "${redo[@]}"
}
