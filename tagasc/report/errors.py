"""The report's section on the surest wrong answers: links to the pages that stage 9 wrote about them.

It does not import what explains them, which needs an exported bundle.
"""

from pathlib import Path

from tagasc.report.markdown import escape, markdown_table
from tagasc.utils.errors import UserError
from tagasc.utils.files import read_json
from tagasc.utils.log import log

FOLDER, INDEX = "errors", "index.json"


def errors_section(out: Path) -> list[str]:
    """List the surest wrong answers on the test clips, each with its page; empty until stage 9 has run.

    Args:
        out: folder of the report; its folder ``errors`` holds the pages and ``index.json``.
    """
    index = out / FOLDER / INDEX
    if not index.exists():
        return []
    try:
        content = read_json(index, "stage 9 (bundle)")
        pages = [row for row in content["pages"] if (out / FOLDER / row["page"]).is_file()]
        rows = [(row["clip"], row["true"], row["answer"], f"{row['probability']:.2f}") for row in pages]
        title = f"{content['system']}, seed {content['seed']}, exported {content['date']}"
    except (UserError, KeyError, TypeError, ValueError) as error:
        log.warning("left out of the report: %s (%s)", index, error)
        return []
    links = [f"- [{escape(row['clip'])}]({FOLDER}/{row['page']})" for row in pages]
    return [
        "## Surest wrong answers",
        "",
        f"{escape(title)}: the wrong answers on test with the highest probability. The pages say what spoke for them.",
        "",
        markdown_table((("clip", "true scene", "answer", "probability"), rows)),
        *links,
        "",
    ]
