import base64
import html
import re

import pytest

from tagasc.report.markdown import escape, html_page, markdown_table
from tagasc.utils.errors import UserError

TEXT = """# Title

| a | b |
| :-- | --: |
| *1.0*<br>**2.0** | x < y |

![a picture](one.png)

<details><summary>more</summary>

| c |
| :-- |
| 3 |

</details>

```
./run.sh --note "see http://example.org <b>"
```
"""


def test_the_page_embeds_tables_and_pictures_and_has_no_external_reference(tmp_path):
    (tmp_path / "one.png").write_bytes(b"\x89PNG picture")
    page = html_page(TEXT, "Title", tmp_path)
    assert page.count("<table>") == 2
    assert ">3</td>" in page
    assert "<em>1.0</em><br>" in page.replace("<br />", "<br>")
    assert base64.b64encode(b"\x89PNG picture").decode() in page
    assert "x &lt; y" in page
    assert "&lt;b&gt;" in page
    for reference in re.findall(r'(?:src|href)\s*=\s*"([^"]*)"', page):
        assert reference.startswith("data:image/png;base64,")
    assert not re.search(r"<link|<script|@import|url\(", page)
    assert "default-src 'none'" in page[: page.index("<title>")]


NAMES = [
    "<script>alert(1)</script>",
    "a|b",
    '<img src="secret.png">',
    "![x](secret.png)",
    "[x](http://example.org)",
    "R&B &lt;",
    "`|`",
    "two\nlines",
]


def test_names_are_escaped_in_text_and_tables(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    table = markdown_table((("class", "*1.0*<br>**2.0**"), [(name, str(number)) for number, name in enumerate(NAMES)]))
    line = f"Not shown: {escape(NAMES[0])}"
    for text in (table, f"<details><summary>more</summary>\n\n{table}\n</details>"):
        page = html_page(f"{text}\n{line}\n", "Title", tmp_path)
        rows = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
        cells = [[html.unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)] for row in rows]
        assert cells[1:] == [[name.replace("\n", " "), str(number)] for number, name in enumerate(NAMES)]
        assert "<em>1.0</em><br" in page
        assert not re.search(r"<script|<img|<a |base64", page)


@pytest.mark.parametrize("source", ["/etc/hostname", "../one.png", "/one.png", "sub/one.png", "notes.txt"])
def test_only_pictures_in_the_reports_folder_are_embedded(tmp_path, source):
    folder = tmp_path / "report"
    (folder / "sub").mkdir(parents=True)
    for path in (tmp_path / "one.png", folder / "sub/one.png", folder / "notes.txt"):
        path.write_bytes(b"secret")
    assert "base64" not in html_page(f'<img src="{source}">\n\n![x]({source})', "Title", folder)


def test_a_missing_picture_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"one\.png does not exist"):
        html_page(TEXT, "Title", tmp_path)
