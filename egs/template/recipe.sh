# shellcheck shell=bash disable=SC2034,SC2086,SC2154  # read by run.sh
# template: your own scene corpus and your own tagging corpus, each a folder of clips and a table.
# Copy this folder, change what follows, and read docs/adapting.md. Every variable is an option of ./run.sh.

summary="copy this folder for a corpus of your own; docs/adapting.md"
note="" # stands over the results

systems="baseline beforecode_l3 att_h2_l1 shared_h4_l3"
seeds="1 2 3"
trunk=table1        # conf/trunk_<trunk>.yaml
tagger=own          # name of the tagger trained from conf/tagger.yaml; or FILE.npz, or hf:NAME_OR_DIR: docs/tagger.md
noisy=true          # train the tagger's noisy head too, on clips with unreliable labels

scene_corpus=scene_csv      # local/<scene_corpus>.py makes its manifests
scene_dir=$dir/scenes.csv # table of the clips: file, scene, and, if known, location and split
scene_seconds=              # length that clips are cut or padded to; empty: they all have one length
event_labels=               # table of the events that each scene clip holds (filename, event), if known

tagging_corpus=tagging_csv  # local/<tagging_corpus>.py makes its manifests
tagging_dir=$dir/sounds.csv # table of the clips: file, labels, and, if known, split

costs=("-" "?" "?" "?" "?" "?" "?" "?" "?")

download() { # nothing to fetch: the corpora are yours
    local table tables=("$scene_dir")
    ! $own_tagger || tables+=("$tagging_dir")
    for table in "${tables[@]}"; do
        $dry_run || [[ -e $table ]] || die "$table does not exist; give --scene-dir and --tagging-dir"
    done
}
scene_manifest_options() { echo ${scene_seconds:+--seconds "$scene_seconds"}; }
tagging_manifest_options() { :; }
