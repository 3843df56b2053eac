#!/usr/bin/env bash
# Every check of the project: style, shell, import rules, tests. Arguments go to pytest: tests/run.sh -k tagger
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck disable=SC2034  # read by path.sh
path_extra=requirements-test.txt
# shellcheck source=path.sh
. ./path.sh
bin=$(dirname "$PYTHON")
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$bin/shellcheck" --external-sources run.sh path.sh cmd.sh utils/*.sh tests/run.sh .ci/run egs/*.sh egs/*/*.sh local/*.sh
"$bin/lint-imports" --no-cache
# A file's tests share what they prepare, so they stay in one process.
"$PYTHON" -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile "$@"
