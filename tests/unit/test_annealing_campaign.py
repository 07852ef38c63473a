"""The annealing game: what is decided, what it costs, what it is worth, what happens when something fails."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from rlctl.core.campaign import Start, action_to_json
from rlctl.core.driver import Driver
from rlctl.core.errors import ConfigError
from rlctl.core.machine import Capacity
from rlctl.core.records import RecordList
from rlctl.core.task import Event, Failure, TaskId, TaskResult, TaskState, event_from_json, event_to_json
from rlctl.environments.campaign_env import CampaignEnv
from rlctl.executors.simulated.backend import SimulatedExecutor
from rlctl_envs.block_copolymer.campaign import CHANGES, AnnealingCampaign
from rlctl_envs.block_copolymer.factory import BlockCopolymer
from rlctl_envs.block_copolymer.observation import OBSERVED

# An easy game: any film of some age is good.
EASY = {"films": 2, "allocation_s": 60.0, "q_good": 0.12, "amplitude_good": 0.05, "steps": [80, 160]}
GO = {"temperature": 1.3, "steps": 160, "ranks": 1, "give_up": False}


def env(gamma: float = 0.99, **options: object) -> CampaignEnv:
    factory = BlockCopolymer({**EASY, **options})
    return CampaignEnv(factory, factory.capacity, gamma=gamma)


def test_passes_gymnasiums_checker():
    check_env(env(), skip_render_check=True)


def test_passes_stable_baselines3s_checker():
    sb3_check = pytest.importorskip("stable_baselines3.common.env_checker").check_env
    sb3_check(env(), warn=True)


def test_as_many_films_as_chains_are_in_progress_and_the_goal_ends_the_campaign():
    e = env()
    e.reset(options={"instance": 5})
    campaign = e.episode.campaign
    assert isinstance(campaign, AnnealingCampaign)
    terminated = truncated = False
    while not (terminated or truncated):
        assert len(campaign.films) == 2
        *_, terminated, truncated, info = e.step(GO)
    assert terminated
    assert info["successes"] >= 2
    assert info["node_seconds"] == pytest.approx(e.episode.executor.now())


def test_the_end_of_the_allocation_truncates():
    e = env(amplitude_good=5.0, allocation_s=5.0)
    e.reset(options={"instance": 5})
    terminated = truncated = False
    while not (terminated or truncated):
        *_, terminated, truncated, info = e.step(GO)
    assert truncated
    assert not terminated
    assert info["node_seconds"] == pytest.approx(5.0)
    assert info["successes"] == 0


@pytest.mark.parametrize("ending", ["success", "give-up", "truncation"])
def test_shaping_telescopes(ending):
    """Discounted return = discounted costs + gamma^T potential at the end - potential at the start."""
    gamma = 0.97
    options = {"success": {}, "give-up": {}, "truncation": {"amplitude_good": 5.0, "allocation_s": 8.0}}[ending]
    e = env(gamma=gamma, **options)
    e.reset(options={"instance": 7})
    campaign = e.episode.campaign
    first = campaign.outcome().potential
    shaped = costs = 0.0
    given_up = 0
    n, terminated, truncated = 0, False, False
    while not (terminated or truncated):
        before = e.episode.driver.ledger.node_seconds
        give_up = ending == "give-up" and n in (2, 8)
        given_up += give_up
        _, reward, terminated, truncated, _ = e.step({**GO, "give_up": give_up, "steps": 80})
        spent = e.episode.driver.ledger.node_seconds - before
        shaped += gamma**n * reward
        costs -= gamma**n * campaign.reward_scale * spent
        n += 1
    last = campaign.outcome().potential
    assert terminated == (ending != "truncation")
    assert last == (0.0 if terminated else pytest.approx(last))
    assert (given_up > 0) == (ending == "give-up")
    assert shaped == pytest.approx(costs + gamma**n * last - first, rel=1e-9)


def test_giving_up_is_charged_for_the_potential_that_it_throws_away():
    e = env(amplitude_good=5.0)
    e.reset(options={"instance": 7})
    for _ in range(20):
        e.step(GO)
    campaign = e.episode.campaign
    before = campaign.outcome().potential
    _, reward, *_ = e.step({**GO, "give_up": True})
    assert campaign.outcome().potential < before
    assert reward < 0.0


def test_a_masked_choice_becomes_the_default_and_is_counted():
    e = env()
    e.reset(options={"instance": 1})
    assert not e.action_masks()[-1]
    *_, info = e.step(np.array([5, 0, 0, 1]))  # give up a fresh film
    assert info["masked_actions"] == 1
    narrow = BlockCopolymer(EASY)
    one_core = CampaignEnv(narrow, Capacity(cores=1))
    one_core.reset(options={"instance": 1})
    assert not one_core.action_masks()[len(CHANGES) + 2 + 1]
    *_, info = one_core.step(np.array([5, 0, 1, 0]))  # two ranks on one core
    assert info["masked_actions"] == 1


def test_wide_segments_make_the_other_chain_wait():
    e = env(amplitude_good=5.0)
    e.reset(options={"instance": 2})
    e.step(GO)
    e.step({**GO, "ranks": 2})
    executor = e.episode.executor
    assert isinstance(executor, SimulatedExecutor)
    busy = []
    for _ in range(10):
        e.step({**GO, "ranks": 2})
        busy.append(len(executor.status().running))
    assert set(busy) <= {0, 1}


def test_probes_run_on_all_ranks_and_tell_the_speed_up():
    e = env(amplitude_good=5.0, probes=2)
    e.reset(options={"instance": 2})
    assert list(e.action_masks()[len(CHANGES) + 2 : -2]) == [False, True]
    for _ in range(12):
        e.step(GO)
    assert e.episode.decision is not None
    assert e.episode.decision.fields["speed_up"] > 0.0
    assert list(e.action_masks()[len(CHANGES) + 2 : -2]) == [True, True]


def ended(uid: str, state: TaskState, failure: Failure | None = None, values: dict | None = None) -> Event:
    result = TaskResult(TaskId(uid), state, 1, values or {}, failure, "", 0.0, 1.0, 1)
    return Event(1.0, TaskId(uid), state, 1, result)


def begun() -> tuple[AnnealingCampaign, str]:
    campaign = BlockCopolymer(EASY).campaign(3)
    campaign.begin(Capacity(cores=2))
    assert campaign.decision() is not None
    (command,) = campaign.apply(GO)
    assert isinstance(command, Start)
    return campaign, command.spec.uid


@pytest.mark.parametrize("failure", [Failure.EXIT, Failure.SIGNAL, Failure.TIMEOUT, Failure.GARBAGE, Failure.LOST])
def test_a_failed_segment_is_decided_again_and_the_film_goes_on(failure):
    campaign, uid = begun()
    campaign.apply(GO)
    campaign.on_event(ended(uid, TaskState.FAILED, failure))
    decision = campaign.decision()
    assert decision is not None
    assert decision.subject == "film000"
    (command,) = campaign.apply(GO)
    assert isinstance(command, Start)
    assert command.spec.uid != uid
    assert campaign.outcome().extra["failed_tasks"] == 1


def test_a_diverged_film_is_replaced():
    campaign, uid = begun()
    campaign.apply(GO)
    campaign.on_event(ended(uid, TaskState.FAILED, Failure.DIVERGED))
    decision = campaign.decision()
    assert decision is not None
    assert decision.subject == "film002"


@pytest.mark.parametrize(
    "values", [{}, {"q": 0.5}, {"q": float("nan"), "amplitude": 1, "bands": [0] * 5, "wavenumber": 1, "good": True}]
)
def test_a_result_that_cannot_be_read_counts_as_garbage(values):
    campaign, uid = begun()
    campaign.apply(GO)
    campaign.on_event(ended(uid, TaskState.DONE, None, values))
    assert campaign.outcome().extra["failed_tasks"] == 1
    assert campaign.outcome().successes == 0


def test_replaying_events_and_actions_gives_the_same_state():
    factory = BlockCopolymer({**EASY, "amplitude_good": 5.0})
    records = RecordList()
    driver = Driver(factory.campaign(9), SimulatedExecutor(factory.capacity, factory.task_model(9), records), records)
    decision = driver.begin()
    while decision is not None and decision.number < 25:
        decision = driver.step(GO)
    assert decision is not None
    again = Driver(factory.campaign(9), SimulatedExecutor(factory.capacity, factory.task_model(9)))
    other = again.replay(list(records), {})
    assert other is not None
    np.testing.assert_array_equal(other.observation, decision.observation)
    assert other.subject == decision.subject


def test_records_survive_json():
    event = ended("film000-000", TaskState.FAILED, Failure.TIMEOUT)
    assert event_from_json(event_to_json(event)) == event
    assert action_to_json(np.array([1, 2])) == [1, 2]


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"filmz": 2}, "filmz"),
        ({"films": 0}, "films"),
        ({"steps": [160, 80]}, "steps"),
        ({"ranks": [1, 4]}, "ranks"),
        ({"program": {"grid": 33}}, "program.grid"),
    ],
)
def test_options_that_cannot_be_used_are_refused_in_one_line(options, key):
    with pytest.raises(ConfigError) as error:
        BlockCopolymer(options)
    assert key in str(error.value)
    assert "\n" not in str(error.value)


def test_observation_is_finite_and_bounded_through_a_whole_campaign():
    e = env(amplitude_good=0.3, q_good=0.5)
    seen, _ = e.reset(options={"instance": 11})
    rng = np.random.default_rng(0)
    assert seen.shape == (OBSERVED,)
    for _ in range(150):
        seen, *_, terminated, truncated, _ = e.step(np.array([rng.integers(n) for n in e.action_space.nvec]))
        assert np.isfinite(seen).all()
        assert seen in e.observation_space
        if terminated or truncated:
            break
