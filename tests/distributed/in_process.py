"""Actors without ranks, as a collector shows them: they step environments, with policies as late as is asked for."""

from __future__ import annotations

import numpy as np

from rlctl.distributed.actor.numpy_policies import ActorPolicy
from rlctl.distributed.comm.chunk import ChunkRecorder, decode_chunk


class Players:
    """Actors that take turns; actor k acts by a policy that is ``lag * (k % 2)`` versions old."""

    def __init__(self, worlds, steps=16, lag=0, seed=0):
        self.worlds, self.steps, self.lag = worlds, steps, lag
        self.transition_spec = worlds[0].transition_spec
        self.version = 0
        self.published = []
        self.random = np.random.default_rng(seed)
        self.rows = [world.reset() for world in worlds]
        self.recorders, self.states, self.turn = [], [], 0

    def publish(self, policy_spec, weights, exploration=0.0, at_random=False):
        if not self.published:
            self.policy = ActorPolicy(policy_spec, self.transition_spec, self.worlds[0].action_space)
            for number, world in enumerate(self.worlds):
                self.recorders.append(
                    ChunkRecorder(self.transition_spec, number, world.count, self.steps, self.policy.state_size)
                )
                self.states.append(self.policy.initial_state(world.count))
        self.version += 1
        self.published.append((weights.copy(), exploration, at_random))

    def next_batch(self, transitions, asked_to_stop):
        chunks = []
        while sum(chunk.size for chunk in chunks) < transitions and not asked_to_stop():
            chunks.append(self.play(self.turn % len(self.worlds)))
            self.turn += 1
        return chunks

    def play(self, number):
        world, recorder = self.worlds[number], self.recorders[number]
        version = max(1, self.version - self.lag * (number % 2))
        weights, exploration, at_random = self.published[version - 1]
        self.policy.load(weights)
        recorder.start(self.states[number])
        for _ in range(self.steps):
            rows, state = self.rows[number], self.states[number]
            answer = self.policy.act(rows, state, self.random, exploration, at_random)
            step = world.step(answer.actions)
            recorder.add(rows, answer.buffer_actions, answer.log_probs, step, version)
            self.rows[number], self.states[number] = step.observations, answer.state
            for end in step.episode_ends:
                answer.state[end.environment] = 0.0
        return decode_chunk(recorder.encode(self.rows[number], {}, 1.0, 0.5).copy(), self.transition_spec)
