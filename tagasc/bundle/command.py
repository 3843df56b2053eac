"""The command ``predict.py BUNDLE AUDIO...``; it needs no package but those of ``tagasc.bundle``."""

import argparse
import sys
from pathlib import Path

import numpy as np

from tagasc.bundle import output
from tagasc.bundle.recordings import STDIN, expand, on_disk
from tagasc.bundle.runner import Answer, Bundle, load
from tagasc.utils.errors import UserError
from tagasc.utils.files import read_npz
from tagasc.utils.limits import describe_limit

_TEXT = """Classify recordings of any length, rate and number of channels. What was converted is said. Files that fail
are listed at the end with the reason; the others are done. Exit status: 0 all done, 1 nothing done, 2 bad options, 3
some failed."""


def main(bundle: Path | None = None) -> None:
    """Run the command; the program inside a bundle passes its own folder."""
    parser = _parser(bundle is None)
    options = parser.parse_args()
    try:
        sys.exit(_predict(bundle or Path(options.bundle), options))
    except UserError as error:
        _exit(str(error), error.status)
    except KeyboardInterrupt:
        _exit("interrupted", 130)
    except Exception as error:
        message = describe_limit(error)
        if message is None:
            raise
        _exit(message, 1)


def _parser(ask: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=_TEXT, allow_abbrev=False)
    if ask:
        parser.add_argument("bundle", metavar="BUNDLE", help="folder of the bundle (stage 9)")
    parser.add_argument(
        "audio", metavar="AUDIO", nargs="*", help="files, folders, 'patterns*.wav', or - (sound on stdin)"
    )
    parser.add_argument(
        "--list", action="append", default=[], metavar="FILE", help="file with a path a line; - is stdin"
    )
    parser.add_argument("--hop", type=float, default=0, metavar="S", help="distance of the windows of long recordings")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a line per window")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything: windows, probabilities, events")
    parser.add_argument("--dcase", type=Path, metavar="FILE", help="write DCASE's output.csv")
    parser.add_argument("--explain", type=Path, metavar="FOLDER", help="write a page per recording that says why")
    tags = "tags of the recordings, for a bundle without tagger: arrays ids (names without suffix), classes, values"
    parser.add_argument("--tags", type=Path, metavar="FILE.npz", help=tags)
    parser.set_defaults(pages=[])
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="threads; 0: one per core")
    parser.add_argument("--quiet", action="store_true", help="print no table")
    return parser


def _predict(folder: Path, options: argparse.Namespace) -> int:
    """Classify what is asked for; return the exit status."""
    recordings = expand(options.audio, options.list)
    bundle = load(folder, options.threads)
    given = _Tags(options.tags, bundle.events)
    answers: list[Answer] = []
    failures: list[tuple[str, str]] = []
    for name in recordings:
        try:
            with on_disk(name) as path:
                answer = _renamed(bundle.classify_file(path, given.of(name), options.hop), name)
                answers.append(answer)
                if options.explain:
                    _explain(bundle, path, answer, given.of(name), options)
        except UserError as error:
            failures.append((name, str(error)))
        except Exception as error:
            if describe_limit(error) is None:
                raise
            failures.append((name, describe_limit(error) or ""))
    _write(answers, failures, options)
    if answers and not options.quiet:
        print(output.table(answers))
    for name, why in failures:
        print(f"failed: {output.printable(name)}: {output.printable(why)}", file=sys.stderr)
    if failures:
        print(f"{len(failures)} of {len(recordings)} recordings failed", file=sys.stderr)
    return 0 if not failures else 3 if answers else 1


def _write(answers: list[Answer], failures: list[tuple[str, str]], options: argparse.Namespace) -> None:
    if options.json:
        output.write_json_answers(options.json, answers, failures)
    if options.csv:
        output.write_csv(options.csv, answers)
    if options.dcase:
        output.write_dcase(options.dcase, answers)


def _explain(bundle: Bundle, path: str, answer: Answer, given: np.ndarray | None, options: argparse.Namespace) -> None:
    from tagasc.bundle.page import write_page  # here, since few ask for it

    page = options.explain / f"{Path(answer.name).stem}.html"
    number = 1
    while page in options.pages:  # recordings of one name in several folders
        number += 1
        page = page.with_name(f"{Path(answer.name).stem}-{number}.html")
    options.pages.append(page)
    write_page(page, bundle, path, answer, given, options.hop)


class _Tags:
    """Tags that are given for recordings, by file name."""

    def __init__(self, path: Path | None, events: list[str]) -> None:
        self._path, self._rows = path, {}
        if path is None:
            return
        arrays = read_npz(path, ("ids", "classes", "values"), "the tagger")
        if arrays["classes"].astype(str).tolist() != events:
            raise UserError(f"{path} has other events than the bundle, or another order; make them with its tagger")
        self._rows = dict(zip(arrays["ids"].astype(str).tolist(), arrays["values"], strict=True))

    def of(self, name: str) -> np.ndarray | None:
        """Return the tags of a recording, by its name without suffix, with or without folders; None if none are given.

        Raises:
            UserError: the file lacks this recording.
        """
        if self._path is None:
            return None
        for key in (str(Path(name).with_suffix("")), Path(name).stem):
            if key in self._rows:
                return self._rows[key]
        raise UserError(f"{self._path} has no tags for {Path(name).stem}")


def _renamed(answer: Answer, name: str) -> Answer:
    fields = {field: getattr(answer, field) for field in Answer.__dataclass_fields__}
    return Answer(**fields | {"name": "standard input" if name == STDIN else name})


def _exit(message: str, status: int) -> None:
    print(f"error: {output.printable(message)}", file=sys.stderr)
    sys.exit(status)
