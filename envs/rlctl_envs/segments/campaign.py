"""A campaign of simulations in segments: each segment's control values, length and resources are decided anew."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rlctl.core.campaign import Action, Campaign, Command, Decision, Mask, Outcome, Start
from rlctl.core.errors import ConfigError
from rlctl.core.findings import Findings
from rlctl.core.machine import Capacity
from rlctl.core.task import Event, Failure, Resources, TaskId, TaskSpec, TaskState
from rlctl_envs.search.objective import SearchObjective
from rlctl_envs.segments.chains import Segment, SegmentedSimulation, SegmentStatus, SimulationEnd
from rlctl_envs.segments.options import SegmentsOptions
from rlctl_envs.segments.segment_choices import GO_ON, RESTART_BEST, NextSegment, SegmentChoices
from rlctl_envs.segments.segment_observation import length_of, observe
from rlctl_envs.segments.segment_rows import segment_findings, segment_row
from rlctl_envs.segments.segments_goal import WORTH, SegmentsGoal
from rlctl_envs.segments.segments_state import SegmentsState

SpecifySegment = Callable[[Segment], TaskSpec]
"""The task of a segment."""

_OF_MACHINE = frozenset({Failure.LOST, Failure.LAUNCH, Failure.SIGNAL, Failure.TIMEOUT})
"""Failures after which a segment is run again from the last restart file; by others the simulation has blown up."""


class SegmentsCampaign(Campaign):
    """Decides how each simulation goes on. Subjects are simulations: ``simulation007``.

    Action: MultiDiscrete, an index for each control (value, or change), the length, the resources, and what becomes of
    the simulation (go on, start anew, restart the best); a Box with as many numbers; or named quantities: a value for
    each control, the length by its name, ``ranks``, ``cores``, ``gpus``, or ``next`` alone.

    Giving up costs nothing by itself: the simulation that takes the place is asked about at once.

    Args:
        options: of the campaign.
        objective: what results are worth.
        resources: what a segment may occupy.
        results: names of what the program's readers find.
        specify: makes the task of a segment.
        consequence: what follows from a failure that the executor finds: ``fail``, ``infeasible`` or ``stop``.
        budget_s: seconds that the campaign takes about, to scale rewards where it has no deadline.
        seed: of the campaign.
    """

    def __init__(
        self,
        options: SegmentsOptions,
        objective: SearchObjective,
        resources: Sequence[Resources],
        results: Sequence[str],
        specify: SpecifySegment,
        consequence: Callable[[Failure], str] = lambda failure: "fail",
        budget_s: float = 3600.0,
        seed: int = 0,
    ) -> None:
        self.options, self._resources, self._results = options, list(resources), list(results)
        self._objective, self._specify, self._consequence = objective, specify, consequence
        self._budget_s, self._seed = budget_s, seed
        self._goal = SegmentsGoal(options, objective)
        self.goal = self._goal.number
        self.masked = 0
        length = length_of(len(options.controls), len(results))
        self.observation_space = gymnasium.spaces.Box(-5.0, 5.0, (length,), np.float32)
        self.begin(Capacity())
        self.action_space = self.choices.space

    # The driver's calls.

    def begin(self, capacity: Capacity) -> None:
        """Learn the machine; open the simulations."""
        options = self.options
        self._spent = 0.0, 0.0  # seconds when this machine was got, and node-seconds until then
        self.deadline_s = options.until.end_s(options.allocation_s, capacity.nodes)
        self.state = state = SegmentsState(
            options, self._resources, self._results, capacity, self._goal.aims, self._seed
        )
        state.deadline_s = self.deadline_s
        usual_s = self.deadline_s if math.isfinite(self.deadline_s) else self._budget_s
        self.reward_scale = WORTH / (capacity.nodes * usual_s)
        self.choices = SegmentChoices(state, options.actions == "box")
        self._asked: deque[SegmentedSimulation] = deque()
        self._decision: Decision | None = None
        self._stopped_by = ""
        self._outcome: Outcome | None = None
        self._goal.forget()
        self._fill()

    def extend(self, other: Campaign, capacity: Capacity, time_s: float) -> None:
        """Go on with the budget, the goal, the resources and the program of another campaign of this kind."""
        assert isinstance(other, SegmentsCampaign)
        since_s, spent = self._spent
        self._spent = time_s, spent + self.state.capacity.nodes * (time_s - since_s)
        self.options, self._resources = other.options, other._resources
        options = self.options
        self._specify, self._consequence = other._specify, other._consequence
        self._goal.moved(options.until)
        self.goal = self._goal.number
        self.deadline_s = options.until.end_s(options.allocation_s, capacity.nodes, *self._spent)
        self.state.extend(options, self._resources, capacity, self.deadline_s)
        self.choices = SegmentChoices(self.state, options.actions == "box")
        self.action_space = self.choices.space
        self._decision, self._outcome, self._stopped_by = None, None, ""
        self._fill()

    def on_time(self, time_s: float) -> None:
        """The clock stands at ``time_s``."""
        state = self.state
        state.now_s = max(state.now_s, time_s)
        if state.now_s >= state.deadline_s:
            self._outcome = None

    def on_event(self, event: Event) -> None:
        """A segment began, or ended."""
        segment = self.state.running.get(event.uid)
        if segment is None:
            return
        if event.result is not None:
            self._outcome = None
            self._ended(segment, event)
        elif event.state is TaskState.RUNNING and segment.started_s is None:
            segment.started_s = event.time_s
        elif event.state in (TaskState.QUEUED, TaskState.PREEMPTED):
            segment.started_s = None

    def decision(self) -> Decision | None:
        """The decision on the simulation that has waited longest."""
        if self._decision is None and self._asked and not self.outcome().ended:
            state, simulation = self.state, self._asked[0]
            state.subject = simulation
            fields = {
                "state": state,
                "simulation": simulation.number,
                "segments": len(simulation.segments),
                "progress": state.progress(simulation),
                "found": state.memory.found,
            }
            self._decision = Decision(
                f"simulation{simulation.number:03d}",
                state.now_s,
                fields,
                residual=None if self.options.actions == "box" else partial(self.choices.residual, simulation),
                observe=partial(self._observe, simulation),
                nearest=partial(self.choices.nearest, simulation),
            )
        return self._decision

    def refuses(self, action: Action) -> str | None:
        """Why an action is not allowed at the open decision."""
        answer = self.choices.understood(self._asked[0], action)
        return answer if isinstance(answer, str) else None

    def apply(self, action: Action) -> list[Command]:
        """Start the simulation's next segment, or give it up and ask about the one that takes its place."""
        simulation = self._asked.popleft()
        self._decision = self.state.subject = self._outcome = None
        answer = self.choices.understood(simulation, action)
        if isinstance(answer, str):
            answer = self.choices.default(simulation)
        self.masked += answer.masked
        if answer.next == GO_ON:
            return [Start(self._specify(self._segment(simulation, answer)))]
        self._close(simulation, SimulationEnd.GIVEN_UP)
        self._open(self.state.best if answer.next == RESTART_BEST else [], first=True)
        return []

    def excuses(self, event: Event) -> bool:
        """Whether a task only says that its simulation has blown up."""
        segment, result = self.state.running.get(event.uid), event.result
        if segment is None or result is None:
            return False
        if result.failure is None:
            return result.values.get("then") == "infeasible"
        return self._consequence(result.failure) == "infeasible"

    def outcome(self) -> Outcome:
        """How it stands."""
        if self._outcome is None:
            self._outcome = self._standing()
        return self._outcome

    def _standing(self) -> Outcome:
        state, goal = self.state, self._goal
        reached, reason = goal.reached(state), self._stopped_by or goal.over(state)
        if not reason and not state.possible:
            reason = "no segment fits on the machine"
        potential = 0.0 if reached else goal.potential(state)
        extra = {f"simulations_{why.value}": float(count) for why, count in state.memory.ended.items()}
        extra |= {"segments": float(len(state.segments)), "masked_actions": float(self.masked)}
        if state.memory.scale.low is not None and self._objective.names and not goal.on_twin:
            best = max(((s.level, -s.number, s) for s in state.segments if s.level is not None), key=lambda t: t[:2])
            extra["best"] = self._value(best[2])
        successes = state.memory.found if goal.aims or goal.on_twin else state.measured
        ended = reached or bool(reason)
        return Outcome(ended, reached, successes, potential, extra, reason="" if reached else reason)

    # What people see.

    def named(self, action: Action) -> Mapping[str, Any]:
        """Control values, length and resources, or what else becomes of the simulation."""
        answer = self.choices.understood(self._asked[0], action)
        return self.choices.named(self.choices.default(self._asked[0]) if isinstance(answer, str) else answer)

    def evaluations(self) -> list[dict[str, Any]]:
        """See ``segment_row``."""
        ended = self.outcome().ended
        return [segment_row(self.state, segment, ended) for segment in self.state.segments]

    def findings(self) -> Findings:
        """Likewise."""
        return segment_findings(self.state, self._objective, self._goal)

    # What happens to simulations.

    def _fill(self) -> None:
        """Begin simulations until as many as may run side by side."""
        while self.state.possible and len(self.state.simulations) < self.state.side_by_side:
            self._open()

    def _open(self, original: Sequence[Segment] = (), first: bool = False) -> None:
        """Begin a simulation where there is room, as a copy or anew; ``first``: it is asked about before the others."""
        if len(self.state.simulations) >= self.state.side_by_side:
            return
        simulation = SegmentedSimulation(self.state.begun)
        if original:
            simulation.copy_of(list(original))
        self.state.begun += 1
        self.state.simulations[simulation.number] = simulation
        if first:
            self._asked.appendleft(simulation)
        else:
            self._asked.append(simulation)

    def _close(self, simulation: SegmentedSimulation, why: SimulationEnd) -> None:
        self.state.memory.end(simulation, why)
        del self.state.simulations[simulation.number]

    def _segment(self, simulation: SegmentedSimulation, answer: NextSegment) -> Segment:
        state, last = self.state, simulation.last
        number = len(state.segments)
        segment = Segment(
            number,
            simulation.number,
            len(simulation.segments),
            None if last is None else last.number,
            answer.units,
            {
                name: control.value(unit)
                for name, control, unit in zip(state.names, state.controls, answer.units, strict=True)
            },
            answer.length,
            state.resources[answer.choice],
            TaskId(f"segment{number:05d}"),
            state.shares[answer.choice],
            state.now_s,
            simulation.elapsed,
        )
        state.segments.append(segment)
        state.running[segment.uid] = segment
        return segment

    def _ended(self, segment: Segment, event: Event) -> None:
        result, state = event.result, self.state
        assert result is not None
        del state.running[segment.uid]
        simulation = state.simulations[segment.simulation]
        segment.ended_s, segment.message = event.time_s, result.message
        segment.started_s = max(result.started_s, segment.queued_s)
        simulation.node_seconds += segment.node_seconds
        if event.state is TaskState.CANCELED:
            segment.status = SegmentStatus.STOPPED
            self._asked.append(simulation)
        elif result.failure is not None:
            segment.kind = result.failure.value
            self._failed(simulation, segment, self._consequence(result.failure), result.failure in _OF_MACHINE)
        elif "then" in result.values:
            segment.kind, segment.message = str(result.values["kind"]), str(result.values["message"])
            self._failed(simulation, segment, result.values["then"], False)
        else:
            self._measured(simulation, segment, result.values)

    def _measured(self, simulation: SegmentedSimulation, segment: Segment, values: Mapping[str, Any]) -> None:
        """Take results; a twin says itself what they are worth."""
        state, goal, memory = self.state, self._goal, self.state.memory
        segment.results = values.get("outputs", {})
        try:
            if "level" in values:
                goal.on_twin, memory.scale.aims = True, True
                level = float(values["level"])
            else:
                level = goal.level({**segment.values, **segment.results})
        except ConfigError as error:
            segment.kind, segment.message = "read", str(error)
            self._failed(simulation, segment, "fail", False)
            return
        if "attempts" in values and "restart" not in values and not goal.hit(level):  # a real program's
            segment.kind, segment.message = "restart", "it has left no restart file to go on with"
            none = all(other.status is not SegmentStatus.DONE for other in state.segments)
            self._failed(simulation, segment, "stop" if none else "fail", False)
            return
        goal.fruitless = 0
        before = simulation.last.level if simulation.last is not None else None
        segment.status, segment.level = SegmentStatus.DONE, level
        segment.shown = state.shown(segment.results)
        state.timed(segment)
        simulation.add(segment, level)
        memory.scale.note(level, first=before is None)
        segment.gain = level - (memory.scale.low if before is None and memory.scale.low is not None else before or 0.0)
        memory.measured(segment, before)
        if goal.hit(level):
            self._close(simulation, SimulationEnd.FOUND)
            self._open()
            return
        if not state.best or level > (state.best[-1].level or 0.0):
            state.best = list(simulation.segments)
        self._asked.append(simulation)

    def _failed(self, simulation: SegmentedSimulation, segment: Segment, then: str, of_machine: bool) -> None:
        """Run it again from the last restart file if the machine failed; otherwise the simulation has blown up."""
        segment.status = SegmentStatus.INFEASIBLE if then == "infeasible" else SegmentStatus.FAILED
        self._goal.fruitless += 1
        self.state.infeasible += then == "infeasible"
        if then == "stop":
            self._stopped_by = f"stopped by evaluation {segment.number} ({segment.kind}): {segment.message}"
        simulation.failures += of_machine
        if of_machine and then == "fail" and simulation.failures <= self.options.retries:
            self._asked.append(simulation)
            return
        if not of_machine:
            self.state.memory.lost(segment, simulation.last.level if simulation.last is not None else None)
        self._close(simulation, SimulationEnd.LOST if of_machine and then == "fail" else SimulationEnd.BLEW_UP)
        self._open()

    def _value(self, segment: Segment) -> float:
        """The objective of a segment, in the user's units."""
        losses = self._objective.assess({**segment.values, **segment.results}).losses
        return self._objective.signs[0] * losses[0]

    def _observe(self, simulation: SegmentedSimulation) -> tuple[NDArray[np.float32], Mask]:
        return observe(self.state, simulation), self.choices.mask(simulation)
