"""Puts the tables of results/*.md into README.md, between the marks that name them; run.sh calls it at its end."""

import re
from pathlib import Path

HERE = Path(__file__).parent
MARK = re.compile(r"(<!-- results/(\w+)\.md -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str) -> str:
    """The text with every marked part replaced by its file; parts whose file is missing stay as they are."""

    def part(match: re.Match[str]) -> str:
        path = HERE / "results" / f"{match[2]}.md"
        return f"{match[1]}\n{path.read_text().strip()}\n\n{match[3]}" if path.exists() else match[0]

    return MARK.sub(part, text)


if __name__ == "__main__":
    readme = HERE / "README.md"
    readme.write_text(filled(readme.read_text()))
