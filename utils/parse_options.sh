# shellcheck shell=bash disable=SC2030,SC2031,SC2034,SC2154  # variables of run.sh and of the recipe
# Options, for sourcing by run.sh: reads the recipe, then "$@"; changes to the recipe's folder.
#
# Every variable at the head of run.sh and in recipe.sh is an option. Its comment is its text in --help. Where the comment
# begins with "a | b", these are the values allowed; otherwise, where the default is a number, so is every value.

caller=$PWD given=("$@")
declare -A position=() help=() allowed=()
declare -A renamed=([data_on]=audio_cache [compiled]=compile [sample]=sample_format [code_windows]=code_segment
    [scene_source]=scene_dir [tagging_source]=tagging_dir [events_table]=event_labels [beds]=backgrounds)

fail() { echo "error: $1" >&2; exit "${2:-2}"; } # MESSAGE [STATUS]
absolute() { # PATH FOLDER: print a path given relative to the folder, or onnx:PATH; links, hf:NAME and nothing stay
    if [[ $1 =~ ^(onnx|py):. || $1 =~ ^[a-z]+:. && -d $2/${1#*:} ]]; then echo "${1%%:*}:$(absolute "${1#*:}" "$2")"
    elif [[ -z $1 || $1 =~ ^[a-z]+: ]]; then echo "$1"; else (cd "$2" && realpath -ms "$1"); fi
}
refuse_windows() { # FILE
    ! grep -q $'\r' "$1" || fail "$1 has Windows line ends (CRLF); convert it: sed -i 's/\r\$//' $(printf %q "$(realpath "$1")")"
}
declare_options() { # FILE: note position, help and allowed values of its variables, after those of a recipe it sources
    local base line name text values='^([[:alnum:]_]+( \| [[:alnum:]_]+)+)(:|;|$)'
    refuse_windows "$1"
    base=$(sed -nE 's/^\. "(.*recipe\.sh)".*/\1/p' "$1")
    [[ -z $base ]] || declare_options "${base/#\$root/$root}"
    while IFS= read -r line; do
        name=${line%%=*} text=
        [[ $line != *"# "* ]] || text=${line##*# }
        [[ -n ${position[$name]:-} ]] || position[$name]=${#position[@]}
        [[ -z $text ]] || help[$name]=$text
        [[ ! $text =~ $values ]] || allowed[$name]=${BASH_REMATCH[1]}
    done < <(sed -nE '/^root=/q; /^[a-z][a-z_]*=/p' "$1")
}

show_help() {
    local name
    echo "./run.sh [--recipe NAME] [--stage N] [--stop-stage M] [--OPTION VALUE]...   (reads -> writes, in egs/<recipe>/)"
    sed -nE 's/^if stage ([0-9]+) ([a-z]+);[^#]*# (.*)/\1 \2\t\3/p' "$root/run.sh" | expand -t 13
    for name in "${!position[@]}"; do echo "${position[$name]} $name"; done | sort -n | while read -r _ name; do
        ((position[$name] != 0)) || printf '\nOptions [defaults]:\n'
        ((position[$name] != own)) || printf '\nOptions of the recipe %s [defaults]:\n' "${folder##*/}"
        printf '%s\n' "${help[$name]:-}${!name:+ [${!name}]}" | fold -s -w 94 |
            sed -E "1s/^ */$(printf '  --%-21s' "${name//_/-}")/; 2,\$s/^/$(printf '%25s' '')/; s/ *\$//"
    done
}

set_option() { # NAME VALUE
    local option=--${1//_/-} value=$2
    [[ ! ${!1} =~ ^(true|false)$ || $value =~ ^(true|false)$ ]] || fail "option $option must be true or false, not '$value'"
    [[ " stage stop_stage ngpu nj " != *" $1 "* || $value =~ ^[0-9]+$ || $1 == ngpu && $value == auto ]] ||
        fail "option $option must be a whole number, not '$value'"
    [[ -n ${allowed[$1]:-} || ! ${!1} =~ ^[0-9.\ ]+$ || $value =~ ^[0-9.eE\ +-]+$ || $1 == ngpu ]] ||
        fail "option $option must be a number, not '$value'" # arithmetic on it would run a command in it
    [[ ! $value =~ ^0[0-9]+$ ]] || value=$((10#$value)) # 08 is eight
    [[ " ${allowed[$1]:-$value} " == *" $value "* ]] || fail "option $option must be one of ${allowed[$1]}, not '$value'"
    [[ " $paths " != *" $1 "* ]] || value=$(absolute "$value" "$caller")
    printf -v "$1" %s "$value"
}

for ((n = 0; n < $#; n++)); do # the recipe first, since it declares options
    [[ ${given[n]} != --recipe=* ]] || recipe=${given[n]#*=}
    [[ ${given[n]} != --recipe ]] || recipe=${given[n + 1]:-}
done
folder=$root/egs/$recipe
[[ -f $folder/recipe.sh ]] || folder=$(absolute "$recipe" "$caller")
[[ -f $folder/recipe.sh ]] || fail "there is no recipe '$recipe'; use one of: $(cd "$root/egs" && dirname -- */recipe.sh | xargs)"
for name in TAGASC_PYTHON WHEELHOUSE; do [[ ${!name:-} != */* ]] || export "$name=$(absolute "${!name}" "$caller")"; done
refuse_windows "$root/cmd.sh" && . "$root/cmd.sh"
cd "$folder" || exit
declare_options "$root/run.sh"
own=${#position[@]} && declare_options recipe.sh # own: position of the recipe's first option
paths="scene_dir tagging_dir event_labels tags_from events backgrounds"
training=scene noisy=true note='' tagging_corpus='' event_labels='' events='' backgrounds='' # if the recipe has none
scene_seconds='' scene_rate='' tagging_rate='' allow_partial='' train_split='' join_segments='' from_folders=false pattern=''
# shellcheck source=egs/mini/recipe.sh
. ./recipe.sh
while (($#)); do
    option=${1%%=*} name=${1#--} name=${name%%=*} name=${name//-/_}
    [[ $1 != --help && $1 != -h ]] || { show_help || true; exit 0; } # or true: into a closed pipe
    [[ $option == --?* ]] || fail "$1 is not an option; see ./run.sh --help"
    [[ $option != *_* ]] || fail "unknown option $option; options have dashes, see ./run.sh --help"
    [[ -n ${position[$name]:-} || -z ${renamed[$name]:-} ]] || fail "option $option is now --${renamed[$name]//_/-}"
    [[ -n ${position[$name]:-} ]] || fail "unknown option $option for the recipe ${folder##*/}; see ./run.sh --help"
    if [[ $1 == *=* ]]; then set_option "$name" "${1#*=}"
    elif [[ ${!name} =~ ^(true|false)$ && ! ${2:-} =~ ^(true|false)$ ]]; then set_option "$name" true # --force
    elif (($# > 1)); then set_option "$name" "$2" && shift
    else fail "option $1 needs a value"; fi
    shift
done
for name in $paths; do printf -v "$name" %s "$(absolute "${!name}" "$PWD")"; done
((nj > 0)) || fail "option --nj must be at least 1"
((stage < 9)) || stop_stage=$stage; ((stage <= stop_stage && stop_stage <= 9)) || fail "stages are 0 to 9, and --stage is at most --stop-stage"
[[ $tagger != *:* && $tagger != *.npz ]] || fail "--tagger is the name of a tagger; use --tags-from $tagger"
[[ $tags_from != *.npz || -e $tags_from ]] || $dry_run || fail "--tags-from $tags_from does not exist"
[[ $controls != auto ]] || controls=$([[ " $systems " != *" all "* ]] || echo "@shuffled @constant @within @oracle")
if [[ -n $tags_from ]]; then # its folders get a name of their own, unless --tagger gives one
    tagging_corpus=
    [[ " ${given[*]} " == *" --tagger"[\ =]* ]] || tagger=$(basename "${tags_from#*:}" .npz | tr -c '[:alnum:]._\n-' -)
fi
