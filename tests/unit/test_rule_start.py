"""Starting as a rule: choices that mean a rule's answer, the cheapest of several rules, and the pull to the start."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.logger import Logger

from rlctl.core.campaign import Decision
from rlctl.core.policy import SimpleRule
from rlctl.environments.campaign_env import CampaignEnv, Episode, twin
from rlctl.environments.campaign_vector_env import CampaignVectorEnv
from rlctl.environments.residual import ResidualVectorActions
from rlctl.environments.twin_rollouts import rollout_on_twin
from rlctl.evaluation import cheapest as cheapest_module
from rlctl.evaluation.cheapest import cheapest
from rlctl.evaluation.difference import differing_share
from rlctl.plugins.registry import campaign_factory, policy_factory
from rlctl_agents.on_policy.options import OnPolicyOptions
from rlctl_agents.on_policy.pull import Pull

pytestmark = pytest.mark.quick

GAMES: dict[str, tuple[dict[str, Any], str]] = {
    "block_copolymer": ({"films": 1, "allocation_s": 8.0}, "annealing_posterior"),
    "ensemble": ({"workload": {"tasks": [4, 6]}, "slots": 24}, "lpt"),
}


def played(name: str, seed: int) -> tuple[Any, Any]:
    options, rule = GAMES[name]
    factory = campaign_factory(name, options)
    return factory, policy_factory(rule)({})


@pytest.mark.parametrize("name", GAMES)
def test_the_nearest_choice_means_what_the_rule_says(name: str) -> None:
    factory, rule = played(name, 0)
    rule.reset(0)
    episode = Episode(factory.campaign(3), twin(factory, factory.capacity, 3), 1.0)
    episode.begin()
    met = 0
    while episode.decision is not None:
        decision, answer = episode.decision, rule.act(episode.decision)
        assert decision.nearest is not None
        choice = decision.nearest(answer)
        if choice is not None:
            named = episode.campaign.named(choice)
            assert named is not None
            met += 1
            for key, value in answer.items():
                if key == "temperature":
                    assert named[key] == pytest.approx(value, abs=0.11 if decision.fields["fresh"] else 0.06)
                elif key not in ("ranks", "gpu"):
                    assert named[key] == value, key
        episode.driver.answer(answer)
        episode.reward()
    assert met > 3


def test_the_cheapest_of_several_is_found_with_few_campaigns(monkeypatch: pytest.MonkeyPatch) -> None:
    factory, good = played("ensemble", 0)
    poor = {"efficiency": 0.05, "most": 0.03}
    players = {f"poor {n}": policy_factory("lpt")(poor | {"part": n}) for n in (1, 2, 4)} | {"good": good}
    counted: list[Any] = []
    real = cheapest_module.roll_out

    def counting(factory: Any, capacity: Any, entries: Any) -> Any:
        counted.extend(policy for policy, _ in entries)
        return real(factory, capacity, entries)

    monkeypatch.setattr(cheapest_module, "roll_out", counting)
    assert cheapest(factory, factory.capacity, players, range(8), 2) == "good"
    assert len(counted) == 4 * 2 + 2 * 2  # all play two, the better half two more
    assert counted.count(good) == 4


class Choosing(SimpleRule):
    """The last choice that is allowed."""

    name = "choosing"

    def act(self, decision: Decision) -> Any:
        return np.array([np.flatnonzero(decision.mask)[-1]])


class Naming(Choosing):
    """The same by name, where its shape is offered more than once, or another."""

    def act(self, decision: Decision) -> Any:
        choice = super().act(decision)
        return choice if decision.number % 4 else np.array([np.flatnonzero(decision.mask)[0]])


def test_a_policy_differs_from_a_rule_as_often_as_it_decides_otherwise() -> None:
    factory, rule = played("ensemble", 0)
    assert differing_share(factory, factory.capacity, Choosing(), Choosing(), [1, 2]) == 0.0
    assert 0.0 < differing_share(factory, factory.capacity, Choosing(), Naming(), [1, 2]) <= 0.4
    assert differing_share(factory, factory.capacity, Choosing(), rule, [1, 2]) > 0.3


def test_answers_in_names_are_compared_by_their_values() -> None:
    factory, rule = played("block_copolymer", 0)

    class Warmer(SimpleRule):
        """As the rule says, but a film in progress is a little warmer."""

        def __init__(self) -> None:
            self.rule = policy_factory("annealing_posterior")({})

        def act(self, decision: Decision) -> Any:
            answer = dict(self.rule.act(decision))
            return answer | {"temperature": answer["temperature"] + (0.0 if decision.fields["fresh"] else 1e-6)}

        def reset(self, seed: int) -> None:
            self.rule.reset(seed)

    assert differing_share(factory, factory.capacity, rule, rule, [1]) == 0.0
    assert 0.5 < differing_share(factory, factory.capacity, Warmer(), rule, [1]) < 1.0


def test_around_a_rule_with_a_memory_each_campaign_has_its_own() -> None:
    factory, rule = played("block_copolymer", 0)
    env = ResidualVectorActions(CampaignVectorEnv(factory, 3, 0, factory.capacity), rule)
    env.unwrapped.instance = lambda environment, episode: environment  # type: ignore[attr-defined]
    rows, _ = env.reset()
    assert rows.shape[1] == env.single_observation_space.shape[0] > factory.campaign(0).observation_space.shape[0]
    centre = np.tile(env.centre, (3, 1))
    alone = rollout_on_twin(
        factory, factory.capacity, [(i, policy_factory("annealing_posterior")({})) for i in range(3)]
    )
    ended: dict[int, float] = {}
    while len(ended) < 3:
        rows, _, terminated, truncated, infos = env.step(centre)
        for i in np.flatnonzero(terminated | truncated).tolist():
            assert infos["final_obs"][i].shape == rows[i].shape
            ended.setdefault(i, float(infos["final_info"]["decisions"][i]))
    assert ended == {i: figures["decisions"] for i, figures in enumerate(alone)}


def test_the_pull_charges_what_differs_from_the_start_and_ends() -> None:
    factory, _ = played("ensemble", 0)
    model = PPO("MlpPolicy", CampaignEnv(factory, factory.capacity), n_steps=8, batch_size=8, device="cpu")
    model.set_logger(Logger(None, []))
    pull = Pull(model, OnPolicyOptions(pull=0.5, pull_until=0.5), 1000)
    assert [pull.weight(done) for done in (0, 250, 500, 900)] == [0.5, 0.25, 0.0, 0.0]
    buffer: RolloutBuffer = model.rollout_buffer
    rng = np.random.default_rng(0)
    model._last_obs = np.zeros((1, *model.observation_space.shape), np.float32)
    model._last_episode_starts = np.ones(1, np.bool_)
    last = torch.zeros(1)
    for _ in range(8):
        row = torch.as_tensor(rng.normal(size=(1, *model.observation_space.shape)), dtype=torch.float32)
        with torch.no_grad():
            action, value, log_prob = model.policy(row)
        buffer.add(row.numpy(), action.numpy(), np.array([rng.normal()]), np.zeros(1), value, log_prob)
    buffer.compute_returns_and_advantage(last, np.zeros(1))
    before = buffer.rewards.copy()
    pull.charge(model)
    assert buffer.rewards == pytest.approx(before, abs=1e-5)  # it is the start still
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        rows = torch.as_tensor(buffer.observations[:, 0])
        actions = torch.as_tensor(buffer.actions[:, 0, 0]).long()
        buffer.log_probs[:, 0] = model.policy.get_distribution(rows).log_prob(actions).numpy()
    difference = buffer.log_probs - pull.log_probs(rows.numpy(), actions)[:, None]
    spread = float(buffer.advantages.std())
    pull.charge(model)
    assert np.abs(difference).max() > 0.01
    assert buffer.rewards == pytest.approx(before - 0.5 * spread * difference, abs=1e-5)
    assert isinstance(model.action_space, spaces.Discrete)
