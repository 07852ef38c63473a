"""What the documentation says of itself holds: links lead somewhere, Python sessions give what they show."""

import importlib.metadata
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", *(f"{folder}/**/*.md" for folder in ("configs", "docs", "envs", "agents", "examples")))
    for path in ROOT.glob(pattern)
)


def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text())


def inline(page: Path) -> Iterator[Token]:
    for token in tokens(page):
        yield from token.children or ()


def links(page: Path) -> Iterator[str]:
    for token in inline(page):
        if token.type in ("link_open", "image"):
            yield str(token.attrGet("href") or token.attrGet("src") or "")


def anchors(page: Path) -> set[str]:
    """The ids that GitHub, and MyST after it, give to headings."""
    found: set[str] = set()
    stream = tokens(page)
    for opened, text in itertools.pairwise(stream):
        if opened.type == "heading_open":
            words = "".join(child.content for child in text.children or () if child.type in ("text", "code_inline"))
            slug = re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-")
            again = sum(other == slug or re.fullmatch(rf"{re.escape(slug)}-\d+", other) is not None for other in found)
            found.add(f"{slug}-{again}" if again else slug)
    return found


def problem(page: Path, link: str) -> str | None:
    """What is wrong with a link, or None. Nothing is asked of the network."""
    parts = urlsplit(link)
    if parts.scheme:
        good = parts.scheme == "https" and re.fullmatch(r"([\w-]+\.)+[a-z]{2,}", parts.netloc) and " " not in link
        return None if good else "not an https address"
    target = page if not parts.path else page.parent / unquote(parts.path)
    if Path(os.path.normpath(target)).is_relative_to(ROOT / "docs") and target.suffix == ".html":
        return "link the .md file, which both GitHub and Sphinx follow"
    if not target.exists():
        return "no such file"
    if parts.fragment and parts.fragment not in anchors(target):
        return f"no such heading; there are {sorted(anchors(target))}"
    return None


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name: str) -> None:
    page = ROOT / name
    wrong = {link: what for link in links(page) if (what := problem(page, link)) is not None}
    assert not wrong


def test_a_wrong_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# First heading\n\n## `code`, and more\n\n## First heading\n")
    page = tmp_path / "page.md"
    page.write_text("[a](there.md#first-heading) [b](there.md#code-and-more) [c](gone.md) [d](there.md#second)\n")
    assert [problem(page, link) for link in links(page)][:3] == [None, None, "no such file"]
    assert anchors(tmp_path / "there.md") == {"first-heading", "code-and-more", "first-heading-1"}
    assert problem(page, "there.md#second") is not None
    assert problem(page, "http://example.org/") is not None


def test_every_registered_campaign_and_learner_has_its_options_in_the_reference() -> None:
    headings = anchors(ROOT / "docs" / "configuration.md")
    points = importlib.metadata.distribution("rlctl").entry_points
    registered = {point.name for group in ("rlctl.campaigns", "rlctl.learners") for point in points.select(group=group)}
    assert registered <= headings
