"""Connections between a learner and its actors within one process, for tests: each actor is a thread."""

from __future__ import annotations

import threading
from collections import deque

from rlctl.distributed.comm.codec import EMPTY
from rlctl.distributed.comm.transport import Message

LEARNER = (0, 0)


class Switchboard:
    """Holds the queues; ``end(peer)`` is that peer's transport, ``cut(peer)`` its death."""

    def __init__(self):
        self.queues = {}
        self.dead = set()
        self.told = {}
        self.sent = []
        self.lock = threading.Lock()

    def end(self, peer):
        self.queues.setdefault(peer, deque())
        return End(self, peer)

    def cut(self, peer):
        self.dead.add(peer)


class End:
    def __init__(self, board, peer):
        self.board, self.peer = board, peer

    def send(self, peer, kind, data=EMPTY):
        if self.peer in self.board.dead or peer in self.board.dead:
            return
        self.board.sent.append((self.peer, peer, kind))
        self.board.queues.setdefault(peer, deque()).append(Message(self.peer, kind, data.copy()))

    def poll(self):
        queue = self.board.queues[self.peer]
        while queue and self.peer not in self.board.dead:
            yield queue.popleft()

    def lost(self):
        if self.peer in self.board.dead:
            return {LEARNER}  # so that the thread of a dead actor ends
        with self.board.lock:
            news = self.board.dead - self.board.told.setdefault(self.peer, set())
            self.board.told[self.peer] |= news
            return news
