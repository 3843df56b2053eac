"""Runs a program of steps/ or local/ as run.sh does: python -P -m tagasc.utils.program FILE [OPTION...]

Importing torch needs more memory than most programs; if that fails, it fails before ``tagasc.utils.cli`` is in charge.
"""

import runpy
import sys

from tagasc.utils.limits import describe_limit


def main() -> None:
    """Run the file named by the first argument as a program."""
    del sys.argv[0]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except Exception as error:
        message = describe_limit(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
