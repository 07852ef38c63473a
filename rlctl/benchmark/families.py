"""Judges families one after the other, and writes what they give: rows, a page and a picture for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlctl.benchmark.family import BOUND, CLAIRVOYANT, Family, Work
from rlctl.benchmark.measures import Estimate, holm
from rlctl.benchmark.real_campaigns import judge_real
from rlctl.benchmark.result_rows import FLIPS, GEOMETRIC, HOLM, FamilyResults, Row, row, write_results
from rlctl.benchmark.results_page import page
from rlctl.benchmark.results_picture import picture
from rlctl.benchmark.variants import changed, check_variant, judge_variants
from rlctl.config.load import config_hash, game_hash
from rlctl.config.provenance import provenance
from rlctl.config.schema import Config, RuleEntry
from rlctl.core.errors import ConfigError, Key
from rlctl.monitoring.progress import Progress
from rlctl.plugins import preflight
from rlctl.plugins.registry import load_policy, make_rule, policy_factory
from rlctl.system.files import require_folder, storage_errors, write_atomically
from rlctl.system.watchdog import TIMEOUT, watching

SIGNIFICANT = 0.05


def benchmark(
    configs: Mapping[str, Config],
    out: Path | str | None,
    work: Path | str | None,
    instances: int | None,
    workers: int,
    command: str,
    progress: Progress,
) -> list[FamilyResults]:
    """Judge each configuration in turn.

    Results are written whenever one is done, with Holm's correction over those done so far.

    Args:
        configs: by name, which results and folders get; each with a section ``benchmark``.
        out: folder of the results; None: ``docs/results`` in a clone of rlctl, else ``runs/results``.
        work: folder of trainings, tuned rules and rollouts; what it holds is used. None: ``runs/benchmark``.
        instances: number of evaluation instances; None: those of each configuration.
        workers: number of processes of rollouts.
        command: that makes the results again, for the pages.
        progress: receives the progress.

    Raises:
        ConfigError: a configuration has no section ``benchmark``, or one that cannot be used.
        StorageError: ``work`` holds what was made for another game.
    """
    out, work = results_folder() if out is None else Path(out), Path(work or "runs/benchmark")
    for config in configs.values():
        with config.source.located():
            check_family(config)
    for folder in (out, work):
        require_folder(folder)
    done: list[FamilyResults] = []
    for name, config in configs.items():
        with (
            storage_errors(work, "then begin again: what is there is used"),
            config.source.located(),
            watching(config.evaluate.decision_timeout_s, TIMEOUT),
        ):
            done.append(_judged(name, config, Work(work / name, instances, workers, command, progress)))
        for results in corrected(done):
            write_all(results, out)
    return corrected(done)


def check_family(config: Config) -> None:
    """Check a configuration with the section ``benchmark`` before anything of it is trained, tuned or played.

    Raises:
        ConfigError: it cannot be judged.
    """
    section, factory = config.judged, preflight.check_campaign(config)
    if not factory.has_twin:
        raise ConfigError(f"campaign {factory.name!r} cannot be judged: its factory has no twin", ("campaign", "name"))
    if section.search is not None:
        _check_rule(config, RuleEntry(rule=section.search.rule), ("benchmark", "search", "rule"))
        if not policy_factory(section.search.rule).SPACE:
            raise ConfigError(f"rule {section.search.rule!r} has no parameters", ("benchmark", "search", "rule"))
    elif section.seeds and config.train is not None:
        preflight.check_training(config, factory)
    for name in config.policies:
        preflight.check_policy(config, factory, load_policy(config, name), ("policies", name))
    for i, rule in enumerate(section.tune or ()):
        _check_rule(config, RuleEntry(rule=rule), ("benchmark", "tune", str(i)))
    if section.clairvoyant is not None:
        key = ("benchmark", "clairvoyant")
        options = {f"campaign.options.{k}": v for k, v in section.clairvoyant.options.items()}
        game = _checked_change(config, options, (*key, "options"))
        _check_rule(game, RuleEntry(rule=section.clairvoyant.rule, parameters=section.clairvoyant.parameters), key)
    for name, changes in section.variants.items():
        check_variant(config, name, changes)
    if section.calibrated:
        _checked_change(config, section.calibrated, ("benchmark", "calibrated"))


def _checked_change(config: Config, changes: Mapping[str, Any], key: Key) -> Config:
    try:
        found = changed(config, changes)
        preflight.check_campaign(found)
    except ConfigError as error:
        raise ConfigError(str(error), key) from error
    return found


def _check_rule(config: Config, entry: RuleEntry, key: Key) -> None:
    try:
        rule = make_rule(entry, entry.rule)
    except ConfigError as error:
        raise ConfigError(error.problem, key) from error
    preflight.check_policy(config, preflight.check_campaign(config), rule, key)


def results_folder() -> Path:
    """Where results go if no folder is named: ``docs/results`` in a clone of rlctl, else ``runs/results``."""
    clone = Path("docs/conf.py").exists() and Path("rlctl/benchmark").is_dir()
    return Path("docs/results") if clone else Path("runs/results")


def write_all(results: FamilyResults, out: Path) -> None:
    """Write rows, page and picture of a family."""
    write_results(results, out)
    write_atomically(out / f"{results.family}.md", page(results))
    write_atomically(out / f"{results.family}.svg", picture(results))


def corrected(families: Sequence[FamilyResults]) -> list[FamilyResults]:
    """The results with the p values of all sign-flip tests of these families, variants included, corrected by Holm."""
    tests = [(n, one) for n, results in enumerate(families) for one in results.rows if one.measure == FLIPS]
    values = holm([float(one.median or 0.0) for _, one in tests])
    added: list[list[Row]] = [[] for _ in families]
    for (n, one), p in zip(tests, values, strict=True):
        unit = f"p, of {len(tests)} tests"
        found = row(one.family, HOLM, one.system, Estimate(p, p, p), unit, one.runs)
        ratio = families[n].of(GEOMETRIC, one.system, one.family)
        wins = ratio is not None and (ratio.median or 0.0) > 1.0
        added[n].append(replace(found, target=SIGNIFICANT, met=p < SIGNIFICANT and wins))
    return [
        replace(results, rows=[*(one for one in results.rows if one.measure != HOLM), *new])
        for results, new in zip(families, added, strict=True)
    ]


def _judged(name: str, config: Config, work: Work) -> FamilyResults:
    family = Family(name, config, work)
    found = [*family.judge(), *judge_variants(family), *judge_real(family)]
    made: dict[str, Any] = {
        "command": work.command,
        "judged": None if family.judged is None else family.judged.name,
        "instances": len(family.instances),
        "evaluation seed": config.evaluate.seed,
        "nodes": family.capacity.nodes,
        "cores": family.capacity.total_cores,
        "config_hash": config_hash(config),
        "game_hash": game_hash(config, family.factory),
        **provenance(),
    }
    systems = {one.name: {"kind": one.kind, **one.record} for one in family.systems.values()}
    drawn = {system: of for system, of in family.results.items() if system in systems or system in (CLAIRVOYANT, BOUND)}
    instances = {
        "numbers": list(family.instances),
        "cost": {system: _rounded(of.cost) for system, of in drawn.items()},
        "successes": {system: of.successes.astype(int).tolist() for system, of in drawn.items()},
        "reached": {system: of.reached.astype(int).tolist() for system, of in drawn.items()},
    }
    return FamilyResults(name, found, family.chosen, systems, made, dict(family.skipped), family.curves(), instances)


def _rounded(costs: Any) -> list[list[float]]:
    return [[float(f"{cost:.6g}") for cost in row] for row in costs.tolist()]
