"""Shows the first decisions of a campaign, with commands and files, until the machine is full; starts nothing."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlctl.config.schema import Config
from rlctl.core.campaign import Start, action_to_json
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.plugin_calls import asking
from rlctl.core.policy import Policy
from rlctl.core.task import TaskSpec
from rlctl.executors.factory import BackendFactory
from rlctl.monitoring.formatting import format_action
from rlctl.plugins.registry import executor_factory, executor_options
from rlctl.programs.rendered import RenderedEvaluation, rendered

MOST_DECISIONS = 64


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """A task that would be started.

    Attributes:
        uid: its name.
        command: its program with arguments and launcher, or the function that it calls.
        evaluation: the same with its files, where a program of the configuration is run.
    """

    uid: str
    command: Sequence[str]
    evaluation: RenderedEvaluation | None


@dataclass(frozen=True, slots=True)
class PlannedDecision:
    """A decision with what it would start."""

    number: int
    subject: str
    action: Any
    tasks: Sequence[PlannedTask]


@dataclass(frozen=True, slots=True)
class DryRun:
    """The first decisions of a campaign.

    Attributes:
        full: whether they end since nothing more can be decided before something has happened.
        policy_reason: why this policy was chosen; empty: it was named.
    """

    policy: str
    decisions: Sequence[PlannedDecision]
    full: bool
    policy_reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """For JSON."""
        decisions = [
            {
                "number": decision.number,
                "subject": decision.subject,
                "action": decision.action,
                "tasks": [
                    {
                        "uid": task.uid,
                        "command": list(task.command),
                        "evaluation": None if task.evaluation is None else task.evaluation.to_json(),
                    }
                    for task in decision.tasks
                ],
            }
            for decision in self.decisions
        ]
        named = {"policy": self.policy, "policy_reason": self.policy_reason}
        return {**named, "decisions": decisions, "full": self.full}

    def to_text(self) -> str:
        """For people."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        for decision in self.decisions:
            yield f"decision {decision.number} on {decision.subject}: {format_action(decision.action)}"
            for task in decision.tasks:
                shown = task.evaluation.to_text() if task.evaluation is not None else f"$ {shlex.join(task.command)}"
                yield from (f"  {line}" for line in shown.splitlines())
        end = "then it waits for results" if self.full else "and so on"
        yield f"{self.policy} decides so, {end}; nothing was started or written"


def dry_run(config: Config, factory: CampaignFactory, policy: Policy, instance: int) -> DryRun:
    """Ask a policy until it has to wait.

    Raises:
        RlctlError: the policy or the campaign fails, or an evaluation cannot be rendered.
    """
    campaign = factory.campaign(instance)
    campaign.begin(config.machine.capacity())
    if rows := factory.known():
        campaign.know(rows)
    policy.reset(instance)
    executors = executor_factory(config.executor.name, executor_options(config))
    decisions: list[PlannedDecision] = []
    with tempfile.TemporaryDirectory(prefix="rlctl-dry-run-") as folder:
        factory.prepare(Path(folder), instance)
        while len(decisions) < MOST_DECISIONS and (decision := campaign.decision()) is not None:
            decision.number = len(decisions)
            with asking(f"policy {policy.name}", f"decision {decision.number}"):
                action = policy.act(decision)
            with asking("the campaign", f"apply() of decision {decision.number}"):
                named = campaign.named(action)
                commands = campaign.apply(action)
            specs = [command.spec for command in commands if isinstance(command, Start)]
            tasks = [_planned(spec, executors, Path(folder)) for spec in specs]
            shown: Mapping[str, Any] | Any = action_to_json(action if named is None else named)
            decisions.append(PlannedDecision(decision.number, decision.subject, shown, tasks))
        return DryRun(policy.name, decisions, campaign.decision() is None)


def _planned(spec: TaskSpec, executors: BackendFactory, folder: Path) -> PlannedTask:
    if spec.executable is None:
        return PlannedTask(spec.uid, [str(spec.function)], None)
    command = executors.command(spec)
    return PlannedTask(spec.uid, command, rendered(spec, command, folder))
