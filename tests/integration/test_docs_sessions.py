"""The Python sessions of the documentation give what they show."""

import doctest
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SESSIONS = [str(page.relative_to(ROOT)) for page in PAGES if "```pycon" in page.read_text()]


@pytest.mark.parametrize("name", SESSIONS)
def test_python_sessions_give_what_they_show(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All sessions of a page are one, from the top of the page down."""
    monkeypatch.chdir(ROOT)
    fences = [
        token
        for token in MarkdownIt("commonmark").enable("table").parse((ROOT / name).read_text())
        if token.type == "fence" and token.info == "pycon"
    ]
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    names: dict[str, object] = {"__name__": "__main__"}
    for fence in fences:
        assert fence.map is not None
        test = parser.get_doctest(fence.content, names, name, name, fence.map[0] + 1)
        assert test.examples
        test.globs = names
        result = runner.run(test, clear_globs=False)
        assert result.failed == 0, f"{name}, line {fence.map[0] + 1}: see the output above"


def test_keys_are_described_in_words() -> None:
    """The doctests of the extension that lists keys, in a process of its own: Sphinx is not loaded into this one."""
    extension = ROOT / "docs" / "_ext" / "field_text.py"
    done = subprocess.run(
        [sys.executable, "-m", "doctest", "-v", str(extension)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "Test passed" in done.stdout
