"""Writes the metadata of a run to TensorBoard: texts and a row of the HParams page."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any

import yaml

from rlctl.config.load import config_data
from rlctl.config.provenance import provenance
from rlctl.config.schema import Config
from rlctl.core.json_values import leaves
from rlctl.monitoring.summary_writer import Leaf, SummaryWriter


def write_run_metadata(
    writer: SummaryWriter, config: Config, factory: object, run: Mapping[str, Leaf], command: str
) -> None:
    """Write the texts, the chart layout and the start of the HParams session.

    ``run`` distinguishes this run, e.g. by kind, policy and instance; ``command`` repeats it.
    """
    data, machine = config_data(config), config.machine
    summary = (inspect.getdoc(type(factory)) or "").partition("\n")[0]
    identity = ", ".join(f"{key} {value}" for key, value in run.items())
    goal = f"**{config.campaign.name}** - {summary}\n\n{identity}\n\n" + "; ".join(
        f"{g.nodes} nodes with {g.cores} cores and {g.gpus} GPUs each" for g in machine.capacity().kinds
    )
    writer.layout()
    writer.text("about/goal", goal)
    writer.text("about/configuration", _code(yaml.safe_dump(data, sort_keys=False)))
    writer.text("about/versions", _code(json.dumps(provenance(), indent=2)))
    writer.text("about/reproduce", "with the configuration above as `experiment.yaml`:\n\n" + _code(command))
    writer.begin_session({**run, **_flat(data)})


def _flat(data: Mapping[str, Any]) -> dict[str, Leaf]:
    """Values of a configuration by dotted key, without those that are None; lists as text."""
    return {
        ".".join(path): value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for path, value in leaves(data, lists=False)
        if value is not None
    }


def _code(text: str) -> str:
    """A code block in Markdown."""
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines())
