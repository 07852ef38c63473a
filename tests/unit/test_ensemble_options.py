"""Options of ensembles that make no sense."""

from __future__ import annotations

import pytest

from rlctl.core.errors import ConfigError
from rlctl.core.machine import Capacity
from rlctl_envs.ensemble.factory import Ensemble

WRONG = {
    "memory_mb": {"workload": {"memory_mb": [0, 100]}},
    "memory": {"workload": {"memory_mb": [-5, 100]}},
    "gains": {"workload": {"gpus": {"gains": [0, 4]}}},
    "traps_per_work": {"workload": {"trouble": {"traps_per_work": [-1, 2]}}},
    "trap_work": {"workload": {"trouble": {"trap_work": [-1, 2]}}},
    "kappa": {"workload": {"kappa": [-2, 0]}},
    "spread": {"workload": {"spread": [900, 1000]}},
    "kinds": {"workload": {"kinds": [10**8, 10**8]}},
    "goal": {"objective": {"goal": 3, "window_s": [0, 100]}},
    "allocation_s": {"objective": {"window_s": [500, 1000]}, "allocation_s": 400},
    "need": {"workload": {"gpus": {"need": 0.5}}},
    "no number of ranks": {"workload": {"memory_mb": [1e6, 1e6]}},
    "changes of nodes": {"nodes": {"losses_per_node_s": 1e-4}, "allocation_s": 1e12},
}


@pytest.mark.parametrize("said", list(WRONG))
def test_options_that_make_no_sense_are_refused_in_one_line(said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        Ensemble(WRONG[said]).check(Capacity(8, 2, memory_mb=1000), real=False)
    assert "\n" not in str(caught.value)
