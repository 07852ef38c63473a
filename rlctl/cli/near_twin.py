"""What ``train`` and ``tune`` say of a fitted twin before they begin."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlctl.config.schema import Config


def near_config(path: Path, sets: Sequence[str] | None, quiet: bool) -> Config:
    """Load a configuration for training or tuning; say how far its fitted twin was from the last real run.

    Raises:
        ConfigError: the twin is farther from it than the configuration allows.
    """
    from rlctl.config.load import load_config
    from rlctl.steering.twin_check import twin_distance

    config = load_config(path, sets or ())
    distance = twin_distance(config)
    if distance is not None and not quiet:
        print(distance.to_text(), file=sys.stderr, flush=True)
    return config
