"""What never answers does not hang rlctl: it is named after its time limit, and signals to stop get through."""

from __future__ import annotations

import signal
import subprocess
import time

import forms
import hanging
import pytest
from hanging_machine import Machine, said

from rlctl.executors.event_log import Journal

EVALUATE = ("evaluate", "--policy", "hanging", "--against", "cycling")


@pytest.mark.parametrize("how", hanging.HANGS)
def test_a_rule_that_never_answers_ends_a_comparison_with_one_line(machine: Machine, how: str) -> None:
    machine.hang("act", how)
    code, err = machine.command(*EVALUATE)
    assert (code, len(said(err))) == (2, 1), err
    assert "policy hanging has not answered decision 2 of instance" in err
    assert "within 1 s" in err
    assert "evaluate.decision_timeout_s" in err
    if how in ("loop", "sleep", "lock", "network"):
        assert "hanging.py:" in err


@pytest.mark.parametrize("how", hanging.HANGS)
def test_a_rule_that_never_answers_stops_the_campaign_which_goes_on_once_it_does(machine: Machine, how: str) -> None:
    machine.hang("act", how)
    steer = ("steer", "--policy", "hanging", "--run", machine.run)
    code, err = machine.command(*steer)
    assert (code, len(said(err))) == (3, 1), err
    assert "policy hanging has not answered decision 2 within 1 s" in err
    assert "steer.decision_timeout_s" in err
    with Journal.open(machine.run / "journal.db", read_only=True) as journal:
        (braked,) = [record for record in journal.records() if record.kind == "braked"]
    assert "has not answered decision 2" in braked.data["reason"]
    assert not machine.alive()
    (machine.config.parent / "cured").touch()
    code, err = machine.command(*steer, "--resume")
    assert code == 0, err


def test_a_fallback_answers_instead_three_times(machine: Machine) -> None:
    machine.hang("act", "loop")
    steer = ("steer", "--policy", "hanging", "--run", machine.run, "--set", "steer.fallback=cycling")
    code, err = machine.command(*steer)
    assert code == 3, err
    with Journal.open(machine.run / "journal.db", read_only=True) as journal:
        reasons = [record.data["reason"] for record in journal.records() if record.kind == "fallback"]
    assert reasons == ["timeout", "timeout"]  # the third time is the last


@pytest.mark.parametrize("place", ["apply", "on_event"])
def test_a_campaign_that_never_answers_stops(machine: Machine, place: str) -> None:
    machine.hang(place, "sleep")
    code, err = machine.command("steer", "--policy", "cycling", "--run", machine.run)
    assert (code, len(said(err))) == (3, 1), err
    assert f"the campaign has not answered {place}()" in err
    code, err = machine.command("evaluate", "--policy", "cycling", "--against", "hanging")
    assert (code, len(said(err))) == (2, 1), err
    assert f"the campaign has not answered {place}()" in err


@pytest.mark.parametrize(("command", "place"), forms.pairs(["check", "tune", "evaluate"], ["act", "apply", "outcomes"]))
def test_what_hangs_is_named_wherever_the_twin_is_played(machine: Machine, command: str, place: str) -> None:
    machine.hang(place, "loop")
    more: tuple[object, ...] = ("--play",)
    if command == "evaluate":
        more = ("--policy", "hanging", "--against", "cycling", "--workers", 2)
    elif command == "tune":
        more = ("--out", machine.config.parent / "rule.yaml", "--generations", 1, "--instances", 2)
    code, err = machine.command(command, *more, first="hanging" if command == "tune" else "")
    assert (code, len(said(err))) == (2, 1), err
    assert {"act": "policy hanging", "apply": "the campaign", "outcomes": "the task model"}[place] in err


def launch_and_hang(machine: Machine, command: str, how: str) -> subprocess.Popen[str]:
    machine.limit(1000.0)
    machine.hang("act", how)
    marker = machine.config.parent / "hangs"
    machine.environment["HANG_MARK"] = str(marker)
    more = ("--run", machine.run) if command == "steer" else ("--against", "cycling")
    process = machine.launch(command, "--policy", "hanging", *more)
    end_s = time.monotonic() + 60.0
    while not marker.exists():
        assert time.monotonic() < end_s
        time.sleep(0.01)
    return process


@pytest.mark.parametrize(("command", "how"), forms.pairs(["evaluate", "steer"], list(hanging.HANGS)))
def test_a_signal_to_stop_gets_through_whatever_hangs(machine: Machine, command: str, how: str) -> None:
    process = launch_and_hang(machine, command, how)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    if command == "steer":
        (machine.config.parent / "cured").touch()
        code, err = machine.command("steer", "--policy", "hanging", "--run", machine.run, "--resume")
        assert code == 0, err


@pytest.mark.parametrize("command", ["evaluate", "steer"])
def test_a_second_signal_kills_where_c_code_holds_the_interpreter_lock(machine: Machine, command: str) -> None:
    process = launch_and_hang(machine, command, "lock_of_python")
    time.sleep(0.5)  # the marker is made just before the call
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.0)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == -signal.SIGTERM
