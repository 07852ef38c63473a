"""Scores stand in the manifest of the policy that they are of, with the opponents."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import rlctl
from rlctl.bundle import saved_policy
from rlctl.cli.main import app
from rlctl.config.load import config_hash, load_config
from rlctl.core.errors import PolicyError
from rlctl.evaluation import scores

SHIPPED = Path(__file__).parents[2] / "configs"


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """The annealing experiment with a copy of the trained policy, and one short film."""
    shutil.copytree(SHIPPED / "policies" / "annealing-ppo", tmp_path / "ppo")
    shutil.copytree(SHIPPED / "tuned", tmp_path / "tuned")
    text = (SHIPPED / "annealing.yaml").read_text().replace("policies/annealing-ppo", "ppo")
    path = tmp_path / "annealing.yaml"
    path.write_text(text.replace("films: 4", "films: 1").replace("allocation_s: 100.0", "allocation_s: 15.0"))
    return path


def test_evaluate_records_the_comparison_and_keeps_earlier_ones(experiment: Path) -> None:
    folder, before = experiment.parent / "ppo", saved_policy.load(experiment.parent / "ppo")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    arguments = ["evaluate", experiment, "--policy", "ppo", "--against", "linear", "--instances", "3", "--seed", "9"]
    done = CliRunner().invoke(app, [str(a) for a in [*arguments, "--record", "--json"]])
    assert done.exit_code == 0, done.output
    after = saved_policy.load(folder)
    added = after.manifest.scores[len(before.manifest.scores) :]
    assert [score.model_dump() for score in after.manifest.scores[:-1]] == [
        s.model_dump() for s in before.manifest.scores
    ]
    assert len(added) == 1
    said = json.loads(done.output)
    assert added[0].rows == said["rows"]
    assert [row["policy"] for row in added[0].rows] == ["ppo", "linear"]
    assert (added[0].seed, added[0].rows[0]["instances"]) == (9, 3)
    assert added[0].config_hash == config_hash(load_config(experiment))
    assert after.digest == before.digest  # a run that began before can be resumed
    assert {p.name for p in folder.iterdir()} == set(files)
    assert all((folder / name).read_bytes() == data for name, data in files.items() if name != "manifest.json")


def test_only_a_saved_policy_takes_scores_and_nothing_is_played_otherwise(experiment: Path) -> None:
    config = load_config(experiment)
    with pytest.raises(PolicyError, match="linear is not a saved policy"):
        rlctl.evaluate(config, ["linear", "ppo"], instances=10**9, record=True)
    random = saved_policy.load(experiment.parent / "ppo", deterministic=False)
    with pytest.raises(PolicyError, match="differs from the saved one"):
        rlctl.evaluate(config, [random, "linear"], instances=10**9, record=True)


def comparison() -> dict[str, object]:
    return {"seed": 1, "reference": "ppo", "rows": [{"policy": "ppo"}]}


def test_a_policy_that_was_exchanged_meanwhile_takes_no_scores(experiment: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ppo"
    policy = saved_policy.load(folder)
    scores.record(policy, "ppo", comparison(), "0" * 64)
    assert saved_policy.load(folder).manifest.scores[-1].rows == [{"policy": "ppo"}]
    said = json.loads((folder / "manifest.json").read_text()) | {"seed": 77}
    del said["checksum"]
    (folder / "manifest.json").write_bytes(scores.to_bytes(said))
    whole = (folder / "manifest.json").read_bytes()
    with pytest.raises(PolicyError, match="replaced since"):
        scores.record(policy, "ppo", comparison(), "0" * 64)
    assert (folder / "manifest.json").read_bytes() == whole


def test_a_recording_that_fails_or_was_killed_leaves_the_old_manifest(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ppo"
    policy, whole = saved_policy.load(folder), (folder / "manifest.json").read_bytes()
    with monkeypatch.context() as patch:

        def full(handle: int) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(os, "fsync", full)
        with pytest.raises(PolicyError, match="No space left"):
            scores.record(policy, "ppo", comparison(), "0" * 64)
    assert (folder / "manifest.json").read_bytes() == whole
    assert ".manifest.json.new" not in {p.name for p in folder.iterdir()}
    (folder / ".manifest.json.new").write_text("half")
    scores.record(policy, "ppo", comparison(), "0" * 64)
    assert saved_policy.load(folder).manifest.scores[-1].policy == "ppo"
    assert ".manifest.json.new" not in {p.name for p in folder.iterdir()}
