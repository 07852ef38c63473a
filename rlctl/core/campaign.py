"""Campaigns: what to decide and what follows from it. Pure logic: no clock, no process, no input or output."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rlctl.core.errors import ContractError
from rlctl.core.findings import Findings
from rlctl.core.machine import Capacity, Machine
from rlctl.core.sets import SetLayout
from rlctl.core.task import Event, Resources, TaskId, TaskSpec

Action = NDArray[Any] | Mapping[str, Any]
"""An index for each head of the action space or the numbers of a Box (networks), or named quantities (rules)."""

ActionSpace = gymnasium.spaces.MultiDiscrete | gymnasium.spaces.Discrete | gymnasium.spaces.Box
Mask = NDArray[np.bool_]
NO_MASK: Mask = np.ones(0, np.bool_)


@dataclass(frozen=True, slots=True)
class Start:
    """Start a task."""

    spec: TaskSpec


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop a task, queued or running."""

    uid: TaskId


@dataclass(frozen=True, slots=True)
class Update:
    """Have a task run on other resources: a running one is stopped, and started again where it left its checkpoint."""

    uid: TaskId
    resources: Resources


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing until the next event."""


Command = Start | Cancel | Update | Wait


@dataclass(frozen=True, slots=True)
class ResidualChoices:
    """Choices relative to a rule's proposal, for policies that correct a rule.

    Attributes:
        centre: for each head, the index that means "as the rule says".
        mask: as in ``Decision``, for these choices.
        named: the action that indices mean.
        observation: what the network reads, the rule's proposal included; None: as in ``Decision``.
    """

    centre: tuple[int, ...]
    mask: Mask
    named: Callable[[NDArray[np.int64]], Action]
    observation: NDArray[np.float32] | None = None


class Decision:
    """A question to a policy.

    Attributes:
        subject: what it is about (a film, a task); memory is kept per subject.
        time_s: seconds since the campaign began.
        fields: the named quantities that rules read.
        observation: the same as float32 numbers in a fixed order, for networks.
        mask: for each choice of each head, flat in the order of the heads, whether it is allowed; empty where actions
            are numbers of a Box.
        cost: allocated node-seconds since the previous decision (set by the driver).
        number: 0, 1, 2 ... within the campaign (set by the driver).
        residual: makes the choices around a rule's answer; None where the campaign offers none.
        nearest: gives the choices that come nearest to a rule's answer, or None; None where the campaign gives none.

    Args:
        fields: or a function that makes them when a policy first reads them, as networks do not, before it answers.
        observe: makes observation and mask, in place of both, when a policy reads one of them, as rules do not.
    """

    __slots__ = ("_fields", "_observe", "_observed", "cost", "nearest", "number", "residual", "subject", "time_s")

    def __init__(
        self,
        subject: str,
        time_s: float,
        fields: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
        observation: NDArray[np.float32] | None = None,
        mask: Mask | None = None,
        cost: float = 0.0,
        number: int = 0,
        residual: Callable[[Mapping[str, Any]], ResidualChoices] | None = None,
        observe: Callable[[], tuple[NDArray[np.float32], Mask]] | None = None,
        nearest: Callable[[Mapping[str, Any]], NDArray[Any] | None] | None = None,
    ) -> None:
        self.subject, self.time_s, self._fields = subject, time_s, fields
        self.cost, self.number, self.residual, self.nearest = cost, number, residual, nearest
        self._observe = observe
        both = None if observation is None else (observation, NO_MASK if mask is None else mask)
        self._observed: tuple[NDArray[np.float32], Mask] | None = both
        if both is None and observe is None:
            raise TypeError("a decision needs an observation, or a function that makes observation and mask")

    @property
    def fields(self) -> Mapping[str, Any]:
        """See the class."""
        self._fields = fields = self._fields if isinstance(self._fields, Mapping) else self._fields()
        return fields

    @property
    def observed(self) -> bool:
        """Whether observation and mask have been made."""
        return self._observed is not None

    @property
    def observation(self) -> NDArray[np.float32]:
        """See the class."""
        return self._both()[0]

    @property
    def mask(self) -> Mask:
        """See the class."""
        return self._both()[1]

    def among(self, choices: ResidualChoices) -> Decision:
        """The same question, as a policy sees it that corrects a rule."""
        observation = self.observation if choices.observation is None else choices.observation
        return Decision(self.subject, self.time_s, self._fields, observation, choices.mask, self.cost, self.number)

    def _both(self) -> tuple[NDArray[np.float32], Mask]:
        if self._observed is None:
            assert self._observe is not None
            self._observed = self._observe()
        return self._observed


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a campaign stands.

    Attributes:
        ended: whether the campaign is over, by its goal or its budget.
        reached: whether the goal was reached (then the episode terminates; otherwise it truncates).
        successes: units of the goal so far (good films, finished tasks).
        potential: the shaping potential of the present state, in units of reward; 0 once the goal is reached.
        extra: figures for reports.
        cost: what the campaign has cost so far, where its objective is another than allocated node-seconds; it is
            what ``Campaign.reward_scale`` scales and comparisons divide by successes.
        reason: why it has ended, in a few words for people; empty: that it reached its goal, or not, says enough.
    """

    ended: bool
    reached: bool
    successes: int
    potential: float = 0.0
    extra: Mapping[str, float] = field(default_factory=dict)
    cost: float | None = None
    reason: str = ""


class Campaign(ABC):
    """A fold of (seed, events, actions): the same sequence gives the same state, in training, steering and replay.

    A campaign is a subclass. The driver calls, in this order: ``begin`` once; then, until ``outcome().ended``,
    ``decision`` and ``apply`` while a decision is open, and ``on_event`` for each event, ``on_time`` before it,
    ``follow_up`` after it. When the campaign has ended the driver cancels what is still running.

    Attributes:
        observation_space: of ``Decision.observation``: a Box of float32.
        action_space: of index actions, a MultiDiscrete or a Discrete, which counts as one head; or a Box, whose
            actions are numbers and whose decisions have no mask.
        reward_scale: the reward for one allocated node-second, or one unit of ``Outcome.cost``, is minus this.
        deadline_s: end of the allocation, seconds since the campaign began; infinite: it has none.
        goal: successes that reach the goal, for reports; None: the goal is no number of successes.
        layout: how the parts of an observation made of sets lie; None: it is not.
    """

    observation_space: gymnasium.spaces.Box
    action_space: ActionSpace
    reward_scale: float
    deadline_s: float
    goal: int | None = None
    layout: SetLayout | None = None

    @abstractmethod
    def begin(self, capacity: Capacity) -> None:
        """Learn the machine; open the first decisions."""

    @abstractmethod
    def on_time(self, time_s: float) -> None:
        """The clock stands at ``time_s`` now; the budget may be over."""

    @abstractmethod
    def on_event(self, event: Event) -> None:
        """A task changed its state."""

    @abstractmethod
    def decision(self) -> Decision | None:
        """The open decision, the same until it is applied; None if none is open at this instant."""

    @abstractmethod
    def apply(self, action: Action) -> list[Command]:
        """Answer the open decision. A masked choice becomes the default and is counted, never an error."""

    @abstractmethod
    def outcome(self) -> Outcome:
        """How the campaign stands."""

    def follow_up(self) -> Sequence[Command]:
        """Commands that follow from what has just happened without a decision; by default none.

        None either once the campaign has ended.
        """
        return ()

    @property
    def wake_s(self) -> float:
        """When ``on_time`` is to be called at the latest, seconds since the campaign began: a task arrives then, say.

        Infinite, the default: with events and at the deadline is enough.
        """
        return math.inf

    def refuses(self, action: Action) -> str | None:
        """Why an action is not allowed at the open decision; None: it is, or the campaign leaves it to ``apply``.

        In a real campaign the fallback decides in place of a policy whose action is refused.
        """
        return None

    def excuses(self, event: Event) -> bool:
        """Whether the end of a task only says that its point cannot be evaluated.

        Then it counts for ``steer.stop_after_failures`` neither as a failure nor as a success. Called before
        ``on_event``.
        """
        return False

    def on_machine(self, machine: Machine) -> None:
        """Nodes were lost, regained, added or taken away; these are there now.

        Events of tasks that were lost come before. By default, a campaign ignores it.
        """
        return None

    def named(self, action: Action) -> Mapping[str, Any] | None:
        """Named quantities of an action at the open decision, for people; it changes nothing.

        None, the default: the action is shown as it is.
        """
        return None

    def extend(self, other: Campaign, capacity: Capacity, time_s: float) -> None:
        """Go on as a fresh campaign of a changed configuration would, on its machine; it may have ended before.

        Only what ``CampaignFactory.changeable`` names differs.
        """
        raise ContractError(f"{type(self).__name__} has no extend(): its configuration cannot change")

    def know(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Learn results from elsewhere; see ``CampaignFactory.known``."""
        raise ContractError(f"{type(self).__name__} has no know(): it cannot begin with results")

    def rerun(self, numbers: Sequence[int]) -> Sequence[Command]:
        """Start these evaluations again, which gave no result."""
        raise ContractError(f"{type(self).__name__} has no rerun(): nothing can be asked for again")

    def repeatable(self) -> Mapping[int, str]:
        """Evaluations that ``rerun`` can start again, with how they stand; by default none."""
        return {}

    def elsewhere(self, numbers: Sequence[int], away: bool = True) -> None:
        """These evaluations are made elsewhere, and take no room on the machine; not ``away``: here after all."""
        return None

    def open_evaluations(self) -> Mapping[int, TaskId]:
        """Evaluations that have not ended, and their tasks, by number; by default none."""
        return {}

    def evaluations(self) -> Sequence[Mapping[str, Any]]:
        """Rows of the table of evaluations, in the order of their starts; by default there is none."""
        return ()

    def findings(self) -> Findings | None:
        """What the rows of ``evaluations`` mean, and which are the best; None, the default: there is no table."""
        return None


def require_campaign(made: object) -> None:
    """Raise ContractError for an object whose class does not derive from ``Campaign``."""
    if not isinstance(made, Campaign):
        kind = type(made)
        raise ContractError(
            f"campaign(seed) gave a {kind.__module__}.{kind.__qualname__}: let that class derive from rlctl.Campaign"
        )


def head_sizes(space: ActionSpace) -> NDArray[np.int64]:
    """How many choices each head of an action space has; empty for a Box."""
    if isinstance(space, gymnasium.spaces.Box):
        return np.zeros(0, np.int64)
    sizes = space.nvec.reshape(-1) if isinstance(space, gymnasium.spaces.MultiDiscrete) else [space.n]
    return np.asarray(sizes, dtype=np.int64)


def first_allowed(space: ActionSpace, mask: Mask) -> NDArray[Any]:
    """The first allowed choice of each head; the middle of a Box.

    >>> space = gymnasium.spaces.MultiDiscrete([2, 2])
    >>> first_allowed(space, np.array([False, True, True, False])).tolist()
    [1, 0]
    """
    if isinstance(space, gymnasium.spaces.Box):
        return np.nan_to_num(0.5 * space.low + 0.5 * space.high, posinf=0.0, neginf=0.0)
    heads = np.split(mask, np.cumsum(head_sizes(space))[:-1])
    return np.array([int(np.argmax(head)) for head in heads], dtype=np.int64)


def action_to_json(action: Action) -> Any:
    """A list of indices or numbers, or a mapping of named quantities."""
    if isinstance(action, Mapping):
        return {key: value.item() if isinstance(value, np.generic) else value for key, value in action.items()}
    numbers = np.atleast_1d(action)
    return (numbers if numbers.dtype.kind == "f" else numbers.astype(np.int64)).tolist()


def action_from_json(data: Any) -> Action:
    """The action that ``action_to_json`` wrote."""
    if isinstance(data, Mapping):
        return data
    numbers = np.asarray(data)
    return numbers if numbers.dtype.kind == "f" else numbers.astype(np.int64)
