"""What one does with an experiment, each in one call: train, tune, evaluate, steer, and look at what was steered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlctl.config import Config
from rlctl.errors import ConfigError
from rlctl.monitoring.progress import Progress, Silent
from rlctl.registry import learner, load_policy, policy_factory

if TYPE_CHECKING:
    from rlctl.evaluation.compare import Comparison
    from rlctl.evaluation.tuning import Tuned
    from rlctl.policy import Policy
    from rlctl.steering import Summary
    from rlctl.steering.status import Status


def train(config: Config, out: Path | str, *, resume: bool = False, progress: Progress | None = None) -> Path:
    """Train a policy on the campaign's twin.

    Args:
        config: the experiment; its ``train`` section is needed.
        out: folder for checkpoints, TensorBoard files and the saved policy.
        resume: go on from the last checkpoint in ``out``; without it ``out`` must not exist or be empty.
        progress: told how far it is; silent if None.

    Returns:
        The folder of the saved policy.

    Raises:
        ConfigError: there is no ``train`` section, the learner refuses it, or ``out`` is taken.
    """
    out = Path(out)
    if config.train is None:
        raise ConfigError("the configuration has no section train: it says how to learn")
    learn = learner(config.train.algorithm)
    if not resume and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists already: add --resume to go on with it, or give another folder")
    return learn(config, out, resume, progress or Silent())


def tune(
    config: Config,
    rule: str,
    out: Path | str,
    *,
    generations: int = 30,
    instances: int = 24,
    seed: int | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Tuned:
    """Find good parameters of a rule on the campaign's twin and write them to a rule file.

    Args:
        config: the experiment.
        rule: a registered rule's name.
        out: the file to write; one that exists is replaced.
        generations: of the CMA-ES search.
        instances: that each set of parameters plays in a generation.
        seed: of the search and its instances; the experiment's if None.
        workers: processes to play in.
        progress: told how far it is; silent if None.

    Raises:
        ConfigError: there is no such rule, it has no parameters, or ``out`` is a folder.
    """
    out = Path(out)
    if out.is_dir():
        raise ConfigError(f"{out} is a folder; give the file to write")
    policy_factory(rule)
    from rlctl.evaluation import tuning

    seed = config.seed if seed is None else seed
    settings = tuning.Settings(generations=generations, instances=instances, seed=seed)
    return tuning.tune(config, rule, out, progress or Silent(), settings, workers)


def evaluate(
    config: Config,
    policies: Sequence[str | Policy],
    *,
    instances: int | None = None,
    seed: int | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Comparison:
    """Compare policies on the same held-out instances of the campaign's twin.

    Args:
        config: the experiment.
        policies: names, paths (see ``rlctl.load_policy``) or policies themselves; costs are told relative to the
            first's.
        instances: number of instances; the configuration's if None.
        seed: of the instances; the configuration's if None.
        workers: processes to play in.
        progress: told how far it is; silent if None.

    Raises:
        ConfigError: a policy is not known, or named twice.
        PolicyError: a saved policy cannot be used.
    """
    loaded: dict[str, Policy] = {}
    for given in policies:
        policy = load_policy(config, given) if isinstance(given, str) else given
        if policy.name in loaded:
            raise ConfigError(f"policy {given!r} is named {policy.name!r}, as another one is: name each one once")
        loaded[policy.name] = policy
    from rlctl.evaluation import compare

    instances = config.evaluate.instances if instances is None else instances
    seed = config.evaluate.seed if seed is None else seed
    return compare.evaluate(config, loaded, instances, seed, progress or Silent(), workers)


def steer(
    config: Config,
    policy: str | Policy,
    run: Path | str,
    *,
    instance: int = 0,
    resume: bool = False,
    boot_s: float = 0.0,
    progress: Progress | None = None,
) -> Summary:
    """Run one campaign for real; see ``rlctl.steering.steer``, which takes the policy itself."""
    from rlctl import steering

    decider, source = (load_policy(config, policy), policy) if isinstance(policy, str) else (policy, None)
    if source is not None and source not in config.policies and Path(source).exists():
        source = str(Path(source).absolute())
    return steering.steer(
        config, decider, Path(run), instance, resume=resume, boot_s=boot_s, source=source, progress=progress
    )


def report(
    run: Path | str,
    out: Path | str | None = None,
    *,
    rules: bool = True,
    instances: int = 12,
    progress: Progress | None = None,
) -> Path:
    """Write all about a steered campaign, ended or not, into one HTML file; see ``rlctl.steering.report``.

    Args:
        run: the run folder.
        out: the file; ``report.html`` in the run folder if None. An earlier report is replaced, nothing else.
        rules: play the configured rules on the campaign's twin, to compare.
        instances: further instances that rules play, to show how much instances differ.
        progress: told how far it is; silent if None.

    Returns:
        the file.

    Raises:
        JournalError: it is no run folder, or its journal is damaged.
        ConfigError: its configuration is missing or damaged, or ``out`` cannot be written.
    """
    from rlctl.steering.report import write_report

    return write_report(Path(run), None if out is None else Path(out), rules, instances, progress or Silent())


def trace(run: Path | str, out: Path | str | None = None) -> Path:
    """Write tasks and decisions of a steered campaign as Chrome trace events, for Perfetto.

    Args:
        run: the run folder.
        out: the file; ``trace.json`` in the run folder if None. An earlier trace is replaced, nothing else.

    Returns:
        the file.

    Raises:
        JournalError: it is no run folder, or its journal is damaged.
        ConfigError: its configuration is missing or damaged, or ``out`` cannot be written.
    """
    from rlctl.monitoring import own_file, trace
    from rlctl.steering.run_folder import read_run

    run = Path(run)
    found = read_run(run)
    out = run / "trace.json" if out is None else Path(out)
    own_file.write_own(out, trace.trace_json(found.timeline, found.header), trace.MARK)
    return out


def status(run: Path | str) -> Status:
    """How a campaign that is, or was, steered stands: goal, budget, running tasks, last decisions, ledger.

    Raises:
        JournalError: it is no run folder, or its journal is damaged.
        ConfigError: its configuration is missing or damaged.
    """
    from rlctl.steering.status import status

    return status(run)
