"""The documents: every link and path exists, and every decision has a date and a status."""

import datetime as dt
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
RECORDS = (ROOT / "docs" / "decisions", ROOT / "docs" / "measurements")  # they may name what was there at their date
BROKERS_AND_EDGES = sorted([ROOT / "docs" / "operations.md", *(ROOT / "docs" / "brokers").glob("*.md")])
_HEAD = re.compile(r"# (\d{4}) (.+)\n\nDate: (\d{4}-\d{2}-\d{2})\nStatus: ((?:accepted|superseded by \d{4}).*)\n")
_LINK = re.compile(r"\]\(([^)#:]+)(?:#([^)]*))?\)")
_PATH = re.compile(r"`((?:functions|shared|edge|infra|tests|tools|docs|console|requirements)/[\w./-]*)`")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    """Links are relative, so they work in a checkout and in a browser. An anchor names a heading of its page."""
    for target, anchor in _LINK.findall(page.read_text(encoding="utf-8")):
        path = page.parent / target
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent not in RECORDS], ids=name)
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    """A reader who follows a path finds the file or folder."""
    for path in _PATH.findall(page.read_text(encoding="utf-8")):
        assert (ROOT / path).exists() or "NAME" in path, path


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent not in RECORDS], ids=name)
def test_a_page_installs_packages_by_their_hashes_only(page: Path) -> None:
    """A reader who follows a page installs what was tested, whatever the package index has."""
    installs = re.findall(
        r"(?:pip3?|pipx|uv pip|npm|npx|uvx|gem|go) (?:install|i|run)\b[^`\n;|]*", page.read_text("utf-8")
    )
    for command in installs:
        assert re.fullmatch(r"pip install --require-hashes( -r requirements(/\w+)?\.txt)+", command.strip()), command


@pytest.mark.parametrize("page", BROKERS_AND_EDGES, ids=name)
def test_a_snippet_for_a_broker_or_edge_is_run_by_a_test_or_says_that_it_was_not(page: Path) -> None:
    """The word is in the paragraph before the snippet, or the mark `tested` with the name that a test reads."""
    parts = re.split(r"^ *```.*\n", page.read_text(encoding="utf-8"), flags=re.M)
    for before in parts[::2][: len(parts) // 2]:
        paragraph = before.rstrip().rpartition("\n\n")[2]
        mark = re.fullmatch(r" *<!-- tested: (\w+) -->", paragraph.strip())
        assert mark or re.search("[Uu]ntested snippet|also untested|not run by the tests", paragraph), paragraph
        if mark:
            tests = (ROOT / "tests" / "e2e").glob("test_*.py")
            assert any(re.search(rf'[": ]{mark[1]}[" ]', test.read_text(encoding="utf-8")) for test in tests), mark[1]


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_begins_with_title_date_and_status(page: Path) -> None:
    head = _HEAD.match(page.read_text(encoding="utf-8"))
    assert head is not None
    number, _, date, status = head.groups()
    assert page.name.startswith(f"{number}-")
    dt.date.fromisoformat(date)
    for other in re.findall(r"superseded by (\d{4})", status):
        assert any(decision.name.startswith(other) for decision in DECISIONS)


def test_the_index_lists_every_decision_with_date_and_status() -> None:
    index = (ROOT / "docs" / "decisions" / "README.md").read_text(encoding="utf-8")
    rows = [line for line in index.splitlines() if line.startswith("| [")]
    expected = []
    for page in DECISIONS:
        head = _HEAD.match(page.read_text(encoding="utf-8"))
        assert head is not None
        number, title, date, status = head.groups()
        expected.append(f"| [{number}]({page.name}) | {title} | {date} | {status} |")
    assert rows == expected


def test_the_readme_stays_short() -> None:
    """At most 150 lines: what this is, how to run it, and where everything else is."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
