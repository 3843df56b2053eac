# shellcheck shell=bash disable=SC2034,SC2086,SC2154  # read by run.sh
# mini: the whole chain on a corpus that the recipe makes itself, in minutes on two CPU cores.
# Every variable is an option of ./run.sh.

summary="the whole chain on a synthetic corpus, in minutes on two CPU cores"
note="Synthetic corpus: synthesised scenes, made by local/synthetic/compose.py. The figures say that the recipe works, nothing about real scenes." # stands over the results

systems="baseline beforecode_l3 att_h2_l1 shared_h4_l3"
seeds=1
trunk=table1   # conf/trunk_<trunk>.yaml
tagger=mini    # name of the tagger trained from conf/tagger.yaml; or FILE.npz, or hf:NAME_OR_DIR: docs/tagger.md
noisy=true     # train the tagger's noisy head too

scene_corpus=tau2019         # local/<scene_corpus>.py makes its manifests
scene_dir=$dir/corpora/TAU-urban-acoustic-scenes-2019-development # folder of the corpus
scene_seconds=4              # length of a scene clip
scene_rate=16000             # sampling rate of the scenes, Hz
scene_train=48               # training clips of each scene
scene_test=30                # test clips of each scene
clips_per_location=3         # clips recorded at one location
event_labels=$dir/corpora/TAU-urban-acoustic-scenes-2019-development/event_labels.csv # the clips' events, if known

tagging_corpus=fsdkaggle2019 # local/<tagging_corpus>.py makes its manifests
tagging_dir=$dir/corpora/FSDKaggle2019 # folder of the corpus
tagging_rate=16000           # sampling rate of the tagging clips, Hz
tagging_train=510            # curated clips, and as many noisy ones

corpus_seed=2019             # of the synthetic corpora
events=                      # folder of recorded events, a subfolder per class; empty: synthesised
backgrounds=                        # folder of recorded ambiences, with events
group='^(.*?)(?:-[A-Z])?$'   # which event files may come from one recording: those alike in what this matches

costs=("60 s, 0.4 GB" "5 s" "5 s, 0.3 GB" "50 s" "10 s" "3 min" "30 s" "10 s" "10 s")

compose_corpora() {
    step soundscapes $cpu_cmd "$PYTHON" "$here/local/synthetic/compose.py" --out "$dir/corpora" --seed "$corpus_seed" --nj "$nj" \
        --scenes.seconds "$scene_seconds" --scenes.sampling_rate "$scene_rate" --scenes.train "$scene_train" \
        --scenes.test "$scene_test" --scenes.unused 3 --scenes.clips_per_location "$clips_per_location" \
        --tagging.sampling_rate "$tagging_rate" --tagging.longest 5 --tagging.curated "$tagging_train" \
        --tagging.noisy "$tagging_train" --tagging.test 204 \
        ${events:+--events "$events"} ${backgrounds:+--backgrounds "$backgrounds"} --group "$group" "${again[@]}"
}
download() { compose_corpora; }
workload() { # for --estimate; about 15 % of the training clips are held out, and a tagging clip lasts about 1.8 s
    echo --work.train $((10 * scene_train)) --work.validation $((15 * scene_train / 10)) --work.test $((10 * scene_test)) \
        --work.unused 30 --work.seconds "$scene_seconds" --work.sampling_rate "$scene_rate" --work.curated "$tagging_train" \
        --work.noisy "$tagging_train" --work.tagging_test 204 --work.tagging_rate "$tagging_rate" --work.tagging_seconds 1.8
}
scene_manifest_options() { echo --sampling-rate "$scene_rate" --seconds "$scene_seconds" --allow-partial; }
tagging_manifest_options() { echo --sampling-rate "$tagging_rate" --allow-partial; }
