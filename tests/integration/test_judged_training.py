"""A training ends with a judgement, whose winner steers without ``--policy``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_box_campaign import Project

import rlctl
from rlctl.bundle.saved_policy import read_manifest
from rlctl.config.load import game_hash, load_config
from rlctl.core.errors import ConfigError
from rlctl.executors.event_log import Journal
from rlctl.monitoring.progress import Progress
from rlctl.plugins.registry import configured_campaign
from rlctl.steering.policy_choice import steering_policy

CONFIGS = Path(__file__).parents[2] / "configs"
BRIEF = ["train.decisions=64", "train.num_envs=4", "train.options.n_steps=16", "train.options.batch_size=64"]


class InterruptsJudgements(Progress):
    """Ctrl-C, as soon as the judgement begins."""

    def start(self, what: str, total: float, unit: str, done: float = 0.0) -> None:
        if what.startswith("judging"):
            raise KeyboardInterrupt


def test_a_small_ensemble_is_trained_judged_and_steered(tmp_path: Path) -> None:
    saved = f"policies.mine={tmp_path / 'run' / 'policy'}"
    config = load_config(CONFIGS / "ensemble_small.yaml", [*BRIEF, "train.judgement_instances=3", saved])
    folder = tmp_path / "run" / "policy"
    with pytest.raises(KeyboardInterrupt):
        rlctl.train(config, tmp_path / "run", progress=InterruptsJudgements())
    before = read_manifest(folder)
    assert before.judgement is None
    assert steering_policy(config) is None

    assert rlctl.train(config, tmp_path / "run", resume=True) == folder  # it had ended: it is only judged
    after = read_manifest(folder)
    judgement = after.judgement
    assert judgement is not None
    assert (judgement.instances, judgement.seed) == (3, config.seed)
    assert judgement.game_hash == game_hash(config, configured_campaign(config))
    assert [row.policy for row in judgement.rows][-1] == "ppo"
    assert {"narrow", "lpt", "same_efficiency"} < {row.policy for row in judgement.rows}
    first, second = ((of.model_extra or {})["cpu_seconds"] for of in (before, after))
    assert 0.0 < first < second

    said: list[str] = []
    planned = rlctl.api.dry_run(config, chosen=said.append)
    assert planned.policy == ("mine" if judgement.winner == "ppo" else judgement.winner)
    assert said == [planned.policy_reason] == [judgement.reason("mine")]
    choice = steering_policy(config)
    assert choice is not None
    assert choice.reason == planned.policy_reason


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = Project(tmp_path_factory.mktemp("judged"))
    config = made.folder / "aiming.yaml"
    text = config.read_text().replace("decisions: 1500", "decisions: 32\n  judgement_instances: 4")
    config.write_text(text + "policies: {mine: trained/policy, sure: {rule: marksman}}\n")
    return made


def test_the_winner_steers_and_the_run_says_why(project: Project) -> None:
    trained = project.json("train", "--out", "trained")
    assert trained["judgement"]["winner"] == "sure"  # the rule knows the target
    assert trained["judgement"] == read_manifest(project.folder / "trained" / "policy").judgement.model_dump(
        mode="json"
    )
    checked = project.json("check")
    assert checked["steers"]["policy"] == "sure"
    reason = checked["steers"]["reason"]
    done = project.run("steer", "--run", "own", "--instance", 3)
    assert done.returncode == 0, done.stderr
    assert f"policy: {reason}" in done.stderr.splitlines()
    assert "sure: goal reached" in done.stdout
    summary = json.loads((project.folder / "own" / "summary.json").read_text())
    assert (summary["policy"], summary["policy_reason"]) == ("sure", reason)
    assert rlctl.status(project.folder / "own").policy_reason == reason
    assert reason in rlctl.report(project.folder / "own", rules=False).read_text()


def test_a_rule_that_only_the_judgement_knows_steers_and_resumes(project: Project) -> None:
    alone = ["--set", "policies={mine: trained/policy}"]
    if not (project.folder / "trained").exists():
        project.json("train", "--out", "trained")
    few = ["--run", "alone", "--instance", 4, *alone]
    summary = project.json("steer", *few)
    assert (summary["policy"], summary["reached"]) == ("sure", True)
    with Journal.open(project.folder / "alone" / "journal.db", read_only=True) as journal:
        assert journal.header["policy_rule"] == {"rule": "marksman", "parameters": {}}
        assert journal.header["policy_source"] == "sure"
    again = project.run("steer", *few, "--resume")
    assert again.returncode == 0, again.stderr
    assert "already ended" in again.stderr
    (project.folder / "trained" / "policy" / "manifest.json").rename(project.folder / "manifest.json")
    try:  # neither chosen nor looked at
        assert project.run("steer", *few, "--resume").returncode == 0
    finally:
        (project.folder / "manifest.json").rename(project.folder / "trained" / "policy" / "manifest.json")


def test_without_a_winner_the_error_says_what_to_name(tmp_path: Path) -> None:
    config = load_config(CONFIGS / "ensemble_small.yaml")
    with pytest.raises(ConfigError, match=r"no default policy, and no saved policy .* name one with --policy, e\.g\."):
        rlctl.steer(config, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
