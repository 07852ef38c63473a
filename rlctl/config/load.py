"""Reads, overrides, writes and hashes the configuration of an experiment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import yaml
from pydantic import BaseModel

from rlctl.config.schema import Config, RuleFile
from rlctl.config.validation import validated
from rlctl.config.yaml_source import Source, parse, read_mapping
from rlctl.core.errors import ConfigError, Key, brief
from rlctl.core.json_values import digest, plain


@runtime_checkable
class HasOptions(Protocol):
    """A factory with validated options."""

    options: Any


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read an experiment from a YAML file.

    Args:
        path: the file.
        overrides: changes to the file, each ``"a.b=value"`` with the value written as in YAML.

    Raises:
        ConfigError: one line that names the file, the line and the key.
    """
    path = Path(path)
    data, lines = read_mapping(path)
    source = Source(path, lines, tuple(_override(data, override) for override in overrides))
    with source.located():
        config = validated(Config, data)
    config._source = source
    return config


def load_rule_file(path: Path) -> RuleFile:
    """Read a rule file, which ``rlctl tune`` writes; errors are as in ``load_config``."""
    data, lines = read_mapping(path)
    source = Source(path, lines)
    with source.located():
        rule = validated(RuleFile, data)
    rule._source = source
    return rule


def config_hash(config: Config) -> str:
    """SHA-256 of the configuration's content; independent of path, layout and order of keys."""
    return digest(config_data(config))


def game_hash(config: Config, factory: Any) -> str:
    """SHA-256 of campaign, campaign version, campaign options and machine.

    Policies and rules are trained or tuned for these; the rest of the configuration does not enter.

    Args:
        factory: of the campaign or environment; its ``options``, if they are a pydantic model, include the defaults.
    """
    options = config.campaign.options
    if isinstance(factory, HasOptions) and isinstance(factory.options, BaseModel):
        options = factory.options.model_dump(mode="json")
    game = {"campaign": factory.name, "version": factory.version, "options": options}
    game["machine"] = config.machine.model_dump(mode="json")
    return digest(game)


def config_data(config: Config) -> dict[str, Any]:
    """The configuration as a mapping that JSON can hold, defaults included."""
    return config.model_dump(mode="json", by_alias=True, fallback=plain)


def write_config(config: Config, path: Path) -> None:
    """Write the configuration as YAML, defaults and overrides included."""
    path.write_text(yaml.safe_dump(config_data(config), sort_keys=False))


def _override(data: dict[str, Any], override: str) -> Key:
    """Apply one ``--set`` to ``data``; returns the key that it changes."""
    name, equals, text = override.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {override}: write KEY=VALUE, e.g. --set train.decisions=10000")
    for part in parts[:-1]:
        if data.get(part) is None:
            data[part] = {}
        data = data[part]
        if not isinstance(data, dict):
            raise ConfigError(f"--set {override}: {part} is not a section, its value is {brief(data)}")
    data[parts[-1]] = parse(text, f"--set {override}")
    return tuple(parts)
