"""The configurations and policies of a run, from its journal: it may go on with others than it began with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rlctl.config.load import config_data
from rlctl.config.schema import Config
from rlctl.config.validation import validated
from rlctl.core.campaign import Campaign
from rlctl.core.driver import Driver
from rlctl.core.errors import JournalError, RlctlError
from rlctl.core.machine import Capacity
from rlctl.core.records import Record, Recorder
from rlctl.core.runner import NoRunner, TaskRunner
from rlctl.core.task import Event
from rlctl.plugins.registry import configured_campaign

KIND = "config"
"""Of the records that are read here: ``before`` and ``after`` are whole configurations, independent of paths."""


Amendment = tuple[str, Mapping[str, Any]]
"""Kind and data of a record by which a run is changed; see ``rlctl.core.records.AMENDMENTS``."""


def begun_with(config: Config, records: Iterable[Record]) -> Config:
    """The configuration that a run began with; ``config``: that of its folder, if it has not changed."""
    first = next((record for record in records if record.kind == KIND), None)
    return config if first is None else _read(first.data["before"])


def newest_config(config: Config, records: Iterable[Record]) -> Config:
    """The last one; a kill may have come before ``config``, the file in the folder, was written anew."""
    after: Mapping[str, Any] | None = None
    for record in records:
        after = record.data["after"] if record.kind == KIND else after
    return config if after is None or config_data(config) == after else _read(after)


def newest_start(header: Mapping[str, Any], records: Iterable[Record]) -> dict[str, Any]:
    """What the run was started with, the header of its journal, with its last policy and hash."""
    start = dict(header)
    for record in records:
        if record.kind == KIND:
            if record.data["policy"]:
                start = {key: value for key, value in start.items() if key not in POLICY_KEYS}
            start |= {**record.data["policy"], "config_hash": record.data["config_hash"]}
    return start


def back_here(records: Iterable[Record], campaign: Campaign) -> list[Amendment]:
    """What takes evaluations back that were asked for and have not been told: a controller makes them itself."""
    away = set[int]()
    for record in records:
        if record.kind == "asked":
            numbers = record.data["evaluations"]
            away = away.union(numbers) if record.data.get("away", True) else away.difference(numbers)
    numbers = sorted(away & campaign.open_evaluations().keys())
    return [("asked", {"evaluations": numbers, "away": False})] if numbers else []


POLICY_KEYS = ("policy", "policy_source", "policy_digest", "fallback_digest", "policy_reason", "policy_rule")
"""What a header says of the policy."""


def last_state(records: Iterable[Record]) -> Any:
    """The memory of the policy when it gave its last recorded answer; None: it had none, or another policy decided."""
    state, given, answered = None, None, 0
    for record in records:
        if record.kind == "policy":
            given = record.data  # counts once its decision is recorded
        elif record.kind == "decision":
            answered += 1
            state = given["state"] if given is not None and given["number"] < answered else state
        elif record.kind == KIND and record.data["policy"]:
            state = given = None
    return state


def replaying(
    config: Config,
    records: Iterable[Record],
    instance: int,
    executor: TaskRunner | None = None,
    recorder: Recorder | None = None,
    wait: Callable[..., list[Event]] | None = None,
    held: Callable[[], bool] = lambda: False,
) -> Driver:
    """A driver with the fresh campaign of a run, which can fold its records.

    Args:
        config: of the run folder.
        records: of its journal.
        instance: its number.
        executor, recorder, wait, held: see ``Driver``; by default nothing is run or recorded.
    """
    began = begun_with(config, records)
    capacity = began.machine.capacity()

    def changed(data: Mapping[str, Any]) -> tuple[Campaign, Capacity]:
        after = _read(data["after"])
        return configured_campaign(after).campaign(instance), after.machine.capacity()

    campaign = configured_campaign(began).campaign(instance)
    runner = executor or NoRunner(capacity)
    return Driver(campaign, runner, recorder, wait, capacity=capacity, changed=changed, held=held)


def folded(path: Path, config: Config, records: Iterable[Record], instance: int) -> Driver:
    """A driver that stands where the journal of a run ends; ``path``: its folder, for messages.

    Raises:
        JournalError: the journal does not fit the campaign that is installed.
    """
    driver = replaying(config, records, instance)
    try:
        driver.fold(records)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, RlctlError):
            raise
        raise JournalError(f"{path}: its journal does not fit this campaign ({error!r})") from error
    return driver


def _read(data: Mapping[str, Any]) -> Config:
    return validated(Config, dict(data))
