"""A file that a plug-in cannot use is told as the plug-in's, with its place and the path, not as rlctl's own."""

from __future__ import annotations

import errno
import os

import pytest
from hanging_machine import Machine, said

PLACE = r"the plug-in tiny (tests/integration/hanging.py:"
FAILS = {
    "missing": ("/no/such/mesh.h5: ", "(No such file or directory): correct the path, or make the file"),
    "folder": ("/proc: ", "(Is a directory): it is a folder"),
    "forbidden": ("/data/mesh.h5: ", "(Permission denied): choose a place where you may"),
    "full": ("", "fails with OSError (No space left on device): free some space"),
    "refused": ("", "fails with ConnectionRefusedError (Connection refused): look at what it needs there"),
    "pipe": ("", "fails with BrokenPipeError (Broken pipe): look at what it needs there"),
}
COMMANDS = {
    "act": ("evaluate --policy hanging --against cycling", "evaluate --policy hanging --against cycling --workers 2"),
    "apply": (
        "steer --policy cycling --run RUN",
        "evaluate --policy cycling --against hanging",
        "tune hanging --out OUT --generations 1 --instances 2",
    ),
    "on_event": ("steer --policy cycling --run RUN",),
    "outcomes": (
        "evaluate --policy cycling --against hanging",
        "evaluate --policy cycling --against hanging --workers 2",
    ),
    "prepare": ("steer --policy cycling --run RUN",),
    "campaign": ("steer --policy cycling --run RUN", "check"),
}


@pytest.mark.parametrize("how", FAILS)
def test_what_a_plug_in_cannot_use_is_told_with_place_and_path(machine: Machine, how: str) -> None:
    machine.hang("apply", how)
    code, err = machine.command("steer", "--policy", "cycling", "--run", machine.run)
    (line,) = said(err)
    begins, ends = FAILS[how]
    assert code == 2, line
    assert line.startswith(f"rlctl: {begins}{PLACE}"), line
    assert ends in line
    assert "written" not in line


@pytest.mark.parametrize(("place", "command"), [(place, c) for place, commands in COMMANDS.items() for c in commands])
def test_wherever_the_plug_in_is_asked(machine: Machine, place: str, command: str) -> None:
    machine.hang(place, "missing")
    folder = machine.config.parent
    name, *more = command.replace("RUN", str(machine.run)).replace("OUT", str(folder / "rule.yaml")).split()
    rule = more.pop(0) if name == "tune" else ""
    code, err = machine.command(name, *more, first=rule)
    (line,) = said(err)
    assert code == 2, line
    assert "/no/such/mesh.h5" in line
    assert "tiny" in line
    assert "written" not in line


def test_a_full_disk_of_rlctl_itself_is_told_as_before() -> None:
    from rlctl.system.files import storage_error

    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert str(storage_error(error, "runs/a")) == "runs/a: cannot be written (No space left on device): free some space"
