"""Searches all that ``Decision.fields`` leads to for the hidden numbers of an instance."""

from __future__ import annotations

import functools
import types
from collections import deque
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np

from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.machine import Capacity
from rlctl.core.policy import Policy
from rlctl.environments.campaign_env import Episode
from rlctl.evaluation.rollout import roll_out

_MOST = 1_000_000
"""Objects that are looked at in one decision."""


def find_hidden(factory: CampaignFactory, capacity: Capacity, policy: Policy, instances: Sequence[int]) -> list[str]:
    """Play some campaigns; where a decision shows a number that ``CampaignFactory.hidden`` names, exactly equal.

    Hidden numbers that are whole, or the same in all these instances, tell nothing apart and are left out. Decisions
    0, 1, 2, 4, 8 ... are searched.

    Returns:
        a line for each hidden number that is found.
    """
    hidden = [list(map(float, factory.hidden(instance))) for instance in instances]
    telling: list[dict[float, int]] = []
    for numbers in hidden:
        places = {n: i for i, n in enumerate(numbers) if np.isfinite(n) and not n.is_integer()}
        telling.append({n: i for n, i in places.items() if any(i >= len(o) or o[i] != n for o in hidden)})
    found: dict[tuple[int, int], str] = {}

    def watch(n: int, episode: Episode) -> None:
        decision = episode.decision
        if decision is None or decision.number & (decision.number - 1) or not telling[n]:
            return
        for path, value in reachable(decision.fields, "fields"):
            place = telling[n].get(value)
            if place is not None and path.rpartition(".")[2] not in factory.measured:
                where = f"decision {decision.number} of instance {instances[n]}: {path} is hidden({instances[n]})"
                found.setdefault((n, place), f"{where}[{place}]")

    roll_out(factory, capacity, [(policy, instance) for instance in instances], watch)
    return list(found.values())


def reachable(value: Any, path: str) -> Iterator[tuple[str, float]]:
    """The numbers inside containers, attributes, closures and bound objects, each with the way to it.

    >>> class Shown:
    ...     def __init__(self, truth):
    ...         self.ask = lambda: truth
    >>> dict(reachable({"a": [1, Shown(0.5)]}, "fields"))
    {"fields['a'][0]": 1.0, "fields['a'][1].ask<truth>": 0.5}
    """
    seen: set[int] = set()
    kept: list[Any] = []  # so that no id is given to another object meanwhile
    left = deque([(path, value)])
    while left and len(seen) < _MOST:
        path, value = left.popleft()
        if isinstance(value, bool | str | bytes | type | types.ModuleType) or value is None:
            continue
        if isinstance(value, int | float | np.number):
            if not isinstance(value, np.complexfloating):
                yield path, float(value)
            continue
        if id(value) in seen:
            continue
        seen.add(id(value))
        kept.append(value)
        if isinstance(value, np.ndarray) and value.dtype != object:
            if value.dtype.kind in "iuf":
                yield from ((f"{path}[{i}]", float(number)) for i, number in enumerate(value.ravel().tolist()))
            continue
        left.extend(_inside(value, path))


def _inside(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in list(value.items()):
            yield f"{path} key", key
            yield f"{path}[{key!r}]", item
        return
    if isinstance(value, list | tuple | Set | deque | np.ndarray):
        yield from ((f"{path}[{i}]", item) for i, item in enumerate(list(value)))
    elif isinstance(value, functools.partial):
        yield from ((f"{path}()", item) for item in (value.func, *value.args, *value.keywords.values()))
    elif isinstance(value, types.MethodType):
        yield f"{path}.__self__", value.__self__
    elif isinstance(value, types.FunctionType):
        yield from ((f"{path}<default>", item) for item in value.__defaults__ or ())
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=False):
            try:
                yield f"{path}<{name}>", cell.cell_contents
            except ValueError:  # an empty cell
                continue
    try:
        attributes = dict(vars(value))
    except TypeError:
        attributes = {}
    slots = [name for base in type(value).__mro__ for name in _names(base.__dict__.get("__slots__", ()))]
    for name in slots:
        try:
            attributes[name] = getattr(value, name)
        except AttributeError:
            continue
    yield from ((f"{path}.{name}", item) for name, item in attributes.items())


def _names(slots: Any) -> list[str]:
    return [slots] if isinstance(slots, str) else list(slots)
