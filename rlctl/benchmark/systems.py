"""Makes what is compared: trains policies with several seeds, tunes rules with the budget of a training."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from rlctl.bundle.network import NumpyPolicy
from rlctl.config.benchmark_section import SearchedRuleSection
from rlctl.config.load import game_hash, load_rule_file
from rlctl.config.schema import Config, RuleEntry, RuleFile
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.errors import StorageError
from rlctl.core.json_values import digest
from rlctl.core.policy import Policy
from rlctl.core.random_policy import RANDOM
from rlctl.environments.residual import ResidualPolicy
from rlctl.evaluation.tuning import SearchSettings, tune
from rlctl.monitoring.progress import Progress
from rlctl.plugins import preflight
from rlctl.plugins.registry import load_policy, make_rule, policy_factory

POLICY = "policy"
"""System that is trained, with all its seeds."""

CPU_SECONDS = "cpu_seconds"
"""File beside a training, and key of records: seconds of processor time."""

Kind = str
TRAINED, RULE, UNTUNED, CHANCE = "trained", "rule", "untuned", "chance"


@dataclass(frozen=True)
class System:
    """Something that plays.

    Attributes:
        name: in tables.
        kind: ``trained``: a network; ``rule``: one with the parameters that it is shipped with or tuned to;
            ``untuned``; or ``chance``.
        policies: one for each training seed; a rule has one.
        identity: digests of these, which say when earlier rollouts are of the same policy.
        record: how it was made, for the results.
        cpu_seconds: processor time of training or tuning, mean over seeds; 0: there was none; None: unknown.
    """

    name: str
    kind: Kind
    policies: tuple[Policy, ...]
    identity: tuple[str, ...]
    record: Mapping[str, Any] = field(default_factory=dict)
    cpu_seconds: float | None = 0.0

    def seed(self, number: int, name: str) -> System:
        """The same with one of its seeds."""
        return System(name, self.kind, (self.policies[number],), (self.identity[number],), {}, self.cpu_seconds)


def trainings(config: Config, factory: CampaignFactory, work: Path, progress: Progress, workers: int) -> System | None:
    """The policies of seeds 1, 2, 3 ...: those in ``work/train``, and trained now where there is none."""
    search = config.judged.search
    count = config.judged.seeds if config.train is not None or search is not None else 0
    if not count:
        return None
    if search is not None:
        return _searched(config, factory, search, work, progress, workers)
    policies, seconds = list[Policy](), list[float | None]()
    for seed in range(1, count + 1):
        folder = work / "train" / str(seed)
        if not (folder / POLICY / "manifest.json").exists():
            section = config.training.model_copy(update={"seed": None, "judgement_instances": 0})
            own = config.model_copy(update={"seed": seed, "train": section})
            learner = preflight.check_training(own, factory)
            learner.train(folder, folder.exists() and any(folder.iterdir()), progress)
        policy = load_policy(config, str(folder / POLICY))
        made_for = (network_of(policy).manifest.model_extra or {}).get("game_hash")
        if made_for != game_hash(config, factory):
            raise StorageError(f"{folder / POLICY} was trained for another game: choose another folder with --work")
        policies.append(policy)
        seconds.append(_recorded_seconds(folder, policy))
    known = [one for one in seconds if one is not None]
    mean = sum(known) / len(known) if len(known) == count else None
    record = {"seeds": list(range(1, count + 1)), "decisions": config.training.decisions, CPU_SECONDS: mean}
    return System(POLICY, TRAINED, tuple(policies), tuple(map(identity, policies)), record, mean)


def contestants(config: Config, factory: CampaignFactory, work: Path, progress: Progress, workers: int) -> list[System]:
    """The configuration's policies, the rules that are tuned, each untuned too, and chance; none twice."""
    found = [_configured(config, name) for name in config.policies]
    configured = [entry.rule if (entry := _entry(config, name)) is not None else "" for name in config.policies]
    rules = [rule for rule in dict.fromkeys((*configured, *factory.opponents)) if rule and rule != RANDOM]
    tuned = rules if config.judged.tune is None else config.judged.tune
    for rule in dict.fromkeys((*rules, *tuned)):
        if rule in tuned and policy_factory(rule).SPACE:
            found.append(_tuned(config, factory, rule, work, progress, workers))
        plain = make_rule(RuleEntry(rule=rule), rule)
        found.append(System(f"{rule}, untuned", UNTUNED, (plain,), (identity(plain),), {"rule": rule}))
    chance = load_policy(config, RANDOM)
    found.append(System(RANDOM, CHANCE, (chance,), (identity(chance),)))
    return list({system.identity: system for system in reversed(found)}.values())[::-1]


def identity(policy: Policy) -> str:
    """Digest of a policy: of a bundle's, or of a rule's class, its source, and its numbers."""
    if isinstance(policy, ResidualPolicy):
        return digest([identity(policy.rule), identity(policy.network)])
    if isinstance(policy, NumpyPolicy):
        return policy.digest
    found = hashlib.sha256()
    for module in dict.fromkeys(base.__module__ for base in type(policy).__mro__ if base is not object):
        found.update(Path(inspect.getfile(sys.modules[module])).read_bytes())
    plain = {key: value for key, value in sorted(vars(policy).items()) if isinstance(value, int | float | str | tuple)}
    return digest(
        [type(policy).__qualname__, found.hexdigest(), {key: repr(plain[key]) for key in plain if key != "name"}]
    )


def _configured(config: Config, name: str) -> System:
    policy, entry = load_policy(config, name), config.policies[name]
    if has_network(policy):
        extra = network_of(policy).manifest.model_extra or {}
        record = {key: extra[key] for key in ("seed", "decisions", CPU_SECONDS) if extra.get(key) is not None}
        return System(name, TRAINED, (policy,), (identity(policy),), record, extra.get(CPU_SECONDS))
    if isinstance(entry, RuleEntry):
        record = {"rule": entry.rule, "parameters": entry.parameters}
        return System(name, RULE, (policy,), (identity(policy),), record, None)
    file = load_rule_file(config.resolve(entry))
    tuning, record = file.tuning, {"rule": file.rule, "parameters": file.parameters}
    record |= {key: tuning[key] for key in ("decisions", "episodes", CPU_SECONDS) if key in tuning}
    return System(name, RULE, (policy,), (identity(policy),), record, tuning.get(CPU_SECONDS))


def _entry(config: Config, name: str) -> RuleEntry | None:
    """The rule behind a name among ``policies``; None: a saved policy."""
    entry = config.policies[name]
    if isinstance(entry, RuleEntry):
        return entry
    path = config.resolve(entry)
    return None if path.is_dir() else load_rule_file(path).entry


def _searched(
    config: Config, factory: CampaignFactory, search: SearchedRuleSection, work: Path, progress: Progress, workers: int
) -> System:
    """The rule of ``benchmark.search`` in ``work/train/SEED.yaml``, tuned now with the seeds that are missing."""
    files = []
    for seed in range(1, config.judged.seeds + 1):
        path = work / "train" / f"{seed}.yaml"
        if not path.exists():
            size = SearchSettings(seed=seed, decisions=_budget(config), instances=search.instances, step=search.step)
            tune(config, search.rule, path, progress, size, workers)
        files.append(_rule_file(config, factory, path))
    policies = tuple(make_rule(file.entry, POLICY) for file in files)
    mean = fmean(file.tuning[CPU_SECONDS] for file in files)
    record = {"rule": search.rule, "seeds": list(range(1, len(files) + 1)), "decisions": _budget(config)}
    return System(POLICY, TRAINED, policies, tuple(map(identity, policies)), {**record, CPU_SECONDS: mean}, mean)


def _budget(config: Config) -> int:
    """Decisions on the twin for the tuning of a rule."""
    return config.judged.decisions or (config.train.decisions if config.train is not None else 100_000)


def _rule_file(config: Config, factory: CampaignFactory, path: Path) -> RuleFile:
    found = load_rule_file(path)
    if found.tuning.get("game_hash") != game_hash(config, factory):
        raise StorageError(f"{path} was tuned for another game: choose another folder with --work")
    return found


def _tuned(config: Config, factory: CampaignFactory, rule: str, work: Path, progress: Progress, workers: int) -> System:
    """The rule in ``work/rules``, tuned now if there is none; the search begins at that of a configured rule file."""
    file = work / "rules" / f"{rule}.yaml"
    if not file.exists():
        settings = SearchSettings(seed=config.seed, decisions=_budget(config))
        files = [name for name, entry in config.policies.items() if isinstance(entry, str)]
        entries = [entry for policy in files if (entry := _entry(config, policy)) is not None]
        start = next((entry.parameters for entry in entries if entry.rule == rule), None)
        tune(config, rule, file, progress, settings, workers, start)
    name = f"{rule}, tuned"
    found = _rule_file(config, factory, file)
    policy = make_rule(found.entry, name)
    record = {"rule": rule, "parameters": found.parameters}
    record |= {key: found.tuning[key] for key in ("decisions", "episodes", CPU_SECONDS) if key in found.tuning}
    return System(name, RULE, (policy,), (identity(policy),), record, found.tuning.get(CPU_SECONDS))


def has_network(policy: Policy) -> bool:
    """Whether it is a saved policy, not a rule."""
    return isinstance(policy, NumpyPolicy | ResidualPolicy)


def network_of(policy: Policy) -> NumpyPolicy:
    """The network of a saved policy."""
    network = policy.network if isinstance(policy, ResidualPolicy) else policy
    assert isinstance(network, NumpyPolicy)
    return network


def _recorded_seconds(folder: Path, policy: Policy) -> float | None:
    stated = (network_of(policy).manifest.model_extra or {}).get(CPU_SECONDS)
    if isinstance(stated, int | float):
        return float(stated)
    try:
        return float((folder / CPU_SECONDS).read_text())
    except (OSError, ValueError):
        return None
