from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rlctl.executors.slots import Slots
from rlctl.task import Resources

needs = st.builds(
    Resources,
    ranks=st.integers(1, 3),
    cores_per_rank=st.integers(1, 2),
    gpus_per_rank=st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0]),
)


@given(st.lists(needs, max_size=12), st.data())
def test_no_core_is_given_twice_and_no_gpu_more_than_whole(wanted: list[Resources], data: st.DataObject) -> None:
    slots = Slots(range(4), ["a", "b"])
    held = []
    for need in wanted:
        if held and data.draw(st.booleans()):
            slots.give(held.pop(data.draw(st.integers(0, len(held) - 1))))
        placement = slots.take(need)
        if placement is not None:
            assert len(placement.cores) == need.cores
            assert abs(sum(share for _, share in placement.gpus) - need.gpus) < 1e-9
            held.append(placement)
        cores = [core for placement in held for core in placement.cores]
        assert len(cores) == len(set(cores))
        for device in ("a", "b"):
            assert sum(share for p in held for name, share in p.gpus if name == device) <= 1.0 + 1e-9
    for placement in held:
        slots.give(placement)
    assert slots.take(Resources(ranks=2, cores_per_rank=2, gpus_per_rank=1.0)) is not None
