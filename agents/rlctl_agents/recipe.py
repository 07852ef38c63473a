"""What the flow of a training wants to know of an algorithm, and what an algorithm is told of the training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from rlctl.config.schema import Config
from rlctl.core.sets import SetLayout
from rlctl.environments.reward_env import Game

if TYPE_CHECKING:
    from rlctl.distributed.learner.context import LearnerContext
    from rlctl_agents.vec_env import RowsSpec, WorldsVecEnv

Prepare = Callable[[Any, str], Any]
"""Called with an environment, or a vector of them, and the campaign's name before it is used."""


class How(StrEnum):
    """Where the data come from, and who learns."""

    TOGETHER = "together"
    ASYNCHRONOUS = "asynchronous"
    SEVERAL = "several"


@dataclass(frozen=True, slots=True)
class Setting:
    """What a model is made for.

    Attributes:
        env: what it learns from.
        centre: choices that mean "as the rule says"; empty without a rule.
        environments: how many, of this learner.
        learners: of this policy.
        layout: of observations that are made of sets; None: they are not.
    """

    env: WorldsVecEnv | RowsSpec
    centre: tuple[int, ...]
    environments: int
    learners: int
    layout: SetLayout | None = None


class Options(Protocol):
    """What all algorithms let users set, besides their own.

    Attributes:
        device: of the network.
        threads: of PyTorch.
        deterministic: whether the saved policy takes the likeliest choice.
    """

    @property
    def device(self) -> str:
        """Of the network."""

    @property
    def threads(self) -> int:
        """Of PyTorch."""

    @property
    def deterministic(self) -> bool:
        """Whether the saved policy takes the likeliest choice."""


class Description(Protocol):
    """The part of a recipe that needs no PyTorch: entries, checks and actors use it.

    Attributes:
        with_mask: rows hold masks of choices, which are then several heads, however many there are.
        with_privileged: rows hold what only the twin knows.
        mask_in_row: the network reads the mask from the row; otherwise it is given beside the observation.
    """

    with_mask: bool
    with_privileged: bool
    mask_in_row: bool

    def options(self, config: Config) -> Any:
        """``train.options``, as the algorithm's own model.

        Raises:
            ConfigError: they cannot be used.
        """

    def check(self, config: Config, factory: Game) -> None:
        """Refuse what does not go together.

        Raises:
            ConfigError: it does not.
        """

    def network(self, config: Config, factory: Game) -> dict[str, Any]:
        """What acts, as the manifest of a saved policy tells it; see ``rlctl.bundle.manifest.Network``."""

    def prepare(self, options: Any) -> Prepare:
        """What is done with environments before they are used."""


class Recipe(Description, Protocol):
    """How an algorithm is made."""

    def kind(self, how: How) -> type[Any]:
        """The class of Stable-Baselines3, or of ours on top of it."""

    def make(self, how: How, setting: Setting, options: Any) -> Any:
        """A new model."""

    def attach(self, model: Any, ranks: LearnerContext, options: Any) -> None:
        """Give an asynchronous model its actors and its fellow learners."""

    def manifest(self, options: Any) -> dict[str, Any]:
        """What the saved policy's manifest says besides what all say."""
