"""Values of all kinds for the fields of a task: each is refused at once, or the task ends and the next one runs."""

from __future__ import annotations

from dataclasses import fields, replace
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from rlctl.core.errors import RlctlError
from rlctl.core.task import TaskId, TaskSpec
from rlctl.executors import TaskFailed


class Level(IntEnum):
    HIGH = 3


class Colour(StrEnum):
    RED = "red"


def spec(**options: Any) -> TaskSpec:
    return TaskSpec(**{"uid": TaskId("a"), "executable": "true", **options})


ODD_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(), max_size=8),
    st.binary(max_size=8),
    st.sampled_from(
        [Path("x"), Path("../x"), "/dev/null", "..", ".", "results", "logs", ".lease", 10**400, 1e308, np.float32(1),
         np.int64(2), np.arange(3), np.array(2.5), {1, 2}, 1j, object(), Level.HIGH, Colour.RED, {3: 4}, ("x", 1)]
    ),
    st.lists(st.one_of(st.none(), st.integers(), st.text(st.characters(), max_size=4)), max_size=3),
    st.dictionaries(st.text(max_size=3), st.one_of(st.none(), st.integers(), st.text(max_size=3)), max_size=2),
)  # fmt: skip
FIELDS = sorted({f.name for f in fields(TaskSpec)} - {"executable", "function"})


def comes_to_an_end(executor: Any, made: TaskSpec) -> None:
    try:
        future = executor.submit_task(made)
    except RlctlError:
        return
    error = future.exception(60)
    assert error is None or isinstance(error, TaskFailed), error
    assert executor.submit_task(replace(spec(), uid=TaskId(f"{made.uid} next"))).exception(60) is None
