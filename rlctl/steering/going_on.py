"""Begins run folders, and says how a run goes on: with which changes, or not at all since it has ended."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlctl.bundle.network import NumpyPolicy
from rlctl.config.load import config_data, config_hash, write_config
from rlctl.config.provenance import provenance
from rlctl.config.schema import Config
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.driver import Driver
from rlctl.core.errors import ConfigError, JournalError
from rlctl.core.json_values import digest
from rlctl.core.policy import Policy
from rlctl.core.records import Record
from rlctl.environments.residual import ResidualPolicy
from rlctl.executors.event_log import Journal
from rlctl.executors.local.pid_file import unattended
from rlctl.executors.recovery import KINDS, History
from rlctl.plugins.transferable import Transferable
from rlctl.steering.config_changes import ConfigChange, config_changes, require_changeable
from rlctl.steering.config_history import KIND, POLICY_KEYS, Amendment, newest_config, newest_start
from rlctl.steering.run_folder import CONFIG, JOURNAL, MADE, WORK, has_ended, portable, recorded_config
from rlctl.system.files import atomic_folder, require_folder

log = logging.getLogger(__name__)

_FIXED = ("campaign", "campaign_version", "instance")
_KNOWN = "campaign.options.known"
_PROGRAMS = ("program", "programs")


@dataclass(frozen=True, slots=True)
class GoingOn:
    """How a run goes on.

    Attributes:
        over: whether it has ended, and nothing asks for more.
        before: the configuration so far.
        start: what it was started with, with its policy from now on.
        amendments: changes that are to be recorded and carried out.
    """

    over: bool
    before: Config
    start: Mapping[str, Any]
    amendments: Sequence[Amendment]


def start_of(
    config: Config,
    factory: CampaignFactory,
    policy: Policy,
    fallback: Policy | None,
    instance: int,
    source: str | None,
    choice: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What the header of a new run says; see ``rlctl.steering.control.steer`` for the arguments."""
    start: dict[str, Any] = {
        "campaign": factory.name,
        "campaign_version": factory.version,
        "instance": instance,
        "seed": config.seed,
        "config_hash": config_hash(config),
        "policy": policy.name,
    }
    # A saved policy may be replaced under its name.
    for role, one in (("policy", policy), ("fallback", fallback)):
        if isinstance(one, NumpyPolicy | ResidualPolicy) and one.digest is not None:
            start[f"{role}_digest"] = one.digest
    if isinstance(factory, Transferable) and (prior := factory.prior_digest()) is not None:
        start["prior_digest"] = prior
    return {**start, "policy_source": source, **(choice or {})}


def create_run(run: Path, config: Config, factory: CampaignFactory, start: Mapping[str, Any]) -> None:
    """Make the run folder with its journal, atomically.

    Raises:
        StorageError: it cannot be made, or is not empty.
        ConfigError: results that the campaign begins with cannot be read.
    """
    require_folder(run, made=MADE)
    factory.known()
    with atomic_folder(run, MADE) as new:
        (new / WORK).mkdir()
        factory.prepare(new / WORK, int(start["instance"]))
        write_config(portable(config), new / CONFIG)
        header = {**start, "game_hash": digest(_game(config)), "provenance": provenance()}
        Journal.create(new / JOURNAL, header).close()


def goes_on(run: Path, config: Config, factory: CampaignFactory, start: Mapping[str, Any], journal: Journal) -> GoingOn:
    """Compare a run with what it is to go on with.

    Args:
        run: the run folder.
        config: that it is to go on with.
        factory: of this configuration.
        start: what a new run would be started with.
        journal: of the run, open for writing.

    Raises:
        JournalError: it is another campaign.
        ConfigError: a key of the configuration, or a template, has changed that may not, or new results cannot be read.
    """
    records = journal.records()
    began = newest_start(journal.header, records)
    for key in _FIXED:
        if began.get(key) != start[key]:
            what = key.replace("_", " ")
            raise JournalError(
                f"{run} was started with {what} {began.get(key)!r}, not {start[key]!r}: resume it unchanged"
            )
    before = newest_config(recorded_config(run), records)
    changes, history = config_changes(before, config), History.read(journal.records(kinds=KINDS))
    unfinished = len(history.attempts.keys() - history.finished.keys())
    if before.executor.name == "local":  # which knows better: a controller that is stopped leaves nothing
        unfinished = unattended(run / WORK)[0]
    tried = any(outcome.failure is None for outcome in history.finished.values())
    extends = require_changeable(run, changes, _changeable(factory, tried, before, config), unfinished)
    over = has_ended(records) and not extends
    policy = _changed_policy(began, start)
    now = {key: value for key, value in began.items() if not policy or key not in POLICY_KEYS} | policy
    amendments: list[Amendment] = []
    changed = factory.changed_input(run / WORK)
    if tried and not over and changed is not None:
        problem = f"{changed} is not what it was when {run} began, and its evaluations would not belong together"
        raise ConfigError(f"{problem}: put it back, or start a new run")
    if not over and (extends or changed is not None):
        factory.prepare(run / WORK, int(start["instance"]))
    if not over and (changes or policy):
        now["config_hash"] = start["config_hash"]
        _tell(run, changes, began, policy)
        data = {"before": config_data(before), "after": config_data(portable(config)), "extends": extends}
        amendments.append((KIND, {**data, "policy": policy, "config_hash": start["config_hash"]}))
    if not over and (_not_begun(records) or any(change.name.startswith(_KNOWN) for change in changes)):
        rows = [dict(row) for row in factory.known()]
        amendments += [("known", {"rows": rows})] * bool(rows)
    return GoingOn(over, before, now, amendments)


def amend(run: Path, config: Config, driver: Driver, amendments: Sequence[Amendment]) -> None:
    """Record and carry out changes, and write the configuration of the run folder anew; in this order, for a kill."""
    for kind, data in amendments:
        driver.amend(kind, data)
    if any(kind == KIND for kind, _ in amendments):
        new = run / f".{CONFIG}.new"
        write_config(portable(config), new)
        new.replace(run / CONFIG)


def _changed_policy(began: Mapping[str, Any], start: Mapping[str, Any]) -> dict[str, Any]:
    """What is to be recorded of the policy; nothing, if it is the same."""
    said = ("policy", "policy_digest", "fallback_digest")
    if all(began.get(key) == start.get(key) for key in said):
        return {}
    return {key: start[key] for key in POLICY_KEYS if start.get(key) is not None}


def _tell(run: Path, changes: Sequence[ConfigChange], began: Mapping[str, Any], policy: Mapping[str, Any]) -> None:
    told = [str(change) for change in changes]
    if policy and policy.get("policy") != began.get("policy"):
        told.append(f"policy {policy.get('policy')} instead of {began.get('policy')}")
    elif policy:
        told.append(f"policy {policy.get('policy')}, which has been saved anew")
    log.warning("%s goes on with %s", run, "; ".join(told))


def _not_begun(records: Sequence[Record]) -> bool:
    return not any(record.kind in ("decision", "known") for record in records)


def _game(config: Config) -> dict[str, Any]:
    """The configuration without ``steer`` and the options of the executor: equal for runs of one search."""
    data = config_data(portable(config))
    del data["steer"], data["executor"]["options"]
    return data


def _changeable(factory: CampaignFactory, tried: bool, before: Config, after: Config) -> Sequence[str]:
    """Keys that may change: programs that have never given a result may be put right."""
    same = [*_results(before)] == [*_results(after)]
    return factory.changeable if tried or not same else (*factory.changeable, *_PROGRAMS)


def _results(config: Config) -> Iterator[Any]:
    """Names of results of each program."""
    for program in (config.program or {}, *config.programs.values()):
        found = program.get("results")
        yield sorted(found) if isinstance(found, Mapping) else found
