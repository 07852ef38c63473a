"""One system steps paced environments for a while; ``benchmarks/distributed.py`` starts it. Prints a line of JSON.

``python stepping.py SYSTEM ENVIRONMENTS KIND SECONDS``; ``asynchronous`` and ``lockstep`` under mpiexec with one rank
more than environments. Steps count from the first second on; ``slept_s`` is what the counted steps took.
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
from paced import MEAN_S, Paced, durations

WARM_UP_S = 3.0
NETWORK = {"kind": "categorical", "heads": [2], "n_obs": 4, "n_mask": 0, "hidden": [64, 64], "activation": "tanh"}


def main() -> None:
    """Run one system."""
    system, environments, kind, seconds = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
    times_s = durations(environments, kind)
    found = SYSTEMS[system](times_s, seconds)
    if found is not None:
        print(json.dumps(found), flush=True)


def asynchronous(times_s: np.ndarray, seconds: float) -> dict[str, float] | None:
    """The actors of rlctl, and the collector that its learners have; nothing is learned, the policy goes round."""
    from mpi4py import MPI

    from rlctl.distributed.actor import Actor, Cut
    from rlctl.distributed.attendant import Attendant
    from rlctl.distributed.collector import Collector
    from rlctl.distributed.layout import Seeds
    from rlctl.distributed.policies import actor_policy
    from rlctl.distributed.transport import MpiTransport
    from rlctl.distributed.worlds import SingleWorlds

    comm = MPI.COMM_WORLD
    transport = MpiTransport(comm)
    if comm.rank:
        number = comm.rank - 1
        worlds = SingleWorlds([lambda: Paced(times_s[number])], Seeds(0, 0, number))
        Actor(number, worlds, transport, (0, 0), Cut(16, 2.0), 60.0, [0, number]).run()
        return None
    collector = Collector(transport, {n: (0, n + 1) for n in range(comm.size - 1)}, 60.0)
    weights = np.random.default_rng(0).normal(size=actor_policy(NETWORK).length).astype(np.float32)
    counts = np.zeros(comm.size - 1, np.int64)
    lags: list[int] = []
    until_s = [0.0]

    def gather() -> None:
        for chunk in collector.gather(comm.size - 1, lambda: time.monotonic() > until_s[0]):
            counts[chunk.actor] += chunk.transitions
            lags.extend(collector.version - chunk.versions)
        collector.publish(NETWORK, weights)

    with Attendant(collector.attend, 60.0):
        collector.publish(NETWORK, weights)
        until_s[0] = float("inf")
        while not all(counts):  # everybody is there
            gather()
        begun, lags[:] = counts.copy(), []
        began_s, worked_s = time.monotonic(), time.process_time()
        until_s[0] = began_s + seconds
        while time.monotonic() < until_s[0]:
            gather()
        found = _found(times_s, begun, counts, time.monotonic() - began_s, time.process_time() - worked_s)
        found["lag"] = float(np.mean(lags))
        collector.stop()
    return found


def lockstep(times_s: np.ndarray, seconds: float) -> dict[str, float] | None:
    """rlctl's ranks, stepped together."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    if comm.rank:
        from rlctl.distributed.lockstep import serve

        serve(comm, [lambda: Paced(times_s[comm.rank - 1])])
        return None
    from rlctl_agents.lockstep import RanksVecEnv

    env = RanksVecEnv(comm)
    return _in_step(times_s, seconds, env.reset, env.step, env.close)


def subproc(times_s: np.ndarray, seconds: float) -> dict[str, float]:
    """Stable-Baselines3's SubprocVecEnv."""
    from stable_baselines3.common.vec_env import SubprocVecEnv

    makers = [partial(Paced, row) for row in times_s]
    env = SubprocVecEnv(makers, start_method="fork" if len(times_s) > 16 else None)
    return _in_step(times_s, seconds, env.reset, env.step, env.close)


def gymnasium(times_s: np.ndarray, seconds: float) -> dict[str, float]:
    """Gymnasium's AsyncVectorEnv."""
    from gymnasium.vector import AsyncVectorEnv

    env = AsyncVectorEnv([partial(Paced, row) for row in times_s], context="fork" if len(times_s) > 16 else None)
    return _in_step(times_s, seconds, env.reset, env.step, env.close)


def _in_step(
    times_s: np.ndarray,
    seconds: float,
    reset: Callable[[], Any],
    step: Callable[[Any], Any],
    close: Callable[[], Any],
) -> dict[str, float]:
    reset()
    counts = np.zeros(len(times_s), np.int64)
    actions = np.zeros(len(times_s), np.int64)
    until_s = time.monotonic() + WARM_UP_S
    while time.monotonic() < until_s:
        step(actions)
        counts += 1
    begun, began_s, worked_s = counts.copy(), time.monotonic(), time.process_time()
    while time.monotonic() < began_s + seconds:
        step(actions)
        counts += 1
    found = _found(times_s, begun, counts, time.monotonic() - began_s, time.process_time() - worked_s)
    close()
    return found


def _found(
    times_s: np.ndarray, begun: np.ndarray, counts: np.ndarray, elapsed_s: float, worked_s: float
) -> dict[str, float]:
    slept_s = sum(float(row[a:b].sum()) for row, a, b in zip(times_s, begun, counts, strict=True))
    steps = float((counts - begun).sum())
    return {
        "steps_per_s": steps / elapsed_s,
        "of_n_over_mean": steps / elapsed_s * MEAN_S / len(times_s),
        "busy": slept_s / elapsed_s / len(times_s),
        "learner_us": 1e6 * worked_s / max(steps, 1.0),
        "learner_cpu": worked_s / elapsed_s,
        "load": os.getloadavg()[0],
    }


SYSTEMS: dict[str, Callable[[np.ndarray, float], dict[str, float] | None]] = {
    "asynchronous": asynchronous,
    "lockstep": lockstep,
    "SubprocVecEnv": subproc,
    "AsyncVectorEnv": gymnasium,
}

if __name__ == "__main__":
    main()
