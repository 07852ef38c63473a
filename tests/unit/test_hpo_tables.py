"""Searches of measured tables: the cost is that of the first good result, and ratios are paired and have intervals."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlctl.core.machine import Capacity
from rlctl.evaluation.rollout import roll_out
from rlctl.plugins.registry import policy_factory
from rlctl_envs.search.trials import TrialStatus

pytestmark = pytest.mark.quick

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def problems(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("hpo_problems")


@pytest.fixture
def tables(problems: Any) -> Any:
    return importlib.import_module("hpo_tables")


@pytest.fixture
def table(problems: Any) -> Any:
    """A bowl over a grid of numbers and words; 80 s with the first word, 2 s with the other."""
    rates, sizes, kinds = [1e-3, 1e-2, 1e-1, 1.0], [1, 2, 4, 8, 16], ["slow", "fast"]
    i, j, k = np.meshgrid(*map(np.arange, (4, 5, 2)), indexing="ij")
    loss = (i - 2.0) ** 2 + (j - 3.0) ** 2 + 0.3 * k
    seconds = np.repeat(np.where(k == 0, 80.0, 2.0)[..., None], 3, axis=-1)
    return problems.HpoTable("bowl", "HPOBench", {"rate": rates, "size": sizes, "kind": kinds}, loss, seconds)


def test_a_table_says_its_target_cap_and_recorded_evaluations(table: Any) -> None:
    ordered = np.sort(table.loss, axis=None)
    assert table.target(0.0) == ordered[14]
    assert table.target(1.0) == np.median(table.loss)
    assert table.cap == 60.0 * 41.0  # less than 300 medians
    rows = table.recorded(10, seed=1)
    assert rows == table.recorded(10, seed=1)
    assert len({(row["rate"], row["size"], row["kind"]) for row in rows}) == 10
    for row in rows:
        assert row["loss"] == table.loss[table.place(row)]
        assert row["seconds"] == (80.0 if row["kind"] == "slow" else 2.0)


@pytest.mark.parametrize("workers", [1, 4])
def test_the_cost_is_workers_times_the_end_of_the_first_good_result(
    problems: Any, tables: Any, table: Any, workers: int
) -> None:
    factory, kept = problems.TableSearch(table, 0.5), []
    played = roll_out(
        factory,
        Capacity(nodes=workers, cores=1),
        [(policy_factory("target_per_second")(None), 3)],
        lambda n, episode: kept.append(episode.campaign),
    )[0]
    cost, solved, started = tables.costs(kept[-1], workers, factory.target, table.cap)
    assert played.reached
    assert solved
    assert cost == pytest.approx(played.cost)
    good = [t for t in kept[-1].state.trials if t.status is TrialStatus.DONE and t.results["loss"] <= factory.target]
    assert cost == workers * min(trial.ended_s for trial in good)
    assert workers <= started <= len(kept[-1].state.trials)
    assert tables.costs(kept[-1], workers, -1.0, table.cap)[:2] == (table.cap, False)


def test_a_search_without_a_good_result_costs_the_cap(problems: Any, table: Any) -> None:
    factory = problems.TableSearch(table, -5.0)  # below the least loss
    played = roll_out(factory, Capacity(nodes=2, cores=1), [(policy_factory("random_search")(None), 3)])[0]
    assert not played.reached
    assert played.cost <= table.cap


def test_ratios_are_paired_by_table_seed_workers_and_target(tables: Any) -> None:
    def rows(policy: str, factor: float) -> list[Any]:
        return [
            tables.Played(name, workers, regret, seed, policy, 10.0 * factor * (1 + seed), True, 5)
            for name in ("car", "kc1", "protein_structure")
            for workers in (1, 4)
            for regret in tables.REGRETS
            for seed in (0, 1)
        ]

    all_rows = rows(tables.DEFAULT, 1.0) + rows("gp_ei", 2.0)[:-1]
    by_table = tables.ratios(all_rows, "gp_ei", list(tables.TABLES), [1, 4])
    assert by_table == {name: pytest.approx([np.log(2.0)] * 2) for name in ("car", "kc1", "protein_structure")}
    assert tables.interval(by_table) == pytest.approx((2.0, 2.0, 2.0))
    lines = tables.markdown(all_rows).splitlines()
    assert lines[0] == "| policy | all | HPOBench | HPOLib | W = 1 | W = 4 | solved | n |"
    assert lines[2] == "| target_per_second | 1 | 1 | 1 | 1 | 1 | 1.00 | 24 |"
    assert lines[3].startswith("| gp_ei | 2.00 [2.00, 2.00] | 2.00 [2.00, 2.00] |")


def test_intervals_hold_the_spread_between_tables(tables: Any) -> None:
    low, high = tables.interval({"a": [0.0, 0.0], "b": [1.0, 1.0], "c": [2.0, 2.0]})[1:]
    assert low < np.exp(0.7)
    assert high > np.exp(1.3)


@pytest.mark.filterwarnings("ignore:Argument ``deterministic_objective``")
def test_every_policy_of_the_table_can_be_made(tables: Any) -> None:
    pytest.importorskip("optuna")
    assert all(entry.policy().name == entry.rule for entry in tables.POLICIES.values())
