"""Functions and classes of a script in workers: one namespace for all of them, which stays as long as the worker.

A worker does not run the script (which need not have a guard, and may be a notebook). The globals that a function of
the script uses travel with each call, and the worker keeps them in its own ``__main__``. A global whose value in the
script is the same as before is left as it is there: so functions find what they, or the initializer, have made of it.
One whose value in the script has changed arrives anew.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import io
import pickle
import sys
import types
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import cloudpickle

from rlctl.core.errors import described

Callback = Callable[[pickle.PickleBuffer], Any] | None

_received: dict[str, str] = {}  # in a worker: marks of the values of globals, by name
_arriving: set[str] = set()  # of these the values are about to be replaced
_complete: weakref.WeakSet[Any] = weakref.WeakSet()  # functions and classes of the script that are whole


def namespace() -> dict[str, Any]:
    """The globals of the script."""
    return vars(sys.modules["__main__"])


def dumps(value: Any, callback: Callback, names: set[str], *, back: bool = False) -> bytes:
    """Pickle a value that may hold functions and classes of the script; global ones go by their names.

    Adds the script's globals that it needs to ``names``. ``back``: to the controller, which knows what it has sent.
    """
    known = _received.__contains__ if back else _always
    return _dumps(value, callback, known, names, back)


def marks(names: Iterable[str]) -> dict[str, str]:
    """Marks that change with the values of these globals and of all that they need, in the script's order."""
    main, found, left = namespace(), dict[str, str](), {"__package__", "__file__", *names}
    while left:
        name = left.pop()
        if name not in found and name in main and name != "__builtins__":
            found[name], needed = _mark(name, main[name])
            left |= needed
    return {name: found[name] for name in list(main) if name in found}  # threads may add to it


def _mark(name: str, value: Any) -> tuple[str, set[str]]:
    needed, digest = set[str](), hashlib.sha1(usedforsecurity=False)
    try:
        digest.update(_dumps(value, lambda buffer: digest.update(buffer.raw()), name.__ne__, needed))
    except Exception as error:
        raise pickle.PicklingError(f"{name}, which the function uses: {described(error)}") from error
    return digest.hexdigest(), needed


def values(names: Iterable[str], callback: Callback) -> bytes:
    """The globals of these names, pickled together, since they may refer to each other."""
    main = namespace()
    return _dumps([_Global(name, main[name]) for name in names], callback, _never, set())


def define(marked: Mapping[str, str], read: Callable[[], object], skip: Callable[[], None]) -> None:
    """In a worker: unpickle the globals by ``read`` if a mark among ``marked`` has changed, otherwise ``skip`` them."""
    _arriving.update(name for name, mark in marked.items() if _received.get(name) != mark)
    try:
        if _arriving:
            read()
            _received.update(marked)
        else:
            skip()
    finally:
        _arriving.clear()


class _Global:
    """A global that is set as it is unpickled, before what follows it: a base class before its subclass."""

    def __init__(self, name: str, value: Any) -> None:
        self._name, self._value = name, value

    def __reduce__(self) -> tuple[Callable[[str, Any], None], tuple[str, Any]]:
        return _place, (self._name, self._value)


def _place(name: str, value: Any) -> None:
    # What was there before it came for the first time, a function of the script has set: the initializer, as a rule.
    if name in _arriving and (name in _received or name not in namespace()):
        namespace()[name] = value


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles what the script defines, by name where it is ``known``; functions get the namespace as their globals."""

    def __init__(self, file: io.BytesIO, callback: Callback, known: Callable[[str], bool], back: bool) -> None:
        super().__init__(file, 5, buffer_callback=callback)
        self.names: set[str] = set()
        self._known = known
        self._back = back

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is object:  # a sentinel, which is compared by identity
            name = next((name for name, value in list(namespace().items()) if value is obj), None)
            return NotImplemented if name is None or self._back else (_made, (name, object, ()))
        cached = kind is functools._lru_cache_wrapper
        if not cached and kind is not types.FunctionType and not issubclass(kind, type):
            return NotImplemented
        name = _name(obj)
        if name is not None and self._known(root := name.partition(".")[0]):
            self.names.add(root)
            return name
        if cached:
            return (
                NotImplemented if name is None else (_made, (name, _cached, (obj.__wrapped__, obj.cache_parameters())))
            )
        reduced = super().reducer_override(obj)
        if self._back or not isinstance(reduced, tuple) or len(reduced) != 6:
            return reduced
        made, arguments, state, items, pairs, settle = reduced
        if kind is types.FunctionType and obj.__globals__ is namespace():
            self.names |= _used(obj.__code__)
            arguments = (arguments[0], _HERE, *arguments[2:])
            state = (state[0], {**state[1], "__globals__": {}})
        if name is None:
            return made, arguments, state, items, pairs, settle
        return _made, (name, made, arguments), (name, settle, state), items, pairs, _settle


class _Here:
    """Is unpickled as the namespace."""

    def __reduce__(self) -> tuple[Callable[[], dict[str, Any]], tuple[()]]:
        return namespace, ()


_HERE = _Here()


def _dumps(value: Any, callback: Callback, known: Callable[[str], bool], names: set[str], back: bool = False) -> bytes:
    file = io.BytesIO()
    pickler = _Pickler(file, callback, known, back)
    pickler.dump(value)
    names |= pickler.names
    return file.getvalue()


def _always(name: str) -> bool:
    return True


def _never(name: str) -> bool:
    return False


def _name(obj: Any) -> str | None:
    """The name by which the script has it; None: it has not."""
    name = getattr(obj, "__qualname__", None)
    if getattr(obj, "__module__", None) != "__main__" or not isinstance(name, str):
        return None
    return name if _found(name) is obj else None


def _found(name: str) -> Any:
    """The object of this name in the script; None: there is none."""
    found: Any = sys.modules["__main__"]
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


@functools.lru_cache(maxsize=4096)
def _used(code: types.CodeType) -> frozenset[str]:
    """Names of globals that a function reads."""
    read = (step.argval for step in dis.get_instructions(code) if step.opname in _READS)
    inside = (_used(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return frozenset(read).union(*inside)


_READS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})


def _cached(function: Callable[..., Any], parameters: Mapping[str, Any]) -> Callable[..., Any]:
    cached: Callable[..., Any] = functools.lru_cache(**parameters)(function)
    return cached


def _made(name: str, make: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """The object of this name, which others refer to and which may have changed; a new one if it is to be replaced."""
    there = None if name.partition(".")[0] in _arriving else _found(name)
    return make(*arguments) if there is None else there


def _settle(made: Any, state: tuple[str, Callable[[Any, Any], Any], Any]) -> None:
    """Complete a function or class that is new."""
    name, settle, inner = state
    if made not in _complete or name.partition(".")[0] in _arriving:
        settle(made, inner)
        _complete.add(made)
