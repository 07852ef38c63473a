"""Starts or resumes a campaign whose policy, run folder or instance may not be named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlctl.config.schema import Config, RuleEntry
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.policy import Policy
from rlctl.monitoring.progress import Progress
from rlctl.plugins import preflight
from rlctl.plugins.registry import load_policy
from rlctl.steering import by_hand, control
from rlctl.steering.by_hand import Asked
from rlctl.steering.control_loop import TIMEOUT
from rlctl.steering.dry_run import DryRun, dry_run
from rlctl.steering.policy_choice import choose
from rlctl.steering.run_folder import JOURNAL
from rlctl.steering.run_names import new_run, recorded_start, unfinished_run
from rlctl.steering.summary import Summary
from rlctl.system.files import require_folder, storage_errors
from rlctl.system.watchdog import watching


def show(
    config: Config, policy: str | Policy | None, instance: int | None, chosen: Callable[[str], None] | None = None
) -> DryRun:
    """See ``rlctl.api.dry_run``."""
    with config.source.located():
        factory = preflight.check_campaign(config, real=True)
        config, policy, why = _chosen(config, factory, policy, {})
        decider, _ = _checked(config, factory, policy, resume=False)
        with watching(config.steer.decision_timeout_s, TIMEOUT):
            planned = dry_run(config, factory, decider, instance or 0)
        if why and chosen is not None:
            chosen(why["policy_reason"])
        return replace(planned, policy_reason=why.get("policy_reason", ""))


def _chosen(
    config: Config,
    factory: CampaignFactory,
    policy: str | Policy | None,
    recorded: Mapping[str, Any],
) -> tuple[Config, str | Policy, dict[str, Any]]:
    """The configuration with the policy, the policy, and what the journal says of how it was chosen."""
    if recorded.get("policy_rule"):
        config = config.with_rules({str(recorded["policy"]): RuleEntry(**recorded["policy_rule"])})
    if policy or recorded.get("policy_source"):
        return config, policy or str(recorded["policy_source"]), {}
    choice = choose(config, factory)
    why = {"policy_reason": choice.reason}
    if choice.rule is None:
        return config, choice.name, why
    rule = choice.rule.model_dump(mode="json")
    return config.with_rules({choice.name: choice.rule}), choice.name, {**why, "policy_rule": rule}


def _checked(config: Config, factory: CampaignFactory, policy: str | Policy, resume: bool) -> tuple[Policy, str | None]:
    """The policy, and where it is from; None: it is given."""
    decider, source = (load_policy(config, policy), policy) if isinstance(policy, str) else (policy, None)
    if source is not None and source not in config.policies and Path(source).exists():
        source = str(Path(source).absolute())
    with watching(config.steer.decision_timeout_s, TIMEOUT):
        preflight.check_policy(config, factory, decider)
        if factory.runs_programs and not resume:
            preflight.check_programs(config, factory)
    return decider, source


def ask(
    config: Config,
    policy: str | None,
    run: Path,
    count: int = 1,
    *,
    instance: int | None = None,
    chosen: Callable[[str], None] | None = None,
) -> Asked:
    """Have the policy of a run choose evaluations that are made elsewhere; see ``rlctl.steering.by_hand.ask``."""
    with config.source.located():
        recorded = recorded_start(run) if (run / JOURNAL).exists() else {}
        factory = preflight.check_campaign(config, real=True)
        config, named, why = _chosen(config, factory, policy, recorded)
        decider, source = _checked(config, factory, named, resume=True)  # programs may be elsewhere, too
        number = int(recorded.get("instance", 0)) if instance is None else instance
        if why and chosen is not None:
            chosen(why["policy_reason"])
        with storage_errors(run, "then ask again"):
            return by_hand.ask(config, factory, decider, run, number, count, source, why)


def start(
    config: Config,
    policy: str | Policy | None,
    run: Path | str | None,
    *,
    instance: int | None,
    resume: bool,
    boot_s: float,
    progress: Progress | None,
    begun: Callable[[Path], None] | None,
    chosen: Callable[[str], None] | None,
) -> Summary:
    """See ``rlctl.steer``."""
    with config.source.located():
        folder = Path(run) if run is not None else unfinished_run(config) if resume else None
        recorded = recorded_start(folder) if resume and folder is not None else {}
        factory = preflight.check_campaign(config, real=True)
        config, policy, why = _chosen(config, factory, policy, recorded)
        decider, source = _checked(config, factory, policy, resume)
        if folder is not None:
            require_folder(folder)
        made = new_run(config) if folder is None else None
        folder = made or Path(folder or "")
        number = int(recorded.get("instance", 0)) if instance is None else instance

        def starts(run: Path) -> None:
            if why and chosen is not None:
                chosen(why["policy_reason"])
            if begun is not None:
                begun(run)

        try:
            with storage_errors(folder, "then resume with --resume"):
                return control.steer(
                    config,
                    decider,
                    folder,
                    number,
                    resume=resume,
                    boot_s=boot_s,
                    source=source,
                    choice=why,
                    progress=progress,
                    begun=starts,
                )
        finally:
            if made is not None:
                with suppress(OSError):  # it is not empty, as the campaign has begun
                    made.rmdir()
