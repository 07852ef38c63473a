"""Which policy steers where none is named: the winner of the judgements that saved policies carry."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rlctl.bundle import saved_policy
from rlctl.bundle.manifest import Judgement, to_bytes, validate_judgement
from rlctl.cli.main import app
from rlctl.config.load import game_hash, load_config
from rlctl.config.schema import Config
from rlctl.core.errors import ConfigError, PolicyError
from rlctl.evaluation import gate, scores
from rlctl.monitoring.progress import Silent
from rlctl.plugins.registry import configured_campaign, load_policy
from rlctl.steering.policy_choice import choose, steering_policy

SHIPPED = Path(__file__).parents[2] / "configs" / "policies" / "annealing-ppo"
CONFIG = """
schema: 1
campaign: {name: block_copolymer, options: {films: 1, allocation_s: 15.0}}
policies:
  mine: mine
  other: other
  slow: {rule: linear, parameters: {start: 1.6}}
  later: nosuch
evaluate: {instances: 2}
"""
SLOW = {"rule": "linear", "parameters": {"start": 1.6}}
HOT = {"rule": "constant", "parameters": {"temperature": 1.3}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("mine", "other"):
        shutil.copytree(SHIPPED, tmp_path / name)
        manifest = tmp_path / name / saved_policy.MANIFEST
        data = json.loads(manifest.read_text())
        del data["checksum"], data["judgement"]
        manifest.write_bytes(to_bytes(data))
    (tmp_path / "films.yaml").write_text(CONFIG)
    return tmp_path


def config(folder: Path, *sets: str) -> Config:
    return load_config(folder / "films.yaml", sets)


def row(policy: str, rule: dict[str, Any] | None, cost: float | None, ratio: float = 1.0) -> dict[str, Any]:
    ends = [ratio - 0.1, ratio + 0.1]
    return {"policy": policy, "rule": rule, "successes": 9 if cost else 0, "cost": cost, "cost_interval": [None, None],
            "ratio": ratio, "ratio_interval": ends}  # fmt: skip


def judgement(config: Config, *rows: dict[str, Any], **more: Any) -> Judgement:
    best = min(rows, key=lambda row: row["cost"] or float("inf"))
    data = {
        "date": "2030-01-01T00:00:00+00:00",
        "config_hash": "0" * 64,
        "game_hash": game_hash(config, configured_campaign(config)),
        "seed": 1,
        "instances": 64,
        "winner": best["policy"] if best["cost"] else None,
        "rows": list(rows),
    }
    return validate_judgement(data | more)


def record(folder: Path, name: str, *rows: dict[str, Any], **more: Any) -> None:
    scores.record_judgement(saved_policy.load(folder / name), judgement(config(folder), *rows, **more))


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (
            [row("slow", SLOW, 30.0), row("ppo", None, 20.0, 0.8)],
            "mine, 1.25 times cheaper than slow on 64 instances of the twin [1.11, 1.43]",
        ),
        (
            [row("slow", SLOW, 30.0), row("hot", HOT, 19.0), row("ppo", None, 20.0, 1.05)],
            "hot, 1.05 times cheaper than mine on 64 instances of the twin [0.95, 1.15], which is no significant "
            "difference",
        ),
        ([row("slow", SLOW, None), row("ppo", None, 20.0)], "mine, since slow had no success on 64 instances"),
        ([row("slow", SLOW, 30.0), row("ppo", None, None)], "slow, since mine had no success on 64 instances"),
        ([row("slow", SLOW, None), row("ppo", None, None)], "neither mine nor a rule had a success on 64 instances"),
        ([row("slow", SLOW, 20.0), row("ppo", None, 20.0)], "slow, 1.00 times cheaper than mine"),
    ],
)
def test_the_reason_names_the_winner_its_lead_and_its_certainty(
    folder: Path, rows: list[dict[str, Any]], reason: str
) -> None:
    assert judgement(config(folder), *rows).reason("mine").startswith(reason)


def test_without_a_judgement_a_policy_has_to_be_named(folder: Path) -> None:
    assert steering_policy(config(folder)) is None
    with pytest.raises(ConfigError, match="no saved policy of the configuration carries a judgement: name one with"):
        choose(config(folder), configured_campaign(config(folder)))


def test_a_saved_policy_that_wins_steers(folder: Path) -> None:
    record(folder, "mine", row("slow", SLOW, 30.0), row("ppo", None, 20.0, 0.8))
    choice = steering_policy(config(folder))
    assert choice is not None
    assert (choice.name, choice.rule) == ("mine", None)


def test_a_rule_that_wins_steers_as_it_was_judged(folder: Path) -> None:
    record(folder, "mine", row("slow", SLOW, 10.0), row("ppo", None, 20.0, 2.0))
    same, changed = config(folder), config(folder, "policies.slow={rule: linear, parameters: {start: 1.2}}")
    choice = steering_policy(same)
    assert choice is not None
    assert (choice.name, choice.rule) == ("slow", None)  # the configuration has it
    for other in (changed, config(folder, "policies={mine: mine}")):
        choice = steering_policy(other)
        assert choice is not None
        assert choice.rule is not None
        assert choice.rule.model_dump() == SLOW
        assert load_policy(other.with_rules({"slow": choice.rule}), "slow").start == 1.6  # type: ignore[attr-defined]


def test_a_judgement_of_another_game_does_not_count_and_is_told(folder: Path) -> None:
    record(folder, "mine", row("slow", SLOW, 30.0), row("ppo", None, 20.0, 0.8), game_hash="f" * 64)
    with pytest.raises(ConfigError, match="mine was judged on another game"):
        choose(config(folder), configured_campaign(config(folder)))
    record(folder, "mine", row("slow", SLOW, 30.0), row("ppo", None, 20.0, 0.8))
    assert steering_policy(config(folder)) is not None
    assert steering_policy(config(folder, "machine.cores=3")) is None


def test_of_several_the_best_by_a_rule_that_they_share(folder: Path) -> None:
    record(folder, "mine", row("slow", SLOW, 30.0), row("hot", HOT, 99.0), row("ppo", None, 20.0, 0.7))
    record(folder, "other", row("late", SLOW, 90.0), row("ppo", None, 45.0, 0.5))  # on dearer instances
    choice = steering_policy(config(folder))
    assert choice is not None
    assert choice.name == "other"
    assert choice.reason == "other, at 0.50 times the cost of slow on the twin (mine 0.67, other 0.50)"
    record(folder, "other", row("hot", HOT, 9.0), row("ppo", None, None))
    choice = steering_policy(config(folder))
    assert choice is not None
    assert choice.name == "mine"
    assert choice.reason == "mine, at 0.20 times the cost of hot on the twin (mine 0.20, other inf)"
    record(folder, "other", row("none", {"rule": "cyclic", "parameters": {}}, 9.0), row("ppo", None, 1.0, 0.1))
    with pytest.raises(ConfigError, match="mine and other were judged against different rules: name one with --policy"):
        choose(config(folder), configured_campaign(config(folder)))


def test_a_judgement_changes_no_digest_and_stays_with_scores(folder: Path) -> None:
    before = saved_policy.load(folder / "mine")
    record(folder, "mine", row("slow", SLOW, 30.0), row("ppo", None, 20.0, 0.8))
    after = saved_policy.load(folder / "mine")
    assert after.digest == before.digest
    assert after.manifest.scores == before.manifest.scores
    assert before.manifest.judgement is None
    assert after.manifest.judgement is not None


def tamper(folder: Path, seal: bool, **changes: Any) -> None:
    path = folder / "mine" / saved_policy.MANIFEST
    data = json.loads(path.read_text())
    data["judgement"] |= changes
    text = json.dumps(data).encode()
    if seal:
        del data["checksum"]
        text = to_bytes(data)
    path.write_bytes(text)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"winner": "ppo"}, "the winner is not the row of least cost"),
        ({"winner": "\x1b[2J"}, "judgement.winner: "),
        ({"rows": [row("ppo", None, 20.0)]}, "judgement.rows: "),
        ({"rows": [row(f"r{n}", SLOW, 1.0) for n in range(101)]}, "judgement.rows: "),
        ({"rows": [row("slow", SLOW, 10.0), row("slow", None, 20.0)]}, "two rows have one name"),
        ({"rows": [row("slow", SLOW, 10.0), row("ppo", SLOW, 20.0)]}, "the last row, and no other, is"),
        ({"rows": [row("slow", {"rule": "../x"}, 10.0), row("ppo", None, 20.0)]}, "judgement.rows.0.rule.rule: "),
        ({"instances": 0}, "judgement.instances: "),
        ({"extra": 1}, "judgement.extra: "),
    ],
)
def test_what_a_judgement_cannot_say_is_refused_in_one_line(folder: Path, changes: dict[str, Any], said: str) -> None:
    record(folder, "mine", row("slow", SLOW, 10.0), row("ppo", None, 20.0, 2.0))
    tamper(folder, True, **changes)
    experiment = config(folder)
    with pytest.raises(PolicyError) as error, experiment.source.located():
        choose(experiment, configured_campaign(experiment))
    line = str(error.value)
    assert said in line
    assert line.startswith(f"{folder}/films.yaml:5: policies.mine: {folder}/mine/manifest.json: ")
    assert "\n" not in line
    assert "\x1b" not in line


def test_an_edited_judgement_is_noticed(folder: Path) -> None:
    record(folder, "mine", row("slow", SLOW, 10.0), row("ppo", None, 20.0, 2.0))
    tamper(folder, False, instances=512)
    with pytest.raises(PolicyError, match="damaged or edited"):
        choose(config(folder), configured_campaign(config(folder)))


def test_a_judgement_that_is_too_large_leaves_the_policy_as_it_was(folder: Path) -> None:
    whole = (folder / "mine" / "manifest.json").read_bytes()
    large = {"rule": "linear", "parameters": {"text": "x" * saved_policy.MAX_MANIFEST}}
    with pytest.raises(PolicyError, match="the manifest is full; nothing was recorded"):
        record(folder, "mine", row("slow", large, 10.0), row("ppo", None, 20.0, 2.0))
    assert (folder / "mine" / "manifest.json").read_bytes() == whole


def test_the_opponents_are_configured_rules_and_those_of_the_campaign(folder: Path) -> None:
    factory = configured_campaign(config(folder))
    factory.opponents = ("linear", "constant")  # linear is configured, as slow
    (folder / "tuned.yaml").write_text("{schema: 1, rule: cyclic, parameters: {}}")
    found = gate.opponents(config(folder, "policies.tuned=tuned.yaml", "policies.later={rule: random}"), factory)
    assert {name: entry.rule for name, entry in found.items()} == {
        "slow": "linear",
        "tuned": "cyclic",
        "later": "random",
        "constant": "constant",
    }


def test_a_judgement_that_is_stopped_leaves_the_policy_as_it_was(folder: Path) -> None:
    experiment = config(folder)
    factory = configured_campaign(experiment)
    policy, whole = load_policy(experiment, "mine"), (folder / "mine" / "manifest.json").read_bytes()
    rules = {"slow": experiment.policies["slow"]}
    with pytest.raises(KeyboardInterrupt):
        gate.judge(experiment, factory, policy, rules, 2, Silent(), stop=lambda: True)  # type: ignore[arg-type]
    assert (folder / "mine" / "manifest.json").read_bytes() == whole


def test_a_saved_policy_is_judged_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(configured_campaign(config(folder))), "opponents", ())
    arguments = ["judge", str(folder / "films.yaml"), "--policy", "mine", "--instances", "2", "--json"]
    done = CliRunner().invoke(app, [*arguments, "--set", "policies.later={rule: constant}"])
    assert done.exit_code == 0, done.output
    found = saved_policy.load(folder / "mine").manifest.judgement
    assert found is not None
    assert json.loads(done.stdout) == found.model_dump(mode="json")
    assert [row.policy for row in found.rows] == ["slow", "later", "mine"]
    assert found.rows[0].rule is not None
    assert found.rows[0].rule.model_dump() == SLOW
    assert found.instances == 2
    for of, said in (("slow", "slow is not a saved policy"), ("nosuch", "neither a known name")):
        refused = CliRunner().invoke(app, ["judge", str(folder / "films.yaml"), "--policy", of])
        assert said in str(refused.exception)
    refused = CliRunner().invoke(app, [*arguments, "--set", "policies={mine: mine}"])
    assert "policies: neither these nor campaign block_copolymer name a rule" in str(refused.exception)


def test_after_a_training_rules_that_cannot_play_are_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(type(configured_campaign(config(folder))), "opponents", ())
    wrong = "policies={mine: mine, slow: {rule: linear}, fits_not: {rule: lpt}, gone: nosuch.yaml}"
    trained = config(folder, wrong, "train.decisions=1", "train.judgement_instances=1")
    found = gate.judge_trained(trained, folder / "mine", Silent())
    assert found is not None
    assert [row.policy for row in found.rows] == ["slow", "ppo"]
    assert [line.getMessage().split(":")[0] for line in caplog.records] == [
        "gone is not compared with",
        "fits_not is not compared with",
    ]
    for none in ("train.judgement_instances=0", "policies={mine: mine}"):
        assert gate.judge_trained(config(folder, wrong, "train.decisions=1", none), folder / "mine", Silent()) is None
