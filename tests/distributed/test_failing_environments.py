"""Environments that fail: each kind is counted, ends its episode in the right way, and the environment is made anew."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from faulty import Faulty

from rlctl.config.schema import EnvironmentSection
from rlctl.core.errors import RanksLostError
from rlctl.distributed.actor.env_guard import BrokenEnvironmentError, EnvFailure
from rlctl.distributed.actor.vector_env import SequentialVectorEnv
from rlctl.distributed.comm.transition_spec import Seeds
from rlctl.distributed.learner.actor_registry import ActorRegistry

QUICK = {"backoff_s": 0.01, "backoff_limit_s": 0.05}


@pytest.fixture(autouse=True)
def from_the_beginning():
    Faulty.made = Faulty.steps = Faulty.resets = 0
    Faulty.broken = False


def begun(faults=None, section=None, count=1, **kwargs):
    worlds = SequentialVectorEnv(
        [lambda: Faulty(faults, **kwargs)] * count, Seeds(1), section=EnvironmentSection(**{**QUICK, **(section or {})})
    )
    worlds.reset()
    return worlds


def step(worlds):
    return worlds.step(np.zeros((worlds.count, 1), np.int64))


@pytest.mark.parametrize(
    ("fault", "kind", "physics"),
    [
        ("raise", EnvFailure.RAISED, False),
        ("shape", EnvFailure.WRONG_SHAPE, False),
        ("nan", EnvFailure.NOT_FINITE, True),
        ("nan reward", EnvFailure.NOT_FINITE, True),
        ("diverge", EnvFailure.DIVERGED, True),
    ],
)
def test_physics_terminates_and_infrastructure_truncates(fault, kind, physics):
    worlds = begun({3: fault}, {"diverged_reward": -5.0})
    before = [step(worlds) for _ in range(2)][-1].observations
    failed = step(worlds)
    assert (failed.terminated[0], failed.truncated[0]) == (physics, not physics)
    assert failed.rewards[0] == (-5.0 if physics else 0.0)
    # The episode's last row is what was seen before; the next one has begun in a new environment.
    np.testing.assert_array_equal(failed.episode_ends[0].observation, before[0])
    assert failed.episode_ends[0].length == 3
    np.testing.assert_array_equal(failed.observations[0], [0, 0, 0])
    assert Faulty.made == 2
    assert dict(worlds.failures) == {kind: 1}
    assert step(worlds).observations[0, 0] == 1.0


def test_a_hanging_step_is_left_behind_in_time_and_its_environment_is_closed():
    worlds = begun({2: "hang"}, {"step_timeout_s": 0.2}, hang_s=600.0)
    hung = worlds._guards[0].env
    step(worlds)
    failed = step(worlds)  # long before the hanging one comes back
    assert failed.truncated[0]
    assert dict(worlds.failures) == {EnvFailure.HUNG: 1}
    assert hung.closed
    end = time.monotonic() + 120.0
    while threading.active_count() > 1 and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() == 1


def test_one_of_several_fails_and_the_others_go_on():
    worlds = begun({5: "raise"}, count=3)  # the second environment's second step
    step(worlds)
    failed = step(worlds)
    assert failed.truncated.tolist() == [False, True, False]
    assert failed.observations[:, 0].tolist() == [2.0, 0.0, 2.0]


def test_an_episode_that_cannot_begin_is_skipped_and_pauses_double():
    slept = []
    worlds = begun({1: "raise"}, {"backoff_s": 1.0, "backoff_limit_s": 3.0}, reset_faults=(2, 3, 4))
    worlds._guards[0]._sleep = slept.append
    step(worlds)
    assert slept == [1.0, 2.0, 3.0, 3.0]
    assert worlds.failures[EnvFailure.RAISED] == 4
    assert worlds.episodes == [4]
    step(worlds)
    assert worlds._guards[0]._in_a_row == 0


def test_who_fails_again_and_again_is_given_up():
    with pytest.raises(
        BrokenEnvironmentError, match=r"failed 4 times in a row, last \(raised\): OSError: no such file"
    ):
        begun(section={"give_up": 4}, reset_faults=range(100))


def test_divergence_again_and_again_is_no_reason_to_give_up():
    worlds = begun(dict.fromkeys(range(1, 30), "diverge"), {"give_up": 3})
    for _ in range(29):
        assert step(worlds).terminated[0]
    assert worlds.failures[EnvFailure.DIVERGED] == 29


def test_actors_that_have_all_given_up_end_the_training_with_the_reason():
    registry = ActorRegistry({0: (0, 1), 1: (0, 2)}, 60.0)
    registry.leave((0, 1), "the reward is nan")
    registry.require_some()
    registry.leave((0, 2), "the reward is nan")
    with pytest.raises(BrokenEnvironmentError, match="all actors have left: the reward is nan"):
        registry.require_some()


def test_actors_that_are_lost_are_no_fault_of_the_environment():
    registry = ActorRegistry({0: (0, 1), 1: (0, 2)}, 60.0)
    registry.leave((0, 1), "the reward is nan")
    registry.lose((0, 2), "it has died")
    with pytest.raises(RanksLostError):
        registry.require_some()


def test_an_environment_that_fails_in_each_episode_does_not_fill_the_log(caplog):
    worlds = begun(dict.fromkeys(range(2, 200, 2), "raise"))
    for _ in range(64):
        step(worlds)
    assert worlds.failures[EnvFailure.RAISED] == 32
    assert [record.message.split(" in all")[0].split()[-1] for record in caplog.records] == [
        "1",
        "2",
        "4",
        "8",
        "16",
        "32",
    ]
