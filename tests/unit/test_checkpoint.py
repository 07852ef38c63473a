"""Checkpoints and exports after a training that was killed while it wrote."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rlctl.config.schema import Config
from rlctl_agents.training_checkpoint import KEPT, Checkpoints


def model(decisions: int) -> Any:
    weights = torch.nn.Linear(1, 1)
    actions = SimpleNamespace(_np_random=None)
    save = lambda path: path.write_bytes(b"weights")  # noqa: E731
    return SimpleNamespace(num_timesteps=decisions, policy=weights, action_space=actions, save=save)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    config = Config.model_validate({"schema": 1, "seed": 0, "campaign": {"name": "any"}, "train": {"decisions": 9}})
    return Checkpoints(tmp_path / "checkpoints", config)


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir())


def test_the_newest_are_kept(checkpoints: Checkpoints) -> None:
    for decisions in (10, 20, 30):
        checkpoints.save(model(decisions))
    assert names(checkpoints) == [f"{decisions:012d}" for decisions in (20, 30)]
    assert KEPT == 2


def test_leftovers_go_even_if_the_last_checkpoint_is_there_already(checkpoints: Checkpoints) -> None:
    checkpoints.save(model(10))
    (checkpoints.folder / ".torn").mkdir()
    (checkpoints.folder / ".torn" / "model.zip").touch()
    checkpoints.save(model(10))
    assert names(checkpoints) == [f"{10:012d}"]


def test_a_kill_while_an_old_one_is_removed_leaves_nothing_that_looks_like_one(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    for decisions in (10, 20):
        checkpoints.save(model(decisions))

    def killed(path: Path, **options: Any) -> None:
        if not path.exists():  # the temporary folder has become the checkpoint
            return
        (path / "state.json").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(model(30))
    checkpoints.save(model(30))
    assert names(checkpoints) == [f"{decisions:012d}" for decisions in (20, 30)]
