"""Regret of rules that repeat noisy evaluations of few points, on the recorded writes of examples/parallel_io.

    python benchmarks/repeats.py --json runs/repeats.json            play, print the table
    python benchmarks/repeats.py --json runs/repeats.json --print    print it only
    python benchmarks/repeats.py --json runs/repeats.json --print --picture docs/pictures/parallel_io.png

Each of 200 evaluations is one of those that were recorded with its setting. Regret is the sum of the means of the
chosen settings, less the least mean as often.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlctl.config.load import load_config
from rlctl.core.machine import Capacity
from rlctl.core.policy import Policy
from rlctl.environments.campaign_env import Episode
from rlctl.evaluation.rollout import EVALUATION, draw_instances, roll_out
from rlctl.plugins.registry import configured_campaign, policy_factory
from rlctl_agents.rules.search_bandits import Arms, DefaultSetting, ExploreThenCommit, NormalThompson, Ucb, next_place
from rlctl_envs.search.campaign import SearchCampaign
from rlctl_envs.search.factory import Search
from rlctl_envs.search.recorded_problem import RecordedProblem

Floats = NDArray[np.float64]
FILE = Path(__file__).parents[1] / "examples" / "parallel_io" / "hints.yaml"
PATTERNS = ("contiguous", "strided", "random")
OBJECTIVES = ("seconds", "write_calls")
EVALUATIONS, DRAWS = 200, 4000
"""Of a campaign; and of the bootstrap."""


class Variant(NamedTuple):
    """A rule with parameters."""

    rule: str
    parameters: Mapping[str, Any] = {}

    @property
    def name(self) -> str:
        """As the table has it."""
        return " ".join(
            (self.rule, *(key if value is True else f"{key} {value:g}" for key, value in self.parameters.items()))
        )

    def policy(self) -> Policy:
        """A new one."""
        made: Policy = policy_factory(self.rule)(dict(self.parameters) or None)
        return made


PUBLISHED = Variant("explore_then_commit")
UCB, THOMPSON = Variant("ucb"), Variant("normal_thompson")
OTHERS = [UCB, THOMPSON, Variant("default_setting"), Variant("random_search")]
LOG = {"logarithm": True}
TUNED = {
    PUBLISHED.rule: [PUBLISHED, *(Variant(PUBLISHED.rule, {"trials": n}) for n in (1, 2, 3))],
    UCB.rule: [UCB, *(Variant(UCB.rule, {**of, **LOG}) for of in ({}, {"width": 0.3, "trials": 1}, {"trials": 1}))],
    THOMPSON.rule: [THOMPSON, *(Variant(THOMPSON.rule, {**of, **LOG}) for of in ({}, {"width": 0.5}, {"width": 0.25}))],
}
"""As many variants of each rule, of which the best one on the other two patterns is taken."""


class Played(NamedTuple):
    """A campaign.

    Attributes:
        regret: after each evaluation, in the unit of the objective.
    """

    pattern: str
    objective: str
    variant: str
    seed: int
    regret: Sequence[float]


class Writes:
    """The recorded writes of a pattern.

    Attributes:
        search: over its settings.
        recorded: by setting, the losses.
        mean: of these.
    """

    def __init__(self, pattern: str, objective: str) -> None:
        changes = [f"campaign.options.constraints=['pattern == \"{pattern}\"']"]
        config = load_config(FILE, [*changes, f"campaign.options.objective={{minimize: {objective}}}"])
        search = configured_campaign(config)
        assert isinstance(search, Search)
        problem = search.problem(0)
        assert isinstance(problem, RecordedProblem)
        self.search, self.points = search, search.space.all_points()
        self.recorded = [np.array([one.losses[0] for one in problem.at(point) if one]) for point in self.points]
        self.mean = np.array([losses.mean() for losses in self.recorded])

    def regret(self, places: Sequence[int]) -> list[float]:
        """Cumulative, of the chosen settings."""
        lost: Floats = np.cumsum(self.mean[list(places)] - self.mean.min())
        return [float(value) for value in lost.round(6)]

    def by_kind(self, variant: Variant, seeds: Sequence[int]) -> list[list[float]]:
        """Regret of campaigns on the virtual clock."""
        campaigns = dict[int, SearchCampaign]()

        def watch(n: int, episode: Episode) -> None:
            assert isinstance(episode.campaign, SearchCampaign)
            campaigns[n] = episode.campaign

        entries = [(variant.policy(), instance) for instance in draw_instances(0, EVALUATION, max(seeds) + 1)]
        roll_out(self.search, Capacity(nodes=1, cores=2), [entries[seed] for seed in seeds], watch)
        space = self.search.space
        numbers = {identity: i for i, identity in enumerate(space.identities(self.points))}
        trials = [campaigns[n].state.trials for n in range(len(seeds))]
        return [self.regret([numbers[trial.key[1:]] for trial in of]) for of in trials]

    def by_hand(self, variant: Variant, seed: int) -> list[float]:
        """The same without a campaign, one evaluation at a time."""
        rule, count = variant.policy(), len(self.points)
        chance, places, losses = np.random.default_rng([seed, 1]), list[int](), list[float]()
        for number in range(EVALUATIONS):
            rng = np.random.default_rng([seed, 2, number])
            if isinstance(rule, ExploreThenCommit | Ucb | NormalThompson):
                tried, at = np.bincount(np.array(places, np.int64), minlength=count), np.array(places, np.int64)
                arms = Arms.known(self.points, tried, at, np.array(losses), rule.logarithm)
                place = next_place(rule, arms, rng)
                assert place is not None
            else:
                place = 0 if isinstance(rule, DefaultSetting) else int(rng.integers(count))
            places.append(place)
            losses.append(float(chance.choice(self.recorded[place])))
        return self.regret(places)


def chosen(rows: Sequence[Played], rule: str, pattern: str, objective: str) -> str:
    """The variant with the least mean regret on the other patterns, each in units of the published rule's there."""

    def worth(variant: Variant) -> float:
        return sum(
            _final(rows, variant.name, other, objective).mean() / _final(rows, PUBLISHED.name, other, objective).mean()
            for other in PATTERNS
            if other != pattern
        )

    return min(TUNED[rule], key=worth).name


def _final(rows: Sequence[Played], variant: str, pattern: str, objective: str) -> Floats:
    """Regret in the end, by seed."""
    found = sorted((r.seed, r.regret[-1]) for r in rows if tuple(r[:3]) == (pattern, objective, variant))
    return np.array([regret for _, regret in found])


def columns(rows: Sequence[Played], pattern: str, objective: str) -> dict[str, str]:
    """Variants of the table, by the names that they have there."""
    named = {variant.rule: variant.name for variant in (PUBLISHED, *OTHERS)}
    return named | {f"{rule}, tuned": chosen(rows, rule, pattern, objective) for rule in TUNED}


def table(rows: Sequence[Played]) -> Iterator[str]:
    """Lines of the tables: regret, its ratio to that of the published rule, as published and tuned, wins and losses."""
    for objective, pattern in itertools.product(OBJECTIVES, PATTERNS):
        named = columns(rows, pattern, objective)
        published, tuned = (
            _final(rows, named[name], pattern, objective) for name in (PUBLISHED.rule, f"{PUBLISHED.rule}, tuned")
        )
        yield f"\n{objective}, {pattern}: {len(published)} seeds\n"
        yield "| rule | regret, median [quartiles] | of published | better, worse | of it tuned | better, worse |"
        yield "|---|---|---|---|---|---|"
        for name, variant in named.items():
            final = _final(rows, variant, pattern, objective)
            low, middle, high = np.quantile(final, [0.25, 0.5, 0.75])
            shown = f"{name}: {variant.partition(' ')[2] or 'as it is'}" if "tuned" in name else name
            cells = [shown, f"{middle:.4g} [{low:.4g}, {high:.4g}]"]
            for other in (published, tuned):
                cells += [ratio(final, other), f"{int((final < other).sum())}, {int((final > other).sum())}"]
            yield f"| {' | '.join(cells)} |"


def ratio(final: Floats, reference: Floats) -> str:
    """Ratio of means over the same seeds, with its 95 % bootstrap interval."""
    drawn = np.random.default_rng(0).integers(len(final), size=(DRAWS, len(final)))
    low, high = np.quantile(final[drawn].mean(1) / reference[drawn].mean(1), [0.025, 0.975])
    return f"{final.mean() / reference.mean():.2f} [{low:.2f}, {high:.2f}]"


def picture(rows: Sequence[Played], file: Path) -> None:
    """Median cumulative regret, and its quartiles, by evaluation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(11, 6), sharex=True, layout="constrained")
    for (i, objective), (j, pattern) in itertools.product(enumerate(OBJECTIVES), enumerate(PATTERNS)):
        ax = axes[i, j]
        for name, variant in columns(rows, pattern, objective).items():
            if name in ("random_search",):
                continue
            curves = np.array([r.regret for r in rows if tuple(r[:3]) == (pattern, objective, variant)])
            low, middle, high = np.quantile(curves, [0.25, 0.5, 0.75], axis=0)
            steps = np.arange(1, len(middle) + 1)
            (line,) = ax.plot(steps, middle, "--" if "tuned" in name else "-", label=name.replace("_", " "), lw=1.3)
            ax.fill_between(steps, low, high, color=line.get_color(), alpha=0.15, lw=0)
        ax.set_title(pattern if i == 0 else "")
        ax.set_yscale("symlog", linthresh=0.01 if objective == "seconds" else 10.0)
        ax.set_ylim(bottom=0)
        if j == 0:
            ax.set_ylabel("regret, " + ("seconds" if objective == "seconds" else "system calls"))
        if i == 1:
            ax.set_xlabel("evaluations")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncol=4, frameon=False)
    figure.savefig(file, dpi=80)


def main() -> None:
    """Play, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="rows, one a line")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--print", action="store_true", help="play nothing")
    parser.add_argument("--campaigns", type=int, default=0, help="compare with so many campaigns of the kind")
    parser.add_argument("--picture", type=Path)
    asked = parser.parse_args()
    rows = [Played(*json.loads(line)) for line in asked.json.open()] if asked.json.exists() else []
    if not asked.print:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        variants = {variant.name: variant for variant in (PUBLISHED, *OTHERS, *itertools.chain(*TUNED.values()))}
        rows = []
        for objective, pattern in itertools.product(OBJECTIVES, PATTERNS):
            writes = Writes(pattern, objective)
            for name, variant in variants.items():
                rows += [Played(pattern, objective, name, n, writes.by_hand(variant, n)) for n in range(asked.seeds)]
        asked.json.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print("\n".join(table(rows)))
    if asked.campaigns:
        for objective, variant in itertools.product(OBJECTIVES, (PUBLISHED, UCB, THOMPSON)):
            played = [curve[-1] for curve in Writes("strided", objective).by_kind(variant, range(asked.campaigns))]
            final = _final(rows, variant.name, "strided", objective)
            error = float(np.std(played, ddof=1) / len(played) ** 0.5)
            print(f"{objective}, strided, {variant.name}:")
            print(f"  {np.mean(played):.4g} +- {error:.2g} in {len(played)} campaigns,")
            print(f"  {final.mean():.4g} +- {final.std(ddof=1) / len(final) ** 0.5:.2g} in the table's {len(final)}")
    if asked.picture is not None:
        picture(rows, asked.picture)


if __name__ == "__main__":
    main()
