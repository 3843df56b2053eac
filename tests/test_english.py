"""The project is written in plain English: words that read like a translation stay out of its texts."""

import ast
import re
import subprocess

import pytest

from tests.helpers import ROOT

BANNED = re.compile(
    r"\b(?:is none|(?i:mend(?:s|ed|ing)?|anew|told of|tells? of|of one's own|stands? twice|no more(?! than)|comes? to lie"
    r"|by the book|by hand|as it is|go(?:es)? on|going on))\b"
)


def listed(*patterns):
    """The repository's files of these patterns."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return sorted(name for name in done.stdout.split() if (ROOT / name).exists())


def texts(path):
    """What a reader sees of a file: all of a document or a script; strings and comments of a program."""
    content = (ROOT / path).read_text(encoding="utf-8")
    if not path.endswith(".py"):
        return content
    strings = [node.value for node in ast.walk(ast.parse(content)) if isinstance(node, ast.Constant)]
    comments = re.findall(r"(?m)#.*$", content)
    return "\n".join([*comments, *(" ".join(value.split()) for value in strings if isinstance(value, str))])


@pytest.mark.parametrize("path", listed("*.md", "*.sh", "*.yaml", "tagasc/*.py", "steps/*.py", "local/*.py"))
def test_no_banned_word(path):
    found = {match[0]: texts(path)[max(0, match.start() - 40) :][:80] for match in BANNED.finditer(texts(path))}
    assert not found
