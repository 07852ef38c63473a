"""What annealing's rules read: all that its networks see and nothing hidden; no observation is made for them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from rlctl.core.campaign import Decision
from rlctl.core.driver import Driver
from rlctl.core.errors import ContractError
from rlctl.core.machine import Capacity
from rlctl.core.task import Event, Failure, TaskResult, TaskState
from rlctl.environments.campaign_env import CampaignEnv, Episode, twin
from rlctl.environments.twin_rollouts import rollout_on_twin
from rlctl.plugins.registry import policy_factory
from rlctl.testing import check_campaign
from rlctl_envs.block_copolymer import campaign as game
from rlctl_envs.block_copolymer.campaign import AnnealingCampaign
from rlctl_envs.block_copolymer.factory import BlockCopolymer
from rlctl_envs.block_copolymer.film import Film
from rlctl_envs.block_copolymer.material import Material
from rlctl_envs.ensemble import features as ensemble_features
from rlctl_envs.ensemble.factory import Ensemble

SEGMENT_S = 0.22 + 80 * 0.0035
ANNEALING_RULES = ("feedback", "linear", "exponential", "cyclic", "constant")


def seen_by_name(f: Mapping[str, Any]) -> list[float]:
    """The observation, computed from nothing but the fields."""

    def log(amplitude: float) -> float:
        return math.log(max(amplitude, 1e-3))

    reference = log(f["largest_amplitude"])
    temperature = 0.0 if f["temperature"] is None else 2.0 * (f["temperature"] - 1.5)
    x = [float(f["fresh"]), temperature, math.log1p(f["age_steps"] / 400.0), f["highest_q"]]
    recent = []
    for m in reversed(f["recent"]):
        log_steps = math.log2(m["steps"] / 80.0)
        recent += [m["q"], log(m["amplitude"]) - reference, 2.0 * (m["temperature"] - 1.5), log_steps]
    x += recent + [0.0] * (16 - len(recent))
    bands = [0.5 * b + 1.0 for b in f["bands"]]
    x += [0.0] * 7 if f["fresh"] else [*bands, 4.0 * (f["wavenumber"] - 0.7), log(f["amplitude"]) + 1.0]
    others = [o for o in f["others"] if not o["fresh"]]
    if others:
        best = max(others, key=lambda o: o["q"])
        x += [
            len(others) / len(f["others"]),
            best["q"],
            sum(o["q"] for o in others) / len(others),
            math.log1p(best["age_steps"] / 400.0),
            2.0 * (best["temperature"] - 1.5),
            log(best["amplitude"]) - reference,
        ]
    else:
        x += [0.0] * 6
    for b in f["bins"]:
        some = [0.5 * math.log1p(b["count"]), 4.0 * b["q_gain"], log(b["amplitude"]) - reference, b["q"]]
        x += some if b["count"] else [0.0] * 4
    for last, what in ((f["last_good"], "amplitude"), (f["last_given_up"], "q")):
        x += [0.0] * 4 if last is None else [1.0, last["temperature"] or 0.0, last["age_steps"] / 4000.0, last[what]]
    x += [math.log1p(f["films_good"]), math.log1p(f["films_given_up"])]
    known = f["speed_up"] > 0.0
    needed, time_left = f["films_needed"], max(f["time_left_s"], 0.0) / SEGMENT_S
    x += [min(needed, 8) / 4.0, float(needed == 1), time_left / 160.0, float(known)]
    return [*x, f["speed_up"] - 1.0 if known else 0.0, f["free_share"]]


def played(instance: int, chains: int, **options: Any) -> list[Decision]:
    """Decisions of a campaign that is played by chance, each looked at when it is made."""
    cores = max(chains, 2)
    factory = BlockCopolymer({"chains": chains, "allocation_s": 40.0, "q_good": 0.3, "amplitude_good": 0.1, **options})
    capacity = Capacity(cores=cores)
    episode = Episode(factory.campaign(instance), twin(factory, capacity, instance), 1.0)
    episode.begin()
    random, decisions = np.random.default_rng(instance), []
    while (decision := episode.decision) is not None:
        assert decision.observation is not None
        assert decision.fields
        decisions.append(decision)
        give_up = random.random() < 0.08
        answer = {"temperature": random.uniform(1, 2), "steps": int(random.choice([80, 160, 320]))}
        episode.driver.answer(answer | {"ranks": int(random.choice([1, 2])), "give_up": give_up})
        episode.reward()
    return decisions


@pytest.mark.parametrize("chains", [1, 2, 3])
def test_fields_tell_all_that_the_network_sees(chains: int) -> None:
    program = {"failure_probability": 0.1}
    decisions = [d for instance in range(3) for d in played(instance, chains, films=6, program=program)]
    assert len(decisions) > 60
    for decision in decisions:
        rebuilt = np.clip(np.array(seen_by_name(decision.fields), np.float32), -10.0, 10.0)
        assert rebuilt == pytest.approx(decision.observation, abs=1e-5)
    seen = np.stack([decision.observation for decision in decisions])
    assert (seen.std(axis=0) > 0).sum() > 60  # it was no empty game


def test_fields_are_plain_values() -> None:
    for decision in played(1, 2)[::10]:
        assert json.loads(json.dumps(decision.fields))["recent"] == [
            dict(m, bands=list(m["bands"])) for m in decision.fields["recent"]
        ]


ENDINGS = {
    "good": {"state": TaskState.DONE, "good": True},
    "diverged": {"state": TaskState.FAILED, "failure": Failure.DIVERGED},
    "failed": {"state": TaskState.FAILED, "failure": Failure.EXIT},
    "given_up": None,
}


@pytest.mark.parametrize("why", ENDINGS)
def test_a_rule_is_told_which_film_ended_why_and_what_was_measured_last(why: str) -> None:
    campaign = AnnealingCampaign(BlockCopolymer({"retries": 1}).options, 1)
    campaign.begin(Capacity(cores=2))
    now = 0.0

    def run(state: TaskState, q: float = 0.5, good: bool = False, failure: Failure | None = None) -> None:
        nonlocal now
        (start,) = campaign.apply({"temperature": 1.25, "steps": 160, "ranks": 1, "give_up": False})
        now += 1.0
        values = {"q": q, "amplitude": 0.4, "bands": [0.1] * 5, "wavenumber": 0.7, "good": good}
        result = TaskResult(start.spec.uid, state, 1, values, failure, "", now - 1.0, now, 1)
        campaign.on_time(now)
        campaign.on_event(Event(now, start.spec.uid, state, result=result))

    run(TaskState.DONE)
    run(TaskState.DONE, 0.1)  # the other film
    decision = campaign.decision()
    assert decision is not None
    assert (decision.subject, decision.fields["films_ended"]) == ("film000", ())
    ending = ENDINGS[why]
    if ending is None:
        campaign.apply({"temperature": 1.25, "steps": 160, "ranks": 1, "give_up": True})
    else:
        run(q=0.9, **ending)
        if why == "failed":
            assert campaign.decision().fields["films_ended"] == ()
            run(TaskState.DONE, 0.1)
            run(q=0.9, **ending)
    fields = campaign.decision().fields
    (ended,) = fields["films_ended"]
    last_q = {"good": 0.9}.get(why, 0.5)
    assert (ended["subject"], ended["why"], ended["q"], ended["temperature"]) == ("film000", why, last_q, 1.25)
    assert (ended["age_steps"], ended["amplitude"]) == (320 if why == "good" else 160, 0.4)
    assert fields["last_good" if why == "good" else "last_given_up"] == ended
    assert fields["last_given_up" if why == "good" else "last_good"] is None


def test_fields_hide_what_is_hidden() -> None:
    """Whatever the material, the same events are told alike: the campaign knows no more than they say."""
    one, other = (AnnealingCampaign(BlockCopolymer().options, seed) for seed in (1, 2))
    one.begin(Capacity(cores=2))
    other.begin(Capacity(cores=2))
    executor = twin(BlockCopolymer(), Capacity(cores=2), 1)
    driver = Driver(one, executor)
    decision = driver.advance()
    for _ in range(60):
        same = other.decision()
        assert decision is not None
        assert same is not None
        assert json.dumps(decision.fields) == json.dumps(same.fields)
        assert decision.observation.tobytes() == same.observation.tobytes()
        answer = {"temperature": 1.3, "steps": 160, "ranks": 1, "give_up": False}
        driver.answer(answer)
        other.apply(answer)
        while one.decision() is None:
            for event in executor.wait(10.0):
                for campaign in (one, other):
                    campaign.on_time(event.time_s)
                    campaign.on_event(event)
        decision = one.decision()


@pytest.mark.parametrize("rule", ANNEALING_RULES)
def test_no_observation_is_made_for_a_rule_that_anneals(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(*arguments: object) -> None:
        raise AssertionError("an observation was made")

    monkeypatch.setattr(game, "observe", made)
    monkeypatch.setattr(AnnealingCampaign, "mask", made)
    factory = BlockCopolymer({"allocation_s": 10.0})
    (figures,) = rollout_on_twin(factory, factory.capacity, [(3, policy_factory(rule)())])
    assert figures["node_seconds"] > 5.0


@pytest.mark.parametrize("rule", ["lpt", "dual_approximation"])
def test_no_observation_is_made_for_a_rule_of_an_ensemble(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(*arguments: object) -> None:
        raise AssertionError("an observation was made")

    monkeypatch.setattr(ensemble_features, "observe", made)
    factory = Ensemble({"workload": {"tasks": [16, 24]}})
    (figures,) = rollout_on_twin(factory, Capacity(nodes=8, cores=1), [(3, policy_factory(rule)())])
    assert figures["successes"] > 5


@pytest.mark.parametrize("rule", ANNEALING_RULES)
@pytest.mark.parametrize("cores", [1, 2])
def test_what_a_rule_answers_is_what_will_run(rule: str, cores: int) -> None:
    """A rule that reckons with other steps or ranks than those that run is tuned to something else than it says."""
    factory = BlockCopolymer({"chains": 1, "steps": [80, 160, 320], "ranks": [1, 2], "films": 1, "allocation_s": 30.0})
    env = CampaignEnv(factory, Capacity(cores=cores))
    env.reset(options={"instance": 4})
    policy = policy_factory(rule)(steps=133.0, wide_q=0.0)
    ended = False
    while not ended:
        decision = env.episode.decision
        assert decision is not None
        answer = policy.act(decision)
        assert answer["steps"] == 160
        assert answer["ranks"] in decision.fields["ranks_choices"]
        assert decision.fields["ranks_choices"] == ((1, 2) if cores == 2 else (1,))
        *_, terminated, truncated, info = env.step(answer)
        ended = terminated or truncated
        assert info["masked_actions"] == 0


def test_feedback_changes_the_temperature_by_the_steps_that_will_run() -> None:
    fields = {
        "fresh": False,
        "q": 0.9,
        "temperature": 1.5,
        "age_steps": 400,
        "temperature_range": (1.0, 2.0),
        "films_needed": 2,
        "others_q": 0.0,
        "speed_up": 0.0,
        "steps_choices": (80, 160, 320),
        "ranks_choices": (1,),
    }
    mask = np.ones(1, np.bool_)
    decision = Decision("film", 0.0, fields, np.zeros(1, np.float32), mask)
    cooled = {steps: policy_factory("feedback")(cool=0.01, steps=steps).act(decision) for steps in (90, 133, 250, 320)}
    assert {s: round(1.5 - answer["temperature"], 9) for s, answer in cooled.items()} == {
        90: 0.01,
        133: 0.02,
        250: 0.04,
        320: 0.04,
    }


def test_check_finds_what_a_campaign_tells_of_its_hidden_material(monkeypatch: pytest.MonkeyPatch) -> None:
    fields, observe = AnnealingCampaign.fields, AnnealingCampaign._observe

    def with_field(self: AnnealingCampaign, film: Film) -> dict[str, Any]:
        return fields(self, film) | {"hint": 1.0 / Material.draw(self.seed).activation}

    def with_deep_field(self: AnnealingCampaign, film: Film) -> dict[str, Any]:
        return fields(self, film) | {"a": ({"b": -Material.draw(self.seed).activation},)}

    def with_observation(self: AnnealingCampaign, film: Film) -> Any:
        return np.concatenate([observe(self, film)[1:], [0.1 * Material.draw(self.seed).steepness]], dtype=np.float32)

    factory = BlockCopolymer({"films": 1, "allocation_s": 15.0})
    check_campaign(factory, instances=1)
    for method, leak, what in [
        ("fields", with_field, r"fields\['hint'\]"),
        ("fields", with_deep_field, r"fields\['a'\]\[0\]\['b'\]"),
        ("_observe", with_observation, r"observation\[80\]"),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(AnnealingCampaign, method, leak)
            with pytest.raises(ContractError, match=what + r" of the first decision .* privileged\(\)"):
                check_campaign(factory, instances=1)
