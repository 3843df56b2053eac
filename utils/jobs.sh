# shellcheck shell=bash disable=SC2030,SC2031,SC2034,SC2154  # variables of run.sh and of the recipe
# How programs run, for sourcing by run.sh: environment, lock, logs, workers, signals, and how to resume.

workers=() logs=() failures=() typed='' failed_at=10 # first stage with a failure; 10: none
((${#given[@]} == 0)) || typed=$(printf ' %q' "${given[@]}")

say() { $dry_run || echo "$(date '+%Y-%m-%d %H:%M:%S') $*" >&2; }
stage() { # NUMBER NAME: is this stage to run?
    ((stage <= $1 && $1 <= stop_stage)) && ! $estimate && now=$1 title="stage $1 ($2)" && say "$title"
}
printable() { LC_ALL=C sed -E 's/\xc2[\x80-\x9f]|[\x00-\x08\x0b-\x1f\x7f]//g'; } # what is in a log may command a terminal
writable() { { : >>"$1"; } 2>/dev/null || fail "$PWD/$1 is not writable; change its owner or mode, or $copy" 1; } # FILE
resume() { # print the command that resumes at the first failure or here: as given, but for --stage and --force
    local at=$((failed_at < now ? failed_at : now))
    echo "$root/run.sh$(sed -E 's/ --stage[ =][0-9]+//g; s/ --force([ =](true|false))?//g' <<<"$typed") --stage $at"
}
blame() { # LOG: note the first stage to run again: this one, or an earlier one that an error in the log says to run
    local n
    for n in "$now" $(sed -nE '/(error|failed): /s/.*run stages? ([0-9]).*/\1/p' "$1"); do ((n >= failed_at)) || failed_at=$n; done
}
run() { # NAME COMMAND...: one program, its output in exp/log/<stage>.<name>.log
    local log=exp/log/$now.$1.log began=$SECONDS status=0 words=("${@:2}") n
    if $dry_run; then printf '%q ' "${words[@]}"; echo; return; fi
    writable "$log"
    { date '+# %Y-%m-%d %H:%M:%S' && printf '# ' && printf '%q ' "${words[@]}" && echo; } >"$log"
    for n in "${!words[@]}"; do # the first program of ours, perhaps behind srun, runs in our Python
        [[ ${words[n]} == *.py ]] || continue
        words=("${words[@]:0:n}" "$PYTHON" -P -m tagasc.utils.program "$(type -P "${words[n]}" || echo "${words[n]}")" "${words[@]:n+1}")
        break
    done
    # In the background, since bash handles a signal only between commands or while it waits.
    TAGASC_STAGE=$title TAGASC_LOG=$log "${words[@]}" >>"$log" 2>&1 &
    wait $! || status=$?
    if ((status == 0)) && [[ " ${words[*]} " == *".py "* ]] && ! grep -aq '# done$' "$log"; then # Slurm may lose a node
        status=1 && echo "error: the program did not reach its end, though its status is 0; look for a lost node" >>"$log"
    fi
    echo "# $(date '+%Y-%m-%d %H:%M:%S') status $status after $((SECONDS - began)) s" >>"$log"
    ((status != 0)) || return 0
    if ((status == 3)); then note_failures "$log"; return; fi # some of its runs failed; later stages use the others
    printf '\n%s failed with status %s. The end of its log:\n' "$title" "$status" >&2
    { grep -av '^#' "$log" || echo "(no output)"; } | tail -n 8 | printable | sed 's/^/    /' >&2
    ((${#failures[@]} == 0)) || printf '%s\n' "before that, some runs failed:" "${failures[@]}" >&2
    blame "$log"
    printf 'Log: %s\nTo resume: %s\n' "$PWD/$log" "$(resume)" >&2
    exit "$status"
}

run_background() { # NAME COMMAND...: next to other programs, until wait_all
    if ((nj == 1 && ngpu < 2)) || $dry_run; then run "$@"; return; fi
    (
        trap 'end_workers; exit 143' INT TERM; export TAGASC_SHARED_CONSOLE=true before=${#failures[@]}
        run "$@"
        exit $((${#failures[@]} > before ? 3 : 0))
    ) &
    workers+=($!) logs+=("exp/log/$now.$1.log")
}

run_workers() { # NAME COMMAND...: once per GPU, or CPU core; the processes share the program's list of runs
    local n gpus
    if ((njobs == 1)) || $dry_run; then { ((njobs == 1)) || echo "# $njobs processes of:"; } && run "$@"; return; fi
    IFS=, read -ra gpus <<<"${CUDA_VISIBLE_DEVICES:-$(seq -s, 0 $((ngpu - 1)))}"
    ((${#gpus[@]} >= ngpu)) || fail "--ngpu $ngpu, but CUDA_VISIBLE_DEVICES is $CUDA_VISIBLE_DEVICES"
    for ((n = 0; n < njobs; n++)); do
        CUDA_VISIBLE_DEVICES=${gpus[n]:-} OMP_NUM_THREADS=$threads TORCHINDUCTOR_COMPILE_THREADS=$threads \
            TAGASC_PROCESSES=$njobs run_background "$1.$n" "${@:2}"
    done
    wait_all
}
run_per_gpu() { if ((ngpu > 1)); then run_workers "$@"; else run "$@"; fi; } # on the CPU once
wait_all() {
    local n status worst=0
    for n in "${!workers[@]}"; do
        wait "${workers[n]}" && status=0 || status=$?
        if ((status == 3)); then note_failures "${logs[n]}"; else worst=$((worst | status)); fi
    done
    workers=() logs=() && ((worst == 0)) || exit "$worst"
}
note_failures() { failures+=("$(grep -a ' failed: ' "$1" | printable && echo "    log: $PWD/$1")"); blame "$1"; } # LOG
end_workers() { jobs -p | xargs -r kill 2>/dev/null || true && wait; } # what is being written is completed or removed
interrupted() { # STATUS
    trap '' INT TERM; end_workers
    printf '\ninterrupted in %s. To resume: %s\n' "$title" "$(resume)" >&2
    exit "$1"
}
finish() {
    ((${#failures[@]})) || { say "done in $SECONDS s"; return; }
    printf '%s\n' "" "some runs failed, the others are done:" "${failures[@]}" "To resume: $(resume)" >&2
    exit 1
}
lock() { # one run at a time in a recipe's folder; processes that outlive this one keep the lock
    local status=0 n holders
    command -v flock >/dev/null || fail "flock is missing; install util-linux" 1
    [[ ! -L .lock && (-f .lock || ! -e .lock) ]] || fail "$PWD/.lock is a link or a folder, not a file; move it away" 1
    writable .lock && exec 9>>.lock
    flock --timeout "${SLURM_RESTART_COUNT:+12}0" 9 2>/dev/null || status=$? # a requeued job waits until its first run ends
    ((status < 2)) || fail "the file system of $PWD does not support locks (flock); mount it with them, or $copy" 1
    ((status == 1)) || { echo "process $$ on ${HOSTNAME:-?} at $(date '+%F %T')" >.lock; return; }
    exec 9>&- && holders=" $(for n in /proc/[0-9]*/fd/*; do [[ ! $n -ef .lock ]] || cut -d/ -f3 <<<"$n"; done | sort -nu | xargs) "
    read -r _ n _ <.lock && [[ $holders == *" $n "* ]] || n=$holders # or what a killed run.sh left
    [[ $holders == *[0-9]* ]] || fail "another user or computer runs this recipe (begun by $(printable <.lock)); wait for it" 1
    fail "this recipe is in use; wait, or end what uses it: kill $(xargs <<<"$n")" 1
}
now=$stage title="stage $stage" networks=$nj copy="copy the recipe's folder and give --recipe PATH"
trap 'interrupted 130' INT; trap 'interrupted 143' TERM
if [[ $ngpu == auto ]]; then # a cluster has GPUs where its jobs run
    if [[ -n $gpu_cmd ]] || nvidia-smi -L 2>/dev/null | grep -q GPU; then ngpu=1; else ngpu=0; fi
fi
if ((ngpu > 0)); then device=cuda; else device=cpu gpu_cmd=$cpu_cmd; fi # never auto: training on the CPU by accident would take weeks
if ! $dry_run; then
    lock
    # shellcheck source=path.sh
    . "$root/path.sh"
    mkdir -p exp/log 2>/dev/null || true
    writable exp/log/commands
    if [[ ${cpu_cmd:-slurm.py} == slurm.py* && ${gpu_cmd:-slurm.py} == slurm.py* ]]; then # srun would pass a wrong number
        exec 3>&2 && export TAGASC_CONSOLE_FD=3 # progress reaches the terminal
    fi
    export TAGASC_RUN="$$ $SECONDS $RANDOM" # identifies this run to its processes
    networks=$(TAGASC_CONSOLE_FD='' "$PYTHON" "$root/steps/check_names.py" --conf conf --systems "$systems" \
        --controls "$controls" --seeds "$seeds" --trunk "$trunk" --training "$training" --tagger "${tagging_corpus:+$tagger}" --tag-scale "$tag_scale" --stop-stage "$stop_stage") || exit
    echo "$(date '+%Y-%m-%d %H:%M') ./run.sh$typed" >>exp/log/commands
fi
njobs=$((ngpu > 0 ? ngpu : networks < nj ? networks : nj)) # networks that are trained at once
threads=$((nj > njobs ? nj / njobs : 1)) # of each
