"""Ways to spoil a configuration: as bytes, and as a tree of keys and values whose lines are known."""

from __future__ import annotations

import copy
import json
import random
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Key = tuple[Any, ...]


class Raw(str):
    """YAML as it stands, which no plain value makes."""


@dataclass(frozen=True)
class Mutant:
    """A spoiled file.

    Attributes:
        key: where the tree was changed; None for bytes.
        line: of that key.
        words: what a refusal must name, if there is one.
        wrong: whether it must be refused.
    """

    kind: str
    data: bytes
    key: Key | None = None
    line: int = 0
    words: tuple[str, ...] = ()
    wrong: bool = False


OTHER = [None, True, False, -1, 0, 1, 2**31, 0.5, "", "x", "yes", [], [1], ["a", "b"], {}, {"a": 1}, [[]], {"rule": 3}]
EXTREME = [
    -(2**63), 2**63 - 1, 10**9, -1, 0, 0.0, -0.5, 1e-300, 1e300, -1e300, "a" * 5000,
    "\x1b[31m", "../" * 40, "ü漢\u202e",
    Raw(".inf"), Raw("-.inf"), Raw(".nan"), Raw("1e999"), Raw("9" * 5000), Raw("-" + "9" * 30), Raw("0x" + "f" * 40),
    list(range(200)), {str(i): i for i in range(200)}, "/dev/zero", "/dev/null", "/", ".", "~", "\n", " ",
]  # fmt: skip
STRANGE = [
    Raw("!!python/object/apply:os.system ['false']"), Raw("!!set {a, b}"), Raw("!!binary aGFsbG8="), Raw("!!int x"),
    Raw("!!omap [a: 1]"), Raw("2001-12-14t21:59:43.10-05:00"), Raw("12:30:45"), Raw("&a [*a]"), Raw("*nowhere"),
    Raw("&a {<<: *a}"), Raw("&a {x: *a}"), Raw("[" * 200 + "]" * 200), Raw("{a: " * 100 + "1" + "}" * 100), Raw("off"),
    Raw("[&a [x,x,x,x,x,x,x,x,x], &b [*a,*a,*a,*a,*a,*a,*a,*a,*a], &c [*b,*b,*b,*b,*b,*b,*b,*b,*b],"
        " &d [*c,*c,*c,*c,*c,*c,*c,*c,*c], &e [*d,*d,*d,*d,*d,*d,*d,*d,*d], [*e,*e,*e,*e,*e,*e,*e,*e,*e]]"),
    Raw('"a\\0b"'), Raw('"\\ud800"'), Raw("{1.5: 2}"), Raw("{[1]: 2}"), Raw("{true: 1}"), Raw("{~: 1}"), Raw("{<<: 3}"),
    Raw("'unclosed"), Raw("\t1"), Raw("@x"), Raw("%x"), Raw("{a: 1, a: 2}"), Raw("? x"), Raw("| \n  text"),
    Raw("a: b: c"),
]  # fmt: skip
GRAFTS: list[tuple[Key, Any]] = [
    (("steer",), {"fallback": "feedback"}), (("steer",), {"fallback": "nobody"}), (("steer",), {"fallback": 3}),
    (("machine", "gpus"), 4), (("machine", "cores"), 1), (("train", "seed"), -1), (("train", "num_envs"), 10**8),
    (("train", "options", "residual"), {"rule": "feedback"}), (("train", "options", "residual"), {"rule": "nobody"}),
    (("train", "options", "residual"), {"rule": "linear", "parameters": {"start": "hot"}}),
    (("train", "options", "net_arch"), [0]), (("train", "options", "logit_bias"), [1.0]),
    (("policies", "new"), {"rule": "lpt"}),
    (("policies", "new"), {"rule": "linear", "parameters": {"end": None}}),
    (("policies", "new"), "tuned"), (("policies", "new"), "annealing.yaml"), (("policies", "new"), "policies"),
    (("campaign", "options", "chains"), 16), (("campaign", "options", "ranks"), [2]), (("evaluate", "instances"), 1),
    (("campaign", "options", "steps"), [320, 80]), (("campaign", "options", "probes"), 3), (("parameters", "x"), 1),
    (("program",), {"command": "sim {x}", "results": {"e": {"regex": "e"}}}), (("programs", "other"), {"command": "x"}),
    (("program", "command"), "python sim.py {z}"), (("program", "command"), ["{x}"]), (("program", "command"), "{x:q}"),
    (("program", "copy"), "/dev/zero"), (("program", "copy"), "**"), (("program", "link"), ["/", "/"]),
    (("program", "templates"), "/dev/zero"), (("program", "templates"), {"in.txt": "/etc/x"}),
    (("program", "templates"), ["sim.py", "in.txt"]), (("program", "delimiters"), ["", ""]),
    (("program", "results", "e"), {"json": "a", "npz": "b"}), (("program", "results", "e"), {"regex": "(" * 200}),
    (("program", "results", "e"), {"function": "os:"}), (("program", "results", "e"), {"hdf5": None}),
    (("program", "failures", "timeout"), {"exit_codes": [1]}), (("program", "failures", "e"), {"pattern": "(?P<"}),
    (("program", "resources", "ranks"), [10**9]), (("program", "resources", "gpus"), [0.5, "x"]),
    (("program", "application"), "none"), (("program", "before"), [[]]), (("folder",), "/dev/null"),
    (("folder",), "in.txt"), (("campaign", "options", "stages"), [{"name": "a", "program": "b"}]),
    (("campaign", "options", "constraints"), ["x <"]), (("campaign", "options", "constraints"), ["x < -1e300"]),
    (("campaign", "options", "constraints"), ["__import__('os')"]), (("campaign", "options", "starts"), [{"x": 1}]),
    (("campaign", "options", "objective"), {"minimize": "energy ** 0.5 / 0"}), (("campaign", "options", "until"), {}),
    (("campaign", "options", "parameters"), {}), (("campaign", "options", "parameters", "x"), {"choices": ["a", "a"]}),
    (("campaign", "options", "candidates"), {"file": "in.txt"}), (("campaign", "options", "repeats"), 100),
]  # fmt: skip


OWN = ("programs", "results", "read", "failures", "environment", "templates", "values", "starts")
"""Keys whose mappings have keys of the user's own."""
SEARCHED = ("campaign", "options", "parameters")
"""Likewise."""


def mutant(data: bytes, tree: dict[str, Any], choice: random.Random) -> Mutant:
    """One random way to spoil a file."""
    make = choice.choice([_bytes] * 3 + list(_TREE))
    for _ in range(20):
        found = make(data, copy.deepcopy(tree), choice)
        if found is not None:
            return found
    return _bytes(data, tree, choice)


def _bytes(data: bytes, tree: dict[str, Any], choice: random.Random) -> Mutant:
    kind = choice.choice(["flip", "insert", "delete", "truncate", "lines", "binary", "tab", "repeat", "encode"])
    changed = bytearray(data)
    at = choice.randrange(len(data))
    end = min(len(data), at + choice.choice([1, 2, 10, 100]))
    if kind == "flip":
        for _ in range(choice.choice([1, 1, 3, 20])):
            changed[choice.randrange(len(data))] = choice.randrange(256)
    elif kind == "insert":
        changed[at:at] = choice.choice(list(b"\t\n :-{}[]&*!|>'\"%@`#,?\0~")).to_bytes(1, "big") * choice.choice(
            [1, 2, 50]
        )
    elif kind == "delete":
        del changed[at:end]
    elif kind == "truncate":
        del changed[at:]
    elif kind == "lines":
        lines = data.split(b"\n")
        i, j = choice.randrange(len(lines)), choice.randrange(len(lines))
        lines[i], lines[j] = lines[j], lines[i]
        changed = bytearray(b"\n".join(lines))
    elif kind == "binary":
        changed[at:end] = choice.randbytes(choice.choice([1, 8, 4096]))
    elif kind == "tab":
        changed = bytearray(data.replace(b"  ", b"\t", choice.choice([1, 3])))
    elif kind == "repeat":
        changed = bytearray(data + choice.choice([b"", b"---\n", b"\n...\n"]) + data)
    else:
        codec = choice.choice(["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp037"])
        changed = bytearray(data.decode().encode(codec))
    return Mutant(f"bytes: {kind}", bytes(changed))


def _leaf(tree: Any, choice: random.Random, inner: bool = False) -> Key | None:
    keys = [key for key, value in _walk(tree) if inner or not isinstance(value, dict)]
    return choice.choice(keys) if keys else None


def _value(kind: str, values: list[Any]) -> Callable[[bytes, dict[str, Any], random.Random], Mutant | None]:
    def make(data: bytes, tree: dict[str, Any], choice: random.Random) -> Mutant | None:
        key = _leaf(tree, choice, inner=True)
        if key is None:
            return None
        _parent(tree, key)[key[-1]] = choice.choice(values)
        return _mutant(kind, tree, key, words=(str(key[-1]),))

    return make


def _remove(data: bytes, tree: dict[str, Any], choice: random.Random) -> Mutant | None:
    key = _leaf(tree, choice, inner=True)
    if key is None or len(tree) < 2:
        return None
    del _parent(tree, key)[key[-1]]
    return _mutant("tree: delete", tree, key)


def _typo(data: bytes, tree: dict[str, Any], choice: random.Random) -> Mutant | None:
    """A key that the schema knows, misspelt."""
    fixed = {"schema", "seed", "campaign", "machine", "train", "policies", "evaluate", "rule", "parameters", "tuning"}
    fixed |= {"program", "programs", "folder"}
    keys = [k for k, _ in _walk(tree) if k[0] in fixed and isinstance(k[-1], str) and len(k[-1]) > 3]
    keys = [k for k in keys if not any(part in OWN for part in k[:-1]) and (k[:3] != SEARCHED or len(k) != 4)]
    keys = [
        k for k in keys if not (len(k) > 1 and k[0] in ("policies", "tuning")) and isinstance(_parent(tree, k), dict)
    ]
    key = choice.choice(keys)
    word, at = key[-1], choice.randrange(1, len(key[-1]) - 1)
    new = choice.choice([word[:at] + word[at + 1 :], word[:at] + choice.choice("jqxz") + word[at:], word.upper()])
    parent = _parent(tree, key)
    if new in parent:
        return None
    renamed = {new if name == word else name: value for name, value in parent.items()}
    parent.clear()
    parent.update(renamed)
    return _mutant("tree: typo", tree, (*key[:-1], new), words=(new,), wrong=True)


def _double(data: bytes, tree: dict[str, Any], choice: random.Random) -> Mutant | None:
    """The same key twice in one mapping."""
    lines, found = emit(tree)
    key = _leaf(tree, choice)
    if key is None or isinstance(key[-1], int) or not isinstance(_parent(tree, key), dict) or key not in found:
        return None
    line = found[key]
    value = _parent(tree, key)[key[-1]]
    if isinstance(value, list) and value:
        return None
    lines.insert(line, lines[line - 1])
    return Mutant("tree: duplicate", _joined(lines), key, line + 1, (str(key[-1]), f"line {line}"), wrong=True)


def _swap(data: bytes, tree: dict[str, Any], choice: random.Random) -> Mutant | None:
    """Two values change places."""
    a, b = _leaf(tree, choice, inner=True), _leaf(tree, choice, inner=True)
    if a is None or b is None or a[: len(b)] == b or b[: len(a)] == a:
        return None
    one, other = _parent(tree, a), _parent(tree, b)
    one[a[-1]], other[b[-1]] = other[b[-1]], one[a[-1]]
    return _mutant("tree: swap", tree, a)


def _graft(data: bytes, tree: dict[str, Any], choice: random.Random) -> Mutant | None:
    """A key that may be there, with a value that may not fit the rest."""
    key, value = choice.choice(GRAFTS)
    inside: Any = tree
    for part in key[:-1]:
        inside = inside.setdefault(part, {}) if isinstance(inside, dict) else None
    if not isinstance(inside, dict):
        return None
    inside[key[-1]] = value
    return _mutant("tree: graft", tree, key)


_TREE = (
    _value("tree: retype", OTHER),
    _value("tree: extreme", EXTREME),
    _value("tree: strange", STRANGE),
    _remove,
    _typo,
    _double,
    _swap,
    _graft,
)


def _mutant(kind: str, tree: Any, key: Key, words: tuple[str, ...] = (), wrong: bool = False) -> Mutant:
    lines, found = emit(tree)
    parents = (key[:n] for n in range(len(key), 0, -1))  # a mapping in a list is written on one line
    line = next((found[parent] for parent in parents if parent in found), 0)
    return Mutant(kind, _joined(lines), key, line, words, wrong)


def _joined(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")


def _walk(value: Any, key: Key = ()) -> list[tuple[Key, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found: list[tuple[Key, Any]] = [(key, value)] if key else []
    for name, inner in items:
        found += _walk(inner, (*key, name))
    return found


def _parent(tree: Any, key: Key) -> Any:
    for part in key[:-1]:
        tree = tree[part]
    return tree


def emit(tree: Any, key: Key = (), indent: str = "") -> tuple[list[str], dict[Key, int]]:
    """YAML with a key or an item per line, and the line of each, counted here and not by what is tested."""
    lines: list[str] = []
    found: dict[Key, int] = {}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for name, value in items:
        plain = isinstance(name, int) or all(c in string.ascii_letters + string.digits + "_" for c in name)
        head = f"{indent}- " if isinstance(tree, list) else f"{indent}{name if plain and name else json.dumps(name)}: "
        found[(*key, name)] = len(lines) + 1
        if isinstance(value, dict | list) and value and not (isinstance(tree, list)):
            lines.append(head.rstrip())
            inner, more = emit(value, (*key, name), indent + "  ")
            found |= {k: n + len(lines) for k, n in more.items()}
            lines += inner
        else:
            lines.append(head + (value if isinstance(value, Raw) else json.dumps(value)))
    return lines, found
