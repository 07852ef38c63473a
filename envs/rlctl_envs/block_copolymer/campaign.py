"""The annealing campaign: K good films of one unknown material for the fewest node-seconds."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rlctl.core.campaign import Action, Campaign, Command, Decision, Outcome, ResidualChoices, Start
from rlctl.core.machine import Capacity
from rlctl.core.task import Event, Failure, Resources, TaskId, TaskSpec, TaskState
from rlctl_envs.block_copolymer.field import mixed
from rlctl_envs.block_copolymer.film import EndReason, Film, MaterialHistory, Measurement
from rlctl_envs.block_copolymer.material import T_MAX, T_MIN
from rlctl_envs.block_copolymer.observation import OBSERVED, film_fields, observe, proposed
from rlctl_envs.block_copolymer.options import AnnealingOptions

CHANGES = (-0.25, -0.15, -0.08, -0.04, -0.015, 0.0, 0.015, 0.04, 0.08, 0.15, 0.25)
"""Choices of the temperature of a film in progress: the change."""
STARTS = tuple(T_MIN + (T_MAX - T_MIN) * i / (len(CHANGES) - 1) for i in range(len(CHANGES)))
"""Choices of the temperature of a fresh film."""
DIVERGED_EXIT = 3
_FILM_WORTH = 3.0
"""Reward that a film is taken to cost, in the shaping; measured with the tuned feedback rule."""
_Q_WORTH = 0.6
"""Share of a film that is done when it is aligned, in the shaping."""


class AnnealingCampaign(Campaign):
    """Decides how each film is annealed next. Subjects are films: ``film007``.

    Action: MultiDiscrete [temperature (11), length, ranks, go on / give up], or the named quantities
    ``temperature`` (absolute), ``steps``, ``ranks``, ``give_up``.

    Args:
        truth: numbers of the material that networks read, for comparison only; None: hidden.
    """

    def __init__(self, options: AnnealingOptions, seed: int, truth: NDArray[np.float32] | None = None) -> None:
        self.options = options
        self._truth = np.zeros(0, np.float32) if truth is None else truth
        self.seed = seed
        self.goal = options.films
        self.deadline_s = options.allocation_s
        self.reward_scale = 0.1 / options.segment_s(80)
        self.heads = (len(CHANGES), len(options.steps), len(options.ranks), 2)
        self.action_space = gymnasium.spaces.MultiDiscrete(np.array(self.heads))
        self.observation_space = gymnasium.spaces.Box(-10.0, 10.0, (OBSERVED + len(self._truth),), np.float32)
        self.memory = MaterialHistory()
        self.films: dict[int, Film] = {}
        self.masked = 0
        self.failures = 0
        self._asked: deque[Film] = deque()
        self._segments: dict[TaskId, tuple[Film, float, int, int]] = {}
        self._opened = 0
        self._started = 0
        self._now = 0.0
        self._decision: Decision | None = None
        self._capacity = options.capacity()

    def begin(self, capacity: Capacity) -> None:
        """Open a film on each chain."""
        self._capacity = capacity
        for _ in range(self.options.chains):
            self._open()

    def on_time(self, time_s: float) -> None:
        """Advance the clock."""
        self._now = max(self._now, time_s)

    def on_event(self, event: Event) -> None:
        """Take the result of a segment; other events are ignored."""
        if event.result is None or event.uid not in self._segments:
            return
        film, temperature, steps, ranks = self._segments.pop(event.uid)
        result = event.result
        if result.state is TaskState.DONE:
            try:
                seen = Measurement.read(result.values, temperature, steps)
                good = bool(result.values["good"])
            except (KeyError, TypeError, ValueError):
                self._failed(film, Failure.GARBAGE)
                return
            self.memory.timed(ranks, steps, result.ended_s - result.started_s)
            self._measured(film, seen, good)
        elif result.state is TaskState.FAILED:
            self._failed(film, result.failure)
        else:
            self._asked.append(film)

    def decision(self) -> Decision | None:
        """The decision on the film that has waited longest."""
        if self._decision is None and self._asked and not self._ended():
            film = self._asked[0]
            self._decision = Decision(
                film.subject,
                self._now,
                partial(self.fields, film),
                residual=partial(self.residual_choices, film),
                nearest=partial(self.nearest, film),
                observe=lambda: (self._observe(film), self.mask(film)),
            )
        return self._decision

    def apply(self, action: Action) -> list[Command]:
        """Start the film's next segment, or give it up and ask about the one that takes its place."""
        film = self._asked.popleft()
        self._decision = None
        answer = self.decode(film, action)
        if answer["give_up"]:
            if not film.fresh:
                self._close(film, EndReason.GIVEN_UP)
                self._open()
                return []
            self.masked += 1
        temperature, steps, ranks = answer["temperature"], answer["steps"], answer["ranks"]
        spec = self._segment(film, temperature, steps, ranks)
        self._segments[spec.uid] = (film, temperature, steps, ranks)
        film.segments += 1
        self._started += 1
        return [Start(spec)]

    def outcome(self) -> Outcome:
        """Good films so far; over when there are enough of them, or when the allocation ends."""
        reached, potential = self._reached(), 0.0
        if not reached:
            done = sum(_Q_WORTH * f.recent[-1].q for f in self.films.values() if f.recent)
            potential = -_FILM_WORTH * max(self.options.films - self.memory.good - done, 0.0)
        extra = {
            "given_up": float(self.memory.given_up),
            "steps": float(self.memory.steps),
            "failed_tasks": float(self.failures),
            "masked_actions": float(self.masked),
        }
        return Outcome(self._ended(), reached, self.memory.good, potential, extra)

    def extend(self, other: Campaign, capacity: Capacity, time_s: float) -> None:
        """Go on with other numbers of films and seconds, and other limits, on another machine."""
        assert isinstance(other, AnnealingCampaign)
        self.options, self.goal, self.deadline_s = other.options, other.goal, other.deadline_s
        self._capacity, self._decision = capacity, None

    def named(self, action: Action) -> Mapping[str, Any]:
        """Temperature, steps, ranks, and whether the film is given up."""
        masked = self.masked
        named = self.decode(self._asked[0], action)
        self.masked = masked  # ``apply`` counts
        return named

    def mask(self, film: Film) -> NDArray[np.bool_]:
        """A fresh film cannot be given up; no more ranks than cores."""
        allowed = np.ones(sum(self.heads), np.bool_)
        at = self.heads[0] + self.heads[1]
        for i, ranks in enumerate(self.options.ranks):
            allowed[at + i] = ranks == self._most_ranks() if self._probing() else ranks <= self._capacity.total_cores
        allowed[-1] = not film.fresh
        return allowed

    def decode(self, film: Film, action: Action) -> Mapping[str, Any]:
        """Named quantities of an answer, each within what is possible."""
        most = self._most_ranks()
        if isinstance(action, Mapping):
            temperature = float(action["temperature"])
            steps, ranks, give_up = int(action["steps"]), int(action["ranks"]), bool(action["give_up"])
            if not math.isfinite(temperature):
                self.masked += 1
                temperature = film.temperature or T_MAX
            if steps not in self.options.steps:
                steps = min(self.options.steps, key=lambda s: abs(s - steps))
            if ranks not in self.options.ranks or ranks > most:
                self.masked += 1
                ranks = self.options.ranks[0]
        else:
            t, s, r, g = (int(i) for i in action)
            temperature = STARTS[t] if film.temperature is None else film.temperature + CHANGES[t]
            steps, ranks, give_up = self.options.steps[s], self.options.ranks[r], bool(g)
            if ranks > most:
                self.masked += 1
                ranks = self.options.ranks[0]
        return {
            "temperature": min(max(temperature, T_MIN), T_MAX),
            "steps": steps,
            "ranks": most if self._probing() else ranks,
            "give_up": give_up,
        }

    def nearest(self, film: Film, answer: Mapping[str, Any]) -> NDArray[np.int64]:
        """The choices of the heads that come nearest to named quantities."""
        masked = self.masked
        named = self.decode(film, answer)
        self.masked = masked
        offered = STARTS if film.temperature is None else [film.temperature + change for change in CHANGES]
        at = int(np.argmin(np.abs(np.subtract(offered, named["temperature"]))))
        options = self.options
        steps, ranks = options.steps.index(named["steps"]), options.ranks.index(named["ranks"])
        return np.array([at, steps, ranks, named["give_up"] and not film.fresh], np.int64)

    def residual_choices(self, film: Film, base: Mapping[str, Any]) -> ResidualChoices:
        """Choices around a rule's answer: changes of its temperature; the other heads turn, 0 being as it says."""
        options = self.options
        steps = min(range(len(options.steps)), key=lambda i: abs(options.steps[i] - base["steps"]))
        ranks = options.ranks.index(base["ranks"]) if base["ranks"] in options.ranks else 0
        stop = int(base["give_up"])
        mask = self.mask(film)
        first = self.heads[0] + self.heads[1]
        mask[first:-2] = np.roll(mask[first:-2], -ranks)
        mask[-2:] = np.roll(mask[-2:], -stop)

        def named(indices: NDArray[np.int64]) -> dict[str, Any]:
            t, s, r, g = (int(i) for i in indices)
            return {
                "temperature": base["temperature"] + CHANGES[t],
                "steps": options.steps[(steps + s) % len(options.steps)],
                "ranks": options.ranks[(ranks + r) % len(options.ranks)],
                "give_up": bool((stop + g) % 2),
            }

        shown = np.r_[self._observe(film), proposed(base, film.temperature)]
        return ResidualChoices((CHANGES.index(0.0), 0, 0, 0), mask, named, shown.astype(np.float32))

    def fields(self, film: Film) -> dict[str, Any]:
        """What rules read: ``observation.film_fields``, the machine, and what can be chosen."""
        rate = self.memory.rate
        return film_fields(film, self._others(film), self.memory) | {
            "films_needed": self.options.films - self.memory.good,
            "speed_up": rate[max(rate)] / rate[1] if 1 in rate and max(rate) > 1 else 0.0,
            "steps_choices": self.options.steps,
            "ranks_choices": tuple(r for r in self.options.ranks if r <= self._capacity.total_cores),
            "temperature_range": (T_MIN, T_MAX),
            "time_left_s": self.deadline_s - self._now,
            "free_share": self._free_share(),
        }

    def _reached(self) -> bool:
        return self.memory.good >= self.options.films

    def _ended(self) -> bool:
        return self._reached() or self._now >= self.deadline_s

    def _observe(self, film: Film) -> NDArray[np.float32]:
        time_left = max(self.deadline_s - self._now, 0.0) / self.options.segment_s(80)
        needed = self.options.films - self.memory.good
        seen = observe(film, self._others(film), self.memory, needed, time_left, self._free_share())
        return np.concatenate((seen, self._truth)) if len(self._truth) else seen

    def _others(self, film: Film) -> list[Film]:
        return [f for f in self.films.values() if f is not film]

    def _free_share(self) -> float:
        """Share of the cores that no segment occupies."""
        return 1.0 - sum(s[3] for s in self._segments.values()) / self._capacity.total_cores

    def _most_ranks(self) -> int:
        return max(r for r in self.options.ranks if r <= self._capacity.total_cores)

    def _probing(self) -> bool:
        return self._started < self.options.probes

    def _open(self) -> None:
        film = Film(self._opened)
        self._opened += 1
        self.films[film.number] = film
        self._asked.append(film)

    def _close(self, film: Film, why: EndReason) -> None:
        self.memory.end(film, why)
        del self.films[film.number]

    def _measured(self, film: Film, seen: Measurement, good: bool) -> None:
        before = film.recent[-1].q if film.recent else 0.0
        self.memory.measured(seen, before, T_MIN, T_MAX)
        film.add(seen)
        if good:
            self._close(film, EndReason.GOOD)
            self._open()
        else:
            self._asked.append(film)

    def _failed(self, film: Film, failure: Failure | None) -> None:
        """Try again from the film before the segment, unless the film diverged or has failed too often."""
        self.failures += 1
        film.failures += 1
        diverged = failure is Failure.DIVERGED
        if diverged or film.failures > self.options.retries:
            self._close(film, EndReason.DIVERGED if diverged else EndReason.FAILED)
            self._open()
        else:
            self._asked.append(film)

    def _segment(self, film: Film, temperature: float, steps: int, ranks: int) -> TaskSpec:
        name = film.subject
        # Two restart files in turn: the one that a segment starts from outlives the segment.
        source = f"{name}.{film.measured % 2}.npz" if film.measured else None
        target = f"{name}.{(film.measured + 1) % 2}.npz"
        uid = TaskId(f"{name}-{film.segments:03d}")
        seed = mixed(self.seed, film.number, film.segments)
        arguments = [
            "-m",
            "rlctl_envs.block_copolymer.simulate",
            "--material=material.json",
            f"--temperature={temperature:.6f}",
            f"--steps={steps}",
            f"--grid={self.options.program.grid}",
            f"--seed={seed}",
            f"--q-good={self.options.q_good}",
            f"--amplitude-good={self.options.amplitude_good}",
            f"--restart-out={target}",
            f"--result={uid}.json",
        ]
        if source is not None:
            arguments.append(f"--restart-in={source}")
        return TaskSpec(
            uid=uid,
            executable="python",
            arguments=tuple(arguments),
            parameters={
                "film": film.number,
                "temperature": round(temperature, 6),
                "steps": steps,
                "seed": seed,
                "restart_in": source,
                "restart_out": target,
            },
            resources=_RESOURCES[ranks] if ranks < len(_RESOURCES) else Resources(ranks=ranks),
            walltime_s=self.options.program.walltime_s,
            priority=float(ranks),  # else segments of one rank would keep a wide one waiting for ever
            result_file=f"{uid}.json",
            failure_codes=((DIVERGED_EXIT, Failure.DIVERGED),),
        )


_RESOURCES = tuple(Resources(ranks=max(r, 1)) for r in range(65))
