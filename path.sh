# shellcheck shell=bash
# The environment, for sourcing: sets $root, $PYTHON and PYTHONPATH, and puts steps/ and local/ on PATH. The first use
# creates .venv with the versions in constraints.txt, which were tested together.
#
#   TAGASC_PYTHON=/path/to/python   uses that Python, which must have the packages, in place of .venv
#   WHEELHOUSE=/path/to/wheels      installs from that folder, without a network
#
# Where $path_extra names a file of requirements, that is installed too (tests/run.sh: requirements-test.txt).

root=$(CDPATH="" cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export LHOTSE_AUDIO_BACKEND=LibsndfileBackend PYTHONUTF8=1
# Let idle OpenMP threads sleep; spinning ones slow every step on a shared machine.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
# Keep freed memory for the next batch (glibc). Returned to the system, it comes back zeroed, page by page: a third of a
# training step on a CPU.
export MALLOC_MMAP_MAX_=${MALLOC_MMAP_MAX_:-0} MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-17179869184}

path_error() { echo "error: $*" >&2; exit 1; }

path_find_python() {
    local candidate
    for candidate in python3.12 python3.11 python3 python; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    path_error "no Python 3.11 or 3.12 on PATH; install one, or set TAGASC_PYTHON to one that has the packages"
}

path_install() { # FILE: install the requirements in FILE, once for each state of it and of constraints.txt
    local mark=$root/.venv/.$1 state
    state=$(cat "$root/$1" "$root/constraints.txt" | cksum)
    [[ -f $mark && $(<"$mark") == "$state" ]] && return
    echo "installing $1 into $root/.venv (once; about 6 GB with torch)" >&2
    local source=()
    [[ -n ${WHEELHOUSE:-} ]] && source=(--no-index --find-links "$WHEELHOUSE")
    flock "$root/.venv" "$PYTHON" -m pip install --quiet --disable-pip-version-check "${source[@]}" \
        --requirement "$root/$1" --constraint "$root/constraints.txt" >&2 ||
        path_error "installing $1 failed (see above); fix the cause and run the same command again"
    echo "$state" >"$mark"
}

path_check() { # the packages that a given Python must have: those of requirements.txt
    "$1" - "$root/requirements.txt" <<'PYTHON' || exit 1
import re
import sys
from importlib import metadata
from pathlib import Path

def number(version):
    return tuple(map(int, re.match(r"[0-9]+(?:\.[0-9]+)*", version)[0].split(".")))

def lack(line):
    name, least = re.match(r"([\w.-]+)(?:\[.*\])?(?:>=([0-9.]+))?$", line).groups()
    try:
        here = metadata.version(name)
    except metadata.PackageNotFoundError:
        return f"{name} {least} or newer" if least else name
    return f"{name} {least} or newer (found {here})" if least and number(here) < number(least) else None

if not sys.version_info >= (3, 11):
    sys.exit(f"error: TAGASC_PYTHON={sys.executable} is Python {sys.version.split()[0]}; 3.11 or newer is needed")
lacking = [what for line in Path(sys.argv[1]).read_text().split() if (what := lack(line))]
if lacking:
    sys.exit(f"error: TAGASC_PYTHON={sys.executable} lacks {', '.join(lacking)}; install that there, or unset TAGASC_PYTHON")
PYTHON
}

if [[ -n ${TAGASC_PYTHON:-} ]]; then
    PYTHON=$(command -v "$TAGASC_PYTHON") || path_error "TAGASC_PYTHON=$TAGASC_PYTHON is not a program; give a Python's path"
    [[ $PYTHON == /* ]] || PYTHON=$PWD/$PYTHON
    path_check "$PYTHON"
else
    PYTHON=$root/.venv/bin/python
    if [[ ! -e $root/.venv/.made || ! -x $PYTHON ]]; then
        path_base=$(path_find_python) || exit 1
        "$path_base" -m venv --clear "$root/.venv" >&2 ||
            path_error "$path_base cannot make a virtual environment; install its venv module (Debian: python3-venv)"
        touch "$root/.venv/.made"
    fi
    path_install requirements.txt
    [[ -z ${path_extra:-} ]] || path_install "$path_extra"
fi
export PYTHON PATH="${PYTHON%/*}:$root/steps:$root/utils:$root/local:$root/local/synthetic:$PATH"
