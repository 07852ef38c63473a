"""Several pools as configurations know them: each is a backend of one executor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from rlctl.config.validation import check_options
from rlctl.core.errors import ConfigError, Key, LaunchError, RlctlError
from rlctl.core.machine import Capacity
from rlctl.core.task import TaskSpec
from rlctl.executors.backend import Backend
from rlctl.executors.factory import BackendFactory, PoolPlan
from rlctl.plugins.registry import executor_plugin

_POOLS: Key = ("executor", "options", "pools")


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


class PoolsOptions(BaseModel):
    """``executor.options`` of an executor of several pools.

    Attributes:
        pools: the pools; tasks that name none go to the first that has room for them.
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


class Pools(BackendFactory):
    """Tasks in several pools, each with a backend of its own; see ``BackendFactory``."""

    Options = PoolsOptions
    options: PoolsOptions

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._factories = [_factory(number, pool) for number, pool in enumerate(self.options.pools)]

    @classmethod
    def portable(cls, options: Mapping[str, Any], resolve: Callable[[str], Path]) -> Mapping[str, Any]:
        """The options with absolute paths, as the executor of each pool has them."""
        pools = []
        for number, pool in enumerate(check_options(PoolsOptions, options, "executor.options").pools):
            registered = executor_plugin(pool.executor, (*_POOLS, str(number), "executor"))
            with _of_pool(number):
                own = dict(registered.found.portable(pool.options, resolve))
            pools.append({**options["pools"][number], "options": own})
        return {**options, "pools": pools}

    def check(self, capacity: Capacity) -> None:
        """Check that the pools have the nodes of the machine between them, and what each pool wants."""
        capacity.require_equal("each pool")
        nodes = sum(pool.nodes for pool in self.options.pools)
        if nodes != capacity.nodes:
            raise ConfigError(f"they have {nodes} nodes, machine.nodes is {capacity.nodes}: make these equal", _POOLS)
        wanted: dict[str, int] = {}
        for number, (pool, factory) in enumerate(zip(self.options.pools, self._factories, strict=True)):
            wanted[pool.executor] = wanted.get(pool.executor, 0) + pool.nodes
            with _of_pool(number):
                factory.check(replace(capacity, nodes=wanted[pool.executor]))

    def check_programs(self, specs: Sequence[TaskSpec]) -> list[str]:
        """Check that what tasks name is in the pools; one that names no pool needs one that has it."""
        notes: list[str] = []
        refusals: list[LaunchError] = []
        for number, (pool, factory) in enumerate(zip(self.options.pools, self._factories, strict=True)):
            with _of_pool(number):
                notes += factory.check_programs([spec for spec in specs if spec.pool == pool.name])
            try:
                with _of_pool(number):
                    notes += factory.check_programs([spec for spec in specs if spec.pool is None])
            except LaunchError as error:
                refusals.append(error)
        if len(refusals) == len(self.options.pools):
            raise refusals[0]
        return notes + [str(error) for error in refusals]

    def command(self, spec: TaskSpec) -> list[str]:
        """As the pool of the task starts it, or the first that can."""
        for pool, factory in zip(self.options.pools, self._factories, strict=True):
            with suppress(LaunchError):
                if spec.pool in (None, pool.name):
                    return factory.command(spec)
        return self._factories[0].command(spec)

    def backend(self, capacity: Capacity, workdir: Path, pool: str = "", first_node: int = 0) -> Backend:
        """Raise ConfigError: pools have no pools."""
        raise ConfigError("an executor of several pools is no pool: name its pools here", ("executor", "name"))

    def pools(self, capacity: Capacity, workdir: Path) -> Sequence[PoolPlan]:
        """One for each pool."""
        plans, first = list[PoolPlan](), dict[str, int]()
        for number, (pool, factory) in enumerate(zip(self.options.pools, self._factories, strict=True)):
            with _of_pool(number):
                own = replace(capacity, nodes=pool.nodes)
                backend = factory.backend(own, workdir, pool.name, first.get(pool.executor, 0))
            plans.append(PoolPlan(backend, pool.name, factory.options.backfill))
            first[pool.executor] = first.get(pool.executor, 0) + pool.nodes
        return plans


def _factory(number: int, pool: PoolOptions) -> BackendFactory:
    key = (*_POOLS, str(number), "executor")
    registered = executor_plugin(pool.executor, key)
    with _of_pool(number):
        factory: BackendFactory = registered.make(pool.options)
    if isinstance(factory, Pools):
        raise ConfigError(f"{registered} cannot be one of several pools", key)
    return factory


@contextmanager
def _of_pool(number: int) -> Iterator[None]:
    """Have errors about ``executor.options`` name the options of this pool."""
    try:
        yield
    except RlctlError as error:
        if error.key is None or error.key[:2] != _POOLS[:2]:
            raise
        raise type(error)(error.problem, (*_POOLS, str(number), *error.key[1:])) from error
