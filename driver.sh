# shellcheck shell=bash disable=SC2034,SC2154  # shares run.sh's variables
# How run.sh is called and how it runs programs, for sourcing: help, options, lock; logs, workers, signals.

failures=()
jobs=()
TAGASC_RUN="$$ $(date +%s)" # tells the processes of one run from those of the next
export TAGASC_RUN
every_control="@shuffled @constant @within @oracle"
say() { echo "$(date '+%Y-%m-%d %H:%M:%S') $*" >&2; }
die() { echo "error: $*" >&2; exit "${status:-1}"; }

usage() {
    echo "./run.sh [--recipe NAME] [--stage N] [--stop-stage M] [--OPTION VALUE] …"
    echo
    printf '%-12s %-29s %-31s %s\n' stage reads writes "costs here"
    for n in "${!names[@]}"; do printf '%-12s %-29s %-31s %s\n' "$n ${names[n]}" "${reads[n]}" "${writes[n]}" "${costs[n]:-?}"; done
    printf '\nOptions, and their values when not given:\n'
    commented "$here/run.sh" | sed '/^estimate|/q' | options
    printf '\nRecipe %s: %s\n' "$name" "$summary" | fold -s -w 120
    {
        printf '%s|\n' "${recipe_options[@]}" # first, for those that have no comment
        commented "$dir/recipe.sh" | grep -E "^($(IFS='|' && echo "${recipe_options[*]}"))\|"
    } | tac | sort -u -t '|' -k 1,1 | options
}

commented() { # FILE: name|comment of each variable; a recipe's come after those of the recipe that it sources
    local base
    base=$(sed -n 's/^\. "\(.*\)"$/\1/p' "$1")
    [[ -z $base || $1 == "$here/run.sh" ]] || commented "${base/#\$here/$here}"
    sed -nE 's/^([a-z][a-z_]*)=[^#]*# (.*)/\1|\2/p' "$1"
}

options() { # a line of help for each name|comment, with its value
    local option what value
    while IFS='|' read -r option what; do
        value=${!option//"$here/"/}
        printf '%s\n' "${what:+$what }${value:+[$value]}" | fold -s -w 97 |
            sed "1s/^/$(printf '  --%-19s' "${option//_/-}")/; 2,\$s/^/$(printf '%23s' '')/; s/ *$//"
    done
}

own_options() { sed -n '/^recipe=/,/^estimate=/s/=.*//p' "$here/run.sh"; }

variables() { compgen -A variable | grep -E '^[a-z][a-z_]*$' | sort; }

load_recipe() { # find the recipe among the arguments and read it; what it sets becomes options
    local previous="" argument
    for argument in "${given[@]}"; do
        [[ $previous == --recipe ]] && recipe=$argument
        [[ $argument == --recipe=* ]] && recipe=${argument#*=}
        previous=$argument
    done
    dir=$here/egs/$recipe
    [[ -f $dir/recipe.sh ]] || dir=$recipe
    [[ -f $dir/recipe.sh ]] || die "there is no recipe $recipe; take one of: $(cd "$here/egs" && echo */ | tr -d /)"
    dir=$(cd "$dir" && pwd)
    name=${dir##*/}
    mapfile -t recipe_options < <(set_by_recipe)
    # shellcheck source=egs/mini/recipe.sh
    . "$dir/recipe.sh"
}

# shellcheck disable=SC2046  # names, each a word
set_by_recipe() { # the names of what recipe.sh sets, in a subshell; the environment may hold variables of these names too
    local before
    unset $(compgen -e | grep -E '^[a-z][a-z_]*$' | grep -vxF "$(own_options)")
    before=$(variables)
    # shellcheck source=egs/mini/recipe.sh
    . "$dir/recipe.sh"
    comm -13 <(echo "$before") <(variables) | grep -vxE 'before|costs|summary'
}

parse() { # set the variables that the options name
    local known option value
    known=" $(own_options | xargs) ${recipe_options[*]} "
    while (($#)); do
        [[ $1 == --help || $1 == -h ]] && { usage; exit 0; }
        [[ $1 == --* ]] || status=2 die "$1 is no option; see ./run.sh --help"
        option=${1#--} value=
        if [[ $option == *=* ]]; then value=${option#*=} option=${option%%=*}; fi
        [[ $option != *_* ]] || status=2 die "unknown option $1; options have dashes, see ./run.sh --help"
        option=${option//-/_}
        [[ $known == *" $option "* ]] || status=2 die "unknown option ${1%%=*} for recipe $name; see ./run.sh --help"
        if [[ $1 != *=* ]]; then
            if [[ ${!option} =~ ^(true|false)$ && ! ${2:-} =~ ^(true|false)$ ]]; then
                value=true
            else
                (($# > 1)) || status=2 die "option $1 needs a value"
                value=$2
                shift
            fi
        fi
        [[ ! ${!option} =~ ^(true|false)$ || $value =~ ^(true|false)$ ]] || status=2 die "option --${option//_/-} is true or false, not $value"
        printf -v "$option" %s "$value"
        shift
    done
    if [[ $ngpu == auto ]]; then ngpu=$(some_gpu); fi
    for option in stage stop_stage ngpu nj; do
        [[ ${!option} =~ ^[0-9]+$ ]] || status=2 die "option --${option//_/-} must be a whole number, not ${!option}"
        printf -v "$option" %d "$((10#${!option}))" # 08 is eight
    done
    ((stage <= stop_stage && stop_stage < ${#names[@]})) || status=2 die "stages go from 0 to 8, --stage not above --stop-stage"
    ((nj > 0)) || status=2 die "option --nj must be at least 1"
    one_of protocol ours both paper
    one_of final_fit none all
    one_of code_segment whole released
    one_of activation auto sigmoid softmax
    one_of sample_format int16 float32
    one_of audio_cache auto gpu pinned disk
    one_of compile auto always never
    if [[ $controls == auto ]]; then
        controls=
        [[ " $systems " != *" all "* ]] || controls=$every_control
    fi
    check_names
}

check_names() { # what a late stage would stumble over only after hours
    local file=$here/egs/systems.yaml system wanted tables all trunks
    tables=$(sed -n 's/^\([[:alnum:]_]*\):.*/\1/p' "$file" | xargs)
    all=" $(sed -n 's/^ \+\([[:alnum:]_]*\):.*/\1/p' "$file" | xargs) "
    read -rd "" -a wanted <<<"$systems" || true
    ((${#wanted[@]})) || status=2 die "--systems '$systems' names none; take all, ${tables// /, }, or names out of $file"
    for system in "${wanted[@]}"; do
        [[ " all $tables$all" == *" $system "* || $system == *@* && "$all " == *" ${system%@*} "* ]] ||
            status=2 die "there is no system '$system'; take all, ${tables// /, }, or names out of $file"
        [[ $system != *@* || " $every_control " == *" @${system#*@} "* ]] || status=2 die "$system: its control is one of $every_control"
        [[ $system != *@* ]] || ! grep -q "^ *${system%@*}: *{ *} *\(#.*\)\?$" "$file" || status=2 die "$system: ${system%@*} uses no tags to alter; name a system that does"
    done
    read -rd "" -a wanted <<<"$controls" || true
    for system in "${wanted[@]}"; do
        [[ " $every_control " == *" $system "* ]] || status=2 die "option --controls takes $every_control, not $system"
    done
    [[ $seeds =~ ^\ *[0-9]+(\ +[0-9]+)*\ *$ ]] || status=2 die "--seeds '$seeds' must be whole numbers from 0 on, as in \"1 2 3\""
    ((stop_stage >= 5)) || return 0
    trunks=$(find "$dir/conf" -name 'trunk_*.yaml' 2>/dev/null | sed 's/.*trunk_\(.*\)\.yaml/\1/' | sort | xargs)
    [[ -n $trunks && -f $dir/conf/scene.yaml ]] ||
        status=2 die "recipe $name trains no scene network without $dir/conf/scene.yaml and a trunk_NAME.yaml there; it ends at --stop-stage 4"
    [[ -f $dir/conf/trunk_$trunk.yaml ]] || status=2 die "there is no $dir/conf/trunk_$trunk.yaml; --trunk is one of $trunks"
}

some_gpu() { # 1 if there is one here; cmd.sh may send the work to where there is
    if [[ -n $gpu_cmd ]] || nvidia-smi -L 2>/dev/null | grep -q GPU; then echo 1; else echo 0; fi
}

one_of() { # OPTION VALUE…
    [[ " ${*:2} " == *" ${!1} "* ]] || status=2 die "option --${1//_/-} is one of ${*:2}, not ${!1}"
}

lock() { # one run at a time in a recipe's folder; processes that outlive this one keep the lock
    command -v flock >/dev/null || die "flock is missing; install util-linux"
    { exec 9>>"$dir/.lock"; } 2>/dev/null || die "$dir is not writable; copy the recipe's folder to where you can write, and give --recipe PATH"
    if ! flock --nonblock 9; then
        read -r holder began <"$dir/.lock" || true
        die "process ${holder:-?} has been running this recipe for $((($(date +%s) - ${began:-0}) / 60)) minutes; wait for it or end it"
    fi
    echo "$$ $(date +%s)" >"$dir/.lock"
}

go_on() { # the command that goes on from the stage now running: as given, but for --stage and --force
    local argument option="" kept=()
    for argument in "${given[@]}"; do
        [[ $argument != --* ]] || option=${argument%%=*}
        [[ $option == --stage || $option == --force ]] || kept+=("$argument")
    done
    printf '%q ' "$0" "${kept[@]}"
    echo "--stage $now"
}

step() { # NAME COMMAND…: run one program, its output in a log file
    local file="$dir/exp/log/$now.$1.log" began=$SECONDS
    shift
    if $dry_run; then printf '%q ' "$@"; echo; return; fi
    mkdir -p "$dir/exp/log"
    { printf '# %s\n#' "$(date '+%Y-%m-%d %H:%M:%S')"; printf ' %q' "$@"; echo; } >"$file"
    local code=0
    # In the background, since bash hears a signal only between commands, or while it waits.
    TAGASC_STAGE="stage $now (${names[now]})" "$@" >>"$file" 2>&1 &
    wait $! || code=$?
    echo "# $(date '+%Y-%m-%d %H:%M:%S') status $code after $((SECONDS - began)) s" >>"$file"
    ((code == 0)) && return
    if ((code == 3)); then some_failed "$file"; return; fi
    {
        echo
        echo "stage $now (${names[now]}) failed with status $code. The end of its log:"
        { grep -v '^#' "$file" || echo "(it said nothing)"; } | tail -n 8 | sed 's/^/    /'
        echo "The log: $file"
        echo "To go on: $(go_on)"
    } >&2
    exit "$code"
}

# shellcheck disable=SC2086  # gpu_cmd is words
on_gpus() { # NAME COMMAND…: run a program once a GPU; the processes share its list of runs
    local number gpus=()
    if ((ngpu <= 1)); then step "$1" $gpu_cmd "${@:2}"; return; fi
    IFS=, read -ra gpus <<<"${CUDA_VISIBLE_DEVICES:-$(seq -s, 0 $((ngpu - 1)))}"
    ((${#gpus[@]} >= ngpu)) || die "--ngpu $ngpu, but CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES names ${#gpus[@]}"
    for ((number = 0; number < ngpu; number++)); do
        CUDA_VISIBLE_DEVICES=${gpus[number]} TAGASC_PROCESSES=$ngpu TORCHINDUCTOR_COMPILE_THREADS=$(((nj + ngpu - 1) / ngpu)) \
            worker "$1.$number" $gpu_cmd "${@:2}"
    done
    wait_for_workers "$1"
}

# shellcheck disable=SC2086  # gpu_cmd is words
on_cores() { # NAME COMMAND…: run a program once a core, or once a network if those are fewer; they share its list
    local number processes
    processes=$(at_once)
    if ((processes <= 1)) || $dry_run; then step "$1" $gpu_cmd "${@:2}"; return; fi
    for ((number = 0; number < processes; number++)); do
        OMP_NUM_THREADS=$((nj / processes)) worker "$1.$number" $gpu_cmd "${@:2}"
    done
    wait_for_workers "$1"
}

at_once() { # how many scene networks run at once
    local networks
    if ((ngpu > 0)); then echo "$ngpu"; return; fi
    networks=$(wc -w <<<"$systems $controls") # at most; a process that finds nothing left to do ends
    networks=$((networks * $(wc -w <<<"$seeds")))
    if [[ ! " $systems" =~ \ (all|table) ]] && ((networks < nj)); then echo "$networks"; else echo "$nj"; fi
}

shared() { # NAME COMMAND…: run a program that goes through a list of networks, as often as there is room for
    if ((ngpu == 0)); then on_cores "$@"; else on_gpus "$@"; fi
}

# shellcheck disable=SC2030,SC2031  # that failures is changed in a subshell alone is meant
worker() { # NAME COMMAND…: a step in the background
    (
        trap 'end_children; exit 143' INT TERM
        export TAGASC_SHARED_CONSOLE=true
        failures=() # its own; those of earlier steps are told of already
        step "$@"
        exit $((${#failures[@]} ? 3 : 0))
    ) &
    jobs+=($!)
}

beside() { # NAME COMMAND…: a step beside the next one, where there are cores for both
    if ((nj == 1)) || $dry_run; then step "$@"; else worker "$@"; fi
}

wait_for_workers() { # NAME
    local number status code=0
    for number in "${!jobs[@]}"; do
        status=0
        wait "${jobs[number]}" || status=$?
        if ((status == 3)); then some_failed "$dir/exp/log/$now.$1.$number.log"; else code=$((code | status)); fi
    done
    jobs=()
    ((code == 0)) || exit "$code"
}

# shellcheck disable=SC2031
some_failed() { # LOG: some runs of several failed; later stages go on with the others
    failures+=("$(grep ' failed: ' "$1"; echo "    its log: $1")")
}

end_children() { # pass the signal on, and wait until what they were writing is whole or gone
    local children
    children=$(jobs -p)
    # shellcheck disable=SC2086  # one word each
    [[ -z $children ]] || kill $children 2>/dev/null || true
    wait
}

stopped() { # STATUS
    trap '' INT TERM
    end_children
    printf '\ninterrupted in stage %s (%s). To go on: %s\n' "$now" "${names[now]}" "$(go_on)" >&2
    exit "$1"
}
