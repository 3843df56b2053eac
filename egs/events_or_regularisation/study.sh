#!/usr/bin/env bash
# egs/events_or_regularisation/study.sh [--recipe NAME] [OPTIONS of run.sh]
#
# Do the events help, or only the extra inputs?
#
# Trains the baseline once, and shared fusion with its four controls for each tagger and each scale of the tags, three
# seeds each; then writes exp/report/EVENTS.md and EVENTS.html in the recipe's folder (docs/comparing_taggers.md). Run
# again, it resumes. On mini it takes two taggers; on other recipes that recipe's own, or those of --taggers. The
# variable of the environment system=shared_h16_l2 chooses another system.
set -euo pipefail
root=$(CDPATH="" cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
if [[ " $* " == *" --recipe"[\ =]* ]]; then # the best of the paper's Table 5
    defaults=() && system=${system:-shared_h4_l3}
else # heads that learn in few steps (docs/synthetic.md)
    defaults=(--recipe mini --taggers "mini small") && system=${system:-shared_h32_l1}
fi
exec "$root/run.sh" "${defaults[@]}" --seeds "1 2 3" --tag-scale "probability log" --controls '' \
    --systems "baseline $system $system@shuffled $system@constant $system@within $system@oracle" "$@"
