"""What the pages say of the code is there: links, files, tests, targets, events and reasons."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.model.mutations import MUTATIONS

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
NOW = {name: text for name, text in TEXTS.items() if name != "CHANGELOG.md"}
"""All but the one that names what there was before."""

CODE = [path for top in ("orders_api", "orders_worker", "schema") for path in (ROOT / top).rglob("*.py")]


def sources(pattern: str, paths: list[Path]) -> set[str]:
    return {found for path in paths for found in re.findall(pattern, path.read_text())}


def anchors(text: str) -> set[str]:
    """The anchors that a forge gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def names(page: str, column: str) -> set[str]:
    """What the first column names in the page's one table where that has this heading."""
    ((_, rows),) = re.findall(rf"^\| {column} \|.*\n(\|.*\n)((?:\|.*\n)+)", TEXTS[page], re.MULTILINE)
    return set(re.findall(r"^\| `(\w+)` \|", rows, re.MULTILINE))


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", TEXTS[page]):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent.joinpath(path) if path else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


@pytest.mark.parametrize("page", NOW)
def test_named_files_tests_and_targets_are_there(page: str) -> None:
    files = re.findall(r"`((?:schema|orders_api|orders_worker|tests|bench|docs|\.ci)/[\w./-]*)`", NOW[page])
    defined = sources(r"def (test_\w+)", list((ROOT / "tests").rglob("test_*.py")))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert [file for file in files if not (ROOT / file).exists()] == []
    assert set(re.findall(r"`(test_\w+)`", NOW[page])) <= defined
    assert set(re.findall(r"`make ([a-z-]+)", NOW[page])) <= targets


def test_readme_is_short_and_links_every_page() -> None:
    readme = TEXTS["README.md"]

    assert len(readme.splitlines()) <= 150
    assert [page for page in TEXTS if page != "README.md" and f"]({page})" not in readme] == []


@pytest.mark.parametrize("level", ["ERROR", "WARNING"])
def test_operations_say_what_to_do_about_every_event_at_a_level_that_asks_for_it(level: str) -> None:
    events = sources(rf'_log\.{level.lower()}\(\s*"(\w+)"', CODE)

    assert names("docs/operations.md", level) == events


def test_what_to_do_about_an_event_or_a_reason_is_never_nothing() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*?) \|$", TEXTS["docs/operations.md"], re.MULTILINE)

    assert [name for name, to_do in rows if not to_do or to_do.startswith("nothing")] == []


def test_every_such_event_is_named_where_it_is_logged() -> None:
    assert sources(r'_log\.(?:error|warning)\(\s*(?!")\S+', CODE) == set()


def test_operations_say_what_to_do_about_every_reason_to_be_unhealthy() -> None:
    reasons = sources(r'"([a-z]+_[a-z_]+)"', [ROOT / "orders_worker" / "health" / "reasons.py"])

    assert names("docs/operations.md", "reason") == reasons


def test_page_of_the_mutations_has_each_of_them() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (.*?) \| ", TEXTS["docs/mutations.md"], re.MULTILINE)

    assert rows == [(mutation.where, mutation.name) for mutation in MUTATIONS]


def test_readme_says_about_how_many_lines_must_be_read() -> None:
    (said,) = re.findall(r"some ([\d,]+) lines", TEXTS["README.md"])
    script = [sys.executable, ".ci/trust.py"]

    shown = subprocess.run(script, cwd=ROOT, capture_output=True, check=True, text=True).stdout

    *parts, total = [int(count.replace(",", "")) for count in re.findall(r"([\d,]+) lines", shown)]
    assert total == sum(parts)
    assert total == pytest.approx(int(said.replace(",", "")), rel=0.1)
