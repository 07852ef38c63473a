"""What happens besides learning: figures for TensorBoard, progress, checkpoints, and stopping when asked to."""

from __future__ import annotations

import signal
import threading
from collections import deque
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback

if TYPE_CHECKING:
    from rlctl.monitoring.progress import Progress
    from rlctl_agents.ppo.checkpoint import Checkpoints

EPISODES = 200  # the figures are over the last so many campaigns


class Stop:
    """While it is open, SIGTERM and SIGINT only set ``asked``; a second signal acts as usual."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        # Only the main thread may set handlers; elsewhere the caller's stay.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())


class TrainingCallback(BaseCallback):
    """Told by PPO after each decision of all environments and around each update."""

    def __init__(self, checkpoints: Checkpoints, every: int, progress: Progress, threads: int) -> None:
        super().__init__()
        self._threads = threads
        self.stop = Stop()
        self._checkpoints = checkpoints
        self._every = every
        self._progress = progress
        self._figures: deque[dict[str, float]] = deque(maxlen=EPISODES)
        self._learned = 0
        self._saved = 0
        self._note = ""

    def _on_training_start(self) -> None:
        self._learned = self._saved = self.model.num_timesteps

    def _on_rollout_start(self) -> None:
        """An update is over: the model is whole."""
        torch.set_num_threads(self._threads)
        self._progress.advance(self.model.num_timesteps - self._learned, self._note)
        self._learned = self.model.num_timesteps
        if self._learned - self._saved >= self._every:
            self._checkpoints.save(self.model)  # type: ignore[arg-type]
            self._saved = self._learned

    def _on_step(self) -> bool:
        # A twin that shares the OpenMP runtime (Numba's parallel loops do) sets its number of threads for PyTorch too;
        # operations as small as ours are several times slower on more than one.
        torch.set_num_threads(self._threads)
        if self.locals["dones"].any():
            infos = self.locals["infos"]
            self._figures += [infos[i]["campaign"] for i in np.flatnonzero(self.locals["dones"])]
        if self.stop.asked:
            # What this rollout has gathered is not learned from any more.
            self.model.num_timesteps = self._learned
            return False
        return True

    def _on_rollout_end(self) -> None:
        figures = {key: np.array([of[key] for of in self._figures if key in of]) for key in self._keys()}
        for key, values in figures.items():
            self.logger.record(f"campaign/{key}", float(values.mean()))
        if {"node_seconds", "successes"} <= figures.keys():
            node_seconds, successes = figures["node_seconds"].sum(), figures["successes"].sum()
            if successes:
                self.logger.record("campaign/node_seconds_per_success", float(node_seconds / successes))
                self._note = f"{node_seconds / successes:.4g} node-seconds per success"

    def _on_training_end(self) -> None:
        self._progress.advance(self.model.num_timesteps - self._learned, self._note)

    def _keys(self) -> list[str]:
        return sorted({key for of in self._figures for key in of})
