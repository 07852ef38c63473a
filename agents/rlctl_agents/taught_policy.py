"""The network of an on-policy model as imitation needs it, with masks beside the rows, with a memory, or neither."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sb3_contrib import MaskablePPO, RecurrentPPO
from sb3_contrib.common.recurrent.type_aliases import RNNStates

MINIBATCH = 512


@dataclass(frozen=True, slots=True)
class Batch:
    """Decisions: of one step [n, ...], of a round [T, n, ...], or of a minibatch [N, ...].

    Attributes:
        rows: as the network reads them.
        masks: choices that are allowed.
        starts: whether an episode began here.
        labels: what the rule answered; the network's own action where that is no choice.
        labelled: whether it is one.
        rewards: that followed; in minibatches for the critic, what it is to predict.
        done: whether the episode ended then.
        cut: whether it was cut off, and goes on elsewhere.
    """

    rows: NDArray[np.float32]
    masks: NDArray[np.bool_]
    starts: NDArray[np.bool_]
    labels: NDArray[Any]
    labelled: NDArray[np.bool_]
    rewards: NDArray[np.float32]
    done: NDArray[np.bool_]
    cut: NDArray[np.bool_]

    @staticmethod
    def stacked(steps: Sequence[Batch]) -> Batch:
        """A round of its steps."""
        return Batch(*(np.stack([getattr(step, field.name) for step in steps]) for field in fields(Batch)))

    def with_targets(self, targets: NDArray[np.float32]) -> Batch:
        """The same, with what the critic is to predict."""
        return replace(self, rewards=targets)

    def columns(self, which: NDArray[np.int64]) -> Batch:
        """Some environments of a round, one after the other, [N, ...]."""
        return Batch(*(_in_turn(getattr(self, field.name)[:, which]) for field in fields(Batch)))

    def some(self, which: NDArray[np.int64]) -> Batch:
        """Some decisions."""
        return Batch(*(getattr(self, field.name)[which] for field in fields(Batch)))


class TaughtPolicy:
    """Acts by a model's network, and computes likelihoods and values with gradients.

    Args:
        steps: of each environment in a round.
    """

    def __init__(self, model: Any, steps: int) -> None:
        self.model, self._steps = model, steps
        self._masked, self.recurrent = isinstance(model, MaskablePPO), isinstance(model, RecurrentPPO)
        self._state: Any = None

    def begin(self) -> None:
        """Forget: all environments begin anew."""
        self._state = None

    def act(self, rows: NDArray[np.float32], starts: NDArray[np.bool_], masks: NDArray[np.bool_]) -> NDArray[Any]:
        """Actions by chance, [n, heads]."""
        more = {"action_masks": masks} if self._masked else {}
        actions, self._state = self.model.predict(rows, self._state, starts, deterministic=False, **more)
        return np.reshape(actions, (len(rows), -1))

    def minibatches(self, rounds: Sequence[Batch], rng: np.random.Generator) -> Iterator[Batch]:
        """All decisions in random order; where there is a memory, whole environments."""
        if self.recurrent:
            count, each = rounds[0].rows.shape[1], max(1, 4 * MINIBATCH // self._steps)
            for part in np.array_split(rng.permutation(len(rounds) * count), -(-len(rounds) * count // each)):
                chosen = [rounds[i // count].columns(np.array([i % count])) for i in part]
                yield _joined(chosen)
            return
        everything = _joined([of.columns(np.arange(of.rows.shape[1])) for of in rounds])
        order = rng.permutation(len(everything.rows))
        for at in range(0, len(order), MINIBATCH):
            yield everything.some(order[at : at + MINIBATCH])

    def evaluate(self, part: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Values, log-probabilities of the labels, and entropies, [N] each."""
        policy, device = self.model.policy, self.model.device
        policy.set_training_mode(True)
        rows = torch.as_tensor(part.rows, device=device)
        actions = torch.as_tensor(part.labels, device=device)
        actions = actions.flatten() if not self.model.action_space.shape else actions
        if self._masked:
            values, log_probs, entropy = policy.evaluate_actions(rows, actions, action_masks=part.masks)
        elif self.recurrent:
            starts = torch.as_tensor(part.starts, dtype=torch.float32, device=device)
            values, log_probs, entropy = policy.evaluate_actions(rows, actions, self._blank(part), starts)
        else:
            values, log_probs, entropy = policy.evaluate_actions(rows, actions)
        return values.flatten(), log_probs, -log_probs if entropy is None else entropy

    def values(self, of: Batch) -> NDArray[np.float32]:
        """What the critic thinks of a round's states, [T, n]."""
        count, each = of.rows.shape[1], max(1, 16 * MINIBATCH // self._steps)
        with torch.no_grad():
            parts = [
                self.evaluate(of.columns(np.arange(at, min(at + each, count))))[0].cpu().numpy()
                for at in range(0, count, each)
            ]
        return np.concatenate(parts).reshape(count, self._steps).T

    def step(self, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
        """One step down the gradient of a loss."""
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.policy.parameters(), self.model.max_grad_norm)
        optimizer.step()

    def _blank(self, part: Batch) -> RNNStates:
        """Memories before the first step of each environment of a minibatch; all began at a start."""
        lstm = self.model.policy.lstm_actor
        count = len(part.rows) // self._steps
        zero = torch.zeros((lstm.num_layers, count, lstm.hidden_size), device=self.model.device)
        return RNNStates((zero, zero), (zero, zero))


def _joined(parts: Sequence[Batch]) -> Batch:
    return Batch(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Batch)))


def _in_turn(array: NDArray[Any]) -> NDArray[Any]:
    """[T, k, ...] as [k T, ...], an environment after the other."""
    return np.ascontiguousarray(np.swapaxes(array, 0, 1)).reshape(-1, *array.shape[2:])
