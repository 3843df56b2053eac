# shellcheck shell=bash disable=SC2154,SC2329  # variables of run.sh; a trap calls end_run
# Several taggers, or several scales of their tags, for sourcing by run.sh: runs it for each of them, then its report.
#
# --taggers "mini ced=onnx:/data/ced" trains the tagger mini and takes the tags of ced from onnx:/data/ced. The others
# are compared with the first. Each run has its own lock, logs and command to resume. One that fails does not stop the
# next. The baseline uses no tags, so only the first experiment trains it.

child='' failed=()
words=() && for name in $systems; do [[ $name == baseline ]] || words+=("$name"); done
run_sh() { # OPTIONS...: run.sh with the options given and these, which count
    local status=0
    (cd "$caller" && exec "$root/run.sh" "${given[@]}" --taggers '' "$@") &
    child=$!
    wait "$child" || status=$?
    ((status < 128)) || exit "$status"
    return "$status"
}
end_run() { # STATUS
    trap '' INT TERM
    kill "$child" 2>/dev/null || true
    wait "$child" || true
    echo "To resume with all taggers, type the same command again" >&2
    exit "$1"
}
trap 'end_run 130' INT; trap 'end_run 143' TERM

alone=$([[ -n $taggers ]] || echo "$tags_from") # the source of a single tagger
for one in ${taggers:=$tagger}; do # before hours of work
    [[ ${one%%=*} =~ ^[[:alnum:]._-]+$ ]] ||
        fail "--taggers: '$one' must be NAME or NAME=SOURCE, as in ced=onnx:/data/ced"
done
if ((stage < 3)) && ! $estimate; then # the same for all
    run_sh --tag-scale '' --stop-stage "$((stop_stage < 2 ? stop_stage : 2))" || exit
fi
later=() first=() from=3 # later: systems of all experiments but the first
for scale in ${tag_scale:-''}; do
    for one in $taggers; do
        name=${one%%=*} source=${one#"$name"}
        source=${source#=} && what=(--tagger "$name" --tags-from "${source:-$alone}" --tag-scale "$scale")
        ((${#first[@]})) || first=("${what[@]}")
        if $estimate || ((stage < 8 && stop_stage >= from)); then
            run_sh "${what[@]}" "${later[@]}" --stage "$((stage > from ? stage : from))" \
                --stop-stage "$((stop_stage < 7 ? stop_stage : 7))" || failed+=("$name${scale:+-$scale}")
        fi
        ((${#words[@]} == 0)) || later=(--systems "${words[*]}")
    done
    from=5 # the tags are there
done
if ((stop_stage > 7)) && ! $estimate; then
    run_sh "${first[@]}" --stage "$((stage > 8 ? stage : 8))" || failed+=("the report")
fi
((${#failed[@]} == 0)) || fail "failed, see above: ${failed[*]}; the same command resumes" 1
exit
