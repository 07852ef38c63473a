"""Arithmetic and logic over named values, such as ``x + 2 * y <= 3``, for numbers and, alike, for arrays of them."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Collection, Mapping
from functools import reduce
from types import CodeType
from typing import Any

import numpy as np

from rlctl.config.validation import did_you_mean
from rlctl.core.errors import ConfigError, one_line

FUNCTIONS = {
    "abs": np.abs, "sqrt": np.sqrt, "exp": np.exp, "log": np.log, "log10": np.log10, "sin": np.sin, "cos": np.cos,
    "tan": np.tan, "floor": np.floor, "ceil": np.ceil, "round": np.round,
    "min": lambda *values: reduce(np.minimum, values), "max": lambda *values: reduce(np.maximum, values),
}  # fmt: skip
CONSTANTS = {"pi": np.pi, "inf": np.inf, "True": True, "False": False}
_SEVERAL = ("min", "max")
"""Functions of several arguments; the others have one."""

_ALLOWED = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Call, ast.Name, ast.Load, ast.Constant,
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.USub, ast.UAdd, ast.Not, ast.And, ast.Or,
    ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
)  # fmt: skip
_INSTEAD = {"BitAnd": "and", "BitOr": "or", "BitXor": "**", "Invert": "not", "Is": "==", "IsNot": "!="}
_LONGEST = 1000


class Expression:
    """An expression over names, in Python's syntax.

    >>> Expression("x + 2 * y <= 3 and not z", ["x", "y", "z"])({"x": 1, "y": 1, "z": False})
    True

    Args:
        text: the expression.
        known: names that have values.

    Raises:
        ConfigError: it is no such expression, or names something unknown.
    """

    def __init__(self, text: str, known: Collection[str]) -> None:
        self.text = text
        try:
            if len(text) > _LONGEST:
                raise SyntaxError(f"it has more than {_LONGEST} characters")
            with warnings.catch_warnings(action="ignore"):
                tree = ast.parse(text.strip(), mode="eval")
                self.names = self._check(tree, set(known))
                tree = ast.fix_missing_locations(_Elementwise().visit(tree))
                self._code: CodeType = compile(tree, "<expression>", "eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            why = error.msg if isinstance(error, SyntaxError) else str(error)
            hint = "; == compares" if re.search(r"(?<![<>=!])=(?!=)", text) else ""
            raise ConfigError(f"{one_line(text, 60)!r} is not an expression: {one_line(why)}{hint}") from None

    def __call__(self, values: Mapping[str, Any]) -> Any:
        """Its value; arrays among the values give an array.

        Raises:
            ConfigError: it cannot be computed for these values, e.g. as they are texts.
        """
        try:
            with np.errstate(all="ignore"):
                floats = {name: _float(value) for name, value in values.items()}
                result = eval(self._code, {"__builtins__": {}, **FUNCTIONS, **CONSTANTS, **_LOGIC}, floats)
        except Exception as error:
            raise ConfigError(f"{self.text!r} cannot be computed: {one_line(str(error))}") from None
        return result.item() if isinstance(result, np.generic) else result

    def _check(self, tree: ast.AST, known: set[str]) -> frozenset[str]:
        names, functions = set[str](), set[ast.AST]()
        for node in ast.walk(tree):
            if not isinstance(node, _ALLOWED) or (isinstance(node, ast.Call) and not isinstance(node.func, ast.Name)):
                kind = type(node).__name__
                advice = f": write {_INSTEAD[kind]}" if kind in _INSTEAD else ""
                raise ConfigError(f"{self.text!r}: {kind} is not allowed in an expression{advice}")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                functions.add(node.func)
                if node.keywords or (len(node.args) != 1 and (not node.args or node.func.id not in _SEVERAL)):
                    most = "at least one argument" if node.func.id in _SEVERAL else "one argument"
                    raise ConfigError(f"{self.text!r}: {node.func.id} has {most}")
        for node in ast.walk(tree):
            if not isinstance(node, ast.Name):
                continue
            if node in functions:
                if node.id not in FUNCTIONS:
                    raise ConfigError(f"{self.text!r}: unknown function {node.id}; {did_you_mean(node.id, FUNCTIONS)}")
            elif node.id not in {*known, *CONSTANTS}:
                raise ConfigError(f"{self.text!r}: unknown name {node.id}; {did_you_mean(node.id, known)}")
            else:
                names.add(node.id)
        return frozenset(names - set(CONSTANTS))


def _float(value: Any) -> Any:
    """Numbers as NumPy has them, so that 1 / 0 and the root of -1 are the same as in arrays."""
    return np.float64(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


class _Elementwise(ast.NodeTransformer):
    """Turns ``and``, ``or``, ``not`` and chained comparisons into functions that work on arrays too, and integers into
    floats, whose powers are of bounded size.
    """

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant(float(node.value)) if type(node.value) is int else node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        return _call("_all" if isinstance(node.op, ast.And) else "_any", node.values)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        return _call("_not", [node.operand]) if isinstance(node.op, ast.Not) else node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        sides = [node.left, *node.comparators]
        pairs = [ast.Compare(left, [op], [right]) for left, op, right in zip(sides, node.ops, sides[1:], strict=False)]
        return pairs[0] if len(pairs) == 1 else _call("_all", list(pairs))


def _call(name: str, arguments: list[Any]) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), arguments, [])


_LOGIC = {
    "_all": lambda *values: reduce(np.logical_and, values),
    "_any": lambda *values: reduce(np.logical_or, values),
    "_not": np.logical_not,
}
