"""RecurrentPPO that learns from the chunks of asynchronous actors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sb3_contrib import RecurrentPPO

from rlctl_agents.on_policy.chunk_batch import ChunkBatch
from rlctl_agents.on_policy.options import OnPolicyOptions
from rlctl_agents.on_policy.pull import Pull
from rlctl_agents.on_policy.rollout_buffers import FilledRecurrentRolloutBuffer
from rlctl_agents.on_policy.rollouts_from_actors import Evaluation, OnPolicyFromActors
from rlctl_agents.recurrent_ppo.networks import CriticMemory, run_along

if TYPE_CHECKING:
    from rlctl.distributed.learner.context import LearnerContext


class ActorRecurrentPPO(OnPolicyFromActors, RecurrentPPO):
    """RecurrentPPO from the chunks of actors, each with the actor's memory at its begin."""

    def attach(self, context: LearnerContext, options: OnPolicyOptions) -> None:
        """See ``OnPolicyFromActors.attach``."""
        super().attach(context, options)
        self._memory, self._memory_of_start = CriticMemory(), CriticMemory()

    def _setup_model(self) -> None:
        super()._setup_model()
        made: Any = self.rollout_buffer
        self.rollout_buffer = FilledRecurrentRolloutBuffer(
            1,
            self.observation_space,
            self.action_space,
            (1, *made.hidden_state_shape[1:]),
            self.device,
            gamma=self.gamma,
            gae_lambda=self.gae_lambda,
        )

    def _under_start(self, pull: Pull, batch: ChunkBatch, found: Evaluation) -> NDArray[np.float32]:
        # With the memory that the acting policy had: as long as they differ little, it means the same to both.
        return run_along(pull.policy, batch, self._actions(batch), self._memory_of_start).log_probs

    def _evaluate(self, batch: ChunkBatch) -> Evaluation:
        found = run_along(self.policy, batch, self._actions(batch), self._memory)
        found.more |= {
            "episode_starts": batch.starts.astype(np.float32),
            "seams": batch.seams.astype(np.float32),
        }
        return found
