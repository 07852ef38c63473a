"""Every command that the documentation shows is run, page by page, in a copy of the repository.

A page may install packages: each has a virtual environment of its own, which sees all that this one holds.

Commands are the lines of fenced blocks marked ``shell``, and those after ``$`` in blocks marked ``console``. A comment
in the line before a block says what is special about it:

    <!-- not run: REASON -->   it cannot or need not run here
    <!-- exit 2 -->            it is shown because it fails
    <!-- server -->            it serves a page until it is stopped: started, asked for the page, stopped
    <!-- compare -->           the output must be as shown; "..." stands for anything
"""

import doctest
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
import urllib.request
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
LISTED = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
NOTE = re.compile(r"<!-- (?:(not run): (.+)|(exit) (\d+)|(server)|(compare)) -->")
FENCES = ("shell", "console")
WANTED = {
    "examples/xtb/README.md": "xtb",
    "examples/quantum_chemistry/README.md": "nwchem",
    "examples/gromacs_helix/README.md": "gmx",
}
"""Programs without which a page cannot be run."""


@dataclass(frozen=True)
class Command:
    """One command of a page; ``shown`` is the output below it."""

    line: int
    text: str
    shown: str = ""
    reason: str | None = None
    exit_code: int = 0
    server: bool = False
    compare: bool = False


def files() -> list[str]:
    listed = subprocess.run(LISTED, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return sorted({name for name in listed if name and (ROOT / name).is_file()})


def commands(markdown: str) -> Iterator[Command]:
    """The commands of a page, from the top down."""
    before = ""
    for token in MarkdownIt("commonmark").parse(markdown):
        if token.type == "fence" and token.info.split(" ")[0] in FENCES:
            assert token.map is not None
            yield from _block(token.content, token.map[0] + 2, token.info.startswith("console"), _note(before))
        before = token.content.strip() if token.type == "html_block" else ""


def _note(comment: str) -> dict[str, object]:
    if not comment:
        return {}
    match = NOTE.fullmatch(comment)
    assert match is not None, f"{comment!r} stands before commands and is none of the notes that are known"
    if match[1]:
        return {"reason": match[2]}
    if match[3]:
        return {"exit_code": int(match[4])}
    return {"server": True} if match[5] else {"compare": True}


def _block(content: str, line: int, console: bool, note: dict[str, object]) -> Iterator[Command]:
    lines = list(enumerate(content.splitlines(), line))
    while lines:
        number, text = lines.pop(0)
        if console:
            assert text.startswith("$ "), f"line {number}: output without a command"
            text = text[2:]
        while text.endswith("\\"):
            text = text[:-1] + lines.pop(0)[1].strip()
        shown: list[str] = []
        while console and lines and not lines[0][1].startswith("$ "):
            shown.append(lines.pop(0)[1])
        if text.strip() and not text.lstrip().startswith("#"):
            yield Command(number, text, "\n".join(shown) + "\n", **note)  # type: ignore[arg-type]


def pages() -> list[str]:
    documented = [name for name in files() if re.fullmatch(r"README\.md|(docs|examples|envs|configs)/.*\.md", name)]
    return [name for name in documented if any(True for _ in commands((ROOT / name).read_text()))]


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """A copy of what a clone would hold, with a .venv that sees this one; nothing may run in it afterwards."""
    folder = tmp_path / "rlctl"
    for name in files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    make_environment(folder / ".venv")
    yield folder
    _, alive = psutil.wait_procs(running_in(folder), timeout=20)
    names = [" ".join(process.cmdline()) for process in alive]
    for process in alive:
        process.kill()
    assert not names, f"left running: {names}"


def make_environment(folder: Path) -> None:
    """A virtual environment that has what this one has. What is installed into it is gone with it."""
    venv.create(folder, symlinks=True)
    own = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (own / "shared.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    for program in filter(Path.is_file, Path(sysconfig.get_path("scripts")).iterdir()):
        first, _, rest = program.read_bytes().partition(b"\n")
        if re.fullmatch(rb"#!.*/python[\d.]*", first) and not (folder / "bin" / program.name).exists():
            (folder / "bin" / program.name).write_bytes(f"#!{folder}/bin/python\n".encode() + rest)
            (folder / "bin" / program.name).chmod(0o755)


def running_in(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def started(command: Command, folder: Path) -> subprocess.Popen[str]:
    path = os.pathsep.join([f"{folder}/.venv/bin", str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.Popen(
        ["bash", "-o", "pipefail", "-c", command.text],
        cwd=folder,
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(command: Command, folder: Path) -> None:
    process = started(command, folder)
    try:
        output, _ = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == command.exit_code, f"line {command.line}: {command.text}\n{output}"
    if command.exit_code:
        assert "Traceback" not in output, output
    if command.compare:
        same = doctest.OutputChecker().check_output(
            command.shown, output, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        )
        assert same, f"line {command.line}: {command.text}\nshown:\n{command.shown}\nis:\n{output}"


def serve(command: Command, folder: Path) -> None:
    """Start a server, read the address that it tells, ask for the page, stop it by its process id."""
    process = started(Command(command.line, f"exec {command.text}"), folder)
    limit = threading.Timer(90, process.kill)
    limit.start()
    try:
        assert process.stdout is not None
        told, address = "", None
        for text in process.stdout:
            told += text
            if (address := re.search(r"https?://[\w.-]+:\d+[^\s]*", text)) is not None:
                break
        assert address is not None, f"line {command.line}: {command.text}: no address in\n{told}"
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(address[0], timeout=60) as answer:
            assert answer.status == 200
            assert "<html" in answer.read().decode().lower()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    finally:
        limit.cancel()
        process.kill()
        process.wait()


def _marks(page: str) -> list[pytest.MarkDecorator]:
    missing = page in WANTED and shutil.which(WANTED[page]) is None
    without = pytest.mark.skipif(missing, reason=f"{WANTED.get(page)} is not installed")
    return [without] + [pytest.mark.quick] * (page == "docs/index.md")


PAGES = [pytest.param(page, marks=_marks(page)) for page in pages()]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page_does_what_is_shown(
    page: str, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in commands((ROOT / page).read_text()):
        began = time.monotonic()
        if command.reason is None:
            (serve if command.server else run)(command, checkout)
        took = f"not run: {command.reason}" if command.reason else f"{time.monotonic() - began:.1f} s"
        with capsys.disabled():
            told = f"\n{page}:{command.line}: {command.text.split('  #')[0].strip()}\n    {took}"
            print(told, end="", file=sys.stderr)  # a worker of pytest-xdist has no standard output


def test_commands_are_found_with_what_stands_before_them() -> None:
    page = "\n".join(
        [
            "<!-- exit 2 -->",
            "```shell",
            "# a remark",
            "one --with \\",
            "    two",
            "```",
            "text",
            "",
            "```console",
            "$ three",
            "its output",
            "$ four",
            "```",
            "<!-- not run: needs a cluster -->",
            "```shell",
            "five",
            "```",
            "```python",
            "six",
            "```",
        ]
    )
    found = list(commands(page))
    assert [command.text for command in found] == ["one --with two", "three", "four", "five"]
    assert [command.line for command in found] == [4, 10, 12, 16]
    assert [command.exit_code for command in found] == [2, 0, 0, 0]
    assert found[1].shown == "its output\n"
    assert found[3].reason == "needs a cluster"


def test_a_note_that_is_not_known_is_refused() -> None:
    with pytest.raises(AssertionError, match="none of the notes"):
        list(commands("<!-- exits 2 -->\n```shell\nfalse\n```\n"))


def test_a_command_that_fails_or_shows_something_else_is_found(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="line 1: false"):
        run(Command(1, "false"), tmp_path)
    with pytest.raises(AssertionError, match="shown:"):
        run(Command(1, "echo this", shown="that\n", compare=True), tmp_path)
    run(Command(1, "exit 3", exit_code=3), tmp_path)
    run(Command(1, "echo this and that", shown="this ... that\n", compare=True), tmp_path)
