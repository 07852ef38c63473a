"""Ensembles: is the twin right, and is it fast? Who wins, ``rlctl benchmark`` says.

``python benchmarks/ensemble.py twin``: the same workloads and rules on the twin and for real, on this machine.
``... speed``: decisions per second from end to end, at 32 and at 600 nodes, with a rule and with a network.
``... steady CONFIG POLICY ...``: how full the machine is in the window, and how much useful work it does.
``... placement CONFIG RULE``: learns which nodes tasks go to, and compares it with the default on held-out instances.

``--quick``: fewer of each. Each command prints a table.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from rlctl.config.load import load_config
from rlctl.core.machine import Capacity
from rlctl.environments.twin_rollouts import rollout_on_twin
from rlctl.evaluation.rollout import evaluation_instances
from rlctl.evaluation.statistics import ert_ratio
from rlctl.evaluation.tuning import CandidateCost, ParameterSpace, SearchSettings, search
from rlctl.monitoring.progress import Silent
from rlctl.plugins.registry import campaign_factory, configured_campaign, load_policy
from rlctl.steering.control import steer
from rlctl_envs.ensemble.factory import Ensemble
from rlctl_envs.ensemble.options import EnsembleOptions

CONFIGS = Path(__file__).parent.parent / "configs"


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(description="Benchmarks of ensembles.")
    commands = {f.__name__: f for f in (twin, speed, placement, steady)}
    parser.add_argument("what", choices=list(commands))
    parser.add_argument("config", nargs="?")
    parser.add_argument("policies", nargs="*")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--instances", type=int, default=300)
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    commands[options.what](options)


def twin(options: argparse.Namespace) -> None:
    """Median of real over simulated makespans, by rule."""
    config = load_config(Path(options.config or CONFIGS / "ensemble_paced.yaml"), options.set)
    factory = configured_campaign(config)
    rules = options.policies or ["fifo", "lpt", "easy", "malleable"]
    count = 2 if options.quick else 10
    ratios: dict[str, list[float]] = {rule: [] for rule in rules}
    print(f"{'workload':>8} {'rule':>8} {'real s':>8} {'twin s':>8} {'ratio':>6}")
    for instance in range(count):
        for rule in rules:
            real_s = _steered(config, rule, instance) / config.machine.capacity().nodes
            policy = load_policy(config, rule)
            figures = rollout_on_twin(factory, config.machine.capacity(), [(instance, policy)])[0]
            twin_s = figures["node_seconds"] / config.machine.capacity().nodes
            ratios[rule].append(real_s / twin_s)
            print(f"{instance:8d} {rule:>8} {real_s:8.2f} {twin_s:8.2f} {real_s / twin_s:6.3f}", flush=True)
    for rule, values in ratios.items():
        low, middle, high = np.quantile(values, (0.0, 0.5, 1.0))
        print(f"{rule:>8}: real / twin {middle:.3f} [{low:.3f}, {high:.3f}] of {len(values)}")
    everything = [value for values in ratios.values() for value in values]
    print(f"     all: real / twin {np.median(everything):.3f}, mean {np.mean(everything):.3f} of {len(everything)}")


def _steered(config: Any, name: str, instance: int) -> float:
    folder = Path(tempfile.mkdtemp(prefix="rlctl-ensemble-"))
    try:
        return steer(config, load_policy(config, name), folder / "run", instance).node_seconds
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def speed(options: argparse.Namespace) -> None:
    """Decisions per second of CPU time, and what most of it goes to."""
    from rlctl.bundle.saved_policy import load

    small, large = Capacity(32, 1), Capacity(600, 24, gpus=6)
    steady = load_config(CONFIGS / "ensemble_steady.yaml")
    busy = steady.campaign.options | {"objective": {"window_s": [1000.0, 4000.0 if options.quick else 12000.0]}}
    cases = [("32 nodes", Ensemble(), small, 64, 4), ("600 nodes x 6 GPUs", Ensemble(busy), large, 1, 1)]
    network = None if not options.policies else load(Path(options.policies[0]))
    print(f"{'machine':>20} {'who decides':>14} {'decisions':>9} {'per s of CPU':>12}")
    for name, factory, capacity, together, rounds in cases:
        for who, policy in [("rule", _rule("lpt")), ("network", _Network(network))]:
            decisions, began_s = 0.0, time.process_time()
            for turn in range(1 if options.quick else rounds):
                players = [(turn * together + i, policy) for i in range(together)]
                decisions += sum(figures["decisions"] for figures in rollout_on_twin(factory, capacity, players))
            rate = decisions / (time.process_time() - began_s)
            print(f"{name:>20} {who:>14} {decisions:9.0f} {rate:12.0f}", flush=True)
        with cProfile.Profile() as profile:
            rollout_on_twin(factory, capacity, [(i, _Network(network)) for i in range(min(together, 16))])
        stats = pstats.Stats(profile, stream=sys.stdout)
        stats.strip_dirs().sort_stats("tottime").print_stats(12)


class _Network:
    """A network of the usual size, or the one that is given, that takes what a rule would where it has no say."""

    name = "network"

    def __init__(self, network: Any = None) -> None:
        from rlctl.bundle.attention import AttentionSpec
        from rlctl.bundle.policy_network import views
        from rlctl_envs.ensemble.features import layout

        self._network = network
        sets = layout(EnsembleOptions())
        shapes = [list(shape) for shape in sets.sets]
        spec = {"once": sets.once, "sets": shapes, "prior": sets.prior, "width": 32, "heads": 2, "layers": 1}
        self._spec = AttentionSpec.model_validate(spec)
        weights = np.random.default_rng(0).normal(0, 0.2, self._spec.length).astype(np.float32)
        self._weights = views(weights, self._spec.shapes())
        self._rule = _rule("lpt")

    def act(self, decision: Any) -> Any:
        proposal = self._rule.act(decision)
        around = decision.residual(proposal)
        observation, mask = around.observation, around.mask
        logits = self._network.logits(observation) if self._network else self._logits(observation)
        self._last = int(np.where(mask, logits, -1e9).argmax())
        return proposal  # so that all play the same game

    def _logits(self, observation: Any) -> Any:
        from rlctl.bundle.attention import attention_logits

        return attention_logits(self._spec, self._weights, observation[None])[0]

    def reset(self, seed: int) -> None: ...


def _rule(name: str) -> Any:
    from rlctl.config.schema import RuleEntry
    from rlctl.plugins.registry import make_rule

    return make_rule(RuleEntry(rule=name), name, ("policies", name))


def steady(options: argparse.Namespace) -> None:
    """Occupancy and work of the policies, one instance after the other."""
    config = load_config(Path(options.config or CONFIGS / "ensemble_steady.yaml"), options.set)
    factory, capacity = configured_campaign(config), config.machine.capacity()
    print(
        f"{'policy':>30} {'occupied':>8} {'full':>6} {'tasks':>6} {'work, share of the machine':>26} {'decisions':>9}"
    )
    window = config.campaign.options["objective"]["window_s"]
    for name in options.policies or list(config.policies):
        for instance in range(1 if options.quick else 3):
            (f,) = rollout_on_twin(factory, capacity, [(instance, load_policy(config, name))])
            share = f["work"] / (capacity.nodes * (window[1] - window[0]))
            told = f"{f['occupancy']:8.4f} {f['full']:6.3f} {f['successes']:6.0f} {share:26.3f} {f['decisions']:9.0f}"
            print(f"{name[-30:]:>30} {told}", flush=True)


def placement(options: argparse.Namespace) -> None:
    """CMA-ES on the weights of ``linear``, on training instances; then both on held-out ones."""
    config = load_config(Path(options.config), options.set)
    policy, capacity = load_policy(config, options.policies[0]), config.machine.capacity()

    def played(weights: dict[str, float] | None, instances: list[int]) -> tuple[np.ndarray, np.ndarray]:
        place = {} if weights is None else {"placement": {"rule": "linear", "parameters": weights}}
        factory = campaign_factory(config.campaign.name, config.campaign.options | place)
        figures = rollout_on_twin(factory, capacity, [(instance, policy) for instance in instances])
        return np.array([f["cost"] for f in figures]), np.array([f["successes"] for f in figures])

    def evaluate(candidates: Any, instances: Any) -> list[CandidateCost]:
        tallies = []
        for candidate in candidates:
            price, good = played(candidate, list(instances))
            tallies.append(CandidateCost(float(price.sum()), int(good.sum()), len(price), 0))
        return tallies

    names = ("cores", "gpus", "spoiled", "whole")
    space = ParameterSpace(dict.fromkeys(names, (-8.0, 8.0)))
    start = {"cores": -1.0, "gpus": -1.0, "spoiled": -4.0, "whole": 0.0}
    settings = SearchSettings(generations=2 if options.quick else 12, instances=24, validation=96, seed=config.seed)
    found = search(space, evaluate, settings, start, Silent())
    instances = evaluation_instances(config, 20 if options.quick else options.instances)
    default, learned, packing = played(None, instances), played(found.parameters, instances), played(start, instances)
    print(f"learned weights: {found.parameters}, {found.episodes} episodes")
    for name, table in (("learned", learned), ("tight, keeps GPUs", packing)):
        value, (low, high) = ert_ratio(*default, *table, seed=0)
        print(f"default / {name}: {value:.3f} [{low:.3f}, {high:.3f}] over {len(instances)} held-out instances")


if __name__ == "__main__":
    main()
