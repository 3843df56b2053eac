#!/usr/bin/env bash
# Acoustic scene classification using audio tagging, stage by stage. ./run.sh --help lists stages and options.
# Run again, it resumes: finished results are kept, and --force redoes them. Your own data: docs/adapting.md.
# shellcheck disable=SC2046,SC2086,SC2206  # cpu_cmd, gpu_cmd and the like are words
set -euo pipefail
unset -f $(compgen -A function) # a user's environment may redefine cd, and hold what another run has left
unset CDPATH BASH_ENV ENV GREP_OPTIONS POSIXLY_CORRECT TAGASC_{CONSOLE_FD,PROCESSES,RUN,SHARED_CONSOLE,STAGE}

# Options: --stop-stage 4 sets stop_stage=4. "a | b" lists the values allowed. The recipe's recipe.sh adds options:
# systems, seeds, trunk, training, tagger, scene_*, tagging_*, and others.
recipe=mini          # folder of egs/, or the path of a recipe's folder
stage=0              # first stage to run
stop_stage=8         # last stage to run; 9 exports the best system
ngpu=auto            # number of GPUs; 0: CPU; auto: 1 if there is one
nj=$(nproc)          # CPU processes
force=false          # redo finished results
dry_run=false        # print the commands, run nothing
estimate=false       # benchmark this machine, estimate the time of each stage, exit
tags_from=           # FILE.npz or hf:, onnx:, py:, clap: and a model: take tags from there, train no tagger (docs/taggers.md)
tag_options=         # further options of steps/extract_tags.py, such as "--take embedding --short pad"
taggers=             # several, such as "mini ced=onnx:/data/ced", to be compared (docs/comparing_taggers.md)
tag_scale=           # probability, log, logit, or several of these; each is an experiment; empty: as configured
activation=auto      # auto | sigmoid | softmax: activation of a Hugging Face model's output
tagger_folds=        # folds of the tagger to train, "0 1 2" or all; empty: as configured
tagger_stages=       # 1, or 2 with the semi-supervised stage; empty: as configured
tagger_seed=1        # random seed of the tagger
controls=auto        # ablations on altered tags: @shuffled @constant @within @oracle; auto: all four with --systems all
protocol=both        # ours | paper | both: how epoch and SVM are selected; paper trains a second network
final_fit=none       # none | all: also retrain on all training clips, with the choices made on validation
export_system=auto   # system that stage 9 exports, NAME or NAME/seedK; auto: the best on validation
groups=auto          # fields to report the accuracy by, such as "device city"; auto: all that group clips
code_segment=whole   # whole | released: part of a clip that its code is computed from
sample_format=int16  # int16 | float32: sample format of packed audio
audio_cache=auto     # auto | gpu | pinned | disk: where the training audio is kept
precision=auto       # auto | float32 | bfloat16: networks; auto: bfloat16 on a GPU that has it; float32 is never TF32
compile=auto         # auto | always | never: torch.compile and CUDA graphs
deterministic=false  # bit-reproducible on a GPU; slower

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$root/utils/parse_options.sh"  # cmd.sh, egs/<recipe>/recipe.sh, "$@"; from here on in the recipe's folder
[[ -z $taggers && $tag_scale != *" "* ]] || . "$root/egs/each_tagger.sh" # runs this script for each, and ends
. "$root/utils/jobs.sh"           # environment, lock, logs, workers: stage, run, run_background, run_workers

exp=exp/$trunk-$tagger${tag_scale:+-$tag_scale} tags=dump/tags/$tagger audio=dump/audio systems_file=$root/egs/systems.yaml
all_systems=$systems${controls:+ $controls} redo=(--force "$force")
compute=(--device "$device" --precision "$precision" --deterministic "$deterministic" "${redo[@]}")

if stage 0 download; then   # -> corpora/
    download                # in recipe.sh
fi

if stage 1 manifests; then  # corpora/ -> data/<corpus>/*.jsonl.gz
    # local/<corpus>.py; a new corpus is a new program there
    run_background "$scene_corpus" $cpu_cmd "$scene_corpus.py" "$scene_dir" "data/$scene_corpus" \
        ${scene_seconds:+--seconds "$scene_seconds"} \
        ${scene_rate:+--sampling-rate "$scene_rate"} \
        ${train_split:+--train-split "$train_split"} ${join_segments:+--join-segments "$join_segments"} \
        $(! $from_folders || echo --from-folders true) ${pattern:+--pattern "$pattern"} \
        ${allow_partial:+--allow-partial "$allow_partial"} \
        --nj "$nj" "${redo[@]}"
    [[ -z $tagging_corpus ]] ||
        run_background "$tagging_corpus" $cpu_cmd "$tagging_corpus.py" "$tagging_dir" "data/$tagging_corpus" \
            ${tagging_rate:+--sampling-rate "$tagging_rate"} \
            ${allow_partial:+--allow-partial "$allow_partial"} \
            --nj "$nj" "${redo[@]}"
    wait_all
fi

if stage 2 pack; then       # data/ -> dump/audio/<corpus>_<split>/
    for corpus in "$scene_corpus" ${tagging_corpus:+"$tagging_corpus"}; do
        run_background "$corpus" $cpu_cmd pack_audio.py --manifests "data/$corpus" --out "$audio" \
            --sample-format "$sample_format" --nj "$nj" "${redo[@]}"
    done
    wait_all
fi

tagger_conf=conf/tagger_$tagger.yaml && [[ -f $tagger_conf ]] || tagger_conf=conf/tagger.yaml
tagger_opts=(--config "$tagger_conf" ${tagger_folds:+--folds "$tagger_folds"} ${tagger_stages:+--stages "$tagger_stages"})

if $estimate; then          # runs no stage
    run estimate $gpu_cmd benchmark.py all --seconds 5 --trunk "conf/trunk_$trunk.yaml" --scene "conf/$training.yaml" \
        "${tagger_opts[@]}" --systems "$all_systems" --seeds "$seeds" --systems-file "$systems_file" \
        --data data --audio "$audio" --corpus "$scene_corpus" --tagging-corpus "${tagging_corpus:-none}" \
        --device "$device" --audio-cache "$audio_cache" --compile "$compile" --nj "$nj" --scene-threads "$threads" \
        --work.gpus "$((ngpu > 1 ? ngpu : 1))" --work.at_once "$njobs" --work.own_tagger "$([[ -z $tags_from ]] && echo true || echo false)" \
        --work.protocol "$protocol" --work.final_fit "$final_fit" --precision "$precision" $($noisy || echo --work.noisy 0)
    exit
fi

if stage 3 tagger; then     # dump/audio/ -> exp/tagger/<tagger>/
    for program in ${tagging_corpus:+train_tagger $($noisy && echo make_pseudo_labels train_tagger_semi) score_tagger}; do
        run_per_gpu "$program" $gpu_cmd "$program.py" "${tagger_opts[@]}" --noisy "$noisy" --seed "$tagger_seed" \
            --corpus "$tagging_corpus" --audio "$audio" --out "exp/tagger/$tagger" "${compute[@]}"
    done
fi

if stage 4 tags; then       # exp/tagger/<tagger>/, dump/audio/ -> dump/tags/<tagger>/*.npz
    run tags $gpu_cmd extract_tags.py --tags-from "${tags_from:-exp/tagger/$tagger}" --activation "$activation" \
        --corpus "$scene_corpus" --audio "$audio" --out "$tags" "${compute[@]}" $tag_options ${event_labels:+--event-labels "$event_labels"}
fi

# What the programs that run scene networks share: clips and tags, the list of runs, where and how to compute.
shared=(--corpus "$scene_corpus" --audio "$audio" --tags "$tags" --code-segment "$code_segment"
    --audio-cache "$audio_cache" --compile "$compile" --seeds "$seeds" --systems-file "$systems_file" "${compute[@]}")

if stage 5 scenes; then     # dump/audio/, dump/tags/ -> exp/<trunk>-<tagger>/scene/<system>/seed<k>/
    train=($gpu_cmd train_scene.py "${shared[@]}" --nj "$((ngpu > 0 ? threads : 1))" --trunk "conf/trunk_$trunk.yaml"
        --training "conf/$training.yaml" ${tag_scale:+--training.tag_scale "$tag_scale"})
    run_workers scenes "${train[@]}" --systems "$systems" --protocol "${protocol/paper/ours}" --out "$exp"
    [[ -z $controls ]] ||
        run_workers controls "${train[@]}" --systems "$controls" --protocol "${protocol/paper/ours}" --out "$exp"
    if [[ $protocol == paper ]]; then # a second network, after validation has selected the best tag system
        run_workers paper "${train[@]}" --systems "$all_systems" --protocol paper --select-from "$exp" --out "$exp/paper"
    fi
    [[ $final_fit != all ]] ||
        run_workers final "${train[@]}" --systems "$all_systems" --protocol final --select-from "$exp" --out "$exp/final"
fi

if stage 6 codes; then      # exp/<trunk>-<tagger>/scene/, dump/audio/, dump/tags/ -> exp/<trunk>-<tagger>/codes/
    extract=($gpu_cmd extract_codes.py "${shared[@]}" --systems "$all_systems")
    run_workers codes "${extract[@]}" --out "$exp"
    [[ $final_fit != all ]] || run_workers final "${extract[@]}" --select-from "$exp" --out "$exp/final"
fi

if stage 7 svm; then        # exp/<trunk>-<tagger>/codes/ -> exp/<trunk>-<tagger>/svm/
    score=($cpu_cmd score_svm.py --systems "$all_systems" --seeds "$seeds" --systems-file "$systems_file"
        --nj "$nj" "${redo[@]}")
    run svm "${score[@]}" --out "$exp"
    [[ $final_fit != all ]] || run final "${score[@]}" --select-from "$exp" --out "$exp/final"
fi

if stage 8 report; then     # everything -> exp/report/RESULTS.md, RESULTS.html, output.csv and pictures
    run report $cpu_cmd report.py --recipe "$folder" --experiment "$exp" --tagger "exp/tagger/$tagger" --tags "$tags" \
        --corpus "$scene_corpus" --tagging-corpus "${tagging_corpus:-none}" --systems-file "$systems_file" \
        --groups "$groups" --note "$note"
fi

if stage 9 bundle; then     # exp/<trunk>-<tagger>/ -> exp/bundle/<system>/
    run bundle $cpu_cmd export.py --recipe "$folder" --experiment "$exp" --audio "$audio" --tags "$tags" \
        --tags-from "${tags_from:-exp/tagger/$tagger}" --corpus "$scene_corpus" --note "$note" "${redo[@]}" \
        --tagging-corpus "${tagging_corpus:-none}" --export-system "$export_system" --systems-file "$systems_file"
fi

finish                      # lists what failed and how to resume
