"""A policy maps a decision to an action. Networks, rules and optimisers share this interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from rlctl.core.campaign import Action, Decision


class Policy(Protocol):
    """Maps decisions to actions; keeps what memory it needs per subject.

    ``state`` is JSON-ready; ``restore(state())`` gives a policy that answers the same.
    """

    name: str

    def act(self, decision: Decision) -> Action:
        """The answer: an index per head, or named quantities."""

    def reset(self, seed: int) -> None:
        """Forget all subjects; a new campaign begins. ``seed`` starts the policy's own randomness, if any."""

    def state(self) -> Mapping[str, Any]:
        """What must be saved to go on later."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``state`` gave."""


@runtime_checkable
class Preferring(Protocol):
    """A rule that also says how much it prefers each of what its answer might have been."""

    def preferences(self, decision: Decision) -> Any:
        """In the campaign's own order, e.g. of its queue; a difference of 1 is much. None: it does not say."""


@runtime_checkable
class Remembering(Protocol):
    """A rule with a memory that networks can read which correct this rule, or are advised by it."""

    def remembered(self, decision: Decision) -> Sequence[float]:
        """As many numbers at each decision, about -3 to 3; asked for after ``act``."""


class SimpleRule:
    """A policy without memory; a subclass adds ``name``, ``act``, and ``SPACE`` if its parameters can be tuned."""

    name = "rule"

    def act(self, decision: Decision) -> Action:
        """The answer."""
        raise NotImplementedError(f"{type(self).__name__}.act(decision) is not written: it answers")

    def reset(self, seed: int) -> None:
        """Nothing to forget."""

    def state(self) -> Mapping[str, Any]:
        """Nothing to save."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""
