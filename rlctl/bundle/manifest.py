"""The manifest of a saved policy: its campaign, spaces and network, and the checksums of its files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlctl.bundle.attention import AttentionSpec
from rlctl.bundle.spaces import Spaces
from rlctl.core.errors import PolicyError

SCHEMA = 2
MIN_PAIRS = 64
MAX_STATISTICS = 4096
"""Numbers of an observation that each have statistics of their own."""
MAX_SCORES = 1000
MAX_DEPTH = 32

# Names are shown on terminals, and file names are joined to the folder: no separators, no control characters.
Name = Annotated[str, Field(pattern=r"^\w[\w .+-]{0,99}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Width = Annotated[int, Field(ge=1, le=65536)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class CampaignId(_Part):
    """The campaign that the policy was trained for; more keys are allowed."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)

    name: Name
    version: int = Field(ge=0, le=2**31)


class Network(_Part):
    """A multilayer perceptron, perhaps behind a recurrent layer.

    Attributes:
        hidden: widths of the hidden layers.
        observation_clip: the flat observation is clipped to plus or minus this.
        output: of Box actions: ``plain`` numbers, or the hyperbolic tangent of the outputs scaled to the bounds, which
            are the means and logarithms of deviations of a ``squashed_gaussian``, or just ``squashed``.
        lstm: units of a layer of long short-term memory before the hidden ones; 0: there is none.
        attention: attention over sets, in place of all of this; None: there is none.
    """

    hidden: list[Width] = Field(max_length=32)
    activation: Literal["tanh", "relu"] = "tanh"
    observation_clip: float | None = Field(default=None, gt=0)
    output: Literal["plain", "squashed", "squashed_gaussian"] = "plain"
    lstm: int = Field(default=0, ge=0, le=65536)
    attention: AttentionSpec | None = None


class Residual(_Part):
    """The rule whose proposal the actions correct."""

    rule: Name
    parameters: dict[str, Any] = Field(default_factory=dict)


class Statistics(_Part):
    """Of each number of the flat observations, over ``count`` real ones of the trained policy's campaigns.

    Where there are more than ``MAX_STATISTICS`` numbers, as in pictures: one figure each, over all of them.
    """

    count: int = Field(ge=1)
    mean: list[float]
    std: list[float]
    min: list[float]
    max: list[float]


class FileEntry(_Part):
    """A file of the bundle."""

    sha256: Sha256
    bytes: int = Field(ge=0)


class Score(_Part):
    """A comparison on held-out instances of the twin.

    Attributes:
        date: when it was done, UTC.
        policy: how the rows call this policy.
        config_hash: of the configuration that it was done with.
        seed: the instances were drawn from it.
        reference: the policy that the rows' ratios are relative to.
        rows: one per policy: instances, node-seconds per success and ratio with their 95 % intervals, and more; see
            ``rlctl.evaluation.compare.PolicyCosts``.
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)

    date: str = Field(max_length=40)
    policy: Name
    config_hash: Sha256
    seed: int
    reference: Name
    rows: list[dict[str, Any]] = Field(min_length=1, max_length=100)


class Manifest(_Part):
    """What ``manifest.json`` holds; what is not named here is kept for people.

    Attributes:
        golden_pairs: how many observations with their answers lie beside the weights.
        deterministic: whether it takes the likeliest answer; otherwise it draws.
        files: by name, all other files of the bundle.
        scores: comparisons that ``rlctl evaluate --record`` wrote down, oldest first.
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)

    schema_version: Literal[2] = Field(alias="schema")
    name: Name
    campaign: CampaignId
    spaces: Spaces
    network: Network
    observations: Statistics
    golden_pairs: int = Field(ge=MIN_PAIRS, le=4096)
    deterministic: bool
    residual: Residual | None = None
    files: dict[FileName, FileEntry] = Field(max_length=64)
    scores: list[Score] = Field(default_factory=list, max_length=MAX_SCORES)


def parse(text: bytes, path: Path) -> Manifest:
    """The manifest in ``text``; raise PolicyError if it is damaged, of another schema, or says what cannot be."""
    try:
        data = json.loads(text, object_pairs_hook=_once)
        _require_shallow(data)
        json.dumps(data, allow_nan=False)  # refuses NaN and what is too large
    except RecursionError:
        raise PolicyError(f"{path}: nested too deeply; {AGAIN}") from None
    except ValueError as error:
        raise PolicyError(f"{path}: damaged ({_short(error)}); {AGAIN}") from None
    found = data.get("schema") if isinstance(data, dict) else None
    if found != SCHEMA or isinstance(found, bool):
        raise PolicyError(f"{path}: schema {_short(repr(found))}, but this rlctl reads schema {SCHEMA}: train again")
    if data.pop("checksum", None) != checksum(data):
        raise PolicyError(f"{path}: damaged or edited (it does not have the SHA-256 that it states); {AGAIN}")
    return validate(data, path)


def validate(data: dict[str, Any], path: Path) -> Manifest:
    """The manifest that ``data`` is; raise PolicyError, of one line, if it says what cannot be."""
    try:
        return Manifest.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PolicyError(f"{path}: {_short(where)}: {_short(first['msg'])}; {AGAIN}") from None


AGAIN = "copy or save the policy again"


def checksum(data: dict[str, Any]) -> str:
    """SHA-256 of what the manifest says, however it is laid out."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def to_bytes(data: dict[str, Any]) -> bytes:
    """The file's content: the data and their checksum."""
    sealed = {**data, "checksum": checksum(data)}
    return json.dumps(sealed, indent=2, sort_keys=True, allow_nan=False).encode() + b"\n"


def as_data(manifest: Manifest) -> dict[str, Any]:
    """What the manifest says, JSON-ready; what policies before them did not have is left out where it is not used."""
    data = manifest.model_dump(mode="json", by_alias=True)
    for key in ("output", "lstm", "attention"):
        if data["network"][key] == Network.model_fields[key].default:
            del data["network"][key]
    return data


def digest(manifest: Manifest) -> str:
    """Identifies the bundle: SHA-256 of all but the scores, which may be added later."""
    return checksum({key: value for key, value in as_data(manifest).items() if key != "scores"})


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _require_shallow(data: Any) -> None:
    level = [data]
    for _ in range(MAX_DEPTH):
        level = [v for x in level if isinstance(x, dict | list) for v in (x.values() if isinstance(x, dict) else x)]
        if not level:
            return
    raise RecursionError


def _short(text: Any) -> str:
    line = "".join(c if c.isascii() and c.isprintable() else "?" for c in " ".join(str(text).split()))
    return line if len(line) <= 120 else line[:117] + "..."
