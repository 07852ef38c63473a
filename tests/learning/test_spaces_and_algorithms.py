"""What ``check`` accepts is trained, saved, read back, compared and resumed; what it refuses never begins to train."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import forms
import odd_envs
import pytest
import torch
from gymnasium import spaces

import rlctl
from rlctl.cli.main import main
from rlctl.core.errors import ConfigError, EnvironmentFault, LearningDiverged
from rlctl_agents.action_support import LEARNED, problem

OPTIONS = {
    "ppo": {"n_steps": 16, "batch_size": 16, "net_arch": [8]},
    "maskable_ppo": {"n_steps": 16, "batch_size": 16, "net_arch": [8]},
    "recurrent_ppo": {"n_steps": 16, "batch_size": 16, "net_arch": [8], "lstm_units": 4},
    "sac": {"learning_starts": 16, "net_arch": [8], "batch_size": 8},
    "td3": {"learning_starts": 16, "net_arch": [8], "batch_size": 8},
    "dqn": {"learning_starts": 16, "net_arch": [8], "batch_size": 8},
}
ACTIONS = {
    "Discrete(3, start=-1)": ("ppo", "maskable_ppo", "recurrent_ppo", "dqn"),
    "Discrete(1)": ("ppo", "maskable_ppo", "recurrent_ppo", "dqn"),
    "MultiDiscrete([2, 3], dtype=np.int32)": ("ppo", "maskable_ppo", "recurrent_ppo"),
    "MultiBinary(3)": ("ppo",),
    "Box(-1, 1, (2,))": ("ppo", "recurrent_ppo", "sac", "td3"),
    "Box(-1, 1, (2,), np.float64)": ("ppo", "recurrent_ppo", "sac", "td3"),
    "Box(-1, 1, (2, 2))": ("ppo", "recurrent_ppo", "sac", "td3"),
    "Box(-1, 1, ())": ("ppo", "recurrent_ppo", "sac"),
    "Box(np.array([0, 1]), np.array([1, 1]), dtype=np.float32)": ("ppo", "recurrent_ppo"),
    "Box(-3e38, 3e38, (1,))": ("ppo", "recurrent_ppo"),
    "Box(-np.inf, np.inf, (2,))": (),
    "Box(0, np.inf, (2,))": (),
    "Box(-1, 1, (2,), np.float16)": (),
    "Box(0, 5, (2,), np.int64)": (),
    "MultiBinary([2, 2])": (),
    "MultiDiscrete([2, 3], start=[1, 0])": (),
    "MultiDiscrete([[2, 3], [2, 3]])": (),
    "Tuple([Discrete(2)])": (),
    "Dict(a=Discrete(2))": (),
}
OBSERVATIONS = {
    "Box(0, 1, (3,), np.bool_)": True,
    "Box(0, 5, (3,), np.uint64)": True,
    "Box(-1, 1, ())": True,
    "Box(0, 255, (40, 40, 3), np.uint8)": True,
    "Box(np.zeros((70, 70)), np.arange(4900.).reshape(70, 70), dtype=np.float64)": True,
    "Box(-1, 1, (0,))": False,
    "Box(-1, 1, (3,), np.longdouble)": False,
    "Box(0, 255, (3, 640, 640), np.uint8)": False,
    "Discrete(2_000_000)": False,
    "Sequence(Discrete(2))": False,
    "Graph(Box(-1, 1, (2,)), None)": False,
    "OneOf([Discrete(2), Box(-1, 1, (2,))])": True,
    "Dict(a=Tuple([Text(4), MultiDiscrete([[2, 3], [2, 3]])]), b=MultiBinary([2, 2]))": True,
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)


def config(algorithm="ppo", sets=(), decisions=64, **kwargs):
    text = {
        "schema": 1,
        "seed": 0,
        "campaign": {"name": "gymnasium", "options": {"id": "Odd-v0", "module": "odd_envs", "kwargs": kwargs}},
        "train": {
            "algorithm": algorithm,
            "decisions": decisions,
            "num_envs": 2,
            "validation_instances": 0,
            "options": OPTIONS[algorithm],
        },
        "evaluate": {"instances": 2},
    }
    Path("odd.yaml").write_text(repr(text).replace("None", "null"))
    return rlctl.load_config("odd.yaml", sets)


def lives_through_all(algorithm, **kwargs):
    """Check, train, save, read back and compare."""
    experiment = config(algorithm, **kwargs)
    rlctl.check(experiment, play=True)
    policy = rlctl.train(experiment, "run")
    rlctl.evaluate(experiment, [str(policy), "random"])


@pytest.mark.parametrize(
    ("algorithm", "action"), [(name, next(a for a in ACTIONS if name in ACTIONS[a])) for name in OPTIONS]
)
def test_a_training_goes_on(algorithm, action):
    rlctl.train(config(algorithm, action=action), "run")
    rlctl.train(config(algorithm, action=action, decisions=96), "run", resume=True)
    assert max(path.name for path in Path("run/checkpoints").iterdir()) >= f"{96:012d}"


def some(spaces):
    """Pairs of a space and an algorithm: all in full, otherwise each space with the algorithm that had the fewest."""
    pairs, times = [], Counter()
    for space, algorithms in spaces.items():
        chosen = algorithms if forms.full() else sorted(algorithms, key=lambda name: times[name])[:1]
        times.update(chosen)
        pairs += [(space, algorithm) for algorithm in chosen]
    return pairs


@pytest.mark.parametrize(("action", "algorithm"), some(ACTIONS))
def test_actions_are_learned_and_saved(action, algorithm):
    lives_through_all(algorithm, action=action)


def refuses(algorithm, **kwargs):
    """Neither ``check`` nor ``train`` begins; both say why in one line."""
    for call in (rlctl.check, lambda experiment: rlctl.train(experiment, "run")):
        with pytest.raises(ConfigError) as told:
            call(config(algorithm, **kwargs))
        assert "\n" not in str(told.value)
    assert not Path("run").exists()


@pytest.mark.parametrize("action", ACTIONS)
def test_actions_that_are_not_learned_are_refused_at_once(action):
    for algorithm in OPTIONS.keys() - set(ACTIONS[action]):
        refuses(algorithm, action=action)


@pytest.mark.parametrize(("action", "learned"), ACTIONS.items())
def test_a_refusal_names_those_that_would_learn(action, learned):
    refusing = next((name for name in OPTIONS if name not in learned), None)
    if not learned or refusing is None:
        return
    with pytest.raises(ConfigError, match=f"{refusing} does not learn actions of .*: use {' or '.join(learned)}$"):
        rlctl.check(config(refusing, action=action))


SEEING = ("ppo", "dqn")


@pytest.mark.parametrize(
    ("observation", "algorithm"), some({name: SEEING for name, fine in OBSERVATIONS.items() if fine})
)
def test_observations_are_learned_from_and_saved(observation, algorithm):
    lives_through_all(algorithm, observation=observation)


@pytest.mark.parametrize("observation", [name for name, fine in OBSERVATIONS.items() if not fine])
def test_observations_that_cannot_be_learned_from_are_refused_at_once(observation):
    for algorithm in SEEING:
        refuses(algorithm, observation=observation)


def test_a_network_that_would_be_too_large_is_refused_at_once():
    wide = config(observation="Box(0, 255, (300, 300, 3), np.uint8)", sets=["train.options.net_arch=[1024]"])
    with pytest.raises(ConfigError, match="more than 67,108,864 weights"):
        rlctl.check(wide)


def test_the_table_of_the_docs_is_what_is_checked():
    kinds = [spaces.Discrete(2), spaces.MultiDiscrete([2, 2]), spaces.MultiBinary(2), spaces.Box(-1, 1, (1,))]
    lines = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    told = {row[0].strip("`"): row[1:5] for row in rows if row[0].strip("`") in LEARNED}
    assert told == {name: ["yes" if problem(name, space) is None else "no" for space in kinds] for name in LEARNED}


@pytest.mark.parametrize("algorithm", ["ppo", "recurrent_ppo", "sac", "dqn"])
def test_what_was_learned_before_a_bad_reward_is_a_checkpoint_to_go_on_from(algorithm):
    action = "Box(-1, 1, (1,))" if algorithm == "sac" else "Discrete(2)"
    with pytest.raises(EnvironmentFault, match=r"Odd-v0 \(1 of 2\), episode 6, step 5: the reward is nan.*--resume"):
        rlctl.train(config(algorithm, decisions=160, action=action, reward="nan", at=55), "run")
    saved = sorted(path.name for path in Path("run/checkpoints").iterdir())
    assert saved
    assert not Path("run/policy").exists()
    assert 64 <= int(saved[-1]) <= 110
    # The environments begin anew, so that the fault is 55 steps away again.
    rlctl.train(config(algorithm, decisions=160, action=action, reward="nan", at=55), "run", resume=True)
    assert Path("run/policy").exists()


def test_weights_that_are_not_finite_overwrite_nothing(monkeypatch):
    rlctl.train(config(), "run")
    before = {path.name: path.read_bytes() for path in Path("run/policy").iterdir()}
    from stable_baselines3 import PPO

    learn = PPO.train

    def spoil(model):
        learn(model)
        with torch.no_grad():
            next(iter(model.policy.parameters())).fill_(float("nan"))

    monkeypatch.setattr(PPO, "train", spoil)
    with pytest.raises(LearningDiverged, match=r"not finite any more after 96 decisions \(the newest checkpoint"):
        rlctl.train(config(decisions=128), "run", resume=True)
    assert max(path.name for path in Path("run/checkpoints").iterdir()) == f"{64:012d}"
    assert {path.name: path.read_bytes() for path in Path("run/policy").iterdir()} == before


def test_an_environment_that_fails_after_the_training_costs_no_policy(caplog):
    rlctl.train(config(decisions=64, fault="raises", at=40), "run")
    assert Path("run/policy/manifest.json").exists()
    assert "after the training" in caplog.text


@pytest.mark.parametrize("info", ["ragged", "mixed", "none at times", "nested", "words of ours", "words of Gymnasium"])
def test_odd_infos_do_no_harm(info):
    lives_through_all("ppo", info=info)


def test_arguments_of_an_environment_may_be_named_as_ours():
    lives_through_all("ppo", num_envs=3, max_steps=5)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("constructor", "Odd-v0' cannot be made: ZeroDivisionError: of the constructor (/"),
        ("constructor exits", "Odd-v0' cannot be made: SystemExit: 4"),
        ("reset raises", "environment Odd-v0 (1 of 2), episode 1, reset: FileNotFoundError"),
        ("reset gives one", "environment Odd-v0 (1 of 2), episode 1, reset: reset() gave ndarray"),
        ("raises", "environment Odd-v0 (1 of 2), episode 1, step 1: ZeroDivisionError: of the environment (/"),
        ("exits", "environment Odd-v0 (1 of 2), episode 1, step 1: SystemExit: 3 (/"),
        ("four", "environment Odd-v0 (1 of 2), episode 1, step 1: step() gave 4 values"),
    ],
)
def test_a_fault_of_an_environment_is_one_line_and_exit_code_2(fault, said, capsys):
    config(fault=fault)
    for command in (["train", "odd.yaml", "--out", "run"], ["check", "odd.yaml", "--play"]):
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert ended.value.code == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert said.replace(" (1 of 2)", "" if command[0] == "check" else " (1 of 2)") in line
        assert "bug" not in line


@pytest.mark.parametrize("name", ["there_is_no_such_module", "odd_module"])
def test_a_module_that_cannot_be_imported_is_the_modules_fault(name, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("odd_module.py").write_text("raise SystemExit(5)\n")
    config()
    with pytest.raises(ConfigError, match=r"campaign.options.module: cannot be imported"):
        rlctl.check(rlctl.load_config("odd.yaml", [f"campaign.options.module={name}"]))


def test_an_episode_that_never_ends_is_cut_and_told():
    config()
    sets = ["campaign.options.id=OddEndless-v0", "campaign.options.kwargs={}", "evaluate.max_steps=50"]
    experiment = rlctl.load_config("odd.yaml", sets)
    rule = type("Never", (), {"name": "never", "reset": lambda s, seed: None, "act": lambda s, decision: [0]})()
    found = rlctl.evaluate(experiment, [rule, "random"])
    assert [row.cut for row in found.rows] == [2, 0]
    assert found.rows[0].length == 50.0
    assert "evaluate.max_steps" in found.table().caption
    assert "never 2 of 2" in found.table().caption
    assert found.to_json()["max_steps"] == 50


def test_a_plug_in_that_exits_does_not_end_rlctl_without_a_word(monkeypatch, capsys):
    config()
    monkeypatch.setattr("rlctl.api.check", odd_envs.exits)
    with pytest.raises(SystemExit) as ended:
        main(["check", "odd.yaml"])
    assert ended.value.code == 2
    assert "called sys.exit(3)" in capsys.readouterr().err
