"""The twin's tasks: what each segment of a synthetic simulation would give, and how long it would take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rlctl.core.simulation import Launch, Simulated
from rlctl.core.task import Failure
from rlctl_envs.segments.options import ControlOptions
from rlctl_envs.segments.synthetic_chain import ChainState, SyntheticChains


class SegmentsTwin:
    """The task model of a campaign of segments; see ``rlctl.core.simulation.TaskModel``.

    Args:
        chains: what segments do.
        controls: by name.
        length: name of the length; empty: there is none.
        middle: a usual length.
        results: names of results. Each is a function of its own of how far a simulation has come and of the first
            control, with noise, in units that instances do not share.
        infeasible: whether a blow-up is recorded as infeasible; otherwise the task fails.
    """

    def __init__(
        self,
        chains: SyntheticChains,
        controls: Mapping[str, ControlOptions],
        length: str,
        middle: int,
        results: Sequence[str],
        infeasible: bool,
        seed: int,
    ) -> None:
        self.chains, self._controls, self._length, self._middle = chains, dict(controls), length, middle
        self._infeasible = infeasible
        self._rng = np.random.default_rng([seed, 7])
        self._files: dict[int, ChainState] = {}
        shapes = np.random.default_rng([seed, 8])
        self._shapes = {
            name: (
                float(shapes.standard_normal()),
                float(np.exp(shapes.standard_normal()) * shapes.choice([-1.0, 1.0])),
                float(shapes.uniform(-0.5, 0.5)),
            )
            for name in results
        }

    def outcomes(self, launches: Sequence[Launch]) -> list[Simulated]:
        """Durations, and in ``values`` outputs, and the level that says how far the simulation is from the goal."""
        return [self._outcome(launch) for launch in launches]

    def _outcome(self, launch: Launch) -> Simulated:
        asked, rng, chains = launch.spec.parameters, self._rng, self.chains
        values = asked["controls"]
        units = [control.unit(values[name]) for name, control in self._controls.items()]
        length = asked["length"] / self._middle
        seconds = chains.seconds(length, launch.spec.resources, rng)
        if rng.random() < chains.failing:
            return Simulated(seconds * rng.random(), failure=Failure.SIGNAL, message="killed by SIGKILL")
        start = asked["from"]
        state = chains.advance(ChainState() if start is None else self._files[start], units, length, rng)
        if state is None:
            seconds *= rng.random()
            if self._infeasible:
                values = {"kind": "exit", "then": "infeasible", "message": "exit code 1", "attempts": 1}
                return Simulated(seconds, values)
            return Simulated(seconds, failure=Failure.EXIT, message="exit code 1")
        self._files[asked["evaluation"]] = state
        noise = (chains.noise * rng.standard_normal(len(self._shapes) + 1)).tolist()
        level = state.done - 1.0
        if level < 0.0:  # noise alone reaches no goal
            level = min(level + noise[-1], -1e-3)
        outputs = {
            name: offset + scale * (level + own + 1.0 + tilt * units[0])
            for (name, (offset, scale, tilt)), own in zip(self._shapes.items(), noise[:-1], strict=True)
        }
        return Simulated(seconds, {"outputs": outputs, "level": level})
