"""Keeps the network of each checkpoint, and says which of them plays best on the twin."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlctl.evaluation.cheapest import cheapest
from rlctl.evaluation.rollout import VALIDATION, draw_instances
from rlctl.monitoring.progress import Progress, working

if TYPE_CHECKING:
    from rlctl.config.schema import Config
    from rlctl.core.campaign_factory import CampaignFactory
    from rlctl.core.policy import Policy

log = logging.getLogger(__name__)

BATCH = 1
"""Of the instances for validation; ``tune`` has the first batch."""
FEWEST = 16
"""Instances that all candidates play."""


class Candidates:
    """Networks of one training by the number of decisions after which they were kept, ``FOLDER/<decisions>.pt``."""

    def __init__(self, folder: Path, config: Config, factory: CampaignFactory | None) -> None:
        self._folder, self._config, self._factory = folder, config, factory
        self._instances = 0 if factory is None else config.training.judgement_instances

    def keep(self, model: Any) -> None:
        """Write the network as it is now."""
        if not self._instances:
            return
        path = self._folder / f"{model.num_timesteps:012d}.pt"
        unfinished = path.with_suffix(".part")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            torch.save(model.policy.state_dict(), unfinished)
            os.replace(unfinished, path)
        except (OSError, RuntimeError) as error:  # PyTorch's own for a full disk
            log.warning("%s is not kept to choose from: %s", path, " ".join(str(error).split())[:200])

    def choose(
        self, model: Any, deployed: Callable[[Any], Policy], progress: Progress, stop: Callable[[], bool]
    ) -> int:
        """Give the model the network that costs least for a success.

        Returns:
            decisions after which it was kept.
        """
        for unfinished in self._folder.glob("*.part"):
            unfinished.unlink()
        found = {int(path.stem): path for path in sorted(self._folder.glob("*.pt"))}
        found = {decisions: path for decisions, path in found.items() if decisions <= model.num_timesteps}
        best = int(model.num_timesteps)
        if self._instances and len(found) > 1 and not stop():
            players: dict[int, Policy] = {}
            for decisions, path in found.items():
                model.policy.load_state_dict(_read(path, model))
                players[decisions] = deployed(model)
            instances = draw_instances(self._config.seed, VALIDATION, self._instances, BATCH)
            assert self._factory is not None
            with working(progress, "choosing among checkpoints", len(instances), "instances"):
                best = cheapest(self._factory, self._config.machine.capacity(), players, instances, FEWEST, stop)
            model.policy.load_state_dict(_read(found[best], model))
        return best


def _read(path: Path, model: Any) -> Any:
    return torch.load(path, map_location=model.device, weights_only=True)
