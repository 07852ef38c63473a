"""Trainings that start as a rule: for each network the imitation is near the rule, and what is saved is not worse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import rlctl
from rlctl.config.schema import Config, RuleEntry
from rlctl.core.errors import ConfigError
from rlctl.environments.residual import ResidualPolicy, meant
from rlctl.evaluation.difference import differing_share
from rlctl.evaluation.rollout import draw_instances, roll_out
from rlctl.plugins.registry import configured_campaign, load_policy, make_rule

GAME = """
schema: 1
seed: 3
campaign:
  name: ensemble
  options:
    workload: {tasks: [4, 6], most_tasks: 8, kinds: [1, 1], spawn_probability: 0.2}
    ranks: [1, 2, 4]
    slots: 12
    control_slots: 0
    observed: 4
    groups: 1
machine: {nodes: 4, cores: 1}
train:
  decisions: 24_000
  num_envs: 16
  checkpoint_decisions: 8_000
  validation_instances: 0
  judgement_instances: 32
  options: {gamma: 1.0, n_steps: 64, n_epochs: 6, batch_size: 256, learning_rate: 3.0e-3}
policies:
  good: {rule: lpt}
  poor: {rule: lpt, parameters: {efficiency: 0.05, most: 0.1, part: 8}}
"""
SEGMENTS = """
schema: 1
seed: 1
program:
  command: python sim.py {T} {steps} {restart_in} {restart_out}
  results: {q: {regex: 'q = (.*)'}}
  walltime_s: 60
campaign:
  name: segments
  options:
    controls: {T: {low: 0, high: 1}}
    lengths: {steps: [100, 200]}
    objective: {find: q >= 1}
    until: {found: 2, node_seconds: 60}
    simulations: 2
machine: {nodes: 1, cores: 2}
train:
  decisions: 20_000
  num_envs: 16
  checkpoint_decisions: 10_000
  validation_instances: 0
  judgement_instances: 8
  options: {n_steps: 64, batch_size: 256, advice: {rule: renewal_give_up}}
"""
NETWORKS = {
    "perceptron": [],
    "attention": ["train.options.network=attention", "train.options.attention.width=16"],
    "masked": ["train.algorithm=maskable_ppo"],
    "recurrent": ["train.algorithm=recurrent_ppo", "train.options.lstm_units=32", "train.options.net_arch=[32]"],
}


def configured(folder: Path, *overrides: str) -> Config:
    (folder / "game.yaml").write_text(GAME)
    return rlctl.load_config(folder / "game.yaml", overrides)


def cost(config: Config, policy: Any, instances: list[int]) -> float:
    factory = configured_campaign(config)
    results = roll_out(factory, config.machine.capacity(), [(policy, instance) for instance in instances])
    return sum(one.cost for one in results) / sum(one.successes for one in results)


@pytest.mark.parametrize("network", NETWORKS)
def test_it_starts_as_the_rule_and_is_not_worse_in_the_end(tmp_path: Path, network: str) -> None:
    config = configured(tmp_path, *NETWORKS[network], "train.start=poor")
    saved = rlctl.train(config, tmp_path / "run")
    start, end = (load_policy(config, str(folder)) for folder in (tmp_path / "run/start", saved))
    rule, factory, capacity = load_policy(config, "poor"), configured_campaign(config), config.machine.capacity()
    instances = draw_instances(17, 9, 48)
    of_rule = cost(config, rule, instances)
    costs = cost(config, start, instances), cost(config, end, instances)
    share = differing_share(factory, capacity, start, rule, instances[:8])
    print(network, of_rule, costs, share)
    assert costs[0] < 1.1 * of_rule
    assert costs[1] < 0.97 * of_rule  # it learns: a poor rule is left behind
    assert share < 0.5
    manifest = json.loads((saved / "manifest.json").read_text())
    assert manifest["start"]["rule"] == "lpt"
    assert 0.0 < manifest["start"]["differs"] <= 1.0
    assert manifest["chosen"] <= manifest["decisions"]
    assert len([*(tmp_path / "run/candidates").iterdir()]) >= 3


def test_the_best_rule_is_taken_where_none_is_named_and_a_training_that_was_stopped_goes_on(tmp_path: Path) -> None:
    short = ["train.decisions=10_240", "train.checkpoint_decisions=2048", "train.judgement_instances=8"]
    whole = rlctl.train(configured(tmp_path, *short), tmp_path / "whole")
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest["start"]["rule"] != "lpt" or manifest["start"]["parameters"] == {}
    poor = [*short, "train.options.start_decisions=600", "train.start=poor"]
    rlctl.train(configured(tmp_path, *poor, "train.decisions=6144"), tmp_path / "parts")
    saved = rlctl.train(configured(tmp_path, *poor), tmp_path / "parts", resume=True)
    manifest = json.loads((saved / "manifest.json").read_text())
    assert manifest["start"]["parameters"]["part"] == 8
    assert manifest["decisions"] >= 10_240


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["train.start=nothing"], "'nothing' is neither a known name nor a file or folder"),
        (["train.start=feedback"], "cannot be imitated: campaign ensemble does not understand its answer"),
        (["train.start=poor", "train.options.residual={rule: lpt}"], "residual starts as its own rule"),
        (["train.options.network=attention", "train.options.advice={rule: lpt}"], "advice is for perceptrons"),
        (["train.options.advice={rule: feedback}"], "does not understand its answer"),
        (["train.start=poor", "train.algorithm=dqn", "train.options={}"], "dqn does not learn so"),
    ],
)
def test_what_cannot_be_imitated_is_refused_in_one_line(tmp_path: Path, overrides: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as error:
        rlctl.check(configured(tmp_path, *overrides))
    assert "\n" not in str(error.value)


def test_a_network_that_sees_the_rule_s_choices_starts_as_it_though_it_remembers_nothing(tmp_path: Path) -> None:
    (tmp_path / "segments.yaml").write_text(SEGMENTS)
    config = rlctl.load_config(tmp_path / "segments.yaml")
    saved = rlctl.train(config, tmp_path / "run")
    start, end = (load_policy(config, str(folder)) for folder in (tmp_path / "run/start", saved))
    assert isinstance(end, ResidualPolicy)
    factory, capacity, instances = configured_campaign(config), config.machine.capacity(), draw_instances(5, 9, 32)
    rule = make_rule(RuleEntry(rule="renewal_give_up"), "rule")
    assert differing_share(factory, capacity, start, rule, instances[:8]) < 0.3
    assert cost(config, start, instances) < 1.4 * cost(config, rule, instances)  # alone, about twice as much
    manifest = json.loads((saved / "manifest.json").read_text())
    assert manifest["advice"] == {"rule": "renewal_give_up", "parameters": {}}
    assert manifest["start"]["rule"] == "renewal_give_up"
    campaign = factory.campaign(1)
    campaign.begin(capacity)
    decision = campaign.decision()
    assert decision is not None
    chosen = meant(decision, end.act(decision))
    assert chosen is not None
    assert campaign.action_space.contains(chosen)
