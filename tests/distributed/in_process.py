"""A ``Source`` without ranks: it plays environments itself, with the policies that were published, late if asked to."""

from __future__ import annotations

import numpy as np

from rlctl.distributed.actor.numpy_policies import actor_policy
from rlctl.distributed.comm.chunk import Recorder, decode


class Players:
    """Actors that take turns; actor k acts by a policy that is ``lag * (k % 2)`` versions old."""

    def __init__(self, worlds, steps=16, lag=0, seed=0):
        self.worlds, self.steps, self.lag = worlds, steps, lag
        self.layout = worlds[0].layout
        self.version = 0
        self.published = []
        self.random = np.random.default_rng(seed)
        self.rows = [world.begin() for world in worlds]
        self.recorders, self.states, self.turn = [], [], 0

    def publish(self, spec, weights, exploration=0.0, at_random=False):
        if not self.published:
            self.policy = actor_policy(spec)
            for number, world in enumerate(self.worlds):
                self.recorders.append(Recorder(self.layout, number, world.count, self.steps, self.policy.state_length))
                self.states.append(self.policy.begin(world.count))
        self.version += 1
        self.published.append((weights.copy(), exploration, at_random))

    def gather(self, transitions, asked_to_stop):
        chunks = []
        while sum(chunk.transitions for chunk in chunks) < transitions and not asked_to_stop():
            chunks.append(self.play(self.turn % len(self.worlds)))
            self.turn += 1
        return chunks

    def play(self, number):
        world, recorder = self.worlds[number], self.recorders[number]
        version = max(1, self.version - self.lag * (number % 2))
        weights, exploration, at_random = self.published[version - 1]
        self.policy.load(weights)
        recorder.begin(self.states[number])
        for _ in range(self.steps):
            rows, state = self.rows[number], self.states[number]
            answer = self.policy.act(rows, state, self.random, exploration, at_random)
            step = world.step(answer.actions)
            recorder.add(rows, answer.stored, answer.log_probs, step, version)
            self.rows[number], self.states[number] = step.rows, answer.state
            for ended in step.ended:
                answer.state[ended.environment] = 0.0
        return decode(recorder.encode(self.rows[number], {}, 1.0, 0.5).copy(), self.layout)
