"""Whatever users and programs give becomes strict JSON."""

import enum
import json
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rlctl.core.json_values import json_text, plain
from rlctl.core.task import Failure


class Colour(enum.Enum):
    RED = "red"
    BLUE = 2


@dataclass(frozen=True)
class Holder:
    counts: Counter[str] = field(default_factory=lambda: Counter({"exit": 2}))
    view: MappingProxyType[str, int] = field(default_factory=lambda: MappingProxyType({"a": 1}))


class Mute:
    def __str__(self) -> NoReturn:
        raise RuntimeError("no text")


def strict(text: str) -> Any:
    def refuse(name: str) -> NoReturn:
        raise AssertionError(f"{name} is not JSON")

    value = json.loads(text, parse_constant=refuse)
    text.encode("ascii")
    json.dumps(value, ensure_ascii=False).encode("utf-8")  # no half of a character
    return value


CASES: list[tuple[Any, Any]] = [
    (Counter({"exit": 1}), {"exit": 1}),
    (Holder(), {"counts": {"exit": 2}, "view": {"a": 1}}),
    ({Colour.RED: Colour.BLUE, Failure.EXIT: Failure.LOST}, {"red": 2, "exit": "lost"}),
    ({1: 1, None: 2, 2.5: 3, (1, "a"): 4}, {"1": 1, "null": 2, "2.5": 3, '[1, "a"]': 4}),
    ({True: 5}, {"true": 5}),
    ([np.int64(3), np.float32(0.5), np.bool_(True), np.str_("x")], [3, 0.5, True, "x"]),
    (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
    (np.float64("nan"), None),
    (np.array([1.0, np.inf]), [1.0, None]),
    (np.longdouble(0.5), 0.5),
    ([float("inf"), -float("inf"), float("nan")], [None, None, None]),
    (b"caf\xc3\xa9", "café"),
    (b"\xff", "\\xff"),
    ("run\udcff", "run\\udcff"),
    ("\ud800", "\\ud800"),
    ({"k\udcff": 1}, {"k\\udcff": 1}),
    (Path("/a b"), "/a b"),
    (10**30, 10**30),
    (10**5000, hex(10**5000)),
    ({3}, [3]),
    (deque([1, 2]), [1, 2]),
    (1 + 2j, "(1+2j)"),
    (Mute(), "<Mute>"),
    (np.datetime64("2026-01-02"), "2026-01-02"),
]


def test_every_value_has_a_form() -> None:
    for value, expected in CASES:
        assert strict(json_text(value)) == expected


def test_a_value_that_holds_itself_ends() -> None:
    ring: list[Any] = [1]
    ring += [ring, ring]
    deep: Any = 0
    for _ in range(5000):
        deep = [deep]
    assert strict(json_text({"ring": ring}))["ring"] == [1, "...", "..."]
    assert "..." in json_text(deep)


def test_a_journal_keeps_what_is_not_finite() -> None:
    assert json.loads(json_text([float("inf"), np.float32("-inf")], finite=False)) == [float("inf"), -float("inf")]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.integers() | st.text() | st.floats(), inner) | st.tuples(inner)
        ),
    )
)
def test_anything_becomes_strict_json_and_stays_as_it_is_then(value: Any) -> None:
    once = plain(value)
    assert strict(json_text(value)) == once
    assert plain(once) == once
