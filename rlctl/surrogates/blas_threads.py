"""Keeps small matrices on one thread: more would wait for each other on a machine whose cores run simulations."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, TypeVar, cast

from threadpoolctl import ThreadpoolController

_Function = TypeVar("_Function", bound=Callable[..., Any])


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


def on_one_thread(function: _Function) -> _Function:
    """Let NumPy and SciPy compute on one thread while ``function`` runs."""

    @wraps(function)
    def limited(*arguments: Any, **keywords: Any) -> Any:
        with _blas().limit(limits=1):
            return function(*arguments, **keywords)

    return cast(_Function, limited)
