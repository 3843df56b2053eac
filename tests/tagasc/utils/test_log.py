import os
import subprocess
import sys

import pytest

from tests.helpers import ROOT

PROGRAM = "from tagasc.utils.log import log, start_logging; start_logging(); log.warning({!r})"


def logged(text, **environment):
    """What a program that logs a line writes to standard error."""
    environment = {**os.environ, **environment}
    command = [sys.executable, "-c", PROGRAM.format(text)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("left", ["7", "0", "-1", "x", "9" * 30])  # 0 is open, but for reading
def test_a_terminal_that_another_run_left_in_the_environment_is_ignored(left):
    assert logged("a word", TAGASC_CONSOLE_FD=left).endswith(" a word\n")


def test_names_from_outside_do_not_command_the_terminal():
    assert logged("a\x1b[2Jb\x9bc\x00d é\n").endswith(" a\\x1b[2Jb\\x9bc\\x00d é\n\n")
