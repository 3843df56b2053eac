# shellcheck shell=bash disable=SC2034,SC2086,SC2154  # read by run.sh
# template: your own scene corpus and your own tagging corpus, each a folder of clips and a table.
# Copy this folder, change what follows, and read docs/adapting.md.

systems="baseline beforecode_l3 att_h2_l1 shared_h4_l3" # systems or tables of egs/systems.yaml, or all
seeds="1 2 3"                # random seeds, one network per system and seed
trunk=table1                 # scene network: conf/trunk_<trunk>.yaml
training=scene               # training settings of the scene networks: conf/<training>.yaml
tagger=own                   # name of the tagger; trained from conf/tagger_<tagger>.yaml or conf/tagger.yaml
noisy=true                   # train the tagger's noisy head as well, on clips with unreliable labels

scene_corpus=scene_csv       # corpus of the scenes, prepared by local/<scene_corpus>.py
scene_dir=corpora/scenes     # folder with scenes.csv, or the table: file, scene, and, if known, location and split
from_folders=false           # without a table: scene_dir has a folder per scene
pattern=                     # with from_folders: regular expression for a clip's path; (?P<scene>...), location and others are its groups
scene_seconds=               # length that clips are cut or padded to, s; empty: they all have one length
event_labels=                # table of the events in each scene clip (filename, event), if known
tagging_corpus=tagging_csv   # corpus of the tagger, prepared by local/<tagging_corpus>.py
tagging_dir=corpora/sounds   # folder with sounds.csv, or the table: file, labels, and, if known, split

note=                        # sentence at the top of the report

download() { # nothing: the corpora are yours
    local folder
    for folder in "$scene_dir" ${tagging_corpus:+"$tagging_dir"}; do
        [[ -e $folder ]] || $dry_run || fail "$folder does not exist; give --scene-dir and --tagging-dir" 1
    done
}
