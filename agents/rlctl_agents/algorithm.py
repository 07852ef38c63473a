"""The interface between algorithms and the training; loads no PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from rlctl.config.schema import Config, RuleEntry
from rlctl.config.validation import check_options
from rlctl.core.sets import SetLayout
from rlctl.environments.reward_env import Game

if TYPE_CHECKING:
    from rlctl_agents.vec_env import RemoteEnvSpec

OPTIONS = ("train", "options")
Width = Annotated[int, Field(ge=1, le=16_384)]
O = TypeVar("O", bound="LearnerOptions")  # noqa: E741


class LearnerOptions(BaseModel):
    """``train.options`` that all algorithms share.

    Attributes:
        gamma: discount per decision, or per ``train.distributed.discount_s``; the shaping of rewards takes the same.
        deterministic: whether the saved policy takes the likeliest answer; otherwise it draws.
        device: of the networks; for networks this small a CPU is as fast.
        threads: of PyTorch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    gamma: float = Field(default=0.99, gt=0, le=1)
    deterministic: bool = True
    device: str = Field(default="cpu", pattern=r"^(auto|cpu|cuda(:\d{1,3})?|mps)$")
    threads: int = Field(default=1, ge=1, le=4096)


def parse_options(kind: type[O], config: Config) -> O:
    """``train.options`` as an algorithm's own model.

    Raises:
        ConfigError: they cannot be used.
    """
    return check_options(kind, config.train.options if config.train else {}, ".".join(OPTIONS))


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmSpec:
    """An algorithm with its options, as checks, actors and the training see it.

    Attributes:
        options: parsed.
        builder: gives what makes models; loads PyTorch.
        check: refuses a campaign or environment that the options do not suit, by a ``ConfigError``.
        network: of what acts, as the manifest of a saved policy describes it; see ``rlctl.bundle.manifest.Network``.
        with_mask: rows hold masks of choices, which are then several heads, however many there are.
        with_privileged: rows hold what only the twin knows.
        mask_in_row: the network reads the mask from the row; otherwise it is given beside the observation.
        chunk_steps: steps that an actor sends together, unless the configuration says.
        bootstrap: whether a truncated episode is worth what the critic thinks of its last state.
        residual: the rule that the policy corrects; None: it decides alone.
        attends: whether the network attends over the sets of the observation.
    """

    options: LearnerOptions
    builder: Callable[[], Builder]
    check: Callable[[Game], None]
    network: Callable[[Game], dict[str, Any]]
    with_mask: bool = False
    with_privileged: bool = False
    mask_in_row: bool = False
    chunk_steps: int = 64
    bootstrap: bool = True
    residual: RuleEntry | None = None
    attends: bool = False


@dataclass(frozen=True, slots=True)
class Setting:
    """What a model is made for.

    Attributes:
        env: what it learns from.
        from_actors: data come from asynchronous actors; otherwise from ``env``, step by step.
        centre: choices that mean "as the rule says"; empty without a rule.
        environments: how many, of this learner.
        learners: of this policy.
        layout: of observations that are made of sets; None: they are not.
    """

    env: RemoteEnvSpec
    from_actors: bool
    centre: tuple[int, ...]
    environments: int
    learners: int
    layout: SetLayout | None = None


@dataclass(frozen=True, slots=True)
class Builder:
    """Makes models of one algorithm, with its options.

    Attributes:
        sb3_class: of Stable-Baselines3, which steps environments itself.
        actor_class: ours on top of it, which learns from actors.
        make: a new model of one of these classes.
    """

    sb3_class: type[Any]
    actor_class: type[Any]
    make: Callable[[type[Any], Setting], Any]

    def model_class(self, from_actors: bool) -> type[Any]:
        """Where the data come from decides."""
        return self.actor_class if from_actors else self.sb3_class
