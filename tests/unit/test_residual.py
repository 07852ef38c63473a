"""A policy around a rule: its centre choice is the rule itself, and the rule is favoured at the start."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from rlctl.config.schema import Config, RuleEntry
from rlctl.core.errors import ConfigError
from rlctl.environments.campaign_env import CampaignEnv
from rlctl.environments.campaign_vector_env import CampaignVectorEnv
from rlctl.environments.residual import ResidualPolicy, residual_choices, residual_observation_space
from rlctl.environments.twin_rollouts import rollout_on_twin
from rlctl.plugins.registry import make_rule, policy_factory
from rlctl_agents.sb3_learner import ppo
from rlctl_envs.block_copolymer.factory import BlockCopolymer
from rlctl_envs.block_copolymer.observation import OBSERVED

OPTIONS = {"films": 1, "allocation_s": 15.0}
RULE = RuleEntry(rule="linear", parameters={"start": 1.6, "end": 1.2, "duration_steps": 2000.0, "give_up_steps": 900.0})


class Centre:
    """A network that never corrects the rule."""

    name = "centre"

    def act(self, decision):
        return np.array([5, 0, 0, 0])

    def reset(self, seed):
        pass

    def state(self):
        return {}

    def restore(self, state):
        pass


def test_the_centre_choice_plays_exactly_as_the_rule():
    factory = BlockCopolymer(OPTIONS)
    rule = make_rule(RULE, "linear")
    as_rule = rollout_on_twin(factory, factory.capacity, [(i, rule) for i in range(4)])
    corrected = rollout_on_twin(factory, factory.capacity, [(i, ResidualPolicy(rule, Centre())) for i in range(4)])
    assert corrected == as_rule
    assert sum(figures["given_up"] for figures in as_rule) > 0


def test_masks_follow_the_choices_around_the_rule():
    factory = BlockCopolymer(OPTIONS)
    rule = make_rule(RULE, "linear")
    env = CampaignEnv(factory, factory.capacity)
    env.reset(options={"instance": 0})
    decision = env.episode.decision
    around = residual_choices(decision, rule)
    assert not around.mask[-1]  # a fresh film: only "as the rule says", which is to go on
    assert around.named(np.array([10, 1, 0, 0])) == {"temperature": 1.85, "steps": 320, "ranks": 1, "give_up": False}


def test_a_rule_that_answers_with_indices_cannot_be_corrected():
    factory = BlockCopolymer(OPTIONS)
    env = CampaignEnv(factory, factory.capacity)
    env.reset(options={"instance": 0})
    with pytest.raises(ConfigError, match="residual"):
        residual_choices(env.episode.decision, Centre())


class Advised(Centre):
    """A network that does what its rule advises, as it reads it, or the first choice of each head."""

    name = "advised"

    def __init__(self, heads, follows):
        self.heads, self.follows = heads, follows

    def act(self, decision):
        shown = decision.observation[OBSERVED : OBSERVED + sum(self.heads)]
        parts = np.split(shown, np.cumsum(self.heads)[:-1])
        return np.array([part.argmax() if self.follows else 0 for part in parts])


def test_a_network_that_agrees_with_its_adviser_gives_the_advisers_own_answer():
    factory = BlockCopolymer(OPTIONS)
    heads = factory.campaign(0).heads
    rule = policy_factory("annealing_posterior")({})
    played = [(i, ResidualPolicy(copy.deepcopy(rule), Advised(heads, True), advised=heads)) for i in range(3)]
    agreed = rollout_on_twin(factory, factory.capacity, played)
    assert agreed == rollout_on_twin(factory, factory.capacity, [(i, copy.deepcopy(rule)) for i in range(3)])
    env = CampaignEnv(factory, factory.capacity)
    env.reset(options={"instance": 0})
    decision = env.episode.decision
    alone = ResidualPolicy(copy.deepcopy(rule), Advised(heads, False), advised=heads).act(decision)
    assert list(alone) == [0, 0, 0, 0]


def test_what_a_rule_remembers_stands_behind_what_the_network_reads():
    factory = BlockCopolymer(OPTIONS)
    rule, forgetful = policy_factory("annealing_posterior")({}), make_rule(RULE, "linear")
    lengths = set()

    class Reading(Centre):
        def act(self, decision):
            lengths.add(len(decision.observation))
            assert np.isfinite(decision.observation).all()
            assert np.abs(decision.observation).max() <= 10.0
            return super().act(decision)

    rollout_on_twin(factory, factory.capacity, [(i, ResidualPolicy(copy.deepcopy(rule), Reading())) for i in range(3)])
    spaces = [residual_observation_space(factory, factory.capacity, of) for of in (rule, forgetful)]
    assert lengths == {spaces[0].shape[0]}
    assert spaces[0].shape[0] - spaces[1].shape[0] == 13


def test_networks_of_a_clairvoyant_twin_read_the_material():
    hidden, shown = BlockCopolymer(OPTIONS), BlockCopolymer({**OPTIONS, "clairvoyant": True})
    rows = []
    for factory in (hidden, shown):
        env = CampaignEnv(factory, factory.capacity)
        row, _ = env.reset(options={"instance": 3})
        assert env.observation_space.contains(row)
        rows.append(row)
    assert rows[1] == pytest.approx(np.r_[rows[0], shown.privileged(3)])
    with pytest.raises(ConfigError, match="only a twin is clairvoyant"):
        shown.check(shown.capacity, real=True)


def test_the_learners_discount_shapes_the_rewards_of_campaigns():
    section = {"decisions": 64, "options": {"gamma": 0.5}}
    campaign = {"name": "block_copolymer", "options": OPTIONS}
    learner = ppo(Config.model_validate({"schema": 1, "seed": 1, "campaign": campaign, "train": section}))
    factory = BlockCopolymer(OPTIONS)
    for env in (CampaignEnv(factory, factory.capacity), CampaignVectorEnv(factory, 2, 0, factory.capacity)):
        assert learner.env_setup(env, factory.name) is env
        assert env.gamma == 0.5
