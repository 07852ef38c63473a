"""The policy ``random`` is known wherever a policy is named, obeys masks, and draws the same again from a seed."""

import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from run_folders import queue_config
from typer.testing import CliRunner

import rlctl
from rlctl.cli.main import app
from rlctl.config.load import load_config
from rlctl.core.campaign import Decision
from rlctl.core.errors import ConfigError
from rlctl.core.random_policy import Chance
from rlctl.evaluation import returns


def asked(number: int, mask: list[int]) -> Decision:
    return Decision("x", 0.0, {}, np.zeros(1, np.float32), np.array(mask, np.bool_), number=number)


def test_it_obeys_masks_and_draws_all_that_is_allowed() -> None:
    for space, mask, allowed in (
        (spaces.MultiDiscrete([3, 2]), [1, 0, 1, 0, 1], {(0, 1), (2, 1)}),
        (spaces.Discrete(4, start=7), [0, 1, 1, 0], {(1,), (2,)}),
    ):
        policy = Chance(space)
        policy.reset(3)
        drawn = [tuple(policy.act(asked(number, mask)).tolist()) for number in range(60)]
        assert set(drawn) == allowed
        again = Chance(space)
        again.restore(json.loads(json.dumps(policy.state())))  # as after a kill, in the midst
        assert [tuple(again.act(asked(number, mask)).tolist()) for number in range(30, 60)] == drawn[30:]
        again.reset(4)
        assert [tuple(again.act(asked(number, mask)).tolist()) for number in range(60)] != drawn
    box = Chance(spaces.Box(-1.0, 1.0, (2,)))
    assert box.act(asked(0, [])).shape == (2,)


def test_a_campaign_knows_it_wherever_a_policy_is_named(tmp_path: Path) -> None:
    config = queue_config(tmp_path)
    path = config.source.path
    path.write_text(path.read_text() + "  chance: {rule: random}\n")
    command = [
        "evaluate",
        str(path),
        "--instances",
        "2",
        "--json",
        "--policy",
        "equal",
        "--against",
        "random",
        "chance",
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    rows = {row["policy"]: row for row in json.loads(done.stdout)["rows"]}
    assert list(rows) == ["equal", "random", "chance"]
    assert rows["random"]["node_seconds"] == rows["chance"]["node_seconds"] > rows["equal"]["node_seconds"]
    assert CliRunner().invoke(app, ["check", str(path)]).exit_code == 0
    with pytest.raises(ConfigError, match="random"):
        rlctl.load_policy(load_config(path), "randon")


class Masked(gymnasium.Env):
    """Gives one mask, and keeps the actions."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, space: spaces.Space, mask: list[int]) -> None:
        self.action_space, self.mask, self.drawn = space, np.array(mask, np.int8), []

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {"action_mask": self.mask}

    def step(self, action):
        self.drawn.append(str(action))
        return np.zeros(1, np.float32), 0.0, False, False, {"action_mask": self.mask}


def test_an_environment_has_its_masks_obeyed_too() -> None:
    for space, mask in ((spaces.Discrete(3, start=5), [0, 1, 0]), (spaces.MultiDiscrete([2, 3]), [0, 1, 0, 0, 1])):
        bound, free = Masked(space, mask), Masked(space, [1] * len(mask))
        for environment in (bound, free):
            assert returns.run_episode(environment, "random", Chance(space), 0, 50) == (0.0, 50, True)
        assert set(bound.drawn) == ({"6"} if isinstance(space, spaces.Discrete) else {"[1 2]"})
        assert len(set(free.drawn)) > 2
