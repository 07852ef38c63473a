"""Keeps small matrices on one thread: more would wait for each other on a machine whose cores run simulations."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, TypeVar, cast

from threadpoolctl import ThreadpoolController

_Function = TypeVar("_Function", bound=Callable[..., Any])


_inside = threading.local()
"""``limited`` is true in threads in which a limited function runs: asking the libraries again takes long."""


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


def on_one_thread(function: _Function) -> _Function:
    """Let NumPy and SciPy compute on one thread while ``function`` runs."""

    @wraps(function)
    def limited(*arguments: Any, **keywords: Any) -> Any:
        if vars(_inside).get("limited", False):
            return function(*arguments, **keywords)
        _inside.limited = True
        try:
            with _blas().limit(limits=1):
                return function(*arguments, **keywords)
        finally:
            _inside.limited = False

    return cast(_Function, limited)
