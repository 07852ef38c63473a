"""The main function of an MPI rank of a training, whatever its role."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rlctl.config.schema import Config
from rlctl.distributed.comm.rma_weights import WeightsWindow
from rlctl.distributed.launch.mpi_context import open_mpi_context
from rlctl.distributed.launch.topology import Role, TrainingShape
from rlctl.distributed.modes.actor_rank import run_actor
from rlctl.distributed.modes.learner_rank import run_learner
from rlctl.distributed.modes.multi_agent import agent_config
from rlctl.evaluation.gate import judge_trained

if TYPE_CHECKING:
    from rlctl.monitoring.progress import Progress


def run_rank(config: Config, out: Path, resume: bool, progress: Progress) -> Path | None:
    """Run this rank in its role; returns when the job has ended on all ranks.

    Returns:
        on rank 0 the folder of the saved policy, or None if it was asked to stop and has written a checkpoint.

    Raises:
        ConfigError: see ``rlctl.train``.
    """
    distributed = config.training.distributed
    with open_mpi_context(TrainingShape.of(distributed)) as context:
        own = context.assignment
        config, out = agent_config(config, out, own.agent)
        window = None
        if distributed.mode == "asynchronous" and distributed.weights == "window" and context.agent is not None:
            window = WeightsWindow(context.agent, own.learner)
        match own.role:
            case Role.LEARNER:
                folder = run_learner(config, out, resume, progress, context, window)
                if folder is not None:  # the other ranks sleep until this one ends
                    try:
                        judge_trained(config, folder, progress, context.stop)
                    except KeyboardInterrupt:
                        return None
                return folder
            case Role.ACTOR | Role.ENVIRONMENT:
                run_actor(config, out, own, context.agent, own.learner, context.environment, window)
    return None
