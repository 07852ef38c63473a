"""Actors and their learner: nobody waits for the slow, nothing acknowledged is lost, and who is silent is gone."""

import threading
import time
from collections import Counter

import numpy as np
import pytest
from gymnasium import spaces
from queues import LEARNER, Switchboard

from rlctl.core.errors import RanksLostError
from rlctl.distributed.actor.loop import Actor, ChunkLimits
from rlctl.distributed.comm.heartbeat import Heartbeat
from rlctl.distributed.comm.transition_spec import EpisodeEnd, Step, TransitionSpec
from rlctl.distributed.comm.transport import MessageKind
from rlctl.distributed.learner.actor_registry import ActorRegistry
from rlctl.distributed.learner.chunk_log import ChunkLog
from rlctl.distributed.learner.collector import Collector

LAYOUT = TransitionSpec(1, 0, 0, 1)
SPEC = {"network": {"hidden": []}, "greedy": False}
WEIGHTS = np.zeros(4, np.float32)
FOUR = ChunkLimits(4, 30.0)


class Counting:
    """Environments that show how many steps they have made; each episode is ``length`` long."""

    def __init__(self, count=1, length=5, pace_s=0.0, hold=None):
        self.count, self.length, self.pace_s, self.hold = count, length, pace_s, hold
        self.transition_spec = LAYOUT
        self.observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.failures = {}
        self.episodes = [0] * count
        self.age = 0
        self.closed = False

    def reset(self):
        return np.zeros((self.count, 1), np.float32)

    def step(self, actions):
        time.sleep(self.pace_s)
        if self.hold is not None:
            self.hold.wait(20)
        self.age += 1
        over = np.full(self.count, self.age % self.length == 0)
        rows = np.full((self.count, 1), self.age, np.float32)
        ended = [EpisodeEnd(i, rows[i], float(self.age), self.length) for i in np.flatnonzero(over)]
        self.episodes = [n + bool(over[0]) for n in self.episodes]
        ones = np.ones(self.count, np.float32)
        return Step(rows, ones, ones, over, np.zeros_like(over), ended)

    def close(self):
        self.closed = True


class Ensemble:
    """Actors in threads, and their collector."""

    def __init__(self, worlds, lease_s=30.0, cut=FOUR, chunk_log=None, replace=None):
        self.board = Switchboard()
        self.cut, self.lease_s = cut, lease_s
        peers = {number: (0, number + 1) for number in range(len(worlds))}
        self.registry = ActorRegistry(peers, lease_s, replace, 1)
        self.collector = Collector(self.board.end(LEARNER), self.registry, lease_s, chunk_log)
        self.actors, self.threads = {}, []
        for number, world in enumerate(worlds):
            self.start(number, peers[number], world)

    def start(self, number, peer, world):
        actor = Actor(number, world, self.board.end(peer), LEARNER, self.cut, self.lease_s, [1, 0, number])
        self.actors[number] = actor
        thread = threading.Thread(target=actor.run, daemon=True)
        thread.start()
        self.threads.append(thread)

    def publish(self):
        self.collector.publish(SPEC, WEIGHTS)
        self.collector.wait_for_actor(lambda: False)

    def gather(self, transitions):
        until = time.monotonic() + 20
        return self.collector.next_batch(transitions, lambda: time.monotonic() > until)

    def stop(self):
        left = self.collector.stop()
        for thread in self.threads:
            thread.join(10)
        return left


def test_a_slow_actor_holds_up_nobody():
    ensemble = Ensemble([Counting(), Counting(), Counting(pace_s=3.0)])
    ensemble.publish()
    counts = Counter(chunk.actor for chunk in ensemble.gather(400))
    assert counts[0] > 30
    assert counts[1] > 30
    assert counts[2] == 0
    ensemble.board.cut((0, 3))
    assert ensemble.stop() == []


def test_every_step_arrives_once_and_in_order_with_the_policy_that_chose_it():
    ensemble = Ensemble([Counting(count=2)])
    ensemble.publish()
    chunks = ensemble.gather(40)
    ensemble.publish()
    chunks += ensemble.gather(80)
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    seen = np.concatenate([chunk.transitions["observation"][:, 0, 0] for chunk in chunks])
    assert seen.tolist() == list(range(len(seen)))
    versions = np.concatenate([chunk.transitions["version"][:, 0] for chunk in chunks])
    assert (np.diff(versions) >= 0).all()
    assert set(versions) == {1, 2}
    assert sum(len(chunk.episode_ends) for chunk in chunks) == 2 * (len(seen) // 5)
    assert ensemble.stop() == []
    assert ensemble.actors[0].envs.closed


def test_one_chunk_is_outstanding_and_no_more():
    ensemble = Ensemble([Counting()])
    ensemble.publish()
    time.sleep(0.5)  # far longer than many chunks take
    sent = [kind for source, _, kind in ensemble.board.sent if source == (0, 1)]
    assert sent.count(MessageKind.CHUNK) == 1
    assert ensemble.actors[0].envs.age == 8  # and one more is ready
    ensemble.gather(4)
    assert ensemble.stop() == []


@pytest.mark.parametrize(
    ("cut", "sizes"),
    [(ChunkLimits(3, 30.0), {3}), (ChunkLimits(100, 30.0, episode=True), {5}), (ChunkLimits(100, 0.0), {1})],
)
def test_a_chunk_is_cut_by_steps_seconds_or_the_end_of_an_episode(cut, sizes):
    ensemble = Ensemble([Counting()], cut=cut)
    ensemble.publish()
    assert {chunk.size for chunk in ensemble.gather(20)} == sizes
    assert ensemble.stop() == []


def test_the_dead_are_missed_by_nobody_and_replaced_where_that_can_be_done():
    def replace(number):
        peer = (1, number)
        ensemble.start(number, peer, Counting(pace_s=0.001))
        return peer

    ensemble = Ensemble([Counting(pace_s=0.001), Counting(pace_s=0.001)], replace=replace)
    ensemble.publish()
    before = [c for c in ensemble.gather(40) if c.actor == 1]
    ensemble.board.cut((0, 2))
    after = []
    while not any(chunk.actor == 1 for chunk in after[-20:]) or len(after) < 40:
        after += ensemble.gather(40)
    assert {chunk.actor for chunk in after} == {0, 1}
    numbers = [chunk.number for chunk in [*before, *after] if chunk.actor == 1]
    assert numbers == list(range(len(numbers)))  # the replacement goes on counting
    assert ensemble.collector.metrics()["distributed/restarts"] == 1.0
    ensemble.board.cut((1, 1))
    assert {chunk.actor for chunk in ensemble.gather(40)[-5:]} == {0}
    ensemble.board.cut((0, 1))
    with pytest.raises(RanksLostError):
        ensemble.gather(1000)


def test_a_silent_actor_is_gone_when_its_lease_is_over():
    hold = threading.Event()
    ensemble = Ensemble([Counting(hold=hold), Counting(pace_s=0.01)], lease_s=1.0)
    ensemble.actors[0]._transport.send = lambda *arguments: None  # as if its host had lost the network
    with Heartbeat(ensemble.collector.beat, 1.0):
        ensemble.publish()
        began_s = time.monotonic()
        while ensemble.registry.handles[0].peer is not None and time.monotonic() - began_s < 120:
            ensemble.gather(4)
    assert time.monotonic() - began_s > 0.9
    assert ensemble.registry.handles[0].peer is None
    assert ensemble.registry.handles[1].peer is not None
    hold.set()
    ensemble.stop()


def test_a_busy_actor_is_not_taken_for_dead():
    hold = threading.Event()
    ensemble = Ensemble([Counting(hold=hold)], lease_s=1.0)
    with Heartbeat(ensemble.collector.beat, 1.0):
        ensemble.publish()
        until = time.monotonic() + 3
        assert ensemble.collector.next_batch(4, lambda: time.monotonic() > until) == []
        assert ensemble.registry.handles[0].peer is not None
        hold.set()
        assert len(ensemble.gather(4)) == 1
    ensemble.stop()


def test_an_actor_whose_learner_is_silent_leaves_and_closes_its_environments():
    world = Counting(pace_s=0.01)
    ensemble = Ensemble([world], lease_s=1.0)
    ensemble.publish()
    began_s = time.monotonic()
    ensemble.threads[0].join(120)
    assert not ensemble.threads[0].is_alive()
    assert time.monotonic() - began_s > 0.9
    assert world.closed
    assert "silent" in ensemble.actors[0].reason


def test_a_learner_that_comes_back_loses_no_acknowledged_chunk(tmp_path):
    ensemble = Ensemble([Counting(), Counting()], chunk_log=ChunkLog(tmp_path))
    ensemble.publish()
    learned = ensemble.gather(40)
    state = ensemble.collector.state()
    ensemble.collector.saved(state)
    later = ensemble.gather(40)  # acknowledged, and then the learner is killed
    ensemble.board.cut((0, 1))
    ensemble.board.cut((0, 2))

    registry = ActorRegistry({0: (0, 1), 1: (0, 2)}, 30.0)
    again = Collector(Switchboard().end(LEARNER), registry, 30.0, ChunkLog(tmp_path))
    assert again.restore(state, LAYOUT) >= len(later)
    restored = again.next_batch(1 << 30, lambda: True)  # all that is there
    key = [(chunk.actor, chunk.number) for chunk in restored]
    assert [(chunk.actor, chunk.number) for chunk in later] == key[: len(later)]
    assert not set(key) & {(chunk.actor, chunk.number) for chunk in learned}
    for chunk, known in zip(restored, later, strict=False):
        assert np.array_equal(chunk.transitions, known.transitions)
    # Whoever greets it now is told to go on after what is known.
    for number, handle in registry.handles.items():
        assert handle.number == 1 + max(n for actor, n in key if actor == number)
