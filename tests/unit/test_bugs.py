"""Whose code raised an exception: the one function that decides whom a message names."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from rlctl.core.task import event_from_json
from rlctl.system import crash_report

CODE = """
import json
from rlctl.core.task import TaskId, TaskSpec
def opens(path): return open(path)
def parses(path): return json.loads(path)
def evaluates(path): return eval("open(path)", globals(), {"path": path})
def asks(function): return function({})

def builds(): return TaskSpec(TaskId("a"))
"""


@pytest.fixture
def code(tmp_path: Path) -> ModuleType:
    file = tmp_path / "films" / "rule.py"
    file.parent.mkdir()
    file.write_text(CODE)
    module = ModuleType("films_rule")
    exec(compile(CODE, str(file), "exec"), module.__dict__)
    return module


def raised(function: Callable[..., object], *arguments: object) -> Exception:
    """What a call raises, with the traceback that rlctl would see: this file is not in it."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 -- whichever
        function(*arguments)
    assert caught.tb is not None
    return caught.value.with_traceback(caught.tb.tb_next)


@pytest.mark.parametrize(("name", "line"), [("opens", 4), ("parses", 5), ("evaluates", 6)])
def test_code_beside_the_experiment_is_named_by_file_and_line(
    code: ModuleType, name: str, line: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = crash_report.origin(raised(getattr(code, name), "no such file"))
    assert str(found) == f"films/rule.py:{line}"
    assert not found.rlctl


def test_what_rlctl_raises_is_its_own_and_what_its_constructors_refuse_is_the_callers(code: ModuleType) -> None:
    assert crash_report.origin(raised(event_from_json, {})).rlctl
    assert crash_report.origin(raised(code.asks, event_from_json)).rlctl
    assert crash_report.origin(raised(code.builds)).place.endswith("rule.py:9")


def test_an_installed_library_is_named_only_where_it_registers_or_is_given(tmp_path: Path) -> None:
    module = ModuleType("balance.env")
    exec(compile(CODE, str(tmp_path / "site-packages" / "balance" / "env.py"), "exec"), module.__dict__)
    error = raised(module.opens, tmp_path / "nothing")
    assert crash_report.origin(error).rlctl
    assert crash_report.origin(error, ["balance"]).place.endswith("balance/env.py:4")


def test_the_origin_outlives_a_pickle(code: ModuleType) -> None:
    error = raised(code.opens, "no such file")
    crash_report.remember_origin(error)
    sent = pickle.loads(pickle.dumps(error))
    assert sent.__traceback__ is None
    assert crash_report.origin(sent) == crash_report.origin(error)


def test_compiled_code_of_a_library_is_no_users() -> None:
    assert crash_report.origin(raised(np.random.default_rng(0).normal, 0.0, -1.0)).rlctl
