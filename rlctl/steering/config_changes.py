"""Compares the configuration of a run with one that it is to go on with, key by key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rlctl.config.load import config_data
from rlctl.config.schema import Config
from rlctl.core.errors import ConfigError, Key, brief
from rlctl.core.json_values import leaves
from rlctl.steering.run_folder import portable

FREE = ("steer", "executor.options", "policies", "train", "evaluate", "benchmark", "twin")
"""Keys that the campaign does not depend on; with all below them, like those of ``CampaignFactory.changeable``."""

_EXECUTOR = "executor.name"


@dataclass(frozen=True, slots=True)
class ConfigChange:
    """A key with two values; None: it is not there."""

    key: Key
    before: Any
    after: Any

    @property
    def name(self) -> str:
        """The key as people write it."""
        return ".".join(self.key)

    def __str__(self) -> str:
        return f"{self.name} {_shown(self.after)} instead of {_shown(self.before)}"


def config_changes(before: Config, after: Config) -> list[ConfigChange]:
    """Keys whose values differ, in the order of the file."""
    ones, others = _values(before), _values(after)
    keys = dict.fromkeys([*ones, *others])
    return [ConfigChange(key, ones.get(key), others.get(key)) for key in keys if ones.get(key) != others.get(key)]


def require_changeable(
    run: Path, changes: Iterable[ConfigChange], changeable: Iterable[str], unfinished: int = 0
) -> bool:
    """Refuse changes by which earlier evaluations and later ones would not belong together.

    Args:
        run: the run folder, for messages.
        changes: of its configuration.
        changeable: see ``CampaignFactory``.
        unfinished: tasks that a former controller has left, and that may still run.

    Returns:
        whether the campaign has to take any of them over.

    Raises:
        ConfigError: a key may not change.
    """
    changeable, extends = tuple(changeable), False
    for change in changes:
        if _among(change.name, FREE) or (change.name == _EXECUTOR and not unfinished):
            continue
        if not _among(change.name, changeable):
            raise ConfigError(_refusal(run, change, changeable, unfinished), change.key)
        extends = True
    return extends


def _among(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*") for pattern in patterns)


def _refusal(run: Path, change: ConfigChange, changeable: tuple[str, ...], unfinished: int) -> str:
    began = f"{run} was started with {_shown(change.before)}, not {_shown(change.after)}"
    if change.name == _EXECUTOR:
        return f"{began}, and {unfinished} of its tasks may still run there: resume it once unchanged"
    new = "start a new run"
    if "campaign.options.known" in changeable:
        new += f", which may begin with its results (campaign.options.known: {run.absolute()})"
    return f"{began}, and its evaluations would not belong together: resume it unchanged, or {new}"


def _values(config: Config) -> dict[Key, Any]:
    return dict(_leaves(config_data(portable(config))))


def _leaves(data: dict[str, Any]) -> Iterator[tuple[Key, Any]]:
    """As ``leaves``, lists whole, without keys that are null."""
    for key, value in leaves(data, lists=False):
        if value is not None:
            yield tuple(map(str, key)), value


def _shown(value: Any) -> str:
    return "null" if value is None else brief(value)
