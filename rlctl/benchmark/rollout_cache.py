"""Keeps rollouts on disk, so that a benchmark that is repeated, extended or interrupted plays nothing twice."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlctl.benchmark.controls import CONTROLS, play_controls
from rlctl.benchmark.systems import System
from rlctl.config.load import game_hash
from rlctl.config.schema import Config
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.json_values import digest, json_text
from rlctl.evaluation.rollout import Rollout, RolloutPool
from rlctl.monitoring.progress import Progress, working
from rlctl.system.files import write_atomically


class RolloutCache:
    """Rollouts by policy, game and instance, a file for each policy and game.

    They are of use as long as the policy, the game, and the source of the campaign's package are the same.
    """

    def __init__(self, folder: Path, progress: Progress, workers: int) -> None:
        self._folder, self._progress, self._workers = folder, progress, workers
        self._files: dict[Path, dict[int, Rollout]] = {}

    def play(
        self, config: Config, factory: CampaignFactory, systems: Sequence[System], instances: Sequence[int], what: str
    ) -> dict[str, list[list[Rollout]]]:
        """The rollouts of each seed of each system on each instance; played now where they are not there.

        Args:
            what: the work, for the progress.
        """
        capacity, game = config.machine.capacity(), self.game(config, factory)
        players = {
            self._file(identity, game): policy
            for system in systems
            for identity, policy in zip(system.identity, system.policies, strict=True)
        }
        # Instance by instance, so that parts hold all systems.
        missing = [(file, i) for i in dict.fromkeys(instances) for file in players if i not in self._read(file)]
        if missing:
            work = working(self._progress, what, len(missing), "campaigns")
            with work, RolloutPool(factory, capacity, self._workers) as pool:
                for part in pool.run([(players[file], instance) for file, instance in missing]):
                    self._add((missing[n], rollout) for n, rollout in part.items())
                    self._progress.advance(len(part))
        return {
            system.name: [
                [self._read(self._file(identity, game))[instance] for instance in instances]
                for identity in system.identity
            ]
            for system in systems
        }

    def controls(
        self, config: Config, factory: CampaignFactory, system: System, instances: Sequence[int], what: str
    ) -> dict[str, list[Rollout]]:
        """What ``play_controls`` gives for a system of one seed; its own rollouts are under its name."""

        def make() -> Any:
            with working(self._progress, what, 1, "policies"):
                played = play_controls(factory, config.machine.capacity(), system.policies[0], instances)
            return {name: [asdict(one) for one in rollouts] for name, rollouts in played.items()}

        data = self.kept([*CONTROLS, system.identity[0], self.game(config, factory), *instances], make)
        own = system.policies[0].name
        return {system.name if name == own else name: list(map(_rollout, of)) for name, of in data.items()}

    def kept(self, key: Sequence[Any], make: Callable[[], Any]) -> Any:
        """What ``make`` gives, JSON-ready, made once for a key."""
        file = self._folder / f"{digest(list(key))[:24]}.json"
        if not file.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomically(file, json_text(make()) + "\n")
        return json.loads(file.read_text())

    @staticmethod
    def game(config: Config, factory: CampaignFactory) -> str:
        """Digest of the game and of the source of the campaign's package."""
        return digest([game_hash(config, factory), _source(factory)])

    def _file(self, identity: str, game: str) -> Path:
        return self._folder / f"{digest([identity, game])[:24]}.json"

    def _read(self, file: Path) -> dict[int, Rollout]:
        if file not in self._files:
            data = json.loads(file.read_text()) if file.exists() else []
            self._files[file] = {one["instance"]: _rollout(one) for one in data}
        return self._files[file]

    def _add(self, new: Iterable[tuple[tuple[Path, int], Rollout]]) -> None:
        changed = set()
        for (file, instance), rollout in new:
            self._files[file][instance] = rollout
            changed.add(file)
        self._folder.mkdir(parents=True, exist_ok=True)
        for file in changed:
            rows = ",\n".join(json.dumps(asdict(rollout)) for rollout in self._files[file].values())
            write_atomically(file, f"[{rows}]\n")


def _rollout(data: Mapping[str, Any]) -> Rollout:
    return Rollout(**{**data, "success_costs": tuple(data["success_costs"])})


def _source(factory: CampaignFactory) -> str:
    """Digest of the modules beside the one that makes the campaigns."""
    folder = Path(inspect.getfile(type(factory))).parent
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()
