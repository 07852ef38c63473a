"""Several agents that learn side by side in one job, with configurations of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rlctl.config.schema import Config


def agent_config(config: Config, out: Path, agent: int) -> tuple[Config, Path]:
    """Configuration and folder of one of several agents; those given, for the only one."""
    section = config.training
    entries = section.distributed.agents
    if not entries or agent < 0:
        return config, out
    entry = entries[agent]
    seed = config.seed if section.seed is None else section.seed
    own = int(np.random.SeedSequence([seed, agent]).generate_state(1)[0]) if entry.seed is None else entry.seed
    train = section.model_copy(update={"seed": own, "options": {**section.options, **entry.options}})
    return config.model_copy(update={"train": train}), out / f"agent-{agent}"


def agent_configs(config: Config) -> Iterator[Config]:
    """The configuration of each agent."""
    for agent in range(max(1, len(config.training.distributed.agents))):
        yield agent_config(config, Path(), agent)[0]
