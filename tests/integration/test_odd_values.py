"""Whatever values of a task are accepted, the task comes to an end on a machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_values import FIELDS, ODD_VALUES, comes_to_an_end, spec

from rlctl.core.errors import RequestError
from rlctl.core.machine import Capacity
from rlctl.core.task import TaskId
from rlctl.executors import LocalExecutor
from rlctl.executors.local.options import LocalOptions


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder, how = tmp_path_factory.mktemp("odd") / "a" / "b", LocalOptions(lease_s=0.0, pin=False, oversubscribe=True)
    with LocalExecutor(Capacity(cores=4), folder, eager=True, options=how) as executor:
        yield executor


def test_whatever_is_acceptedcomes_to_an_end_on_a_machine(machine: LocalExecutor) -> None:
    number = iter(range(10**6))

    @settings(deadline=None)
    @given(st.dictionaries(st.sampled_from(FIELDS), ODD_VALUES, min_size=1, max_size=2))
    def run(options: dict[str, Any]) -> None:
        uid = options.get("uid", "")
        try:
            made = spec(**options)
            made = replace(made, uid=TaskId(f"{made.uid}{next(number)}"), priority=0.0)
        except RequestError:
            return
        assert isinstance(uid, str)
        comes_to_an_end(machine, made)

    run()
