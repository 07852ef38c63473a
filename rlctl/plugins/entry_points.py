"""Loads entry points of packages; errors name the package."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rlctl.config.validation import did_you_mean
from rlctl.core.errors import ConfigError, Key, RlctlError, brief, reason

CAMPAIGNS, POLICIES, EXECUTORS, LEARNERS = "rlctl.campaigns", "rlctl.policies", "rlctl.executors", "rlctl.learners"
PLACEMENTS = "rlctl.placements"
_WHAT = {
    CAMPAIGNS: "campaign",
    POLICIES: "rule",
    EXECUTORS: "executor",
    LEARNERS: "algorithm",
    PLACEMENTS: "placement",
}


@dataclass(frozen=True, slots=True)
class Registered:
    """A loaded entry point.

    Attributes:
        package: distribution that registers it, as in ``pip list``.
        found: the class or function.
    """

    group: str
    name: str
    package: str
    value: str
    found: Any

    def __str__(self) -> str:
        return f"{_WHAT[self.group]} {self.name!r} of package {self.package} ({self.value})"

    def make(self, *options: Any) -> Any:
        """Call the class or function with its options; a learner with the whole configuration."""
        try:
            return self.found(*options)
        except RlctlError:
            raise
        except Exception as error:
            raise ConfigError(f"{self} cannot be made: {reason(error)}") from error

    def require(self, made: Any, names: Iterable[str], hint: str) -> None:
        """Raise ConfigError if an attribute is missing in what ``make`` returned."""
        missing = next((name for name in names if not hasattr(made, name)), None)
        if missing is not None:
            raise ConfigError(f"{self} has no {missing!r}, which each {_WHAT[self.group]} must have; {hint}")


def names(group: str) -> list[str]:
    """Names in a group, in alphabetical order."""
    return sorted({point.name for point in importlib.metadata.entry_points(group=group)})


def load(group: str, name: str, key: Key | None = None) -> Registered:
    """Load an entry point; ``key`` is that of its name in the configuration."""
    what = _WHAT[group]
    points = sorted(importlib.metadata.entry_points(group=group, name=name), key=_package)
    if not points:
        raise ConfigError(f"unknown {what} {brief(name)}; {did_you_mean(name, names(group))}", key)
    if len(points) > 1:
        packages = " and ".join(_package(point) for point in points)
        raise ConfigError(
            f"{what} {name!r} is registered by the packages {packages}: uninstall all but one of them", key
        )
    point = points[0]
    try:
        return Registered(group, name, _package(point), point.value, point.load())
    except Exception as error:  # code of another package
        package = _package(point)
        raise ConfigError(
            f"{what} {name!r} of package {package} ({point.value}) cannot be loaded: {reason(error)}", key
        ) from error


def _package(point: importlib.metadata.EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "unknown"
