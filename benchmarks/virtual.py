"""Many virtual actors before the real learner: collector, chunks and PPO are real, the actors' time is not.

``python virtual.py ACTORS MEAN TRANSITIONS`` prints a line of JSON. The clock runs with the learner's own time, stands
while virtual actors make their chunks, and jumps to the next chunk where the learner would sleep.
"""

from __future__ import annotations

import heapq
import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from gymnasium import spaces

from rlctl.distributed.comm.chunk import ChunkRecorder
from rlctl.distributed.comm.codec import EMPTY, ActorHello, Bytes, decode, encode
from rlctl.distributed.comm.transition_spec import EpisodeEnd, Step, TransitionSpec
from rlctl.distributed.comm.transport import Message, MessageKind, Peer
from rlctl.distributed.learner.actor_registry import ActorRegistry
from rlctl.distributed.learner.collector import Collector
from rlctl.distributed.learner.context import LearnerContext
from rlctl_agents.on_policy.options import OnPolicyOptions
from rlctl_agents.on_policy.rollouts_from_actors import ActorPPO
from rlctl_agents.vec_env import RemoteEnvSpec

LAYOUT = TransitionSpec(4, 0, 0, 1)
OBSERVATION, ACTION = spaces.Box(-1.0, 1.0, (4,), np.float32), spaces.Discrete(2)
STEPS = 32
ROLLOUT, BATCH, EPOCHS = 8192, 512, 4


class Clock:
    """The learner's time, without what the virtual actors need of it and with what it would have slept."""

    def __init__(self) -> None:
        self._shift_s = -time.perf_counter()

    def __call__(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() + self._shift_s

    def stop(self) -> Callable[[], None]:
        """Stand still until the answer is called."""
        stopped_s = time.perf_counter()

        def go() -> None:
            self._shift_s -= time.perf_counter() - stopped_s

        return go

    def jump(self, to_s: float) -> None:
        """Stand at a later time."""
        self._shift_s += max(0.0, to_s - self())


class VirtualActors:
    """A ``Transport`` at whose other end actors play, each step as long as it was drawn."""

    def __init__(self, count: int, mean_s: float, clock: Clock) -> None:
        self.clock = clock
        drawn = np.random.default_rng(0).lognormal(0.0, 1.0, (count, 512))
        self._times_s = drawn * (mean_s / drawn.mean())
        self._random = np.random.default_rng(1)
        self._recorders = [ChunkRecorder(LAYOUT, number, 1, STEPS) for number in range(count)]
        self._inbox: deque[Message] = deque()
        self._due: list[tuple[float, int]] = []
        self._waiting: set[int] = set()  # a chunk is ready, and the one before it is not acknowledged yet
        self._outstanding: set[int] = set()
        self._versions = [0] * count
        self._at = [0] * count
        for number in range(count):
            hello = ActorHello(number, 1, LAYOUT, (OBSERVATION, ACTION))
            self._inbox.append(Message((0, number), MessageKind.HELLO, encode(hello)))

    def send(self, peer: Peer, kind: MessageKind, data: Bytes = EMPTY) -> None:
        """The learner says something."""
        number = peer[1]
        if kind is MessageKind.WEIGHTS:
            begins = self._versions[number] == 0
            self._versions[number] = decode(data).version
            if begins:
                self._play(number)
        elif kind is MessageKind.ACK:
            self._outstanding.discard(number)
            if number in self._waiting:
                self._waiting.discard(number)
                self._deliver(number)

    def poll(self) -> Iterator[Message]:
        """What has arrived by now."""
        while self._due and self._due[0][0] <= self.clock():
            number = heapq.heappop(self._due)[1]
            if number in self._outstanding:
                self._waiting.add(number)
            else:
                self._deliver(number)
        while self._inbox:
            yield self._inbox.popleft()

    def lost(self) -> set[Peer]:
        """Nobody."""
        return set()

    def sleep(self, seconds: float) -> None:
        """To the next chunk, but no longer than this."""
        until_s = self.clock() + seconds
        self.clock.jump(min(until_s, self._due[0][0]) if self._due else until_s)

    def _play(self, number: int) -> None:
        at = self._at[number]
        self._at[number] = at + STEPS
        times_s = np.take(self._times_s[number], range(at, at + STEPS), mode="wrap")
        heapq.heappush(self._due, (self.clock() + float(times_s.sum()), number))

    def _deliver(self, number: int) -> None:
        go = self.clock.stop()
        recorder, version = self._recorders[number], self._versions[number]
        recorder.start()
        rows = self._random.uniform(-1.0, 1.0, (STEPS + 1, 1, 4)).astype(np.float32)
        one, half, off = np.ones(1, np.float32), np.full(1, np.log(0.5), np.float32), np.zeros(1, np.bool_)
        for step in range(STEPS):
            over = np.array([step == STEPS - 1])
            ended = [EpisodeEnd(0, rows[step + 1, 0], 32.0, STEPS)] if over[0] else []
            action = np.zeros((1, 1), np.float32)
            recorder.add(rows[step], action, half, Step(rows[step + 1], one, one, over, off, ended), version)
        chunk = recorder.encode(rows[-1], {}, 1.0, 1.0).copy()
        self._inbox.append(Message((0, number), MessageKind.CHUNK, chunk))
        self._outstanding.add(number)
        go()
        self._play(number)


def learn(count: int, mean_s: float, transitions: int) -> dict[str, float]:
    """What the learner takes in, against what the actors could give it."""
    torch.set_num_threads(1)
    clock = Clock()
    go = clock.stop()
    actors = VirtualActors(count, mean_s, clock)
    registry = ActorRegistry({number: (0, number) for number in range(count)}, 1e9, clock=clock)
    collector = Collector(actors, registry, 1e9, clock=clock, sleep=actors.sleep)
    collector.wait_for_actor(lambda: False)
    env = RemoteEnvSpec(LAYOUT, OBSERVATION, ACTION)
    model = ActorPPO("MlpPolicy", env, n_steps=ROLLOUT, batch_size=BATCH, n_epochs=EPOCHS, seed=1)
    model.attach(LearnerContext(collector), OnPolicyOptions())
    spent_s = {"update": 0.0}
    train = model.train

    def timed() -> None:
        began_s = clock()
        train()
        spent_s["update"] += clock() - began_s

    model.train = timed  # type: ignore[method-assign]
    go()
    # The first chunks arrive after a chunk's time; from then on it is steady.
    model.learn(ROLLOUT)
    began_s, before, spent_s["update"] = clock(), model.num_timesteps, 0.0
    collector.metrics()
    model.learn(transitions, reset_num_timesteps=False)
    elapsed_s, learned = clock() - began_s, model.num_timesteps - before
    idle = collector.metrics()["distributed/learner_idle"]
    return {
        "rate": learned / elapsed_s,
        "ideal": count / mean_s,
        "idle": idle,
        "update_us": 1e6 * spent_s["update"] / learned,
        "other_us": 1e6 * (elapsed_s * (1.0 - idle) - spent_s["update"]) / learned,
    }


if __name__ == "__main__":
    print(json.dumps(learn(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))))
