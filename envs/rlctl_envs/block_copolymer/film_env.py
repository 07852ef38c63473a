"""One film as a Gymnasium environment that computes on the MPI ranks that it is made on, without programs.

gymnasium.make("rlctl_envs:rlctl/BlockCopolymerFilm-v0", communicator=MPI.COMM_WORLD)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rlctl_envs.block_copolymer import field
from rlctl_envs.block_copolymer.campaign import CHANGES, STARTS
from rlctl_envs.block_copolymer.film import Film, Measurement
from rlctl_envs.block_copolymer.material import T_MAX, T_MIN, Material
from rlctl_envs.block_copolymer.observation import FILM_OBSERVED, observe_film
from rlctl_envs.block_copolymer.simulate import LARGEST
from rlctl_envs.block_copolymer.slab import Slab

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

SEGMENT_COST = 0.02
"""In order parameter, for which a segment must be worth its while."""
DIVERGED_REWARD = -1.0


class FilmEnv(gymnasium.Env[NDArray[np.float32], np.int64]):
    """Anneal a film of an unknown material until it is good, in few segments.

    Each episode draws a material and a fresh film. An action is a temperature for the next segment: of a fresh film
    one of ``STARTS``, later one of ``CHANGES`` of the last one. The reward is what the measured order parameter
    gained, minus ``SEGMENT_COST``. The episode terminates when the film is good (``info["good"]``, the truth behind
    the measurement), or when the solution diverged (``info["diverged"]``); it is truncated after ``segments``.

    The observation, [FILM_OBSERVED + 1], is what the campaign shows of a film, and the share of segments that is left.

    Args:
        grid: points along each side, even, 32 to 512.
        steps: time steps of a segment.
        segments: of an episode, at most.
        communicator: of the ranks that compute it; all of them call the same. None, or of one rank: this process. The
            episode does not depend on their number, but for rounding.
        q_good, amplitude_good: order parameter and true amplitude of a good film.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        grid: int = 128,
        steps: int = 160,
        segments: int = 40,
        communicator: Intracomm | None = None,
        q_good: float = field.Q_GOOD,
        amplitude_good: float = field.A_GOOD,
    ) -> None:
        if grid % 2 or not 32 <= grid <= 512:
            raise ValueError(f"grid must be even and from 32 to 512, got {grid}")
        if steps < 1 or segments < 1:
            raise ValueError(f"steps and segments must be at least 1, got {steps} and {segments}")
        self.action_space = gymnasium.spaces.Discrete(len(CHANGES))
        self.observation_space = gymnasium.spaces.Box(-10.0, 10.0, (FILM_OBSERVED + 1,), np.float32)
        self._grid, self._steps, self._segments = grid, steps, segments
        self._thresholds = (q_good, amplitude_good)
        self._comm = communicator if communicator is not None and communicator.size > 1 else None
        self._slab = Slab(self._comm, grid)
        self._instance, self._largest_amplitude = 0, 0.0
        self._begin(0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Draw a material and a fresh film of it."""
        super().reset(seed=seed)
        instance = int(self.np_random.integers(1 << 31))
        # Without a seed each rank has drawn a number of its own.
        self._begin(instance if self._comm is None else self._comm.bcast(instance))
        return self._observe(), {}

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Anneal the film for a segment, and measure it."""
        film = self._film
        choice = int(action)
        temperature = STARTS[choice] if film.temperature is None else film.temperature + CHANGES[choice]
        temperature = min(max(temperature, T_MIN), T_MAX)
        noise_rng, measure_rng, _ = field.generators(field.mixed(self._instance, film.segments))
        film.segments += 1
        with np.errstate(all="ignore"):
            self._c_hat = self._annealed(temperature, noise_rng)
            # Written so that a NaN does not pass.
            healthy = bool(np.max(np.abs(field.to_field(self._c_hat))) <= LARGEST)
        over = film.segments >= self._segments
        if not healthy:
            return self._observe(), DIVERGED_REWARD, True, False, {"diverged": True, "good": False}
        before = film.recent[-1].q if film.recent else 0.0
        measured = field.measure(self._c_hat, self._material, measure_rng, *self._thresholds)
        seen = Measurement.read(measured, temperature, self._steps)
        film.add(seen)
        self._largest_amplitude = max(self._largest_amplitude, seen.amplitude)
        good = bool(measured["good"])
        info = {"diverged": False, "good": good, "q": seen.q, "temperature": temperature}
        return self._observe(), seen.q - before - SEGMENT_COST, good, over and not good, info

    def _begin(self, instance: int) -> None:
        self._instance = instance
        self._material = Material.draw(instance)
        self._film = Film(0)
        self._largest_amplitude = 0.0
        self._c_hat = field.initial(self._material, self._grid, field.generators(field.mixed(instance, 0))[2])

    def _annealed(self, temperature: float, noise: np.random.Generator) -> field.Spectrum:
        slab = self._slab
        return slab.gather(slab.advance(slab.scatter(self._c_hat), self._material, temperature, self._steps, noise))

    def _observe(self) -> NDArray[np.float32]:
        left = 1.0 - self._film.segments / self._segments
        seen = [*observe_film(self._film, self._largest_amplitude), left]
        return np.clip(np.array(seen, np.float32), -10.0, 10.0)
