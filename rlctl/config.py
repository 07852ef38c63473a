"""The configuration of an experiment: strict, typed, the same for training, comparison and steering."""

from __future__ import annotations

import difflib
import hashlib
import importlib.metadata
import json
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, PrivateAttr, Tag, ValidationError
from pydantic_core import ErrorDetails

from rlctl.errors import ConfigError
from rlctl.executors.base import Capacity

SCHEMA = 1
_TAGS = ("mapping", "path")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class CampaignSection(_Section):
    """Which campaign; its factory checks the options."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class MachineSection(_Section):
    """The allocation: equal nodes."""

    nodes: int = Field(default=1, ge=1)
    cores: int = Field(default=2, ge=1)
    gpus: int = Field(default=0, ge=0)

    def capacity(self) -> Capacity:
        """The same, as executors want it."""
        return Capacity(nodes=self.nodes, cores=self.cores, gpus=self.gpus)


class TrainSection(_Section):
    """How a policy is learned; the learner checks the options.

    Attributes:
        decisions: how many decisions to learn from.
        num_envs: campaigns that are stepped together.
        seed: of the learner; the experiment's seed if None.
        checkpoint_decisions: decisions between two checkpoints, which is what a kill can cost.
        validation_instances: that the policy and every rule play at checkpoints, for the curves; 0: none.
    """

    algorithm: str = "ppo"
    decisions: int = Field(ge=1)
    num_envs: int = Field(default=64, ge=1)
    seed: int | None = Field(default=None, ge=0)
    checkpoint_decisions: int = Field(default=100_000, ge=1)
    validation_instances: int = Field(default=4, ge=0)
    options: dict[str, Any] = Field(default_factory=dict)


class RuleEntry(_Section):
    """A rule with its parameters; those left out keep the rule's defaults."""

    rule: str
    parameters: dict[str, Any] = Field(default_factory=dict)


class RuleFile(RuleEntry):
    """What ``rlctl tune`` writes: a rule, its parameters and how they were found."""

    schema_version: Literal[1] = Field(alias="schema")
    tuning: dict[str, Any] = Field(default_factory=dict)


class EvaluateSection(_Section):
    """The held-out comparison.

    Attributes:
        instances: number of instances, the same for each policy.
        seed: of the held-out instances, apart from those of training.
    """

    instances: int = Field(default=256, ge=2)
    seed: int = Field(default=1_000_000, ge=0)


class SteerSection(_Section):
    """The real campaign.

    Attributes:
        fallback: the policy that answers where the steering one fails; None: the first allowed choice of each head.
        rules_on_twin: whether, once the campaign has ended, the rules play its twin for the curves beside it.
    """

    fallback: str | None = None
    rules_on_twin: bool = True


_Entry = Annotated[
    Annotated[RuleEntry, Tag("mapping")] | Annotated[str, Tag("path")],
    Discriminator(lambda value: "path" if isinstance(value, str) else "mapping"),
]


class Config(_Section):
    """One experiment.

    Attributes:
        policies: by name, a rule with parameters, or the path of a rule file or of a saved policy's folder.
    """

    schema_version: Literal[1] = Field(alias="schema")
    seed: int = Field(ge=0)
    campaign: CampaignSection
    machine: MachineSection = Field(default_factory=MachineSection)
    train: TrainSection | None = None
    policies: dict[str, _Entry] = Field(default_factory=dict)
    evaluate: EvaluateSection = Field(default_factory=EvaluateSection)
    steer: SteerSection = Field(default_factory=SteerSection)
    _folder: Path = PrivateAttr(default=Path())

    def resolve(self, path: str | Path) -> Path:
        """``path`` as seen from the configuration file's folder."""
        return self._folder / path


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read an experiment from a YAML file.

    Args:
        path: the file.
        overrides: ``"a.b=value"`` each, the value written as in YAML; they win over the file.

    Raises:
        ConfigError: one line that names the file and the key.
    """
    path = Path(path)
    data = read_yaml(path)
    for override in overrides:
        _override(data, override)
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_explain(path, Config, error, overrides)) from None
    config._folder = path.parent
    return config


def load_rule_file(path: Path) -> RuleFile:
    """Read a tuned rule.

    Raises:
        ConfigError: one line that names the file and the key.
    """
    try:
        return RuleFile.model_validate(read_yaml(path))
    except ValidationError as error:
        raise ConfigError(_explain(path, RuleFile, error)) from None


def config_hash(config: Config) -> str:
    """SHA-256 of what the configuration says, wherever it lies and however it is laid out."""
    return hashlib.sha256(json.dumps(config_data(config), sort_keys=True).encode()).hexdigest()


def config_data(config: Config) -> dict[str, Any]:
    """What the configuration says, as a JSON-ready mapping with every default filled in."""
    return config.model_dump(mode="json", by_alias=True)


def write_config(config: Config, path: Path) -> None:
    """Write down what the configuration says, defaults and overrides included."""
    path.write_text(yaml.safe_dump(config_data(config), sort_keys=False))


def provenance() -> dict[str, Any]:
    """What ran: versions of rlctl and of what it computes with, its commit, Python and the platform."""
    versions = {}
    for name in ("rlctl", "numpy", "scipy", "gymnasium", "stable-baselines3", "torch", "mpi4py", "numba"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """What a message about an unknown word ends with.

    >>> did_you_mean("fedback", ["constant", "feedback"])
    "known: constant, feedback; did you mean 'feedback'?"
    """
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    return f"known: {', '.join(names) or 'none'}" + (f"; did you mean {close[0]!r}?" if close else "")


_Options = TypeVar("_Options", bound=BaseModel)


def check_options(model: type[_Options], options: Mapping[str, Any] | None, where: str) -> _Options:
    """The options that a campaign or a learner is given, as the model that it declares.

    Args:
        where: the section of the configuration that they stand in.

    Raises:
        ConfigError: one line that names the key.
    """
    try:
        return model.model_validate(dict(options or {}))
    except ValidationError as error:
        first = error.errors()[0]
        loc = [str(part) for part in first["loc"]]
        if not loc:
            raise ConfigError(f"{where}: {first['msg']}") from None
        raise ConfigError(f"{'.'.join([where, *loc])}: {_problem(first, model, loc)}") from None


class _Loader(yaml.SafeLoader):
    """Reads 1e-3 as a number, as people mean it; YAML 1.1 takes it for a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(?:\d[\d_]*)(?:\.[\d_]*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        ConfigError: there is no such file, or it holds something else; one line.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give a YAML file")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not a text file; give a YAML file") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    data = _parse(text, str(path))
    if data is None:
        raise ConfigError(f"{path} is empty")
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds a {type(data).__name__}, not a mapping of keys to values")
    return data


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}:" if error.problem_mark else ""
        raise ConfigError(f"{where}:{line} not YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not YAML: {str(error).splitlines()[0]}") from None


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {override}: write KEY=VALUE, e.g. --set train.decisions=10000")
    for part in parts[:-1]:
        if data.get(part) is None:
            data[part] = {}
        data = data[part]
        if not isinstance(data, dict):
            raise ConfigError(f"--set {override}: {part} is no section; it holds {data!r}")
    data[parts[-1]] = _parse(text, f"--set {override}")


def _explain(path: Path, model: type[BaseModel], error: ValidationError, overrides: Sequence[str] = ()) -> str:
    """The first thing that is wrong, in one line."""
    errors = error.errors()
    # An unknown key is most often a misspelt one, so it explains a missing one too.
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    loc = [str(part) for part in first["loc"]]
    if loc[0] == "policies" and len(loc) > 2 and loc[2] in _TAGS:
        del loc[2]
    key = ".".join(loc)
    given = {override.partition("=")[0].strip() for override in overrides}
    where = f"{path} with --set {key}" if key in given else f"{path}: {key}"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{where}: {_problem(first, model, loc)}{more}"


def _problem(error: ErrorDetails, model: type[BaseModel], loc: Sequence[str]) -> str:
    if error["type"] == "extra_forbidden":
        return f"unknown key; {did_you_mean(loc[-1], _keys(model, loc[:-1]))}"
    if error["type"] == "missing":
        return "is missing"
    if loc[-1] == "schema":
        return f"schema {error['input']!r} is not known to this rlctl, which reads schema {SCHEMA}"
    value = repr(error["input"])
    value = value if len(value) < 60 else value[:57] + "..."
    return f"{error['msg'].replace('Input should', 'should')}, got {value}".replace("\n", " ")


def _keys(model: type[BaseModel], loc: Sequence[str]) -> list[str]:
    """The keys that the section at ``loc`` may have."""
    for part in loc:
        if part == "policies":
            model = RuleEntry
            break
        annotation = model.model_fields[part].annotation
        options = (annotation, *get_args(annotation))
        model = next(option for option in options if isinstance(option, type) and issubclass(option, BaseModel))
    return [field.alias or name for name, field in model.model_fields.items()]


def _commit() -> str | None:
    """The commit of the checkout that this package is run from, with a plus sign if it has been changed since."""
    home = Path(__file__).resolve().parent.parent
    if not (home / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(home), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
