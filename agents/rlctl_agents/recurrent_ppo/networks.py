"""Recurrent policies along chunks: the memory that the current network would have at each step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rlctl_agents.on_policy.chunk_batch import ChunkBatch
from rlctl_agents.on_policy.rollouts_from_actors import Evaluation

States = tuple[torch.Tensor, torch.Tensor]
_NAMES = ("hidden_states_pi", "cell_states_pi", "hidden_states_vf", "cell_states_vf")


class CriticMemory:
    """The critic's memory from an actor's chunk to its next one; actors send that of the policy."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, int], tuple[int, NDArray[np.float32]]] = {}

    def begin(self, batch: ChunkBatch, units: int) -> NDArray[np.float32]:
        """Before the first step of each column, [columns, 2 units]."""
        states = np.zeros((batch.columns, 2 * units), np.float32)
        column = 0
        for chunk in batch.chunks:
            for i in range(chunk.transitions.shape[1]):
                number, state = self._kept.get((chunk.actor, i), (None, None))
                # Chunks of one batch follow each other, too; then what an earlier update left is near enough.
                if state is not None and number is not None and number < chunk.number:
                    states[column] = state
                column += 1
        return states

    def keep(self, batch: ChunkBatch, ends: NDArray[np.float32]) -> None:
        """After the last step of each column; nothing where the episode ended."""
        column = 0
        for chunk in batch.chunks:
            for i in range(chunk.transitions.shape[1]):
                done = chunk.transitions["terminated"][-1, i] or chunk.transitions["truncated"][-1, i]
                self._kept[chunk.actor, i] = chunk.number, ends[column] * (not done)
                column += 1


def run_along(policy: Any, batch: ChunkBatch, actions: torch.Tensor, memory: CriticMemory) -> Evaluation:
    """Run the network along all columns together, step by step.

    Returns:
        with the hidden and cell states of actor and critic before each step, [N, 1, units], by the buffer's names.
    """
    device, columns, longest = policy.device, batch.columns, batch.longest
    rows = torch.zeros((columns, longest, batch.observations.shape[1]), device=device)
    valid = torch.as_tensor(np.arange(longest) < batch.lengths[:, None], device=device)
    rows[valid] = torch.as_tensor(batch.observations, device=device)
    starts = torch.as_tensor(batch.columned(batch.starts.astype(np.float32)), device=device)
    actor = _states(np.concatenate([chunk.state for chunk in batch.chunks]), device)
    critic = _states(memory.begin(batch, actor[0].shape[-1]), device)
    kept: dict[str, list[torch.Tensor]] = {name: [] for name in _NAMES}
    latents, values = [], []
    cut = np.zeros(len(batch.cut_at), np.float32)
    last = np.zeros(columns, np.float32)
    final = torch.as_tensor(batch.last_observations, device=device)
    ends = np.zeros((columns, 2 * actor[0].shape[-1]), np.float32)
    with torch.no_grad():
        for t in range(longest):
            for name, state in zip(_NAMES, (*actor, *critic), strict=True):
                kept[name].append(state[0])
            latent, value, actor, critic = _step(policy, rows[:, t], starts[:, t], actor, critic)
            latents.append(latent)
            values.append(value)
            here = np.flatnonzero(batch.cut_at[:, 1] == t)
            if len(here):
                which = batch.cut_at[here, 0]
                cut_rows = torch.as_tensor(batch.cut_observations[here], device=device)
                zero = torch.zeros(len(here), device=device)
                cut[here] = _step(policy, cut_rows, zero, _of(actor, which), _of(critic, which))[1].cpu().numpy()
            over = np.flatnonzero(batch.lengths == t + 1)
            if len(over):
                zero = torch.zeros(len(over), device=device)
                last[over] = _step(policy, final[over], zero, _of(actor, over), _of(critic, over))[1].cpu().numpy()
                ends[over] = torch.cat([critic[0][0], critic[1][0]], dim=1)[over].cpu().numpy()
        flat = torch.stack(latents, dim=1)[valid]
        log_probs = policy._get_action_dist_from_latent(flat).log_prob(actions).cpu().numpy()
    memory.keep(batch, ends)
    states = {name: torch.stack(parts, dim=1)[valid][:, None].cpu().numpy() for name, parts in kept.items()}
    return Evaluation(torch.stack(values, dim=1)[valid].cpu().numpy(), log_probs, last, cut, states)


def _step(
    policy: Any, rows: torch.Tensor, starts: torch.Tensor, actor: States, critic: States
) -> tuple[torch.Tensor, torch.Tensor, States, States]:
    """One step as ``RecurrentActorCriticPolicy.forward`` makes it, without an action."""
    features = policy.extract_features(rows)
    latent_pi, actor = policy._process_sequence(features, actor, starts, policy.lstm_actor)
    latent_vf, critic = policy._process_sequence(features, critic, starts, policy.lstm_critic)
    values = policy.value_net(policy.mlp_extractor.forward_critic(latent_vf)).flatten()
    return policy.mlp_extractor.forward_actor(latent_pi), values, actor, critic


def _states(flat: NDArray[np.float32], device: Any) -> States:
    units = flat.shape[1] // 2
    tensor = torch.as_tensor(np.ascontiguousarray(flat), device=device)
    return tensor[None, :, :units].contiguous(), tensor[None, :, units:].contiguous()


def _of(states: States, columns: NDArray[np.int64]) -> States:
    return states[0][:, columns].contiguous(), states[1][:, columns].contiguous()
