#!/usr/bin/env bash
# The stages in their order: ./run.sh --help lists them. How options are read and programs run stands in driver.sh, what
# a recipe is in its recipe.sh, what a stage does in its program.
set -euo pipefail

# Options. Every variable here, and every one of the recipe, is one: --stop-stage 4 sets stop_stage=4.
recipe=mini      # a folder of egs/, or the path of a recipe's folder
stage=0          # first stage to run
stop_stage=8     # last stage to run
systems=         # systems or tables of egs/systems.yaml, or all
seeds=           # one training each
tagger_folds=    # folds to train the tagger on, as "0 1 2", or all; empty: its configuration's
tagger_stages=   # 1, or 2 with the semi-supervised stage; empty: its configuration's
tagger_seed=1    # of the tagger's training
activation=auto  # of a tagger from transformers: sigmoid, softmax, or auto (what its configuration says)
ngpu=auto        # GPUs to share the work among; 0: the CPU, a scene network a core (--nj) at a time; auto: 1 if there is a GPU
nj=$(nproc)      # processes for work on the CPU
protocol=both    # ours (test scored once), both (one training serves the paper's column too), paper (which gets its own)
final_fit=none   # all: also retrain ours on all training clips, for the epochs that validation chose
controls=auto    # retrainings with altered tags, as "@shuffled @constant @within @oracle"; auto: these with --systems all
code_segment=whole # clips that codes are computed from: whole, or as the authors' released code took them
sample_format=int16     # stored samples of packed audio: int16 rounds, float32 keeps 24 bits at twice the size
audio_cache=auto     # where the scene networks read audio: gpu, pinned (page-locked memory), disk; auto: where it fits
compile=auto    # torch.compile and CUDA graphs for the scene networks: always, never; auto: on a GPU
deterministic=false # repeat bit for bit on a GPU too; slower
force=false      # do the stages over, even where their results are there
dry_run=false    # print the commands, run nothing
estimate=false   # measure this machine for some minutes, tell what each stage will take on it, and stop

names=(download manifests pack tagger tags scenes codes svm report)
reads=("the network, or a seed" "corpora" "data" "dump/audio" "exp/tagger, dump/audio" "dump/audio, dump/tags" \
    "scene networks, audio, tags" "codes" "everything")
writes=("corpora" "data/<corpus>/*.jsonl.gz" "dump/audio/<corpus>_<split>/" "exp/tagger/<tagger>/" "dump/tags/<tagger>/*.npz" \
    "exp/<trunk>-<tagger>/scene/" "exp/<trunk>-<tagger>/codes/" "exp/<trunk>-<tagger>/svm/" "exp/report/RESULTS.md")

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
given=("$@")
# shellcheck source=driver.sh
. "$here/driver.sh"

load_recipe
# shellcheck source=cmd.sh
. "$here/cmd.sh"
parse "${given[@]}"
now=$stage
PYTHON=${TAGASC_PYTHON:-$here/.venv/bin/python}
if ! $dry_run; then
    lock
    # shellcheck source=path.sh
    . "$here/path.sh"
    mkdir -p "$dir/exp/log"
    { date '+%Y-%m-%d %H:%M ./run.sh' | tr -d '\n'; ((${#given[@]} == 0)) || printf ' %q' "${given[@]}"; echo; } >>"$dir/exp/log/commands"
fi
if [[ -z $gpu_cmd$cpu_cmd ]]; then exec 3>&2; export TAGASC_CONSOLE_FD=3; fi # progress bars reach the terminal
trap 'stopped 130' INT
trap 'stopped 143' TERM

# shellcheck disable=SC2154  # the recipe's variables
{
    device=cuda # and never auto, by which a GPU that torch cannot use would mean days on the CPU
    if ((ngpu == 0)); then device=cpu; fi
    tag_source=$dir/exp/tagger/$tagger
    own_tagger=true
    if [[ $tagger == hf:* || $tagger == *.npz ]]; then # made elsewhere; its name as one a folder may have
        own_tagger=false
        tag_source=$tagger
        tagger=${tagger%.npz}
        tagger=${tagger//[^[:alnum:]._-]/-}
        tagger=${tagger#"${tagger%%[[:alnum:]]*}"}
    fi
    tagger_config=$dir/conf/tagger_$tagger.yaml
    [[ -f $tagger_config ]] || tagger_config=$dir/conf/tagger.yaml
    [[ -f $tagger_config || $own_tagger == false ]] || ((stop_stage < 3)) || status=2 die "there is no $tagger_config, nor one of --tagger $tagger; see docs/tagger.md"
    [[ $tag_source != *.npz || -e $tag_source ]] || $dry_run || status=2 die "--tagger $tag_source does not exist"
    experiment=$dir/exp/$trunk-$tagger
    tags=$dir/dump/tags/$tagger
    again=(); if $force; then again=(--force); fi
    gpu=(--device "$device" "${again[@]}")
    fast=(--audio-cache "$audio_cache" --compile "$compile")
    if $deterministic; then gpu+=(--deterministic); fi
    which=(--seeds "$seeds" --systems-file "$here/egs/systems.yaml")
    audio=(--audio "$dir/dump/audio")
    ours=$protocol
    if [[ $protocol == paper ]]; then ours=ours; fi
}

# shellcheck disable=SC2086,SC2154  # cpu_cmd and gpu_cmd are words; variables of the recipe
{
    train() { # NAME OUT OPTIONS…
        local scorers=$((ngpu == 0 ? 1 : (nj + ngpu - 1) / ngpu)) # nj in all, not each
        shared "$1" "$PYTHON" "$here"/steps/train_scene.py "${audio[@]}" --tags "$tags" --out "$2" \
            --corpus "$scene_corpus" --trunk "$dir/conf/trunk_$trunk.yaml" --training "$dir/conf/scene.yaml" --nj "$scorers" \
            --code-segment "$code_segment" \
            "${which[@]}" "${gpu[@]}" "${fast[@]}" "${@:3}"
    }
    codes() { # NAME OUT OPTIONS…
        shared "$1" "$PYTHON" "$here"/steps/extract_codes.py "${audio[@]}" --tags "$tags" --out "$2" \
            --corpus "$scene_corpus" --code-segment "$code_segment" --systems "$systems $controls" "${which[@]}" \
            "${gpu[@]}" "${fast[@]}" "${@:3}"
    }
    svm() { # NAME OUT OPTIONS…
        step "$1" $cpu_cmd "$PYTHON" "$here"/steps/score_svm.py --out "$2" --systems "$systems $controls" "${which[@]}" \
            --nj "$nj" "${again[@]}" "${@:3}"
    }
}

# shellcheck disable=SC2086,SC2154,SC2206,SC2207  # gpu_cmd and what the recipe echoes are words; variables of the recipe
how_long() { # measure this machine, and estimate each stage from that
    local command amount networks
    networks=$(at_once)
    if declare -F workload >/dev/null; then
        amount=($(workload))
    elif [[ -n $scene_corpus && (-d $dir/dump/audio || $dry_run == true) ]]; then
        amount=("${audio[@]}" --corpus "$scene_corpus" --tagging-corpus "$tagging_corpus")
    else
        die "how much is there to do? Run stages 0 to 2 first, or write a function workload, as egs/mini's, into $dir/recipe.sh"
    fi
    command=($gpu_cmd "$PYTHON" "$here"/steps/benchmark.py all --seconds 5 --trunk "$dir/conf/trunk_$trunk.yaml"
        --scene "$dir/conf/scene.yaml" --config "$tagger_config" --systems "$systems $controls" "${which[@]}" --nj "$nj"
        --device "$device" "${fast[@]}" --work.gpus "$((ngpu > 1 ? ngpu : 1))" --work.at_once "$networks"
        --work.protocol "$protocol" --work.final_fit "$final_fit" --work.own_tagger "$own_tagger"
        ${tagger_folds:+--folds "$tagger_folds"} ${tagger_stages:+--stages "$tagger_stages"} "${amount[@]}")
    $noisy || command+=(--work.noisy 0)
    ((ngpu > 0 || networks == 1)) || command+=(--scene-threads "$((nj / networks))") # as on_cores has it
    if $dry_run; then printf '%q ' "${command[@]}"; echo; else env -u TAGASC_CONSOLE_FD "${command[@]}"; fi
}

# shellcheck disable=SC2046,SC2086,SC2154  # cpu_cmd and gpu_cmd are words; variables of the recipe
run_stage() {
    case ${names[now]} in
        download) download ;;
        manifests)
            [[ -z $scene_corpus ]] || beside "$scene_corpus" $cpu_cmd "$PYTHON" "$here/local/$scene_corpus.py" "$scene_dir" "$dir/data/$scene_corpus" \
                --nj "$nj" $(scene_manifest_options) "${again[@]}"
            ! $own_tagger || beside "$tagging_corpus" $cpu_cmd "$PYTHON" "$here/local/$tagging_corpus.py" "$tagging_dir" "$dir/data/$tagging_corpus" \
                --nj "$nj" $(tagging_manifest_options) "${again[@]}"
            wait_for_workers manifests ;;
        pack)
            [[ -z $scene_corpus ]] || beside "$scene_corpus" $cpu_cmd "$PYTHON" "$here"/steps/pack_audio.py --manifests "$dir/data/$scene_corpus" \
                --out "$dir/dump/audio" --nj "$nj" --sample-format "$sample_format" "${again[@]}"
            ! $own_tagger || beside "$tagging_corpus" $cpu_cmd "$PYTHON" "$here"/steps/pack_audio.py --manifests "$dir/data/$tagging_corpus" \
                --out "$dir/dump/audio" --nj "$nj" --sample-format "$sample_format" "${again[@]}"
            wait_for_workers pack ;;
        tagger)
            if ! $own_tagger; then $dry_run || say "stage 3 (tagger): $tagger is trained elsewhere"; return; fi
            local program
            for program in train_tagger make_pseudo_labels train_tagger_semi score_tagger; do
                on_gpus "$program" "$PYTHON" "$here/steps/$program.py" --config "$tagger_config" "${audio[@]}" \
                    --out "$dir/exp/tagger/$tagger" --corpus "$tagging_corpus" --noisy "$noisy" \
                    ${tagger_folds:+--folds "$tagger_folds"} ${tagger_stages:+--stages "$tagger_stages"} \
                    --seed "$tagger_seed" "${gpu[@]}"
            done ;;
        tags)
            step tags $gpu_cmd "$PYTHON" "$here"/steps/extract_tags.py --tagger "$tag_source" "${audio[@]}" --out "$tags" \
                --corpus "$scene_corpus" --activation "$activation" ${event_labels:+--event-labels "$event_labels"} \
                "${gpu[@]}" ;;
        scenes)
            train scenes "$experiment" --systems "$systems" --protocol "$ours"
            [[ -z $controls ]] || train controls "$experiment" --systems "$controls" --protocol "$ours"
            local select_from=(--select-from "$experiment" --systems "$systems $controls")
            [[ $protocol != paper ]] || train paper "$experiment/paper" --protocol paper "${select_from[@]}"
            [[ $final_fit != all ]] || train final "$experiment/final" --protocol final "${select_from[@]}" ;;
        codes)
            codes codes "$experiment"
            [[ $final_fit != all ]] || codes final "$experiment/final" --select-from "$experiment" ;;
        svm)
            svm svm "$experiment"
            [[ $final_fit != all ]] || svm final "$experiment/final" --select-from "$experiment" ;;
        report)
            step report $cpu_cmd "$PYTHON" "$here"/steps/report.py --recipe "$dir" --experiment "$experiment" \
                --tagger "$dir/exp/tagger/$tagger" --tags "$tags" --corpus "$scene_corpus" \
                --tagging-corpus "$tagging_corpus" --systems-file "$here/egs/systems.yaml" --note "$note" ;;
    esac
}

if $estimate; then how_long; exit; fi

for ((now = stage; now <= stop_stage; now++)); do
    $dry_run || say "stage $now (${names[now]})"
    run_stage
done
if ((${#failures[@]})); then
    now=$stage # --force would do the others over
    printf '%s\n' "" "some runs failed, the others are done:" "${failures[@]}" "To go on: $(go_on)" >&2
    exit 1
fi
$dry_run || say "done in $SECONDS s"
