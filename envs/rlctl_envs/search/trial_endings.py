"""What the end of a run means for its trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rlctl.core.errors import ConfigError
from rlctl.core.task import Event, Failure, TaskState
from rlctl_envs.search.objective import Assessment, SearchObjective
from rlctl_envs.search.trials import Trial, TrialStatus


def end_trial(
    trial: Trial, event: Event, objective: SearchObjective, consequence: Callable[[int, Failure], str]
) -> tuple[list[bool] | None, str]:
    """Write into a trial what came of it.

    Args:
        trial: that has ended.
        event: of its end.
        objective: assesses its results.
        consequence: see ``SearchCampaign``.

    Returns:
        which goals it reaches, where a twin says so, else None; and why the search stops with it, empty: it does not.
    """
    result = event.result
    assert result is not None
    trial.ended_s, trial.message = event.time_s, result.message
    trial.started_s = max(result.started_s, trial.queued_s)
    if event.state is TaskState.CANCELED:
        trial.status = TrialStatus.STOPPED
    elif result.failure is not None:
        trial.kind = result.failure.value
        return None, _no_result(trial, consequence(trial.stage, result.failure))
    elif "then" in result.values:
        trial.kind, trial.message = str(result.values["kind"]), str(result.values["message"])
        return None, _no_result(trial, result.values["then"])
    else:
        return _assess(trial, result.values, objective), ""
    return None, ""


def _assess(trial: Trial, values: Mapping[str, Any], objective: SearchObjective) -> list[bool] | None:
    """Say what results are worth; those of a twin say it themselves, and which goals they reach."""
    trial.results = values.get("outputs", {})
    reached = None
    try:
        if "losses" in values:
            trial.assessment = Assessment(tuple(values["losses"]), tuple(values["margins"]))
            reached = values["reached"]
        else:
            trial.assessment = objective.assess({**trial.values, **trial.results})
        trial.status = TrialStatus.DONE
    except ConfigError as error:
        trial.status, trial.kind, trial.message = TrialStatus.FAILED, "read", str(error)
    return reached


def _no_result(trial: Trial, then: str) -> str:
    trial.status = TrialStatus.INFEASIBLE if then == "infeasible" else TrialStatus.FAILED
    return f"stopped by evaluation {trial.number} ({trial.kind}): {trial.message}" if then == "stop" else ""
