"""What the documents point to is there, and the README leads to every page."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/*.md")]


def anchors(page: Path) -> set[str]:
    """The fragments of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_no_link_is_dead() -> None:
    dead: list[str] = []
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", page.read_text()):
            file = (page.parent / target).resolve() if target else page
            if target.startswith(("http:", "https:")):
                continue
            if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
                dead.append(f"{page.relative_to(ROOT)}: {target}#{anchor}")
    assert not dead


def test_the_readme_or_a_page_of_its_own_leads_to_every_page() -> None:
    linked = {
        (page.parent / target).resolve()
        for page in PAGES
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text())
    }
    lost = [page.name for page in ROOT.glob("docs/reference/*.md") if page.resolve() not in linked]
    assert not lost
