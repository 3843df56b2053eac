# shellcheck shell=bash disable=SC2034,SC2086,SC2154  # read by run.sh
# tagger_ablation: what the tagger's noisy head and second stage are good for, on a small corpus of recorded sounds whose
# noisy clips have wrong labels. ablation.sh runs it over test sets and seeds; docs/tagger.md.

summary="the tagger alone, on recorded sounds with wrong labels (--sounds)"
note="" # stands over the results

sounds=             # folder of recorded sounds, a subfolder per class, such as ESC-10
test_group=5        # the group of recordings to test on, 1 to 5: the next two are curated, the last two noisy
group='^([0-9]+)-'  # its match in a file's name is the file's group: ESC-10's fold
label_noise=0.4           # share of the noisy clips with a wrong label
tagging_rate=16000  # sampling rate of the corpus, Hz

tagger=both
noisy=true          # train the tagger's noisy head too

tagging_corpus=fsdkaggle2019
tagging_dir=$dir/corpora/FSDKaggle2019 # folder of the corpus, which this recipe makes
scene_corpus=       # none: the tagger is scored on its own test clips
stop_stage=3
systems=baseline seeds=1 trunk=none event_labels=

costs=("5 s" "10 s" "10 s" "not run" "-" "-" "-" "-" "-")

download() {
    local n=$test_group
    [[ $n == [1-5] ]] || status=2 die "option --test-group is 1 to 5, not $n"
    $dry_run || [[ -n $sounds ]] || die "this recipe needs recorded sounds: give --sounds DIR"
    step wrong_labels $cpu_cmd "$PYTHON" "$here/local/synthetic/wrong_labels.py" "$sounds" "$tagging_dir" --group "$group" \
        --parts.test "$n" --parts.curated "$((n % 5 + 1)) $(((n + 1) % 5 + 1))" \
        --parts.noisy "$(((n + 2) % 5 + 1)) $(((n + 3) % 5 + 1))" --label-noise "$label_noise" --sampling-rate "$tagging_rate" "${again[@]}"
}
tagging_manifest_options() { echo --sampling-rate "$tagging_rate" --allow-partial; }
