"""Placeholders: formats, delimiters of other languages, what is taken literally, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from rlctl.core.errors import ConfigError
from rlctl.programs.placeholders import BRACES, Delimiters, names, render, words

VALUES: dict[str, Any] = {"x": 0.1 + 0.2, "n": 3, "kind": "fcc", "flags": ["--gfn", 2], "on": True}


@pytest.mark.parametrize(
    ("text", "delimiters", "shown"),
    [
        ("x={x} n={n}", BRACES, "x=0.30000000000000004 n=3"),
        ("{x:.3f}|{x:.2e}|{n:04d}|{kind:>5}", BRACES, "0.300|3.00e-01|0003|  fcc"),
        ("{{n}} {{n:04d}}", BRACES, "{n} {n:04d}"),
        ('{"a": {"b": 1}, "n": {n}}', BRACES, '{"a": {"b": 1}, "n": 3}'),
        ("{} { n } {0} {1,2}", BRACES, "{} { n } {0} {1,2}"),
        (r"\frac{1}{2} <<x:.1f>>", ("<<", ">>"), r"\frac{1}{2} 0.3"),
        (r"\textbf{n} @n@", ("@", "@"), r"\textbf{n} 3"),
        ("${n} $n {n} ${x:.1f}", ("${", "}"), "3 $n {n} 0.3"),
        ("      REAL X(10) = %x:12.5E%", ("%", "%"), "      REAL X(10) =  3.00000E-01"),
        ("{{n}} [[n]]", ("[[", "]]"), "{{n}} 3"),
        ("{flags} {on}", BRACES, "--gfn 2 True"),
    ],
)
def test_what_is_replaced_and_what_is_not(text: str, delimiters: Delimiters, shown: str) -> None:
    assert render(text, VALUES, delimiters) == shown


def test_names_are_those_that_would_be_replaced() -> None:
    assert list(names("{a} {{b}} {c:.3f} {'d': 1} {a}")) == ["a", "c", "a"]
    assert list(names("<<a>> {b}", ("<<", ">>"))) == ["a"]


@pytest.mark.parametrize(
    ("command", "called"),
    [
        (["xtb", "{flags}"], ["xtb", "--gfn", "2"]),
        (["xtb", "{flags:>4}"], ["xtb", "--gfn", "   2"]),
        (["xtb", "a{flags}"], ["xtb", "a--gfn 2"]),
        (["{kind}", "{{flags}}"], ["fcc", "{flags}"]),
    ],
)
def test_a_list_becomes_several_words_of_a_command(command: list[str], called: list[str]) -> None:
    assert words(command, {**VALUES, "flags": ["--gfn", "2"]}) == called


def test_an_empty_list_becomes_no_word() -> None:
    assert words(["xtb", "{flags}"], {"flags": []}) == ["xtb"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{z}", "placeholder {z} is not defined; known: flags, kind, n, on, x"),
        ("{kind:.3f}", "placeholder {kind:.3f} with the value 'fcc': "),
        ("{x:d}", "placeholder {x:d} with the value 0.3"),
        ("{n:zz}", "placeholder {n:zz} with the value 3"),
    ],
)
def test_what_cannot_be_replaced_is_said(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        render(text, VALUES)
    assert said in str(error.value)
