# shellcheck shell=bash disable=SC2034,SC2086,SC2154  # read by run.sh
# cochlscene: CochlScene, 13 scenes recorded by participants with their own devices. Tagger and settings are those of
# dcase2019, of whose conf/ this recipe has a copy. It needs a GPU.
# shellcheck source=egs/dcase2020/recipe.sh
. "$root/egs/dcase2020/recipe.sh"

scene_corpus=cochlscene      # corpus of the scenes, prepared by local/<scene_corpus>.py
scene_dir=corpora/CochlScene # folder of the scene corpus; downloaded if it does not exist

download() {
    run cochlscene download_cochlscene.sh "$scene_dir"
    [[ -z $tagging_corpus ]] || run fsdkaggle2019 download_fsdkaggle2019.sh "$tagging_dir"
}
