"""What a link to another page shows beside it: the parts of all pages, in one script."""

import json
import re
from pathlib import Path

from bs4 import BeautifulSoup, SoupStrainer

PARTS = "div.math[id], figure[id], .proof[id], .exercise[id]"
NAMED = SoupStrainer(["div", "figure"], id=True)  # to read nothing else takes a tenth of the time
HEADING = re.compile(r"(<section[^>]*>\s*(?:<span[^>]*></span>)*)<h\d>(.*?)</h\d>\s*", re.DOTALL)
CARD = r'<div class="at-a-glance.*?</div>\s*</div>\s*'
OPENING = re.compile(rf"(?:{CARD})?(<p>.*?</p>)", re.DOTALL)


def write(site: Path) -> None:
    """Write ``_static/parts.js`` for the folder of a built site; `preview.js` loads it when asked.

    It is a script, as Sphinx's index of words is: a page opened as a file may not read JSON.
    """
    pages = {str(page.relative_to(site)): page for page in sorted(site.rglob("*.html"))}
    found = {name: parts(page.read_text(encoding="utf-8")) for name, page in pages.items()}
    text = json.dumps({name: named for name, named in found.items() if named})
    (site / "_static" / "parts.js").write_text(f"window.parts = {text};\n", encoding="utf-8")


def parts(page: str) -> dict[str, str]:
    """The HTML of equations, figures, statements, exercises and headings by their ids.

    A page itself is its first heading with the paragraph that opens it, under the empty name.
    """
    article = page[page.find("<article") : page.rfind("</article>")]
    found = {}
    for match in HEADING.finditer(article):
        shown = f"<strong>{match[2]}</strong>"
        if not found:
            opening = OPENING.match(article, match.end())
            found[""] = f"<div>{shown}{opening[1] if opening else ''}</div>"
        found |= dict.fromkeys(re.findall(r'id="([^"]+)"', match[1]), shown)
    soup = BeautifulSoup(article, "html.parser", parse_only=NAMED)
    return found | {node["id"]: str(node) for node in soup.select(PARTS)}
