"""The Python interface to experiments; ``rlctl.steering.reading`` is that to steered campaigns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from rlctl.config.load import config_hash, game_hash
from rlctl.config.schema import Config
from rlctl.core.errors import ConfigError, ContractError, StorageError, brief
from rlctl.environments.reward_env import rewarded
from rlctl.monitoring.progress import Progress, Silent
from rlctl.plugins import preflight
from rlctl.plugins.learner import Learner
from rlctl.plugins.registry import load_policy, policy_factory
from rlctl.system.files import require_file, require_folder, storage_errors
from rlctl.system.terminal import open_closed_streams
from rlctl.system.watchdog import TIMEOUT, watching

if TYPE_CHECKING:
    from rlctl.benchmark.result_rows import FamilyResults
    from rlctl.bundle.manifest import Judgement
    from rlctl.core.policy import Policy
    from rlctl.evaluation.compare import Comparison
    from rlctl.evaluation.returns import Returns
    from rlctl.evaluation.tuning import Tuned
    from rlctl.steering import Summary
    from rlctl.steering.dry_run import DryRun
    from rlctl.testing import Checked


def check(config: Config, *, play: bool = False) -> Checked | None:
    """Check a configuration without training or running programs.

    Args:
        play: also run a few campaigns on the twin, to check the contracts of the campaign and of the configured
            policies; see ``rlctl.testing.check_campaign``.

    Raises:
        RlctlError: the first error, in one line.
    """
    with _watching(config):
        preflight.check(config)
        if config.benchmark is not None:
            from rlctl.benchmark.families import check_family

            with config.source.located():
                check_family(config)
        return _check_contracts(config) if play else None


def _watching(config: Config, *, signals: bool = True) -> AbstractContextManager[None]:
    return watching(config.evaluate.decision_timeout_s, TIMEOUT, signals=signals)


def _check_contracts(config: Config) -> Checked:
    from rlctl.plugins.entry_points import CAMPAIGNS, load
    from rlctl.testing import Checked, check_campaign, check_policy

    with config.source.located():
        policies = [load_policy(config, name) for name in config.policies]
        game = preflight.check_game(config)
        if rewarded(game):
            from rlctl.evaluation.returns import try_out

            named = {policy.name: policy for policy in policies}
            steps, endless = try_out(game, named, config.seed, config.evaluate.max_steps)
            return Checked(decisions=steps, tasks=0, instances=4, reached={}, cut=endless)
        factory = preflight.check_campaign(config)
        try:
            checked = check_campaign(factory, config.machine.capacity(), policies, seed=config.seed)
        except ContractError as error:
            raise ContractError(f"{load(CAMPAIGNS, config.campaign.name)}: {error}") from error
        for policy in policies:
            try:
                check_policy(factory, policy, config.machine.capacity(), seed=config.seed)
            except ContractError as error:
                raise ContractError(f"policy {policy.name}: {error}", ("policies", policy.name)) from error
        return checked


def train(config: Config, out: Path | str, *, resume: bool = False, progress: Progress | None = None) -> Path:
    """Train a policy on the campaign's twin, and judge it against rules; see ``rlctl.evaluation.gate``.

    Args:
        config: the experiment, with a section ``train``.
        out: folder for checkpoints, TensorBoard files and the saved policy.
        resume: resume from the last checkpoint in ``out``; otherwise ``out`` must not exist or be empty.
        progress: receives the progress; None: not shown.

    Returns:
        the folder of the saved policy.

    Raises:
        ConfigError: there is no section ``train``, or the learner rejects it.
        StorageError: ``out`` cannot be made; it is missing though ``resume`` is set, or not empty though it is not.
    """
    open_closed_streams()
    out = Path(out)
    learner = check_train(config, out, resume)
    with config.source.located(), storage_errors(out, "then resume with --resume"), _watching(config, signals=False):
        from rlctl.evaluation.gate import judge_trained

        folder = learner.train(out, resume, progress or Silent())
        judge_trained(config, folder, progress or Silent())
        return folder


def check_train(config: Config, out: Path, resume: bool) -> Learner:
    """Check that a training can start; returns the learner, or raises like ``train``."""
    with config.source.located():
        learner = preflight.check_training(config, preflight.check_game(config))
        require_folder(out, made=None if resume else ())
        if resume and not out.exists():
            raise StorageError(f"{out}: nothing to resume, there is no such folder; to start a training, omit --resume")
        return learner


def tune(
    config: Config,
    rule: str,
    out: Path | str,
    *,
    generations: int = 30,
    instances: int = 24,
    decisions: int | None = None,
    step: float = 0.25,
    seed: int | None = None,
    workers: int = 1,
    start: Path | str | None = None,
    progress: Progress | None = None,
) -> Tuned:
    """Tune the parameters of a rule on the campaign's twin, and write a rule file.

    Args:
        config: the experiment.
        rule: name of a registered rule.
        out: the file to write; of existing files only earlier rule files are replaced.
        generations: generations of the CMA-ES search.
        instances: instances of each candidate per generation.
        decisions: in place of ``generations``: so many decisions on the twin in all, as a training has them.
        step: deviation of the first generation, in units of a parameter's whole range.
        seed: seed of the search and its instances; None: that of the configuration.
        workers: number of processes.
        start: rule file with the initial parameters; None: the rule's defaults.
        progress: receives the progress; None: not shown.

    Raises:
        ConfigError: the rule is unknown or has no parameters, ``start`` is of another rule or outside the search
            range, or ``out`` is a folder, or a file of another kind.
    """
    from rlctl.evaluation import tuning

    out = Path(out)
    require_file(out)
    tuning.require_rule_file(out)
    begin = None if start is None else tuning.start_parameters(Path(start), rule)
    with config.source.located(), _watching(config):
        untuned = policy_factory(rule)(begin)
        untuned.name = rule
        preflight.check_policy(config, preflight.check_campaign(config), untuned)
        seed = config.seed if seed is None else seed
        settings = tuning.SearchSettings(generations, instances=instances, seed=seed, decisions=decisions, step=step)
        with storage_errors(out):
            return tuning.tune(config, rule, out, progress or Silent(), settings, workers, begin)


def evaluate(
    config: Config,
    policies: Sequence[str | Policy],
    *,
    instances: int | None = None,
    seed: int | None = None,
    workers: int = 1,
    record: bool = False,
    progress: Progress | None = None,
) -> Comparison | Returns:
    """Compare policies on the same held-out instances of the campaign's twin, or episodes of an environment.

    Args:
        config: the experiment.
        policies: names or paths (see ``rlctl.load_policy``), or policies; the first is the reference.
        instances: number of instances; None: that of the configuration.
        seed: seed of the instances and the bootstrap; None: that of the configuration.
        workers: number of processes.
        record: add the comparison to the manifest of the first policy, which must be a saved policy.
        progress: receives the progress; None: not shown.

    Raises:
        ConfigError: a policy is unknown or given twice.
        PolicyError: a saved policy cannot be loaded, or the scores cannot be recorded.
    """
    from rlctl.evaluation.rollout import evaluation_instances

    seed = config.evaluate.seed if seed is None else seed
    with config.source.located():
        game = preflight.check_game(config)
    if rewarded(game):
        if record:
            raise ConfigError("--record: only costs of campaigns are recorded, not returns of a Gymnasium environment")
        from rlctl.evaluation import returns

        with _watching(config):
            loaded, steps = _loaded(config, policies), config.evaluate.max_steps
            chosen = evaluation_instances(config, instances, seed)
            return returns.evaluate(game, loaded, chosen, seed, progress or Silent(), steps)
    loaded = _loaded(config, policies)
    with config.source.located(), _watching(config):
        factory = preflight.check_campaign(config)
        for policy in loaded.values():
            preflight.check_policy(config, factory, policy)
        from rlctl.evaluation import scores
        from rlctl.evaluation.compare import compare_policies

        saved = scores.recordable(next(iter(loaded.values()))) if record and loaded else None
        chosen = evaluation_instances(config, instances, seed)
        comparison = compare_policies(
            factory, config.machine.capacity(), loaded, chosen, seed, progress or Silent(), workers
        )
        if saved is not None:
            data = comparison.to_json() | {"game_hash": game_hash(config, factory)}
            scores.record(saved, comparison.reference, data, config_hash(config))
        return comparison


def benchmark(
    configs: Mapping[str, Config],
    out: Path | str | None = None,
    work: Path | str | None = None,
    *,
    instances: int | None = None,
    workers: int = 1,
    command: str = "",
    progress: Progress | None = None,
) -> Sequence[FamilyResults]:
    """Judge policies with several training seeds against tuned rules; see ``rlctl.benchmark.families.benchmark``."""
    from rlctl.benchmark import families

    open_closed_streams()
    return families.benchmark(configs, out, work, instances, workers, command, progress or Silent())


def judge(
    config: Config, policy: str | Policy, *, instances: int | None = None, progress: Progress | None = None
) -> Judgement:
    """Judge a saved policy against the rules, as ``train`` does in the end, and record it in the policy's manifest.

    Args:
        config: the experiment, whose ``policies`` are the rules, with the ``opponents`` of the campaign.
        policy: a name or path (see ``rlctl.load_policy``), or a policy.
        instances: number of instances of the twin; None: that of the configuration.
        progress: receives the progress; None: not shown.

    Raises:
        ConfigError: there is no rule to compare with, or one cannot be used.
        PolicyError: it is no saved policy, or its manifest cannot be written.
    """
    from rlctl.evaluation import gate, scores

    with config.source.located(), _watching(config):
        factory = preflight.check_campaign(config)
        loaded = load_policy(config, policy) if isinstance(policy, str) else policy
        scores.recordable(loaded)
        rules = gate.opponents(config, factory)
        if not rules:
            raise ConfigError(
                f"neither these nor campaign {factory.name} name a rule to compare with: add one", ("policies",)
            )
        count = instances or (64 if config.train is None else config.train.judgement_instances or 64)
        return gate.judge(config, factory, loaded, rules, count, progress or Silent())


def _loaded(config: Config, policies: Sequence[str | Policy]) -> dict[str, Policy]:
    """The policies by name; one whose name is taken, by the path that was given."""
    loaded: dict[str, Policy] = {}
    for given in policies:
        policy = load_policy(config, given) if isinstance(given, str) else given
        name = policy.name
        if name in loaded and isinstance(given, str):
            name = given
        if name in loaded:
            raise ConfigError(f"policy {brief(name)} is given twice, or two policies share that name")
        loaded[name] = policy
    return loaded


def steer(
    config: Config,
    policy: str | Policy | None = None,
    run: Path | str | None = None,
    *,
    instance: int | None = None,
    resume: bool = False,
    boot_s: float = 0.0,
    progress: Progress | None = None,
    begun: Callable[[Path], None] | None = None,
    chosen: Callable[[str], None] | None = None,
) -> Summary:
    """Steer a real campaign; see ``rlctl.steering.steer``.

    Args:
        config: the experiment.
        policy: a name or path (see ``rlctl.load_policy``), or a policy; None: that of the run which is resumed, else
            the winner of the judgements that saved policies of the configuration carry, else the campaign's default.
        run: the run folder; None: a new one, ``runs/NAME-N`` with the name of the configuration, or, with ``resume``,
            the newest of these that is unfinished.
        instance: number of the instance; None: 0, or that of the run which is resumed.
        resume: resume the campaign in ``run``.
        boot_s: seconds of the allocation that this process has used so far; they are charged.
        progress: receives the progress; None: not shown.
        begun: receives the run folder before the campaign begins.
        chosen: receives the policy's name with the reason where it was chosen.
    """
    from rlctl.steering.start import start

    open_closed_streams()
    return start(
        config,
        policy,
        run,
        instance=instance,
        resume=resume,
        boot_s=boot_s,
        progress=progress,
        begun=begun,
        chosen=chosen,
    )


def dry_run(
    config: Config,
    policy: str | Policy | None = None,
    *,
    instance: int | None = None,
    chosen: Callable[[str], None] | None = None,
) -> DryRun:
    """The first decisions of a campaign, with commands and files, until the machine is full; nothing is started.

    Args:
        config, policy, instance, chosen: see ``steer``.
    """
    from rlctl.steering.start import show

    return show(config, policy, instance, chosen)
