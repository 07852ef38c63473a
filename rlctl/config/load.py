"""The configuration of an experiment: read, overridden, written down, told apart by its hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from rlctl.config.messages import check_options, did_you_mean, shown, validated
from rlctl.config.provenance import provenance
from rlctl.config.schema import (
    SCHEMA,
    CampaignSection,
    Config,
    EvaluateSection,
    ExecutorSection,
    MachineSection,
    RuleEntry,
    RuleFile,
    SteerSection,
    TrainSection,
)
from rlctl.config.yaml_source import Source, parse, read_mapping
from rlctl.core.errors import ConfigError, Key
from rlctl.core.json_values import plain

__all__ = [
    "SCHEMA",
    "CampaignSection",
    "Config",
    "EvaluateSection",
    "ExecutorSection",
    "MachineSection",
    "RuleEntry",
    "RuleFile",
    "SteerSection",
    "TrainSection",
    "check_options",
    "config_data",
    "config_hash",
    "did_you_mean",
    "game_hash",
    "load_config",
    "load_rule_file",
    "provenance",
    "read_yaml",
    "shown",
    "write_config",
]


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read an experiment from a YAML file.

    Args:
        path: the file.
        overrides: ``"a.b=value"`` each, the value written as in YAML; they win over the file.

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
    """Read a tuned rule.

    Raises:
        ConfigError: one line that names the file, the line and the key.
    """
    data, lines = read_mapping(path)
    source = Source(path, lines)
    with source.located():
        rule = validated(RuleFile, data)
    rule._source = source
    return rule


def config_hash(config: Config) -> str:
    """SHA-256 of what the configuration says, wherever it lies and however it is laid out."""
    return hashlib.sha256(json.dumps(config_data(config), sort_keys=True).encode()).hexdigest()


def game_hash(config: Config, factory: Any) -> str:
    """SHA-256 of the game that a configuration describes: campaign, its version and options, and machine.

    What is trained or tuned is made for a game; how it was trained, or what else the file holds, is no part of it.

    Args:
        factory: of the campaign, or of the environment; options that it shows are taken with their defaults.
    """
    said = getattr(factory, "options", None)
    options = said.model_dump(mode="json") if isinstance(said, BaseModel) else config.campaign.options
    game = {"campaign": factory.name, "version": factory.version, "options": options}
    game["machine"] = config.machine.model_dump(mode="json")
    return hashlib.sha256(json.dumps(game, sort_keys=True).encode()).hexdigest()


def config_data(config: Config) -> dict[str, Any]:
    """What the configuration says, as a JSON-ready mapping with every default filled in."""
    return config.model_dump(mode="json", by_alias=True, fallback=plain)


def write_config(config: Config, path: Path) -> None:
    """Write down what the configuration says, defaults and overrides included."""
    path.write_text(yaml.safe_dump(config_data(config), sort_keys=False))


def read_yaml(path: Path) -> Mapping[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        ConfigError: there is no such file, or it holds something else; one line.
    """
    return read_mapping(path)[0]


def _override(data: dict[str, Any], override: str) -> Key:
    """Change ``data``; the key that was changed."""
    name, equals, text = override.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {override}: write KEY=VALUE, e.g. --set train.decisions=10000")
    for part in parts[:-1]:
        if data.get(part) is None:
            data[part] = {}
        data = data[part]
        if not isinstance(data, dict):
            raise ConfigError(f"--set {override}: {part} is no section; it holds {shown(data)}")
    data[parts[-1]] = parse(text, f"--set {override}")
    return tuple(parts)
