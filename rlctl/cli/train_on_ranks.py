"""``rlctl train`` on MPI ranks: starting the ranks, and the work of each rank."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rlctl.api import check_train
from rlctl.cli.options import resume_command
from rlctl.config.load import load_config
from rlctl.config.schema import Config
from rlctl.core.errors import ConfigError
from rlctl.distributed.launch import launcher, status_file
from rlctl.distributed.launch.topology import TrainingShape, assign_roles, idle_ranks_warning
from rlctl.distributed.modes.multi_agent import agent_configs
from rlctl.monitoring.progress import progress
from rlctl.plugins.preflight import check_game, check_training
from rlctl.system.cores import usable_cores
from rlctl.system.watchdog import TIMEOUT, watching

log = logging.getLogger(__name__)

_MOST_PER_CORE = 4
_BATCH = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID", "FLUX_JOB_ID", "COBALT_JOBID")
"""Variables of batch jobs, whose nodes are not known here."""


def start_ranks(
    config: Config,
    out: Path,
    ranks: int,
    starter: launcher.LauncherName,
    resume: bool,
    sets: Sequence[str],
    options: Sequence[str],
) -> int:
    """Check the experiment once, then start the ranks; returns their exit code, see ``launcher.run``.

    Args:
        options: further options of ``rlctl train`` for the ranks.
    """
    shape = TrainingShape.of(check_train(config, out, resume).section.distributed)
    with config.source.located():
        assign_roles(ranks, shape)
        game = check_game(config)
        for one in agent_configs(config):
            check_training(one, game)
    if (warning := idle_ranks_warning(ranks, shape)) is not None:
        log.warning("--ranks: %s", warning)
    if (warning := _crowded(ranks)) is not None:
        log.warning("--ranks: %s", warning)
    program = [sys.executable, "-P", "-m", "rlctl", "train", str(config.source.path), f"--out={out}", *options]
    program += ["--resume"] * resume + [f"--set={text}" for text in sets]
    return launcher.run(program, ranks, starter, out, resume_command(resume), lambda: any(out.glob("checkpoints/*")))


def _crowded(ranks: int) -> str | None:
    """One line on far more ranks than cores on this machine; None: they fit, or run on the nodes of a batch job."""
    cores = usable_cores()[0]
    if ranks <= _MOST_PER_CORE * cores or any(name in os.environ for name in _BATCH):
        return None
    return f"{ranks} ranks share {cores} cores, and wait for each other: {cores + 1} ranks would keep them busy"


def be_rank(config: Path, out: Path, ranks: int | None, resume: bool, sets: Sequence[str], quiet: bool) -> list[Path]:
    """Train as one of several MPI ranks; an error here ends the job on all ranks.

    Returns:
        the folder of each agent's saved policy on rank 0, nothing on the others.
    """
    from rlctl.distributed.launch.abort import aborting_job

    with aborting_job() as rank:
        if ranks is not None:
            raise ConfigError("--ranks: mpiexec or srun has started the ranks already: omit either")
        loaded = load_config(config, sets)
        from rlctl.distributed.modes.rank import run_rank  # loads MPI

        with watching(loaded.evaluate.decision_timeout_s, TIMEOUT, signals=False):
            folder = run_rank(loaded, out, resume, progress(quiet or rank > 0))
    if rank > 0:
        return []
    status_file.report_exit_code(launcher.INTERRUPTED if folder is None else 0)
    if folder is None and not status_file.is_watched():
        again = shlex.join(resume_command(resume))
        print(f"rlctl: stopped; to resume on as many ranks: {again}", file=sys.stderr)
        sys.exit(launcher.INTERRUPTED)
    if folder is None:
        return []
    agents = len(loaded.train.distributed.agents) if loaded.train is not None else 0
    return [out / f"agent-{agent}" / folder.name for agent in range(agents)] or [folder]
