"""Checkpoints of a training: each a folder that appears whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlctl.config import config_data
from rlctl.errors import ConfigError

if TYPE_CHECKING:
    from stable_baselines3 import PPO

    from rlctl.config import Config

SCHEMA = 1
KEPT = 2


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on disk.

    Attributes:
        model: Stable-Baselines3's zip, with the optimiser.
        decisions: learned from until then.
        actors: of each learner, what it knew of its actors; empty where there were none.
    """

    model: Path
    decisions: int
    actors: Sequence[Mapping[str, Any]] = ()


class Checkpoints:
    """The checkpoints of one training, ``FOLDER/<decisions>/{model.zip, state.json}``; the newest two are kept."""

    def __init__(self, folder: Path, config: Config) -> None:
        self.folder = folder
        self._settings = _settings(config)

    def require_none(self) -> None:
        """A new training begins here.

        Raises:
            ConfigError: another one has begun here already.
        """
        if self._whole():
            raise ConfigError(f"{self.folder.parent} already holds a training: resume it, or give another folder")

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint, if any.

        Raises:
            ConfigError: it was written under another configuration or by another rlctl.
        """
        whole = self._whole()
        if not whole:
            return None
        folder = whole[-1]
        state = json.loads((folder / "state.json").read_text())
        if state.get("schema") != SCHEMA:
            raise ConfigError(f"{folder}: checkpoint schema {state.get('schema')!r}, this rlctl reads {SCHEMA}")
        changed = sorted(key for key in self._settings if state["settings"].get(key) != self._settings[key])
        if changed:
            raise ConfigError(
                f"{folder} was trained with another {', '.join(changed)}: restore it, or train into another folder"
            )
        return Checkpoint(folder / "model.zip", int(state["decisions"]), state.get("actors", ()))

    def save(self, model: PPO, actors: Sequence[Mapping[str, Any]] = ()) -> None:
        """Write a checkpoint of the model as it stands, and remove what is of no more use."""
        final = self.folder / f"{model.num_timesteps:012d}"
        if final.exists() and actors:  # it tells of chunks that are not there any more
            final.rename(final.with_name(f".{final.name}"))
        if not final.exists():
            self._write(model, final, actors)
        for old in self._whole()[:-KEPT]:
            old.rename(old.with_name(f".{old.name}"))  # a kill leaves no half of it that looks like a checkpoint
        for left in self.folder.glob(".*"):  # also of a training that was killed while it wrote
            shutil.rmtree(left)

    def _write(self, model: PPO, final: Path, actors: Sequence[Mapping[str, Any]]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".", dir=self.folder))
        try:
            model.save(temporary / "model.zip")
            state = {"schema": SCHEMA, "decisions": model.num_timesteps, "settings": self._settings}
            state["actors"] = list(actors)
            (temporary / "state.json").write_text(json.dumps(state, indent=2))
            for file in temporary.iterdir():
                _flush(file)
            temporary.rename(final)
            _flush(self.folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _whole(self) -> list[Path]:
        return sorted(folder for folder in self.folder.glob("[0-9]*") if (folder / "state.json").exists())


def _settings(config: Config) -> dict[str, Any]:
    """What must be the same for a checkpoint to go on; the total, the interval and what is only shown may change."""
    data = config_data(config)
    may_change = ("decisions", "checkpoint_decisions", "validation_instances", "distributed")
    train = {k: v for k, v in data["train"].items() if k not in may_change}
    return {"seed": data["seed"], "campaign": data["campaign"], "machine": data["machine"], "train": train}


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
