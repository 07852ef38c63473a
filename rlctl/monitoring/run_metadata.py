"""What a run is about, as texts of the board and as a row of its HParams page."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import yaml

from rlctl.config.load import config_data
from rlctl.config.provenance import provenance
from rlctl.monitoring.board import Board, Leaf

if TYPE_CHECKING:
    from rlctl.config.schema import Config


def write_about(board: Board, config: Config, factory: object, run: Mapping[str, Leaf], command: str) -> None:
    """Write the texts, the layout of the charts, and the beginning of the session.

    Args:
        run: what sets this run apart, such as its kind, policy and instance.
        command: does it again, given the configuration as ``experiment.yaml``.
    """
    data, machine = config_data(config), config.machine
    said = (inspect.getdoc(type(factory)) or "").partition("\n")[0]
    who = ", ".join(f"{key} {value}" for key, value in run.items())
    goal = f"**{config.campaign.name}** - {said}\n\n{who}\n\n" + "; ".join(
        f"{g.nodes} nodes with {g.cores} cores and {g.gpus} GPUs each" for g in machine.capacity().kinds
    )
    board.layout()
    board.text("about/goal", goal)
    board.text("about/configuration", _code(yaml.safe_dump(data, sort_keys=False)))
    board.text("about/versions", _code(json.dumps(provenance(), indent=2)))
    board.text("about/reproduce", "with the configuration above as `experiment.yaml`:\n\n" + _code(command))
    board.begin_session({**run, **dict(leaves(data))})


def leaves(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Leaf]]:
    """The values of a configuration by dotted key; what is not set is left out.

    >>> dict(leaves({"train": {"seed": None, "net": [8, 8]}, "seed": 1}))
    {'train.net': '[8, 8]', 'seed': 1}
    """
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        elif isinstance(value, bool | int | float | str):
            yield f"{prefix}{key}", value
        elif value is not None:
            yield f"{prefix}{key}", json.dumps(value)


def _code(text: str) -> str:
    """A block of code in Markdown."""
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines())
