"""What an environment may do wrong is told as its own doing, with its name, its episode and its step."""

from __future__ import annotations

import gymnasium
import numpy as np
import odd_envs
import pytest
from gymnasium import spaces

from rlctl.core.errors import EnvironmentFault
from rlctl.environments.checked_env import CheckedEnv


def made(**kwargs):
    return CheckedEnv(gymnasium.make("Odd-v0", **kwargs), "Odd-v0 (1 of 2)")


def stepped(env, steps=1):
    env.reset(seed=0)
    for _ in range(steps):
        answer = env.step(env.action_space.sample())
    return answer


@pytest.mark.parametrize("reward", ["nan", "inf", "none", "text", "two", "complex", "too large", "integer too large"])
def test_a_reward_that_is_no_finite_number_is_named_with_its_place(reward):
    kind = "not_finite" if reward in ("nan", "inf", "too large") else "wrong_shape"
    with pytest.raises(
        EnvironmentFault, match=r"environment Odd-v0 \(1 of 2\), episode 1, step 3: the reward is "
    ) as told:
        stepped(made(reward=reward, at=3), 3)
    assert told.value.kind == kind


@pytest.mark.parametrize("reward", ["one", "array", "scalar array", "bool", "numpy bool", "int", "float16"])
def test_a_number_of_any_type_is_a_reward(reward):
    _, number, *_ = stepped(made(reward=reward))
    assert type(number) is float
    assert number == 1.0


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("raises", r"step 2: ZeroDivisionError: of the environment \(.*odd_envs.py:\d+\)"),
        ("exits", r"step 2: SystemExit: 3 \("),
        ("no memory", r"step 2: MemoryError \("),
        ("no text", r"step 2: Mute: its text cannot be had, ValueError \("),
        ("four", r"step 2: step\(\) gave 4 values, not \(observation, reward, terminated, truncated, info\)"),
        ("nothing", r"step 2: step\(\) gave NoneType"),
        ("end is text", r"step 2: terminated is 'False', not true or false"),
        ("info is a list", r"step 2: the info is \[\], not a mapping"),
        ("reset raises", r"episode 1, reset: FileNotFoundError: .*mesh.h5"),
        ("reset gives one", r"episode 1, reset: reset\(\) gave ndarray"),
    ],
)
def test_what_an_environment_raises_or_returns_is_its_own_fault(fault, said):
    with pytest.raises(EnvironmentFault, match=said):
        stepped(made(fault=fault, at=2), 2)


def test_an_interrupt_is_no_fault_of_the_environment():
    env = made()
    env.reset()
    env.env.unwrapped.step = lambda action: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        env.step(0)


def test_what_goes_wrong_in_close_harms_nothing(caplog):
    made(fault="close raises").close()
    assert "close() raised RuntimeError: of close: ignored" in caplog.text


@pytest.mark.parametrize(
    ("space", "seen", "said"),
    [
        ("Box(-1, 1, (3,))", "np.array([0, np.nan, 0], np.float32)", "not finite: number 1 is nan"),
        ("Box(-1, 1, (3,))", "np.array([0, 0, -np.inf], np.float32)", "not finite: number 2 is -inf"),
        ("Box(-1, 1, (3,), np.float64)", "np.array([0, 0, 1e300])", "not finite: number 2 is 1e\\+300"),
        ("Box(-1, 1, (3,))", "np.zeros(2, np.float32)", "has 2 numbers, its space 3"),
        ("Box(-1, 1, (3,))", "None", "has 1 numbers, its space 3"),
        ("Box(-1, 1, (3,))", "['a', 'b', 'c']", "is not in Box"),
        ("Box(0, 255, (3,), np.uint8)", "np.array([0.5, 1, 2])", "holds what uint8 cannot"),
        ("Box(0, 255, (3,), np.uint8)", "np.array([1, 2, 300])", "holds what uint8 cannot"),
        ("Discrete(3)", "3", r"3 is not in Discrete\(3\)"),
        ("Discrete(3, start=1)", "0", r"0 is not in Discrete\(3, start=1\)"),
        ("Discrete(3)", "0.5", r"0.5 is not in Discrete\(3\)"),
        ("MultiDiscrete([2, 3])", "np.array([2, 0])", "is not in MultiDiscrete"),
        ("MultiBinary(2)", "np.array([0, 2])", "is not in MultiBinary"),
        ("Dict(a=Discrete(2), b=Box(-1, 1, (2,)))", "{'a': 1}", "is not in Dict"),
        ("Dict(a=Discrete(2), b=Box(-1, 1, (2,)))", "{'a': 2, 'b': np.zeros(2)}", r"\['a'\] 2 is not in Discrete\(2\)"),
        ("Tuple([Discrete(2), Discrete(2)])", "(1,)", "has 1 parts, its space 2"),
    ],
)
def test_an_observation_that_is_none_is_refused(space, seen, said):
    with pytest.raises(EnvironmentFault, match=f"episode 1, reset: the observation .*{said}"):
        made(observation=space, seen=seen).reset()


@pytest.mark.parametrize(
    ("space", "seen"),
    [
        ("Box(-1, 1, (3,))", "np.full(3, 50.0)"),
        ("Box(-1, 1, (3,))", "[0, 1, 0]"),
        ("Box(0, 255, (2, 2, 3), np.uint8)", "np.ones((2, 2, 3), np.int64)"),
        ("Box(0, 1, (3,), np.bool_)", "[1, 0, 1]"),
        ("Discrete(3, start=1)", "np.array(3)"),
        ("Dict(a=Tuple([Discrete(2), MultiBinary(3)]), b=Text(4))", ""),
    ],
)
def test_an_observation_of_another_type_that_fits_is_taken(space, seen):
    env = made(observation=space, seen=seen)
    row, _ = env.reset(seed=1)
    assert isinstance(env.observation_space, spaces.Box)
    assert row.shape == env.observation_space.shape


@pytest.mark.parametrize("info", odd_envs.INFOS)
def test_of_an_info_only_what_is_read_is_passed_on(info):
    env = made(info=info)
    env.reset()
    for _ in range(3):
        told = env.step(0)[-1]
        assert told.keys() <= {"x", "action_mask"}
        assert all(isinstance(told[key], float) for key in told.keys() - {"action_mask"})
    assert ("action_mask" in told) == (info == "mask as a list")


def test_privileged_numbers_stay_as_many():
    env = made()
    env.env.unwrapped._tell = lambda: {"privileged": np.zeros(2 if env.env.unwrapped.t < 2 else 3)}
    assert env.reset()[1]["privileged"].dtype == np.float32
    env.step(0)
    with pytest.raises(EnvironmentFault, match=r"step 2: info\['privileged'\] is .* but at first it was 2"):
        env.step(0)
