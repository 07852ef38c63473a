"""The books of an allocation: nothing is given twice, what comes back is what went, and tasks go where they should."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlctl.core.machine import Capacity, NodeState
from rlctl.core.task import Resources
from rlctl.executors.node_share import WHOLE, Allocation, NodeShare, core_numbers, demand
from rlctl.executors.pool import NodePool

capacities = st.builds(
    Capacity,
    nodes=st.integers(1, 4),
    cores=st.integers(1, 6),
    gpus=st.integers(0, 3),
    memory_mb=st.none() | st.integers(1, 1000),
)
needs = st.builds(
    Resources,
    ranks=st.integers(1, 8),
    cores_per_rank=st.integers(1, 3),
    gpus_per_rank=st.sampled_from([0.0, 0.001, 0.1, 0.25, 1 / 3, 0.5, 0.999, 1.0, 1.5, 2.0]),
    memory_per_rank_mb=st.none() | st.integers(0, 400),
    nodes=st.none() | st.integers(1, 4),
)


def picture(pool: NodePool) -> list[NodeState]:
    return list(pool.states())


def within(capacity: Capacity, held: Sequence[Allocation]) -> None:
    """No core is held twice, and no device or memory of any node more than there is."""
    cores: Counter[tuple[int, int]] = Counter()
    shares: Counter[tuple[int, int]] = Counter()
    memory: Counter[int] = Counter()
    for allocation in held:
        for part in allocation:
            assert 0 <= part.node < capacity.nodes
            cores.update((part.node, core) for core in core_numbers(part.cores))
            for device, share in part.gpus:
                assert 0 <= device < capacity.gpus
                shares[part.node, device] += share
            memory[part.node] += part.memory_mb
    assert all(count == 1 for count in cores.values())
    assert all(core < capacity.cores for _, core in cores)
    assert all(share <= WHOLE for share in shares.values())
    if capacity.memory_mb is not None:
        assert all(used <= capacity.memory_mb for used in memory.values())


def asked(need: Resources, allocation: Allocation, capacity: Capacity) -> None:
    """A allocation holds what was asked for, rank by rank."""
    want = demand(need)
    assert sum(part.ranks for part in allocation) == need.ranks
    assert [part.node for part in allocation] == sorted({part.node for part in allocation})
    for part in allocation:
        assert part.ranks >= 1
        assert part.cores.bit_count() == part.ranks * need.cores_per_rank
        assert sum(share for _, share in part.gpus) == part.ranks * (want.share or want.devices * WHOLE)
        assert part.memory_mb == part.ranks * (need.memory_per_rank_mb or 0)
        if want.devices:
            assert all(share == WHOLE for _, share in part.gpus)


@given(capacities, st.lists(needs, max_size=30), st.data())
def test_no_core_thousandth_of_a_gpu_or_mebibyte_is_held_twice_and_all_that_comes_back_is_what_went(
    capacity: Capacity, wanted: list[Resources], data: st.DataObject
) -> None:
    pool = NodePool(capacity)
    before, held = picture(pool), list[Allocation]()
    for need in wanted:
        if held and data.draw(st.booleans(), "give one back"):
            pool.release(held.pop(data.draw(st.integers(0, len(held) - 1), "which")))
        allocation = pool.take(need)
        if allocation is not None:
            asked(need, allocation, capacity)
            held.append(allocation)
        within(capacity, held)
        free = picture(pool)
        taken = [part for allocation in held for part in allocation]
        assert sum(node.free_cores for node in free) == capacity.total_cores - sum(p.cores.bit_count() for p in taken)
        shares = sum(share for part in taken for _, share in part.gpus)
        assert sum(node.free_gpus for node in free) == pytest.approx(capacity.nodes * capacity.gpus - shares / WHOLE)
    for allocation in held:
        pool.release(allocation)
    assert picture(pool) == before


@given(capacities, st.lists(needs, max_size=12), needs)
def test_a_task_is_refused_only_where_it_does_not_fit(
    capacity: Capacity, others: list[Resources], need: Resources
) -> None:
    pool = NodePool(capacity)
    for other in others:
        pool.take(other)
    room, want = pool.room(need), demand(need)
    if want.nodes is None:
        fits = sum(room) >= need.ranks
    else:
        fits = sum(ranks >= -(-need.ranks // want.nodes) for ranks in room) >= want.nodes
    assert (pool.take(need) is not None) == fits


@given(capacities, needs)
def test_what_fits_an_empty_allocation_is_said_to_fit_and_nothing_else_ever_does(
    capacity: Capacity, need: Resources
) -> None:
    pool = NodePool(capacity)
    possible = pool.ever(need)
    assert (pool.take(need) is not None) == possible
    assert pool.ever(need) == possible, "what is taken does not matter"


@given(capacities, needs)
def test_ranks_over_a_number_of_nodes_differ_by_one_at_most(capacity: Capacity, need: Resources) -> None:
    allocation = NodePool(capacity).take(need)
    if allocation is not None and need.nodes is not None:
        ranks = [part.ranks for part in allocation]
        assert len(ranks) == min(need.nodes, need.ranks)
        assert max(ranks) - min(ranks) <= 1


def test_a_gang_stays_on_the_fullest_node_that_has_room_for_all_of_it() -> None:
    pool = NodePool(Capacity(nodes=3, cores=4))
    for ranks in (3, 2):
        pool.take(Resources(ranks=ranks))  # nodes 0 and 1: 1 and 2 free
    allocation = pool.take(Resources(ranks=2))
    assert allocation is not None
    assert [(part.node, part.ranks) for part in allocation] == [(1, 2)]


def test_a_gang_that_no_node_holds_takes_as_few_nodes_as_possible() -> None:
    pool = NodePool(Capacity(nodes=4, cores=4))
    for _ in range(2):
        pool.take(Resources(ranks=3))  # one core is left on each of two nodes
    allocation = pool.take(Resources(ranks=8))
    assert allocation is not None
    assert [(part.node, part.ranks) for part in allocation] == [(2, 4), (3, 4)]
    assert pool.take(Resources(ranks=3)) is None
    assert pool.take(Resources(ranks=2)) is not None


def test_shares_of_a_gpu_fill_one_device_before_they_open_another() -> None:
    pool = NodePool(Capacity(nodes=1, cores=8, gpus=2))
    devices = [pool.take(Resources(gpus_per_rank=0.25)) for _ in range(5)]
    assert [allocation[0].gpus for allocation in devices if allocation] == [((0, 250),)] * 4 + [((1, 250),)]
    assert pool.take(Resources(gpus_per_rank=1.0)) is None


@pytest.mark.parametrize("share", [1 / 3, 0.1, 0.7])
def test_a_device_is_whole_again_after_any_shares_have_been_given_back(share: float) -> None:
    pool = NodePool(Capacity(nodes=1, cores=100, gpus=1))
    for _ in range(50):
        held = []
        while (allocation := pool.take(Resources(gpus_per_rank=share))) is not None:
            held.append(allocation)
        assert len(held) == int(1 / share + 1e-9)
        for allocation in held:
            pool.release(allocation)
    assert pool.take(Resources(gpus_per_rank=1.0)) is not None


class Prefers:
    """Wants the given node, then the rest in falling order."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.seen: list[NodeState] = []

    def score(self, need: Resources, node: NodeState) -> float:
        self.seen.append(node)
        return 1e6 if node.index == self.index else node.index


@given(st.integers(0, 3), st.sampled_from([Resources(), Resources(ranks=2), Resources(ranks=2, nodes=1)]))
def test_scoring_decides_the_node(index: int, need: Resources) -> None:
    scoring = Prefers(index)
    pool = NodePool(Capacity(nodes=4, cores=2, gpus=1, memory_mb=7), scoring)
    allocation = pool.take(need)
    assert allocation is not None
    assert [part.node for part in allocation] == [index]
    assert {node.index for node in scoring.seen} == {0, 1, 2, 3}
    assert scoring.seen[0] == NodeState(scoring.seen[0].index, 2, 2, 1, 1.0, 7)
    while (again := pool.take(Resources())) is not None:
        assert again[0].node == index or all(state.index != index or not state.free_cores for state in picture(pool))


def test_scoring_is_never_asked_about_a_node_without_room() -> None:
    scoring = Prefers(1)
    pool = NodePool(Capacity(nodes=2, cores=1), scoring)
    assert pool.take(Resources()) is not None
    scoring.seen.clear()
    allocation = pool.take(Resources())
    assert allocation is not None
    assert allocation[0].node == 0
    assert [node.index for node in scoring.seen] == [0]


@given(capacities, st.lists(needs, max_size=10), st.integers(0, 3))
def test_nothing_is_placed_on_nodes_that_are_avoided_or_down(
    capacity: Capacity, wanted: list[Resources], node: int
) -> None:
    avoiding, lacking = NodePool(capacity), NodePool(capacity)
    if node < capacity.nodes:
        lacking.use(node, False)
    for need in wanted:
        for allocation in (avoiding.take(need, [node]), lacking.take(need)):
            assert allocation is None or all(part.node != node for part in allocation)


@given(capacities, st.lists(needs, max_size=10))
def test_a_placement_can_be_occupied_again_exactly_once(capacity: Capacity, wanted: list[Resources]) -> None:
    pool = NodePool(capacity)
    held = [allocation for need in wanted if (allocation := pool.take(need)) is not None]
    other = NodePool(capacity)
    for allocation in held:
        assert other.occupy(allocation)
    assert picture(other) == picture(pool)
    for allocation in held:
        if any(part.cores for part in allocation):
            before = picture(other)
            assert not other.occupy(allocation)
            assert picture(other) == before, "a refusal changes nothing"


def test_a_placement_that_memory_has_no_room_for_is_not_occupied() -> None:
    pool = NodePool(Capacity(nodes=1, cores=4, memory_mb=100))
    assert pool.take(Resources(memory_per_rank_mb=80)) is not None
    assert not pool.occupy((NodeShare(0, 1, 0b1000, (), 50),))


@pytest.mark.parametrize("part", [NodeShare(2, 1, 1), NodeShare(0, 1, 1, ((1, 500),)), NodeShare(0, 1, 0b100)])
def test_a_placement_on_what_is_not_there_is_not_occupied(part: NodeShare) -> None:
    assert not NodePool(Capacity(nodes=2, cores=2, gpus=1)).occupy((part,))


@given(capacities, st.integers(0, 6), st.integers(0, 6), st.lists(needs, max_size=6))
def test_resizing_names_the_nodes_that_go_and_keeps_the_books_of_those_that_stay(
    capacity: Capacity, first: int, second: int, wanted: list[Resources]
) -> None:
    pool = NodePool(capacity)
    held = [allocation for need in wanted if (allocation := pool.take(need)) is not None]
    assert pool.resize(first) == list(range(first, capacity.nodes))
    assert pool.nodes == first
    assert pool.resize(second) == list(range(second, first))
    for allocation in held:
        pool.release(allocation)
    whole = NodeState(0, capacity.cores, capacity.cores, capacity.gpus, capacity.gpus, capacity.memory_mb)
    assert [(n.free_cores, n.free_gpus, n.free_memory_mb) for n in picture(pool)] == [
        (whole.free_cores, whole.free_gpus, whole.free_memory_mb)
    ] * second


@given(capacities, st.lists(needs, max_size=6), needs)
def test_a_copy_tells_what_would_be_and_leaves_the_books_alone(
    capacity: Capacity, wanted: list[Resources], need: Resources
) -> None:
    pool = NodePool(capacity)
    for other in wanted:
        pool.take(other)
    before = picture(pool)
    trial = pool.copy().take(need)
    assert picture(pool) == before
    assert pool.take(need) == trial
