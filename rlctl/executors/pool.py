"""Nodes: which of their cores, GPUs and memory are free, and where a task fits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from typing import Self

from rlctl.core.errors import LaunchError, described
from rlctl.core.machine import Capacity, NodeGroup, NodeState, Scoring
from rlctl.core.spec_values import number
from rlctl.core.task import Resources, TaskSpec
from rlctl.executors.node_share import WHOLE, Allocation, Demand, NodeShare, demand


def _same(node: int) -> int:
    return 0


def _lowest(bits: int, count: int) -> int:
    """The lowest ``count`` bits that are set."""
    low, high = count, bits.bit_length()
    while low < high:  # how many places hold them, by bisection: nodes have up to hundreds of cores
        middle = (low + high) // 2
        if (bits & ((1 << middle) - 1)).bit_count() < count:
            low = middle + 1
        else:
            high = middle
    return bits & ((1 << low) - 1)


class NodePool:
    """Nodes and what is free on them.

    Attributes:
        nodes: how many there are, those that are down included.
        version: rises whenever nodes come or go.

    >>> pool = NodePool(Capacity(nodes=2, cores=2, gpus=1))
    >>> [(share.node, share.ranks, share.cores) for share in pool.take(Resources(ranks=3))]
    [(0, 2, 3), (1, 1, 1)]
    >>> pool.take(Resources(ranks=2)) is None
    True
    """

    def __init__(self, capacity: Capacity, scoring: Scoring | None = None) -> None:
        self.capacity = capacity
        self.scoring = scoring
        self.group: Callable[[int], int] = _same  # tasks do not reach over nodes of several groups
        self._cores: list[int] = []  # free ones, bit masks
        self._count: list[int] = []  # how many these are
        self._gpus: list[list[int]] = []  # free thousandths of each device
        self._devices: list[int] = []  # devices of which nothing is taken
        self._memory: list[int] = []
        self._up: list[bool] = []
        self._kinds = [kind for kind in capacity.kinds for _ in range(kind.nodes)]
        self._total_cores = self._total_devices = 0  # of ``_count`` and ``_devices``
        self.nodes = capacity.nodes
        self.version = 0
        self._absent: tuple[int, frozenset[int]] = (0, frozenset())
        for _ in range(capacity.nodes):
            self._add()

    def ever(self, need: Resources) -> bool:
        """Whether a task would fit if nothing were taken and no node were down."""
        empty = NodePool(replace(self.capacity, nodes=self.nodes))
        empty.group = self.group
        return empty.take(need) is not None

    @property
    def absent(self) -> frozenset[int]:
        """Numbers of the nodes that are down."""
        if self._absent[0] != self.version:
            self._absent = self.version, frozenset(n for n in range(self.nodes) if not self._up[n])
        return self._absent[1]

    def check(self, spec: TaskSpec) -> None:
        """Raise LaunchError for a task that would not fit even if nothing else ran."""
        need = spec.resources
        if self.ever(need):
            return
        replace(self.capacity, nodes=self.nodes).check(spec)
        wide = f" over {need.nodes} nodes" if need.nodes is not None else ""
        memory = f", {need.memory_per_rank_mb} MiB" if need.memory_per_rank_mb else ""
        raise LaunchError(
            f"task {spec.uid}: {need.ranks} ranks of {need.cores_per_rank} cores{memory} and "
            f"{need.gpus_per_rank:g} GPUs{wide} never fit on nodes of {self.capacity.node()}: ask for less"
        )

    def take(self, need: Resources, avoid: Collection[int] = ()) -> Allocation | None:
        """Occupy what a task needs, on nodes that are not avoided; None if it is not free now."""
        want = demand(need)
        if want.ranks * want.cores > self._total_cores or want.ranks * want.devices > self._total_devices:
            return None  # most of the time, and cheap to say
        if want.nodes is not None:
            ranks = self._spread(need, want, avoid)
        elif want.ranks == 1:
            node = self._best(need, want, avoid)
            ranks = None if node is None else {node: 1}
        else:
            ranks = self._gang(need, want, avoid)
        if ranks is None:
            return None
        return tuple(self._take_share(node, ranks[node], want) for node in sorted(ranks))

    def release(self, allocation: Allocation) -> None:
        """Free what ``take`` or ``occupy`` has occupied."""
        for node, _, cores, gpus, memory_mb in allocation:
            count = cores.bit_count()
            self._cores[node] |= cores
            self._count[node] += count
            self._total_cores += count
            self._memory[node] += memory_mb
            for device, share in gpus:
                free = self._gpus[node]
                free[device] += share
                if free[device] == WHOLE:
                    self._devices[node] += 1
                    self._total_devices += 1

    def occupy(self, allocation: Allocation) -> bool:
        """Occupy exactly this, for a task that a former controller has placed; False if it is not free."""
        for node, _, cores, gpus, memory_mb in allocation:
            if node >= len(self._up) or not self._up[node] or cores & ~self._cores[node]:
                return False
            free = self._gpus[node]
            if any(device >= len(free) or free[device] < share for device, share in gpus):
                return False
            if self._memory[node] < memory_mb:
                return False
        for each in allocation:
            self._occupy(each)
        return True

    def use(self, node: int, up: bool) -> None:
        """Place tasks on this node, or nothing more; what is there is released when it ends."""
        self.version += self._up[node] is not up
        self._up[node] = up

    def change(self, down: Collection[int], workers: int | None = None) -> None:
        """Use all nodes but these; pools that count workers need to know how many are connected."""
        for node in range(self.nodes):
            self.use(node, node not in down)

    def resize(self, nodes: int) -> list[int]:
        """Have so many nodes, the first ones; returns those that go."""
        gone = [node for node in range(nodes, len(self._up)) if self._up[node]]
        self.version += nodes != self.nodes
        self.nodes = nodes
        while len(self._up) < nodes:
            self._add()
        for node in range(len(self._up)):
            self._up[node] = node < nodes
        return gone

    def states(self) -> Iterator[NodeState]:
        """Every node that is up."""
        return (self._state(node) for node, up in enumerate(self._up) if up)

    def room(self, need: Resources) -> list[int]:
        """Ranks of a task that each node could take now."""
        return self._room(demand(need))

    def _room(self, want: Demand) -> list[int]:
        if want.share or want.memory_mb or not want.cores:
            return [self._fit(node, want) for node in range(len(self._up))]
        # Most often; one call for each of hundreds of nodes would take most of the time.
        cores, devices = want.cores, want.devices
        rows = zip(self._count, self._devices, self._up, strict=True)
        return [
            0 if not up else min(count // cores, left // devices) if devices else count // cores
            for count, left, up in rows
        ]

    def copy(self) -> Self:
        """A copy, to try what would fit."""
        other = object.__new__(type(self))  # ``__init__`` would take most of the time
        other.__dict__.update(self.__dict__)
        other._cores, other._count, other._memory = list(self._cores), list(self._count), list(self._memory)
        other._gpus, other._devices = [list(free) for free in self._gpus], list(self._devices)
        other._up = list(self._up)
        return other

    def kind(self, node: int) -> NodeGroup:
        """What a node has when nothing of it is taken; nodes beyond those of the capacity are like its last."""
        return self._kinds[node] if node < len(self._kinds) else self.capacity.kinds[-1]

    def _add(self) -> None:
        kind = self.kind(len(self._up))
        self._cores.append((1 << kind.cores) - 1)
        self._count.append(kind.cores)
        self._total_cores += kind.cores
        self._total_devices += kind.gpus
        self._gpus.append([WHOLE] * kind.gpus)
        self._devices.append(kind.gpus)
        self._memory.append(1 << 62 if kind.memory_mb is None else kind.memory_mb)
        self._up.append(True)

    def _state(self, node: int) -> NodeState:
        kind = self.kind(node)
        memory = None if kind.memory_mb is None else self._memory[node]
        free = sum(self._gpus[node]) / WHOLE
        return NodeState(node, kind.cores, self._count[node], kind.gpus, free, memory)

    def _fit(self, node: int, want: Demand) -> int:
        """How many ranks a node can take now."""
        if not self._up[node]:
            return 0
        fit = self._count[node] // want.cores if want.cores else want.ranks
        if want.devices:
            fit = min(fit, self._devices[node] // want.devices)
        elif want.share:
            fit = min(fit, sum(free // want.share for free in self._gpus[node]))
        if want.memory_mb:
            fit = min(fit, self._memory[node] // want.memory_mb)
        return fit

    def _best(self, need: Resources, want: Demand, avoid: Collection[int]) -> int | None:
        """The node for one rank: the one with the least that others could use."""
        if self.scoring is not None:
            scored = self._scored(need, want, avoid)
            return scored[0][0] if scored else None
        best, least = None, (1 << 62, 0)
        devices, gpu, memory = want.devices, bool(want.share), want.memory_mb
        for node, count in enumerate(self._count):
            if count < want.cores or self._devices[node] < devices or not self._up[node] or node in avoid:
                continue
            if (gpu and max(self._gpus[node], default=0) < want.share) or self._memory[node] < memory:
                continue
            left = (self._devices[node], count)
            if left < least:
                best, least = node, left
        return best

    def _gang(self, need: Resources, want: Demand, avoid: Collection[int]) -> dict[int, int] | None:
        """Ranks by node: all on the fullest node that has room for them, else on as few nodes as possible."""
        room = self._scored(need, want, avoid)
        if self.scoring is None:
            whole = [entry for entry in room if entry[1] >= want.ranks]
            room = whole[:1] or sorted(room, key=lambda entry: -entry[1])
        for together in self._together(room):
            ranks, left = {}, want.ranks
            for node, fit in together:
                ranks[node] = min(fit, left)
                left -= ranks[node]
                if not left:
                    return ranks
        return None

    def _spread(self, need: Resources, want: Demand, avoid: Collection[int]) -> dict[int, int] | None:
        """Ranks by node, evenly over as many nodes as asked for."""
        assert want.nodes is not None
        most = -(-want.ranks // want.nodes)
        if sum(map((most * want.cores).__le__, self._count)) < want.nodes:
            return None
        few, more = divmod(want.ranks, want.nodes)
        for together in self._together([entry for entry in self._scored(need, want, avoid) if entry[1] >= most]):
            chosen = [node for node, _ in together][: want.nodes]
            if len(chosen) == want.nodes:
                return {node: few + (i < more) for i, node in enumerate(chosen) if few + (i < more)}
        return None

    def _together(self, room: list[tuple[int, int]]) -> Iterable[list[tuple[int, int]]]:
        """The same, by groups of nodes."""
        if self.group is _same:
            return (room,)
        groups: dict[int, list[tuple[int, int]]] = {}
        for entry in room:
            groups.setdefault(self.group(entry[0]), []).append(entry)
        return groups.values()

    def _scored(self, need: Resources, want: Demand, avoid: Collection[int]) -> list[tuple[int, int]]:
        """(node, ranks that fit) of all with room, best first."""
        room = [(n, fit) for n, fit in enumerate(self._room(want)) if fit and n not in avoid]
        scoring = self.scoring
        if scoring is None:
            room.sort(key=lambda entry: (self._devices[entry[0]], self._count[entry[0]]))
        else:
            room.sort(key=lambda entry: -self._score(scoring, need, entry[0]))
        return room

    def _score(self, scoring: Scoring, need: Resources, node: int) -> float:
        """What a rule says of a node; ``LaunchError``: it fails, or says what is no number."""
        try:
            return number(scoring.score(need, self._state(node)))
        except Exception as error:
            raise LaunchError(f"no node can be chosen: {type(scoring).__name__}.score(): {described(error)}") from error

    def _take_share(self, node: int, ranks: int, want: Demand) -> NodeShare:
        mask = _lowest(self._cores[node], ranks * want.cores)
        gpus = self._choose(node, ranks, want) if want.share or want.devices else ()
        taken = NodeShare(node, ranks, mask, gpus, ranks * want.memory_mb)
        self._occupy(taken)
        return taken

    def _choose(self, node: int, ranks: int, want: Demand) -> tuple[tuple[int, int], ...]:
        """Devices for the ranks of one node; shares go to the fullest device that has room."""
        free = list(self._gpus[node])
        given: dict[int, int] = {}
        for _ in range(ranks):
            if want.share:
                device = min((d for d in range(len(free)) if free[d] >= want.share), key=lambda d: free[d])
                chosen = [(device, want.share)]
            else:
                chosen = [(d, WHOLE) for d in range(len(free)) if free[d] == WHOLE][: want.devices]
            for device, share in chosen:
                free[device] -= share
                given[device] = given.get(device, 0) + share
        return tuple(sorted(given.items()))

    def _occupy(self, taken: NodeShare) -> None:
        node, _, cores, gpus, memory_mb = taken
        count = cores.bit_count()
        self._cores[node] &= ~cores
        self._count[node] -= count
        self._total_cores -= count
        self._memory[node] -= memory_mb
        for device, share in gpus:
            free = self._gpus[node]
            if free[device] == WHOLE:
                self._devices[node] -= 1
                self._total_devices -= 1
            free[device] -= share
