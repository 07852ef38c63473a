"""One system steps paced environments for a while; ``benchmarks/distributed.py`` starts it. Prints a line of JSON.

``python stepping.py SYSTEM ENVIRONMENTS KIND MEAN SECONDS``; those of rlctl under mpiexec, with one rank more than
environments. Steps count from when all have made some; ``busy`` is what the counted steps took, over elapsed time times
environments.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from paced import Paced, durations

WARM_UP_S = 2.0
CUT = (64, 1.0)
"""Steps and seconds after which an actor sends a chunk."""
NETWORK = {"network": {"hidden": [64, 64]}, "greedy": False}
WEIGHTS = 5 * 64 + 65 * 64 + 65 * 2

Figures = dict[str, float]


def main() -> None:
    """Run one system."""
    system, environments, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    mean_s, seconds = float(sys.argv[4]), float(sys.argv[5])
    found = SYSTEMS[system](durations(environments, kind, mean_s), seconds)
    if found is not None:
        print(json.dumps(found), flush=True)


def actors(times_s: np.ndarray, seconds: float, with_window: bool = False) -> Figures | None:
    """The actors of rlctl, and the collector that its learners have; nothing is learned, a policy goes round."""
    from mpi4py import MPI

    from rlctl.distributed.actor.loop import Actor, ChunkLimits
    from rlctl.distributed.actor.vector_env import SequentialVectorEnv
    from rlctl.distributed.comm.heartbeat import Heartbeat
    from rlctl.distributed.comm.rma_weights import WeightsWindow
    from rlctl.distributed.comm.transition_spec import Seeds
    from rlctl.distributed.comm.transport import MpiTransport
    from rlctl.distributed.learner.actor_registry import ActorRegistry
    from rlctl.distributed.learner.collector import Collector

    comm = MPI.COMM_WORLD
    transport, window = MpiTransport(comm), WeightsWindow(comm, 0) if with_window else None
    if comm.rank:
        number = comm.rank - 1
        worlds = SequentialVectorEnv([lambda: Paced(times_s[number])], Seeds(0, 0, number))
        newer = None if window is None else window.newer
        Actor(number, worlds, transport, (0, 0), ChunkLimits(*CUT), 60.0, [0, number], newer=newer).run()
        return None
    registry = ActorRegistry({number: (0, number + 1) for number in range(comm.size - 1)}, 60.0)
    collector = Collector(transport, registry, 60.0, window=None if window is None else window.put)
    weights = np.random.default_rng(0).normal(size=WEIGHTS).astype(np.float32)
    counts = np.zeros(comm.size - 1, np.int64)
    heard_s = np.zeros(comm.size - 1)
    lags: list[float] = []
    until_s = float("inf")
    published = 0

    def gather() -> None:
        nonlocal published
        for chunk in collector.next_batch(comm.size - 1, lambda: time.monotonic() > until_s):
            counts[chunk.actor] += chunk.size
            heard_s[chunk.actor] = time.monotonic()
            lags.append(float(np.mean(collector.version - chunk.transitions["version"][:, 0])))
        collector.publish(NETWORK, weights)
        published += 1

    with Heartbeat(collector.beat, 60.0):
        collector.publish(NETWORK, weights)
        while not all(counts):
            gather()
        begun, since_s, published = counts.copy(), heard_s.copy(), 0
        lags.clear()
        began_s, worked_s = time.monotonic(), time.process_time()
        until_s = began_s + seconds
        while time.monotonic() < until_s:
            gather()
        found = _found(times_s, begun, counts, time.monotonic() - began_s, time.process_time() - worked_s)
        # From chunk to chunk of each actor: what is under way at the end is not known.
        slept_s = [times_s[i, a:b].sum() for i, (a, b) in enumerate(zip(begun, counts, strict=True))]
        found["busy"] = float(np.mean(slept_s / (heard_s - since_s)))
        found["rate"] = float(np.sum((counts - begun) / (heard_s - since_s)))
        collector.stop()
    return found | {"lag": float(np.mean(lags)), "published": float(published)}


def in_step(times_s: np.ndarray, seconds: float) -> Figures | None:
    """The ranks of rlctl, stepped together."""
    from mpi4py import MPI

    from rlctl.distributed.actor.vector_env import SequentialVectorEnv
    from rlctl.distributed.comm.transition_spec import Seeds
    from rlctl.distributed.modes.lockstep import LockstepVectorEnv, serve_steps

    comm = MPI.COMM_WORLD
    if comm.rank:
        number = comm.rank - 1
        serve_steps(comm, SequentialVectorEnv([lambda: Paced(times_s[number])], Seeds(0, 0, number)), 0)
        return None
    return _together(times_s, seconds, LockstepVectorEnv(comm, range(1, comm.size)))


def subproc(times_s: np.ndarray, seconds: float) -> Figures:
    """Stable-Baselines3's SubprocVecEnv."""
    from stable_baselines3.common.vec_env import SubprocVecEnv

    makers: list[Callable[[], Any]] = [partial(Paced, row) for row in times_s]
    return _together(times_s, seconds, SubprocVecEnv(makers, start_method="fork"))


def gymnasium(times_s: np.ndarray, seconds: float) -> Figures:
    """Gymnasium's AsyncVectorEnv."""
    from gymnasium.vector import AsyncVectorEnv

    return _together(times_s, seconds, AsyncVectorEnv([partial(Paced, row) for row in times_s], context="fork"))


def _together(times_s: np.ndarray, seconds: float, env: Any) -> Figures:
    env.reset()
    counts, actions = np.zeros(len(times_s), np.int64), np.zeros(len(times_s), np.int64)

    def step(for_s: float) -> None:
        until_s = time.monotonic() + for_s
        while time.monotonic() < until_s:
            env.step(actions)
            counts[:] += 1

    step(WARM_UP_S)
    begun, began_s, worked_s = counts.copy(), time.monotonic(), time.process_time()
    step(seconds)
    found = _found(times_s, begun, counts, time.monotonic() - began_s, time.process_time() - worked_s)
    env.close()
    return found


def _found(times_s: np.ndarray, begun: np.ndarray, counts: np.ndarray, elapsed_s: float, worked_s: float) -> Figures:
    slept_s = sum(float(row[a:b].sum()) for row, a, b in zip(times_s, begun, counts, strict=True))
    steps = float((counts - begun).sum())
    return {
        "rate": steps / elapsed_s,
        "busy": slept_s / elapsed_s / len(times_s),
        "cpu_us": 1e6 * worked_s / max(steps, 1.0),
        "core": worked_s / elapsed_s,
    }


SYSTEMS: dict[str, Callable[[np.ndarray, float], Figures | None]] = {
    "actors": actors,
    "actors, weights in a window": partial(actors, with_window=True),
    "lock-step": in_step,
    "SubprocVecEnv": subproc,
    "AsyncVectorEnv": gymnasium,
}

if __name__ == "__main__":
    main()
