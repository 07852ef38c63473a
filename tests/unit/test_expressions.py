"""Expressions over named values: what they compute, alike for numbers and arrays, and what is refused."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlctl.config.expressions import Expression
from rlctl.core.errors import ConfigError

NAMES = ["x", "y", "kind", "flag"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x + 2 * y", 7.0),
        ("x / 2 - -y", 3.5),
        ("x ** 2 // 2", 0.0),
        ("7 % y", 1.0),
        ("min(x, y, 0.5)", 0.5),
        ("max(x, y)", 3.0),
        ("sqrt(abs(x - 5)) + log(exp(2))", 4.0),
        ("round(sin(pi / 2))", 1.0),
        ("x < y <= 3", True),
        ("x < y < 3", False),
        ("x == 1 and not y == 1", True),
        ("x > 1 or flag", True),
        ("kind == 'fcc'", True),
        ("kind != 'bcc' and x >= 1", True),
        ("x < inf", True),
    ],
)
def test_what_it_computes(text: str, value: float | bool) -> None:
    found = Expression(text, NAMES)({"x": 1, "y": 3, "kind": "fcc", "flag": True})
    assert found == value
    assert type(found) is type(value)


@given(st.floats(-1e6, 1e6), st.integers(-1000, 1000))
@pytest.mark.parametrize(
    "text", ["x * y - 1 / (x - y)", "x < y <= 3 or not x > 0", "min(x, y) ** 0.5", "log(x) + x / 0 % y"]
)
def test_it_is_the_same_for_a_number_and_in_an_array(text: str, x: float, y: int) -> None:
    expression = Expression(text, ["x", "y"])
    one = expression({"x": x, "y": y})
    many = expression({"x": np.array([x, 0.0, x]), "y": np.array([y, y, y], float)})
    np.testing.assert_array_equal(one, many[0])
    np.testing.assert_array_equal(one, many[2])


def test_roots_of_negative_numbers_and_divisions_by_zero_are_no_errors() -> None:
    assert math.isnan(Expression("x ** 0.5", ["x"])({"x": -1}))
    assert Expression("1 / x", ["x"])({"x": 0}) == math.inf


def test_it_names_what_it_needs() -> None:
    assert Expression("min(x, pi) < y", NAMES).names == {"x", "y"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not an expression"),
        ("x +", "is not an expression: invalid syntax"),
        ("x = 1", "is not an expression"),
        ("x\x00", "is not an expression"),
        ("(" * 500 + "x" + ")" * 500, "is not an expression"),
        ("-" * 900 + "x", "is not an expression"),
        ("x" * 1001, "more than 1000 characters"),
        ("z + 1", "unknown name z; known: "),
        ("flagg", "did you mean 'flag'?"),
        ("sqr(x)", "unknown function sqr; known: abs"),
        ("abs(x, y)", "abs has one argument"),
        ("min()", "min has at least one argument"),
        ("round(x, ndigits=2)", "round has one argument"),
        ("min(*x)", "Starred is not allowed"),
        ("x.real", "Attribute is not allowed"),
        ("x[0]", "Subscript is not allowed"),
        ("[x]", "List is not allowed"),
        ("lambda: x", "Lambda is not allowed"),
        ("x if y else 1", "IfExp is not allowed"),
        ("(y := x)", "NamedExpr is not allowed"),
        ("f'{x}'", "JoinedStr is not allowed"),
        ("x & y", "BitAnd is not allowed in an expression: write and"),
        ("x is y", "Is is not allowed in an expression: write =="),
        ("x << 3", "LShift is not allowed"),
        ("__import__('os')", "unknown function __import__"),
        ("abs(x)(y)", "is not allowed"),
        ("().__class__", "is not allowed"),
    ],
)
def test_what_is_no_expression_is_refused_in_one_line(text: str, said: str) -> None:
    with warnings.catch_warnings(action="error"), pytest.raises(ConfigError) as error:
        Expression(text, NAMES)
    assert said in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert "<unknown>" not in str(error.value)


@pytest.mark.parametrize("text", ["kind * 2", "x < kind", "9.0 ** 9 ** 9 ** 9", "1 / 0"])
def test_what_cannot_be_computed_is_said(text: str) -> None:
    with pytest.raises(ConfigError, match="cannot be computed"):
        Expression(text, NAMES)({"x": 1, "y": 3, "kind": "fcc", "flag": True})


def test_values_stay_as_they_are() -> None:
    x, y = np.array([-1.0, 2.0]), np.array([5.0, 6.0])
    Expression("abs(x) + max(x, y)", ["x", "y"])({"x": x, "y": y})
    assert x.tolist() == [-1.0, 2.0]
    assert y.tolist() == [5.0, 6.0]
