"""The executor of several pools as configurations know it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

from pydantic import BaseModel, ConfigDict, Field, field_validator

from rlctl.config.validation import check_options
from rlctl.core.errors import ConfigError, Key, LaunchError, RlctlError
from rlctl.core.machine import Capacity
from rlctl.core.task import TaskSpec
from rlctl.executors.engine import BookedExecutor
from rlctl.executors.event_log import Journal
from rlctl.executors.pools import Plan, PooledExecutor
from rlctl.executors.recovery import KINDS, Past
from rlctl.executors.sharing import Share
from rlctl.plugins.entry_points import EXECUTORS, load

_HERE: Key = ("executor", "options", "pools")


class PoolOptions(BaseModel):
    """One of several pools.

    Attributes:
        name: letters, digits, ``_`` and ``-``; tasks name it as their ``pool``.
        nodes: how many nodes it has; those of all pools together are ``machine.nodes``, numbered in this order.
        executor: what runs its tasks, as ``executor.name`` has it.
        options: as ``executor.options`` of that executor.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[\w-]+$", max_length=40)
    nodes: int = Field(default=1, ge=1, le=100_000)
    executor: str = "local"
    options: dict[str, Any] = Field(default_factory=dict)


class Options(BaseModel):
    """``executor.options`` of an executor of several pools.

    Attributes:
        pools: the pools; tasks that name none go to the first that can start them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pools: tuple[PoolOptions, ...] = Field(min_length=1)

    @field_validator("pools")
    @classmethod
    def _differ(cls, pools: tuple[PoolOptions, ...]) -> tuple[PoolOptions, ...]:
        names = [pool.name for pool in pools]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two pools are called {twice!r}: call one of them otherwise")
        return pools


class SharingFactory(Protocol):
    """An executor factory whose executors can be pools among others; see ``rlctl.executors.base.ExecutorFactory``."""

    def check(self, capacity: Capacity) -> None:
        """Refuse what cannot be had."""

    def open(
        self, capacity: Capacity, workdir: Path, journal: Journal, start_s: float, share: Share | None = None
    ) -> BookedExecutor:
        """Take the allocation."""


class Pools:
    """Tasks in several pools, each with an executor of its own; see ``rlctl.executors.base.ExecutorFactory``.

    Raises:
        ConfigError: unknown options, or an executor that cannot be one of several.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = check_options(Options, options, "executor.options")
        self._factories = [_factory(number, pool) for number, pool in enumerate(self.options.pools)]

    @staticmethod
    def portable(options: Mapping[str, Any], resolve: Callable[[str], Path]) -> Mapping[str, Any]:
        """The options with absolute paths, as the executor of each pool has them."""
        pools = []
        for number, pool in enumerate(check_options(Options, options, "executor.options").pools):
            registered = load(EXECUTORS, pool.executor, (*_HERE, str(number), "executor"))
            said = getattr(registered.found, "portable", None)
            with _of_pool(number):
                own = pool.options if said is None else dict(said(pool.options, resolve))
            pools.append({**options["pools"][number], "options": own})
        return {**options, "pools": pools}

    def check(self, capacity: Capacity) -> None:
        """Refuse what cannot be had, pool by pool.

        Raises:
            ConfigError: the pools have another number of nodes than the machine.
            LaunchError: there is less than a pool wants.
        """
        capacity.require_equal("each pool")
        nodes = sum(pool.nodes for pool in self.options.pools)
        if nodes != capacity.nodes:
            raise ConfigError(f"they have {nodes} nodes, machine.nodes is {capacity.nodes}: make these equal", _HERE)
        wanted: dict[str, int] = {}
        for number, (pool, factory) in enumerate(zip(self.options.pools, self._factories, strict=True)):
            wanted[pool.executor] = wanted.get(pool.executor, 0) + pool.nodes
            with _of_pool(number):
                factory.check(replace(capacity, nodes=wanted[pool.executor]))

    def check_programs(self, specs: Sequence[TaskSpec]) -> list[str]:
        """Find out whether what tasks name is in the pools; one that names no pool needs one that has it.

        Raises:
            LaunchError: it is not.
        """
        notes: list[str] = []
        refusals: list[LaunchError] = []
        for number, (pool, factory) in enumerate(zip(self.options.pools, self._factories, strict=True)):
            check = getattr(factory, "check_programs", None)
            with _of_pool(number):
                notes += [] if check is None else check([spec for spec in specs if spec.pool == pool.name])
            try:
                with _of_pool(number):
                    notes += [] if check is None else check([spec for spec in specs if spec.pool is None])
            except LaunchError as error:
                refusals.append(error)
        if len(refusals) == len(self.options.pools):
            raise refusals[0]
        return notes + [str(error) for error in refusals]

    def open(self, capacity: Capacity, workdir: Path, journal: Journal, start_s: float) -> PooledExecutor:
        """Open all pools."""
        plans = [
            Plan(pool.name, pool.nodes, pool.executor, partial(_open, number, factory, workdir, journal, start_s))
            for number, (pool, factory) in enumerate(zip(self.options.pools, self._factories, strict=True))
        ]
        return PooledExecutor(capacity, plans, start_s, past=Past.read(journal.records(kinds=KINDS)))


def _factory(number: int, pool: PoolOptions) -> SharingFactory:
    key = (*_HERE, str(number), "executor")
    registered = load(EXECUTORS, pool.executor, key)
    with _of_pool(number):
        factory = registered.make(pool.options)
    registered.require(factory, ("check", "open"), "see rlctl.executors.base.ExecutorFactory")
    if "share" not in inspect.signature(factory.open).parameters:
        raise ConfigError(f"{registered} cannot be one of several pools: its open takes no 'share'", key)
    return cast(SharingFactory, factory)


def _open(
    number: int,
    factory: SharingFactory,
    workdir: Path,
    journal: Journal,
    start_s: float,
    capacity: Capacity,
    share: Share,
) -> BookedExecutor:
    with _of_pool(number):
        return factory.open(capacity, workdir, journal, start_s, share=share)


@contextmanager
def _of_pool(number: int) -> Iterator[None]:
    """Complaints about ``executor.options`` that come up inside are about the options of this pool."""
    try:
        yield
    except RlctlError as error:
        if error.key is None or error.key[:2] != _HERE[:2]:
            raise
        raise type(error)(error.problem, (*_HERE, str(number), *error.key[1:])) from error
