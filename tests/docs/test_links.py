"""What a page points at is there: places within pages, and pictures."""

import re

from tests.processes import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _text(page):
    """Return a page without its blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)


def _anchors(page):
    """Return the names that headings get where Markdown is shown."""
    for heading in re.findall(r"^#+ (.+)$", _text(page), re.M):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_links_into_pages_lead_to_a_heading():
    links = (
        (page, target, anchor)
        for page in PAGES
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", _text(page))
    )
    lost = [
        f"{page.name}: {target}#{anchor}"
        for page, target, anchor in links
        if anchor not in _anchors((page.parent / target) if target else page)
    ]
    assert lost == []


def test_pictures_are_there():
    pictures = (
        page.parent / target for page in PAGES for target in re.findall(r'(?:src|srcset)="([^"]+)"', _text(page))
    )
    assert [str(each) for each in pictures if not each.is_file()] == []
