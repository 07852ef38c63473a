"""What a task may hold is found out where it is made: converted where only one thing can be meant, else refused."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_values import FIELDS, ODD_VALUES, Colour, Level, comes_to_an_end, spec

from rlctl.core.errors import RequestError
from rlctl.core.machine import Capacity
from rlctl.core.simulation import Simulated
from rlctl.core.task import Failure, Resources, TaskId, TaskSpec
from rlctl.executors import SimulatedExecutor


class Hostile:
    """Whatever is done with it, it raises."""

    def __getattribute__(self, name: str) -> Any:
        raise ZeroDivisionError

    __repr__ = __str__ = __iter__ = __len__ = __bool__ = __eq__ = __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("field", "value", "meant"),
    [
        ("uid", np.str_("b"), "b"),
        ("executable", Path("bin/program"), "bin/program"),
        ("arguments", ["--seed", 3], ("--seed", "3")),
        ("arguments", (np.float32(0.1), np.int64(7), 2.5, Path("x"), b"y"), ("0.1", "7", "2.5", "x", "y")),
        ("arguments", (np.array(3), "", "nicht ganz ü", "a\nb", "\udc80"), ("3", "", "nicht ganz ü", "a\nb", "\udc80")),
        ("arguments", iter("ab"), ("a", "b")),
        ("environment", {"N": 4, "P": Path("x")}, {"N": "4", "P": "x"}),
        ("environment", MappingProxyType({"N": "4"}), {"N": "4"}),
        ("parameters", {"x": np.arange(3), "y": np.float32(0.5)}, {"x": [0, 1, 2], "y": 0.5}),
        ("parameters", OrderedDict(a=[{"b": Path("c")}], c=np.bool_(True)), {"a": [{"b": "c"}], "c": True}),
        ("parameters", {"d": Level.HIGH, "e": Colour.RED}, {"d": 3, "e": "red"}),
        ("parameters", {"x": math.inf}, {"x": math.inf}),
        ("walltime_s", np.float32(9), 9.0),
        ("walltime_s", 9, 9.0),
        ("walltime_s", math.inf, None),
        ("priority", np.int32(2), 2.0),
        ("retries", np.int64(2), 2),
        ("retries", 2.0, 2),
        ("result_file", Path("r.json"), "r.json"),
        ("progress_file", Path("p"), "p"),
        ("failure_codes", [[np.int64(3), "diverged"]], ((3, Failure.DIVERGED),)),
        ("application", np.str_("lammps"), "lammps"),
    ],
)  # fmt: skip
def test_what_can_mean_only_one_thing_is_converted(field: str, value: Any, meant: Any) -> None:
    made = getattr(spec(**{field: value}), field)
    assert made == meant
    assert type(made) is type(meant)
    again = spec(**{field: made})
    assert getattr(again, field) == made


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("uid", 7, "a text"),
        ("uid", None, "a text"),
        ("uid", "", "empty"),
        ("uid", "a\0b", "NUL"),
        ("uid", "\udc80", "UnicodeEncodeError"),
        ("executable", "", "empty"),
        ("executable", 7, "a text"),
        ("arguments", "abc", "a tuple"),
        ("arguments", None, "a tuple"),
        ("arguments", ("x", None), r"arguments\[1\]: None"),
        ("arguments", (True,), "in several ways"),
        ("arguments", (["x"],), "a text"),
        ("arguments", ("a\0",), "NUL"),
        ("arguments", ("\ud800",), "surrogate"),
        ("arguments", (np.arange(2),), "a text"),
        ("environment", {"N": None}, r"environment\['N'\]: None"),
        ("environment", {"A=B": "x"}, "name of a variable"),
        ("environment", {"": "x"}, "empty"),
        ("environment", None, "a mapping"),
        ("environment", {3: "x"}, "a text"),
        ("parameters", {3: "x"}, "the key 3"),
        ("parameters", {"x": {3: 4}}, "the key 3"),
        ("parameters", {"x": {1, 2}}, "JSON"),
        ("parameters", {"x": object()}, "JSON"),
        ("parameters", {"x": b"y"}, "JSON"),
        ("parameters", {"x": 1j}, "JSON"),
        ("parameters", {"x": 10**400}, "too large"),
        ("parameters", {"x": np.array([object()])}, "JSON"),
        ("parameters", None, "a mapping"),
        ("walltime_s", math.nan, "a number"),
        ("walltime_s", 0, "more than 0"),
        ("walltime_s", -1.0, "more than 0"),
        ("walltime_s", "9", "a number"),
        ("walltime_s", True, "a number"),
        ("walltime_s", 10**400, "too large"),
        ("priority", math.nan, "a number"),
        ("priority", None, "a number"),
        ("retries", -1, "a whole number"),
        ("retries", 1.5, "a whole number"),
        ("retries", math.inf, "a whole number|cannot be used"),
        ("retries", True, "a whole number"),
        ("result_file", "", "empty"),
        ("result_file", 3, "a text"),
        ("progress_file", "a\0", "NUL"),
        ("failure_codes", ((3, "no such"),), "failure_codes"),
        ("failure_codes", (3,), "failure_codes"),
        ("failure_codes", 3, "a tuple"),
        ("application", "", "empty"),
        ("pool", 3, "a text"),
        ("resources", {"ranks": 2}, "Resources"),
        ("resources", None, "Resources"),
    ],
)  # fmt: skip
def test_the_rest_is_refused_in_one_line_that_names_task_field_and_value(field: str, value: Any, why: str) -> None:
    with pytest.raises(RequestError, match=why) as refused:
        spec(**{field: value})
    text = str(refused.value)
    assert text.startswith("task ")
    assert f": {field}" in text
    assert "\n" not in text
    assert isinstance(refused.value, ValueError), "for those who know nothing of rlctl"


@pytest.mark.parametrize("name", ["module", "", 3])
def test_a_function_has_a_module(name: Any) -> None:
    with pytest.raises(RequestError, match="function"):
        TaskSpec(TaskId("a"), function=name)


@pytest.mark.parametrize(
    ("options", "meant"),
    [
        ({"ranks": np.int64(2)}, Resources(ranks=2)),
        ({"cores_per_rank": 2.0}, Resources(cores_per_rank=2)),
        ({"gpus_per_rank": 1}, Resources(gpus_per_rank=1.0)),
        ({"memory_per_rank_mb": np.int64(100)}, Resources(memory_per_rank_mb=100)),
        ({"memory_per_rank_mb": 0}, Resources()),
        ({"nodes": np.uint8(1)}, Resources(nodes=1)),
    ],
)
def test_numbers_of_resources_are_those_of_python(options: dict[str, Any], meant: Resources) -> None:
    made = Resources(**options)
    assert made == meant
    assert {type(getattr(made, f.name)) for f in fields(made)} <= {int, float, type(None)}


@pytest.mark.parametrize("value", [None, "2", -1, 1.5, math.nan, math.inf, True, 1j, [1]])
@pytest.mark.parametrize("field", [f.name for f in fields(Resources)])
def test_resources_that_cannot_be_meant_are_refused(field: str, value: Any) -> None:
    if (field in ("memory_per_rank_mb", "nodes") and value is None) or (field == "gpus_per_rank" and value == 1.5):
        return
    with pytest.raises(RequestError, match=field):
        Resources(**{field: value})


def test_a_value_that_is_nested_for_ever_is_refused() -> None:
    round_and_round: list[Any] = []
    round_and_round.append(round_and_round)
    for value in (round_and_round, {"x": round_and_round}):
        with pytest.raises(RequestError, match="nested"):
            spec(parameters={"x": value})


def test_an_object_that_raises_whatever_is_done_with_it_is_refused() -> None:
    for field in (f.name for f in fields(TaskSpec)):
        with pytest.raises(RequestError):
            spec(**{field: Hostile()})
    for place in ({"arguments": (Hostile(),)}, {"parameters": {"x": Hostile()}}, {"environment": {"x": Hostile()}}):
        with pytest.raises(RequestError):
            spec(**place)


class Brief:
    def outcomes(self, launches: Any) -> list[Simulated]:
        return [Simulated(1.0) for _ in launches]


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), ODD_VALUES, min_size=1, max_size=3))
def test_whatever_is_accepted_is_as_it_should_be_and_runs_on_the_twin(options: dict[str, Any]) -> None:
    try:
        made = spec(**options)
    except RequestError:
        return
    again = replace(made)
    assert again == made
    assert type(made.arguments) is tuple
    assert all(type(word) is str for word in made.arguments)
    assert type(made.environment) is type(made.parameters) is dict
    assert json.loads(json.dumps(made.parameters)) is not None
    assert (type(made.priority), type(made.retries)) == (float, int)
    assert made.walltime_s is None or (type(made.walltime_s) is float and 0.0 < made.walltime_s < math.inf)
    assert all(type(code) is int and type(failure) is Failure for code, failure in made.failure_codes)
    with SimulatedExecutor(Capacity(cores=4), Brief(), eager=True) as executor:
        comes_to_an_end(executor, made)
