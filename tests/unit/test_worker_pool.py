"""Slots of workers: never more tasks than workers, none on a node that is not there, nothing lost or gained."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from rlctl.core.machine import Capacity
from rlctl.core.task import Resources
from rlctl.executors.node_share import Allocation
from rlctl.executors.parsl.worker_slots import WorkerSlots


def up(pool: WorkerSlots) -> int:
    return len(list(pool.states()))


STEPS = st.lists(
    st.tuples(st.sampled_from(["take", "give", "connect", "resize"]), st.integers(0, 12)),
    max_size=60,
)


@given(per_node=st.integers(1, 3), steps=STEPS)
def test_whatever_comes_and_goes_the_slots_are_right(per_node: int, steps: list[tuple[str, int]]) -> None:
    pool = WorkerSlots(Capacity(nodes=3, cores=4), None, per_node)
    held: list[Allocation] = []
    workers, wanted = 0, 3
    for what, number in steps:
        if what == "take":
            before = len(held)
            placement = pool.copy().take(Resources(ranks=1 + number % 2))
            found = pool.take(Resources(ranks=1 + number % 2))
            assert found == placement
            if found is not None:
                held.append(found)
                assert before < workers
                assert len(found) == 1
                assert found[0].node < wanted
        elif what == "give" and held:
            pool.release(held.pop(number % len(held)))
        elif what == "connect":
            workers = number
            pool.change((), workers)
        elif what == "resize":
            wanted = number % 5
            pool.resize(wanted)
        assert max(Counter(part.node for place in held for part in place).values(), default=0) <= per_node
        busy = {part.node for place in held for part in place}
        assert up(pool) <= max(min(wanted, -(-workers // per_node)), len(busy))
    for placement in held:
        pool.release(placement)
    assert up(pool) == min(wanted, -(-workers // per_node))
    assert all(node.free_cores == 4 for node in pool.states())


def test_what_would_fit_if_all_workers_were_there_is_not_refused() -> None:
    pool = WorkerSlots(Capacity(nodes=2, cores=4, gpus=1))
    assert pool.ever(Resources(ranks=4))
    assert not pool.ever(Resources(ranks=5))
    assert not pool.ever(Resources(ranks=2, nodes=2))
    assert pool.take(Resources()) is None


def test_a_busy_node_stays_until_its_task_has_ended() -> None:
    pool = WorkerSlots(Capacity(nodes=2, cores=1))
    pool.change((), 2)
    first, second = pool.take(Resources()), pool.take(Resources())
    assert first is not None
    assert second is not None
    pool.change((), 1)
    assert up(pool) == 2
    pool.release(first)
    assert up(pool) == 1
    assert pool.take(Resources()) is None
    pool.release(second)
    assert pool.take(Resources()) is not None
