import base64
import re

import pytest

from tagasc.errors import UserError
from tagasc.page import html_page

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


def test_the_page_holds_tables_and_pictures_and_refers_to_nothing(tmp_path):
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


def test_a_picture_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"one\.png does not exist"):
        html_page(TEXT, "Title", tmp_path)
