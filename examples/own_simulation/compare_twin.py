"""Measures the twin: what the program did in a steered run, and what the twin says of the same tasks.

Its argument is the run folder.
"""

import sys
from pathlib import Path

from rlctl.core.simulation import Launch
from rlctl.core.task import TaskSpec, TaskState
from rlctl.plugins.registry import configured_campaign
from rlctl.steering.run_folder import read_run


def main(folder):
    """One line for each task that ended well."""
    run = read_run(Path(folder))
    twin = configured_campaign(run.config).task_model(run.header["instance"])
    for task in run.timeline.attempts:
        if task.state is TaskState.DONE:
            spec = TaskSpec(task.uid, executable="python", parameters=task.parameters)
            told = twin.outcomes([Launch(spec, task.attempt)])[0]
            figures = [("seconds", task.ended_s - task.started_s, told.duration_s)]
            figures += [(name, task.values[name], told.values[name]) for name in told.values]
            print(task.uid, dict(task.parameters), *(f"| {name} {real:.2f}, twin {t:.2f}" for name, real, t in figures))


if __name__ == "__main__":
    main(sys.argv[1])
