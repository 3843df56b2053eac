#!/usr/bin/env python3
"""Run the programs given on standard input, one command line each, in one process.

For so small a network, a program's start takes longer than the training.
"""

import runpy
import shlex
import shutil
import sys


def main() -> None:
    """Run every command; stop at the first that fails, with its exit status."""
    for line in sys.stdin:
        sys.argv = shlex.split(line)
        try:
            runpy.run_path(shutil.which(sys.argv[0]) or sys.argv[0], run_name="__main__")
        except SystemExit as end:
            if end.code:
                sys.exit(end.code)


if __name__ == "__main__":
    main()
