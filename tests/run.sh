#!/usr/bin/env bash
# Style, shell, import contract, tests. tests/run.sh leaves out the slow tests, tests/run.sh --all runs them too (as CI
# does). Other arguments go to pytest: tests/run.sh -k tagger
set -euo pipefail
CDPATH="" cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck disable=SC2034  # read by path.sh
path_extra=requirements-test.txt
# shellcheck source=path.sh
. ./path.sh
bin=$(dirname "$PYTHON")
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$bin/shellcheck" --external-sources run.sh path.sh cmd.sh utils/*.sh tests/run.sh .ci/run egs/*.sh egs/*/*.sh local/*.sh
"$bin/lint-imports" --no-cache
tests=(-m "not slow")
if [[ ${1:-} == --all ]]; then tests=() && shift; fi
# The tests of a file share fixtures, so they stay in one process.
"$PYTHON" -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile "${tests[@]}" "$@"
