"""Every code block in README and docs runs, in order, and prints what stands under it."""

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
PAGES = [TOP / "README.md", *sorted((TOP / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ALONE = ("make ",)  # commands that make environments: tried in a clean clone, not here


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text())


def runnable(page: Path) -> bool:
    return any(kind in ("python", "bash") for kind, _ in blocks(page))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)], ids=lambda page: str(page.relative_to(TOP)))
def test_the_blocks_of_a_page_run_and_print_what_it_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    names = {"__name__": "docs_page"}
    printed = None
    for kind, code in blocks(page):
        if kind == "python":
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile(code, str(page), "exec"), names)
            printed = output.getvalue()
        elif kind == "bash":
            for line in code.strip().splitlines():
                if line.strip() and not line.startswith(ALONE):
                    shell(line)
            printed = None
        elif kind == "text" and printed is not None:
            assert printed.strip() == code.strip(), f"{page.name} promises another output"
            printed = None


def shell(line: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, env={**os.environ, "PATH": path}, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


def test_readmes_twelve_lines_are_twelve():
    kind, code = next((kind, code) for kind, code in blocks(TOP / "README.md") if kind == "python")
    assert kind == "python"
    assert len([line for line in code.splitlines() if line.strip()]) <= 12


def test_every_link_between_pages_leads_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(TOP)} links to {target}"


def slug(heading: str) -> str:
    """The anchor that MkDocs gives a heading."""
    text = re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading)
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", text).strip().lower())


def test_every_link_to_a_heading_leads_to_one():
    checked = 0
    for page in PAGES:
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page.read_text()):
            text = BLOCK.sub("", (page.parent / target if target else page).read_text())
            headings = {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
            assert anchor in headings, f"{page.relative_to(TOP)} links to {target}#{anchor}"
            checked += 1
    assert checked > 5


def test_every_page_is_in_the_navigation_once():
    listed = re.findall(r"^ +- .*: (\S+\.md)$", (TOP / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(page.relative_to(TOP / "docs").as_posix() for page in PAGES[1:])


@pytest.mark.slow
@pytest.mark.parametrize("example", sorted((TOP / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_every_example_runs_as_a_newcomer_runs_it(example, tmp_path):
    promised = {
        "own_csv": "report: everlearn-runs/own-csv/report.html",
        "own_learner": "surprise",
        "own_series": "report: everlearn-runs/own-series/report.html",
        "resume_after_kill": "the same weights: True",
        "serve_and_feed_back": "the same weights: True",
    }
    done = subprocess.run([sys.executable, str(example)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert promised[example.stem] in done.stdout
