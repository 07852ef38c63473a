"""The command that judges a saved policy anew."""

from __future__ import annotations

from typing import Annotated

import typer

from rlctl.cli.experiment import ConfigFile, PolicyName, Sets
from rlctl.cli.options import Json, Level, LogLevel, say
from rlctl.monitoring.progress import progress


def judge(
    config: ConfigFile,
    policy: PolicyName,
    instances: Annotated[
        int | None, typer.Option(min=1, help="Number of instances; by default that of the configuration.")
    ] = None,
    sets: Sets = None,
    as_json: Json = False,
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Judge a saved policy against the rules as train does in the end, after a rule was tuned or added.

    The judgement goes into the policy's manifest, where steer and check find it.
    """
    from rlctl import api
    from rlctl.config.load import load_config

    judgement = api.judge(load_config(config, sets or ()), policy, instances=instances, progress=progress(as_json))
    say(as_json, judgement.model_dump(mode="json"), f"judged: {judgement.reason(judgement.policy.policy)}")
