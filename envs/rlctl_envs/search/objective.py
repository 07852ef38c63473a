"""What a search looks for: a least or greatest value, a Pareto front, or results that fulfil a condition."""

from __future__ import annotations

import ast
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from rlctl.config.expressions import Expression
from rlctl.core.errors import ConfigError
from rlctl_envs.search.parameters import SearchSection

Texts = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]


class ObjectiveOptions(SearchSection):
    """What is looked for, in expressions over results and parameters. Several objectives make a Pareto front.

    Attributes:
        minimize: objectives that should be small.
        maximize: objectives that should be large.
        find: condition, comparisons joined by ``and``; excludes objectives. ``until.found`` says how many are wanted.
        subject_to: comparisons that results have to fulfil.
    """

    minimize: Texts = Field(default_factory=list, max_length=3)
    maximize: Texts = Field(default_factory=list, max_length=3)
    find: str | None = None
    subject_to: Texts = Field(default_factory=list, max_length=16)

    @model_validator(mode="after")
    def _one_aim(self) -> ObjectiveOptions:
        count = len(self.minimize) + len(self.maximize)
        if (self.find is None) == (count == 0) or count > 3:
            raise ValueError("give one to three objectives to minimize or maximize, or a condition to find")
        return self


@dataclass(frozen=True, slots=True)
class Assessment:
    """What the results of an evaluation are worth.

    Attributes:
        losses: the objectives, each to be minimized; empty where a condition is looked for.
        margins: of constraints and conditions: not negative where they are fulfilled.
    """

    losses: tuple[float, ...]
    margins: tuple[float, ...]

    @property
    def feasible(self) -> bool:
        """Whether all constraints and conditions are fulfilled."""
        return all(margin >= 0.0 for margin in self.margins)


def mean(assessments: Sequence[Assessment]) -> Assessment:
    """Of repeated evaluations of a point."""
    if len(assessments) == 1:
        return assessments[0]
    losses = np.mean([assessment.losses for assessment in assessments], axis=0)
    margins = np.mean([assessment.margins for assessment in assessments], axis=0)
    return Assessment(tuple(losses.tolist()), tuple(margins.tolist()))


class SearchObjective:
    """Assesses results.

    Args:
        options: as given.
        known: names of results and parameters.

    Raises:
        ConfigError: an expression cannot be understood.
    """

    def __init__(self, options: ObjectiveOptions, known: Collection[str]) -> None:
        self._signed = [(1.0, Expression(text, known)) for text in options.minimize]
        self._signed += [(-1.0, Expression(text, known)) for text in options.maximize]
        self.names = [*options.minimize, *options.maximize]
        self.finds = options.find is not None
        conditions = _conjuncts(options.find) if options.find is not None else []
        self._margins = [_margin(text, known) for text in [*options.subject_to, *conditions]]

    @property
    def conditions(self) -> int:
        """Number of margins."""
        return len(self._margins)

    @property
    def uses(self) -> frozenset[str]:
        """Names of the results and parameters that it reads."""
        expressions = [*(expression for _, expression in self._signed), *self._margins]
        return frozenset(name for expression in expressions for name in expression.names)

    @property
    def signs(self) -> list[float]:
        """1 for each objective that is minimized, -1 for one that is maximized."""
        return [sign for sign, _ in self._signed]

    def assess(self, values: Mapping[str, Any]) -> Assessment:
        """Assess results and parameters.

        Raises:
            ConfigError: an expression cannot be computed, or is no finite number.
        """
        losses = tuple(sign * _finite(expression, values) for sign, expression in self._signed)
        return Assessment(losses, tuple(_finite(margin, values) for margin in self._margins))


def _finite(expression: Expression, values: Mapping[str, Any]) -> float:
    value = float(expression(values))
    if not math.isfinite(value):
        raise ConfigError(f"{expression.text} is {value}")
    return value


def _conjuncts(text: str) -> list[str]:
    """The comparisons that ``and`` joins, chains taken apart.

    >>> _conjuncts("0 < x < 1 and y > 2")
    ['0 < x', 'x < 1', 'y > 2']
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ConfigError(f"{text!r} is not an expression: {error}") from None
    parts = tree.values if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And) else [tree]
    found = []
    for part in parts:
        if not isinstance(part, ast.Compare):
            raise ConfigError(f"{text!r}: should be comparisons such as x < 1, joined by and")
        sides = [part.left, *part.comparators]
        for left, operator, right in zip(sides, part.ops, sides[1:], strict=False):
            found.append(ast.unparse(ast.Compare(left, [operator], [right])))
    return found


def _margin(text: str, known: Collection[str]) -> Expression:
    """How far a comparison is from being false."""
    Expression(text, known)  # names unknown names in the user's own text
    tree = ast.parse(text.strip(), mode="eval").body
    if (
        not isinstance(tree, ast.Compare)
        or len(tree.ops) != 1
        or not isinstance(tree.ops[0], ast.Lt | ast.LtE | ast.Gt | ast.GtE)
    ):
        raise ConfigError(f"{text!r}: should be a comparison by <, <=, > or >=")
    left, right = ast.unparse(tree.left), ast.unparse(tree.comparators[0])
    larger, smaller = (right, left) if isinstance(tree.ops[0], ast.Lt | ast.LtE) else (left, right)
    return Expression(f"({larger}) - ({smaller})", known)


def pareto_front(losses: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows no other row dominates, that is, is as good in all columns and better in one.

    >>> pareto_front(np.array([[1.0, 2.0], [2.0, 1.0], [2.0, 2.0]])).tolist()
    [True, True, False]
    """
    no_worse = np.all(losses[:, None] <= losses[None], axis=2)
    better = np.any(losses[:, None] < losses[None], axis=2)
    return np.asarray(~np.any(no_worse & better, axis=0))


def scalarized(losses: NDArray[np.float64], weights: Sequence[float]) -> NDArray[np.float64]:
    """One loss of several, by the augmented Chebyshev function of ParEGO (Knowles 2006, doi:10.1109/TEVC.2005.851274).

    Args:
        losses: [n, objectives].
        weights: of the objectives, which sum to 1.
    """
    low, high = losses.min(0), losses.max(0)
    weighted = (losses - low) / np.where(high > low, high - low, 1.0) * np.asarray(weights)
    result: NDArray[np.float64] = weighted.max(1) + 0.05 * weighted.sum(1)
    return result
