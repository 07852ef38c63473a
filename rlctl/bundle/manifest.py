"""The manifest of a saved policy: its campaign, spaces and network, and the checksums of its files."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

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
Label = Annotated[str, Field(pattern=r"^[\w!-~][\w -~]{0,99}$")]
"""A key of ``policies``."""
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Width = Annotated[int, Field(ge=1, le=65536)]
Ends = Annotated[list[float | None], Field(min_length=2, max_length=2)]
"""Of an interval."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


_P = TypeVar("_P", bound=_Part)


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


class RuleSpec(_Part):
    """A registered rule with its parameters; the others keep their defaults."""

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


class JudgedPolicy(_Part):
    """A row of a judgement.

    Attributes:
        rule: makes the policy again; None: it is the saved policy itself.
        cost: per success; None: it had no success.
        cost_interval: 95 %; None: infinite.
        ratio: ``cost`` over that of the best rule; None: infinite.
        ratio_interval: 95 %, paired over the instances.
    """

    policy: Label
    rule: RuleSpec | None
    successes: int = Field(ge=0)
    cost: float | None = Field(ge=0)
    cost_interval: Ends
    ratio: float | None = Field(ge=0)
    ratio_interval: Ends


class Judgement(_Part):
    """A comparison of the saved policy with rules, on instances of the twin that are neither trained on nor held out.

    Attributes:
        date: when it was done, UTC.
        config_hash: of the configuration that it was done with.
        game_hash: of what it holds for, see ``rlctl.config.load.game_hash``.
        seed: the instances were drawn from it.
        winner: the policy of least cost per success, a rule where the saved policy costs as much; None: none had a
            success.
        rows: the rules, and last the saved policy.
    """

    date: str = Field(max_length=40)
    config_hash: Sha256
    game_hash: Sha256
    seed: int
    instances: int = Field(ge=1)
    winner: Label | None
    rows: list[JudgedPolicy] = Field(min_length=2, max_length=100)

    @model_validator(mode="after")
    def _holds_together(self) -> Judgement:
        if len({row.policy for row in self.rows}) < len(self.rows):
            raise ValueError("two rows have one name")
        if [row.rule is None for row in self.rows] != [False] * (len(self.rows) - 1) + [True]:
            raise ValueError("the last row, and no other, is that of the saved policy")
        best = min(self.rows, key=lambda row: math.inf if row.cost is None else row.cost)
        if self.winner != (None if best.cost is None else best.policy):
            raise ValueError("the winner is not the row of least cost")
        return self

    @property
    def policy(self) -> JudgedPolicy:
        """The row of the saved policy."""
        return self.rows[-1]

    @property
    def best_rule(self) -> JudgedPolicy:
        """The row of the rule with the least cost per success."""
        return min(self.rows[:-1], key=lambda row: math.inf if row.cost is None else row.cost)

    def reason(self, policy: str) -> str:
        """Names the winner and its lead, in half a sentence; ``policy`` is the name of the saved policy."""
        rule, own, place = self.best_rule, self.policy, f"on {self.instances} instances of the twin"
        if self.winner is None:
            return f"neither {policy} nor a rule had a success {place}"
        won = self.winner == own.policy
        first, second = (policy, rule.policy) if won else (self.winner, policy)
        if (rule if won else own).cost is None:
            return f"{first}, since {second} had no success {place}"
        figures = [
            math.inf if one is None else one for one in (own.ratio_interval[0], own.ratio, own.ratio_interval[1])
        ]
        if won:
            figures = [1.0 / one if one else math.inf for one in reversed(figures)]
        low, lead, high = figures
        text = f"{first}, {lead:.2f} times cheaper than {second} {place} [{low:.2f}, {high:.2f}]"
        return text if low > 1.0 else f"{text}, which is no significant difference"


class Manifest(_Part):
    """What ``manifest.json`` holds; what is not named here is kept for people.

    Attributes:
        golden_pairs: how many observations with their answers lie beside the weights.
        deterministic: whether it takes the likeliest answer; otherwise it draws.
        residual, advice: the rule that runs beside it, whose answers it corrects, or sees.
        files: by name, all other files of the bundle.
        scores: comparisons that ``rlctl evaluate --record`` wrote down, oldest first.
        judgement: what ``rlctl train`` ended with; None: it was not judged.
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
    residual: RuleSpec | None = None
    advice: RuleSpec | None = None
    files: dict[FileName, FileEntry] = Field(max_length=64)
    scores: list[Score] = Field(default_factory=list, max_length=MAX_SCORES)
    judgement: Judgement | None = None


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
    return _validated(Manifest, data, f"{path}: ", f"; {AGAIN}")


def validate_judgement(data: dict[str, Any]) -> Judgement:
    """The judgement that ``data`` is; raise PolicyError, of one line, if a manifest cannot hold it."""
    return _validated(Judgement, data, "judgement: ")


def _validated(model: type[_P], data: dict[str, Any], before: str, after: str = "") -> _P:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PolicyError(f"{before}{_short(where)}: {_short(first['msg'])}{after}") from None


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
    if data["judgement"] is None:
        del data["judgement"]
    return data


def digest(manifest: Manifest) -> str:
    """Identifies the bundle: SHA-256 of all but the scores and the judgement, which may be added later."""
    return checksum({key: value for key, value in as_data(manifest).items() if key not in ("scores", "judgement")})


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
