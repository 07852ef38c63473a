"""Campaigns: the rules of the game. Pure logic, no clock, no process, no input or output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rlctl.core.task import Event, Resources, TaskId, TaskSpec

if TYPE_CHECKING:
    from rlctl.core.machine import Capacity, Machine, Scoring
    from rlctl.core.records import Record
    from rlctl.core.simulation import Outage, TaskModel

ActionSpace = gymnasium.spaces.MultiDiscrete | gymnasium.spaces.Discrete | gymnasium.spaces.Box
Action = NDArray[Any] | Mapping[str, Any]
"""An index for each head of the action space, or the numbers of a Box (networks); or the named quantities (rules)."""


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
class Around:
    """Choices relative to a rule's proposal, for policies that correct a rule.

    Attributes:
        centre: for each head, the index that means "as the rule says".
        mask: as in ``Decision``, for these choices.
        named: named quantities of indices.
        observation: what the network reads, the rule's proposal included; None: as in ``Decision``.
    """

    centre: tuple[int, ...]
    mask: NDArray[np.bool_]
    named: Callable[[NDArray[np.int64]], Mapping[str, Any]]
    observation: NDArray[np.float32] | None = None


Seen = tuple[NDArray[np.float32], NDArray[np.bool_]]
"""An observation and a mask."""


class Decision:
    """A question to a policy.

    Attributes:
        subject: what it is about (a film, a task); memory is kept per subject.
        time_s: seconds since the campaign began.
        fields: the named quantities that rules read.
        observation: the same as float32 numbers in a fixed order, for networks.
        mask: for each choice of each head, flat in the order of the heads, whether it is allowed; empty for a Box.
        cost: allocated node-seconds since the previous decision (set by the driver).
        number: 0, 1, 2 ... within the campaign (set by the driver).
        around: makes the choices around a rule's answer; None where the campaign offers none.

    Args:
        look: makes observation and mask when somebody asks for them, which rules do not; then those are not given.
    """

    __slots__ = ("_look", "_seen", "around", "cost", "fields", "number", "subject", "time_s")

    def __init__(
        self,
        subject: str,
        time_s: float,
        fields: Mapping[str, Any],
        observation: NDArray[np.float32] | None = None,
        mask: NDArray[np.bool_] | None = None,
        cost: float = 0.0,
        number: int = 0,
        around: Callable[[Mapping[str, Any]], Around] | None = None,
        look: Callable[[], Seen] | None = None,
    ) -> None:
        self.subject, self.time_s, self.fields = subject, time_s, fields
        self.cost, self.number, self.around = cost, number, around
        self._look = look
        self._seen: Seen | None = None
        if observation is not None:
            self._seen = observation, np.zeros(0, np.bool_) if mask is None else mask
        elif look is None:
            raise TypeError(
                "a decision needs an observation (and a mask of its choices), or a function that makes both"
            )

    @property
    def observation(self) -> NDArray[np.float32]:
        """See the class."""
        return self._both()[0]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """See the class."""
        return self._both()[1]

    def seen(self, around: Around) -> Decision:
        """The same question, as a policy sees it that corrects a rule."""
        observation = self.observation if around.observation is None else around.observation
        return Decision(self.subject, self.time_s, self.fields, observation, around.mask, self.cost, self.number)

    def _both(self) -> Seen:
        if self._seen is None:
            assert self._look is not None
            self._seen = self._look()
        return self._seen


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a campaign stands.

    Attributes:
        ended: whether the campaign is over, by its goal or its budget.
        reached: whether the goal was reached (then the episode terminates; otherwise it truncates).
        successes: units of the goal so far (good films, finished tasks).
        potential: the shaping potential of the present state, in units of reward; 0 once the goal is reached.
        extra: figures for reports.
        price: what the campaign has cost so far, where its objective is another than allocated node-seconds; it is
            what ``Campaign.reward_scale`` scales and comparisons divide by successes.
    """

    ended: bool
    reached: bool
    successes: int
    potential: float = 0.0
    extra: Mapping[str, float] = field(default_factory=dict)
    price: float | None = None


class Campaign(Protocol):
    """A fold of (seed, events, actions): the same sequence gives the same state, in training, steering and replay.

    The driver calls, in this order: ``begin`` once; then, until ``outcome().ended``, ``decision`` and ``apply``
    while a decision is open, and ``on_event`` for each event, ``on_time`` before it. When the campaign has ended the
    driver cancels what is still running.
    """

    @property
    def observation_space(self) -> gymnasium.spaces.Box:
        """Of ``Decision.observation``."""

    @property
    def action_space(self) -> ActionSpace:
        """Of indices, where a Discrete counts as one head, or of numbers: a Box of floats with finite bounds."""

    @property
    def reward_scale(self) -> float:
        """Reward for one allocated node-second, or one unit of ``Outcome.price``, is minus this."""

    @property
    def deadline_s(self) -> float:
        """End of the allocation, seconds since the campaign began."""

    def begin(self, capacity: Capacity) -> None:
        """Learn the machine; open the first decisions."""

    def on_time(self, time_s: float) -> None:
        """The clock stands at ``time_s`` now; the budget may be over."""

    def on_event(self, event: Event) -> None:
        """A task changed its state."""

    def decision(self) -> Decision | None:
        """The open decision, the same until it is applied; None if none is open at this instant."""

    def apply(self, action: Action) -> list[Command]:
        """Answer the open decision. A masked choice becomes the default and is counted, never an error.

        The numbers of a Box have its type and shape and lie within its bounds.
        """

    def outcome(self) -> Outcome:
        """How the campaign stands."""


@runtime_checkable
class Waking(Protocol):
    """What a campaign may offer besides, if something happens in it at a time that it knows: tasks arrive, say."""

    @property
    def wake_s(self) -> float:
        """When ``on_time`` is to be called at the latest, seconds since the campaign began; infinite: whenever."""


@runtime_checkable
class Elastic(Protocol):
    """What a campaign may offer besides, if it wants to know of nodes that are lost, regained, added or taken away."""

    def on_machine(self, machine: Machine) -> None:
        """These nodes are there now; it is called when that changes. Events of tasks that were lost come before."""


@runtime_checkable
class Countable(Protocol):
    """What a campaign may offer besides, if its goal is a number of successes."""

    @property
    def goal(self) -> int:
        """Successes that reach the goal."""


class CampaignFactory(Protocol):
    """What a package registers under the entry point group ``rlctl.campaigns``: makes campaigns of one kind.

    It is called as ``Factory(options)``, with the mapping ``campaign.options`` of the configuration, and raises
    ``ConfigError`` for options that it does not know or cannot use. An instance is fixed by its seed: ``campaign(7)``
    and ``task_model(7)`` belong together.

    It may have a method ``check(capacity, real)`` that raises ``ConfigError`` if its campaigns cannot be played on such
    a machine, or, where ``real`` is true, not with real programs; it is asked before anything is made.
    """

    name: str
    version: int

    def campaign(self, seed: int) -> Campaign:
        """The rules of the game of instance ``seed``."""

    def task_model(self, seed: int) -> TaskModel:
        """What the tasks of instance ``seed`` would do, for the simulated executor."""

    def privileged(self, seed: int) -> NDArray[np.float32]:
        """Hidden quantities of the instance, for a critic in training only; may be empty."""

    def prepare(self, folder: Path, seed: int) -> None:
        """Write what the real programs of instance ``seed`` need into a fresh run folder."""

    def vector_env(self, num_envs: int, seed: int, capacity: Capacity) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
        """Many campaigns stepped together."""


@runtime_checkable
class Unsteady(Protocol):
    """What a factory may offer besides, if nodes come and go on its twins."""

    def outages(self, seed: int, capacity: Capacity) -> Sequence[Outage]:
        """When nodes are not there, in instance ``seed``."""


@runtime_checkable
class Repeatable(Protocol):
    """What a factory may offer besides, if chance plays a part in its tasks: what else might have come of them.

    ``rlctl report`` names the results of a run that lie beyond; see ``rlctl.steering.plausibility``.
    """

    def repetitions(self, seed: int, count: int) -> Sequence[TaskModel]:
        """So many task models of instance ``seed``, each with chance drawn anew; no task fails by chance."""


@runtime_checkable
class Placing(Protocol):
    """What a factory may offer besides, if its campaigns have a say in which nodes tasks go to."""

    @property
    def scoring(self) -> Scoring | None:
        """What says where, or None for where the least is left for others."""


@runtime_checkable
class Illustrated(Protocol):
    """What a factory may offer besides: pictures of a steered campaign, for reports and TensorBoard."""

    def pictures(self, folder: Path, records: Sequence[Record]) -> dict[str, bytes]:
        """PNG pictures by name; may be empty. It only reads, and tasks may be running and writing meanwhile.

        Args:
            folder: the run's folder of task files, the one that ``prepare`` was given.
            records: of the run's journal, so far.
        """


def head_sizes(space: ActionSpace) -> NDArray[np.int64]:
    """How many choices each head of an action space has; a Box has no heads.

    >>> head_sizes(gymnasium.spaces.Discrete(3)).tolist(), head_sizes(gymnasium.spaces.Box(0, 1)).tolist()
    ([3], [])
    """
    if isinstance(space, gymnasium.spaces.Box):
        return np.zeros(0, np.int64)
    sizes = space.nvec if isinstance(space, gymnasium.spaces.MultiDiscrete) else [space.n]
    return np.asarray(sizes, dtype=np.int64)


def default_action(space: ActionSpace, mask: NDArray[np.bool_]) -> NDArray[Any]:
    """The first allowed choice of each head; of a Box, the middle."""
    if isinstance(space, gymnasium.spaces.Box):
        return np.asarray(space.low + 0.5 * (space.high - space.low), space.dtype)
    return first_allowed(mask, head_sizes(space))


def first_allowed(mask: NDArray[np.bool_], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first allowed choice of each head.

    >>> first_allowed(np.array([False, True, True, False]), np.array([2, 2])).tolist()
    [1, 0]
    """
    return np.array([int(np.argmax(head)) for head in np.split(mask, np.cumsum(sizes)[:-1])], dtype=np.int64)


def action_to_json(action: Action) -> Any:
    """A list of indices or numbers, or a mapping of named quantities."""
    if isinstance(action, Mapping):
        return {key: value.item() if isinstance(value, np.generic) else value for key, value in action.items()}
    array = np.atleast_1d(action)
    return array.tolist() if array.dtype.kind == "f" else [int(i) for i in array]


def action_from_json(data: Any) -> Action:
    """The action that ``action_to_json`` wrote."""
    return data if isinstance(data, Mapping) else np.asarray(data)
