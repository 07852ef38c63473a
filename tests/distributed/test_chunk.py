"""Chunks: what is recorded is what arrives, and what was acknowledged is on disk."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlctl.distributed.comm.chunk import ChunkRecorder, decode_chunk
from rlctl.distributed.comm.transition_spec import EpisodeEnd, Seeds, Step, TransitionSpec
from rlctl.distributed.learner.chunk_log import ChunkLog

LAYOUT = TransitionSpec(3, 2, 1, 2)
FIELDS = {"reward": "rewards", "duration": "durations", "terminated": "terminated", "truncated": "truncated"}


def steps(random, layout, count, number, end_share):
    """Random steps, with ends of episodes among them."""
    made = []
    for _ in range(number):
        over = random.random(count) < end_share
        cut = over & (random.random(count) < 0.5)
        ended = [
            EpisodeEnd(int(i), random.random(layout.width).astype("f4"), float(random.normal()), 7, {"successes": 2.0})
            for i in np.flatnonzero(over)
        ]
        made.append(
            (
                random.random((count, layout.width)).astype("f4"),
                random.random((count, layout.n_action)).astype("f4"),
                random.random(count).astype("f4"),
                Step(
                    random.random((count, layout.width)).astype("f4"),
                    random.random(count).astype("f4"),
                    random.random(count).astype("f4"),
                    over & ~cut,
                    cut,
                    ended,
                    ["t1"] if over.any() else (),
                ),
            )
        )
    return made


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 5),
    number=st.integers(1, 9),
    end_share=st.sampled_from([0.0, 0.3, 1.0]),
    state=st.integers(0, 3),
)
def test_what_is_recorded_is_what_arrives(seed, count, number, end_share, state):
    random = np.random.default_rng(seed)
    recorder = ChunkRecorder(LAYOUT, 5, count, 9, state)
    for _ in range(2):  # its arrays are used again
        made = steps(random, LAYOUT, count, number, end_share)
        memory = random.random((count, state)).astype("f4")
        recorder.start(memory)
        for i, (rows, actions, log_probs, step) in enumerate(made):
            recorder.add(rows, actions, log_probs, step, 40 + i)
        last = made[-1][3].observations
        sent = recorder.encode(last, {"raised": 3}, 2.5, 1.5)
        chunk = decode_chunk(sent.copy(), LAYOUT)
    assert (chunk.actor, chunk.number, chunk.size) == (5, 1, count * number)
    assert (chunk.failures, chunk.elapsed_s, chunk.busy_s) == ({"raised": 3}, 2.5, 1.5)
    assert np.array_equal(chunk.transitions["version"], np.repeat(40 + np.arange(number), count).reshape(number, count))
    assert np.array_equal(chunk.state, memory)
    for name, at in (("observation", 0), ("action", 1), ("log_prob", 2)):
        assert np.array_equal(chunk.transitions[name], np.stack([m[at] for m in made]))
    for name, of_step in FIELDS.items():
        assert np.array_equal(chunk.transitions[name], np.stack([getattr(m[3], of_step) for m in made]))
    expected = [(at, ended) for at, m in enumerate(made) for ended in m[3].episode_ends]
    assert [(at, e.environment, e.episode_return, e.length, e.metrics) for at, e in chunk.episode_ends] == [
        (at, e.environment, e.episode_return, e.length, e.metrics) for at, e in expected
    ]
    following = np.concatenate([chunk.transitions["observation"][1:], last[None]])
    for at, ended in expected:
        following[at, ended.environment] = ended.observation
    assert np.array_equal(chunk.next_observations(), following)


def encoded(number):
    random = np.random.default_rng(number)
    recorder = ChunkRecorder(LAYOUT, 0, 2, 4)
    recorder.number = number
    recorder.start()
    for rows, actions, log_probs, step in steps(random, LAYOUT, 2, 4, 0.3):
        recorder.add(rows, actions, log_probs, step, number)
    return recorder.encode(np.zeros((2, LAYOUT.width), "f4"), {}, 1.0, 1.0).copy()


@pytest.mark.parametrize("damage", ["short", "long", "foreign", "empty"])
def test_what_is_no_chunk_is_refused(damage):
    data = encoded(0)
    damaged = {"short": data[:-1], "long": np.append(data, data[:4]), "foreign": data[::-1].copy(), "empty": data[:0]}
    with pytest.raises(ValueError, match="message"):
        decode_chunk(damaged[damage], LAYOUT)


def test_a_log_gives_back_what_came_after_the_checkpoint(tmp_path):
    log = ChunkLog(tmp_path)
    first, second, third = encoded(0), encoded(1), encoded(2)
    log.append(first)
    log.append(second)
    log.flush()
    segment = log.begin_segment([second])  # the first was learned from
    log.append(third)
    log.flush()
    log.forget_before(segment)
    again = ChunkLog(tmp_path)  # the learner was killed, and begins anew
    assert [decode_chunk(data, LAYOUT).number for data in again.read_from(segment)] == [1, 2]
    assert len(list(tmp_path.iterdir())) == 2
    log.close()
    again.close()


@pytest.mark.parametrize("cut", [1, 7, 8, 9, 100])
def test_a_record_that_was_cut_off_was_never_acknowledged(tmp_path, cut):
    log = ChunkLog(tmp_path)
    for number in range(2):
        log.append(encoded(number))
    log.close()
    path = next(tmp_path.iterdir())
    path.write_bytes(path.read_bytes()[:-cut])
    again = ChunkLog(tmp_path)
    assert [decode_chunk(data, LAYOUT).number for data in again.read_from(0)] == [0]
    again.append(encoded(5))  # what follows goes into a segment of its own
    again.flush()
    assert [decode_chunk(data, LAYOUT).number for data in again.read_from(0)] == [0, 5]
    again.close()


def test_seeds_differ_between_agents_environments_and_episodes():
    drawn = {
        Seeds(s, a, f).episode(e, k)
        for s in range(3)
        for a in range(3)
        for f in (0, 4)
        for e in range(4)
        for k in range(3)
    }
    assert len(drawn) == 3 * 3 * 8 * 3
    assert Seeds(1, 2, 4).episode(1, 3) == Seeds(1, 2, 5).episode(0, 3)
