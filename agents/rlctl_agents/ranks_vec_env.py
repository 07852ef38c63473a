"""Stable-Baselines3's own vector environment on MPI ranks, for scripts of one's own: each rank holds some environments.

    comm = MPI.COMM_WORLD
    if comm.rank:
        serve(comm, [lambda: gymnasium.make("CartPole-v1")])
    else:
        env = RanksVecEnv(comm)
        PPO("MlpPolicy", env).learn(10_000)
        env.close()

It answers as a ``DummyVecEnv`` of the same environments does, to the bit, since each rank holds one.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from rlctl.core.errors import RanksLostError
from rlctl.distributed.comm.polling import LIMIT_S
from rlctl.distributed.modes.lockstep import LockstepConnection

if TYPE_CHECKING:
    from mpi4py.MPI import Comm


class WorkerError(RuntimeError):
    """An environment on another rank raised an exception; its traceback is in the message."""


def serve(
    comm: Comm, makers: Sequence[Callable[[], gymnasium.Env[Any, Any]]], learner: int = 0, limit_s: float = LIMIT_S
) -> None:
    """Hold environments until the learner closes them, or is dead."""
    import traceback

    env = DummyVecEnv(list(makers))
    line = LockstepConnection(comm, learner, asks=False, limit_s=limit_s)
    while True:
        try:
            name, arguments, keywords = pickle.loads(line.receive().tobytes())
        except RanksLostError:
            env.close()
            return
        try:
            if name == "about":
                answer: Any = (env.num_envs, env.observation_space, env.action_space, env.render_mode)
            elif name == "step":
                answer = env.step(arguments[0])
            elif name == "reset":
                env._seeds, env._options = arguments
                answer = (env.reset(), env.reset_infos)
            else:
                answer = getattr(env, name)(*arguments, **keywords)
            failed = ""
        except Exception:
            answer, failed = None, traceback.format_exc()
        line.send(np.frombuffer(pickle.dumps((answer, failed)), np.uint8))
        if name == "close":
            return


class RanksVecEnv(VecEnv):
    """The environments of all workers, stepped together.

    Args:
        workers: their ranks in ``comm``; None: all others.
        limit_s: the longest nap of a wait.

    Raises:
        WorkerError: from each method, if an environment raises an exception.
        RanksLostError: likewise, if a worker has died and the MPI survives that.
    """

    def __init__(self, comm: Comm, workers: Sequence[int] | None = None, limit_s: float = LIMIT_S) -> None:
        ranks = [r for r in range(comm.size) if r != comm.rank] if workers is None else list(workers)
        self._lines = [LockstepConnection(comm, rank, asks=True, limit_s=limit_s) for rank in ranks]
        about = self._ask("about")
        self._counts = [count for count, *_ in about]
        self._first = np.concatenate([[0], np.cumsum(self._counts)]).tolist()
        self._render_mode = about[0][3]
        super().__init__(self._first[-1], about[0][1], about[0][2])

    def reset(self) -> Any:
        """Begin all episodes."""
        answers = self._ask("reset", [(self._seeds[a:b], self._options[a:b]) for a, b in self._parts()])
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [info for _, infos in answers for info in infos]
        return _joined([seen for seen, _ in answers])

    def step_async(self, actions: np.ndarray[Any, Any]) -> None:
        """Send the actions."""
        self._send("step", [(actions[a:b],) for a, b in self._parts()])

    def step_wait(self) -> Any:
        """Wait for all."""
        answers = self._receive()
        seen, rewards, dones, infos = zip(*answers, strict=True)
        return _joined(seen), np.concatenate(rewards), np.concatenate(dones), [one for some in infos for one in some]

    def close(self) -> None:
        """The workers close their environments and leave."""
        if self._lines:
            self._ask("close")
            self._lines = []

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of each environment."""
        if attr_name == "render_mode" and not hasattr(self, "num_envs"):
            return [self._render_mode]
        return self._of("get_attr", indices, attr_name)

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of each environment."""
        self._of("set_attr", indices, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Call a method of each environment."""
        return self._of("env_method", indices, method_name, *args, **kwargs)

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Whether each environment has such a wrapper."""
        return self._of("env_is_wrapped", indices, wrapper_class)

    def _parts(self) -> Iterable[tuple[int, int]]:
        return zip(self._first, self._first[1:], strict=False)

    def _of(self, name: str, indices: Any, *args: Any, **kwargs: Any) -> list[Any]:
        chosen = list(self._get_indices(indices))
        found: dict[int, Any] = {}
        for line, (a, b) in zip(self._lines, self._parts(), strict=True):
            mine = [i for i in chosen if a <= i < b]
            if mine:
                keywords = {**kwargs, "indices": [i - a for i in mine]}
                line.send(np.frombuffer(pickle.dumps((name, args, keywords)), np.uint8))
                answer = _opened(line)
                found.update(zip(mine, answer if answer is not None else [None] * len(mine), strict=True))
        return [found[i] for i in chosen]

    def _ask(self, name: str, arguments: Sequence[tuple[Any, ...]] | None = None) -> list[Any]:
        self._send(name, arguments or [()] * len(self._lines))
        return self._receive()

    def _send(self, name: str, arguments: Sequence[tuple[Any, ...]]) -> None:
        for line, one in zip(self._lines, arguments, strict=True):
            line.send(np.frombuffer(pickle.dumps((name, one, {})), np.uint8))

    def _receive(self) -> list[Any]:
        return [_opened(line) for line in self._lines]


def _opened(line: LockstepConnection) -> Any:
    answer, failed = pickle.loads(line.receive().tobytes())
    if failed:
        raise WorkerError(f"an environment on rank {line.peer} failed:\n{failed}")
    return answer


def _joined(seen: Sequence[Any]) -> Any:
    if isinstance(seen[0], dict):
        return {key: np.concatenate([one[key] for one in seen]) for key in seen[0]}
    if isinstance(seen[0], tuple):
        return tuple(np.concatenate(parts) for parts in zip(*seen, strict=True))
    return np.concatenate(seen)
