"""Reads YAML with the line number of each key, and rejects what a configuration never needs.

Scalars follow YAML 1.2: ``no`` and ``on`` are strings, and so are ``12:30`` and dates. Limits on size, depth and
aliases bound the time and memory that any file can take.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rlctl.core.errors import ConfigError, Key, RlctlError, brief

MOST_BYTES = 1 << 20
MOST_VALUES = 20_000
"""Limit of keys and values of a document, after expansion of aliases."""
DEEPEST = 30

_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class Source:
    """Positions of the keys of a configuration.

    Attributes:
        path: the file; empty for a configuration made by a program.
        lines: line number of each key and list item, from 1.
        overrides: keys that were set with ``--set``.
    """

    path: Path = Path()
    lines: Mapping[Key, int] = field(default_factory=dict)
    overrides: tuple[Key, ...] = ()

    def place(self, key: Key) -> str:
        """``FILE:LINE: key``, with the line of the key or of the nearest section around it.

        >>> source = Source(Path("a.yaml"), {("train",): 7}, (("seed",),))
        >>> source.place(("train", "decisions")), source.place(("seed",))
        ('a.yaml:7: train.decisions', 'a.yaml with --set seed')
        """
        name = ".".join(key)
        for length in range(len(key), 0, -1):
            if key[:length] in self.overrides:
                return f"{self.path} with --set {name}"
            if key[:length] in self.lines:
                return f"{self.path}:{self.lines[key[:length]]}: {name}"
        return name if self.path == Path() else f"{self.path}: {name}"

    @contextmanager
    def located(self) -> Iterator[None]:
        """Add file and line to errors about a key that are raised inside."""
        try:
            yield
        except RlctlError as error:
            if error.key is None:
                raise
            raise type(error)(f"{self.place(error.key)}: {error.problem}") from error


def read_mapping(path: Path) -> tuple[dict[str, Any], dict[Key, int]]:
    """The mapping in a YAML file, and the line number of each of its keys; ConfigError if there is none."""
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give a YAML file")
    lines: dict[Key, int] = {}
    data = parse(_text(path), str(path), lines)
    if data is None:
        raise ConfigError(f"{path} is empty; see configs/ of rlctl for examples")
    if not isinstance(data, dict):
        kind = {"list": "list", "str": "string"}.get(type(data).__name__, f"single value ({data!r})")
        raise ConfigError(f"{path} holds a {kind}, not a mapping of keys to values")
    return data, lines


def parse(text: str, where: str, lines: dict[Key, int] | None = None) -> Any:
    """Parse a YAML text.

    Args:
        where: begins the message of the ConfigError if it is not YAML, or exceeds what a configuration may contain.
        lines: receives the line number of each key.
    """
    try:
        loader = _Loader(text, {} if lines is None else lines)
        try:
            node = loader.get_single_node()
            return None if node is None else loader.build(node, ())
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = _plain_problem(" ".join((error.problem or error.context or "cannot be read").split()))
        raise ConfigError(f"{where}{f':{mark.line + 1}' if mark else ''}: {problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            f"{where}:{line}: not YAML: it contains the unprintable character {error.character!r}"
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
    except (ValueError, IndexError, RecursionError) as error:  # PyYAML raises these itself, e.g. for "%YAML 9999...9"
        raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}") from None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ConfigError(f"{str(path)!r}: no such file ({error})") from None
    if len(data) > MOST_BYTES:
        raise ConfigError(
            f"{path} has more than {MOST_BYTES >> 20} MiB, too much for a configuration; give a YAML file"
        )
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigError(f"{path} is not a text file in UTF-8 but in UTF-16: save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not a text file in UTF-8; give a YAML file") from None


class _Loader(yaml.SafeLoader):
    """Composes YAML nodes within the limits of number and depth, and converts them to Python values.

    Args:
        lines: receives the line number of each key.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 -- PyYAML reads it from the class; filled below

    def __init__(self, text: str, lines: dict[Key, int]) -> None:
        super().__init__(text)
        self._lines = lines
        self._depth = self._count = self._expanded = 0
        self._open: set[int] = set()

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node and its children."""
        self._count += 1
        self._depth += 1
        try:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            if self._depth > DEEPEST:
                raise _refusal(f"more than {DEEPEST} levels deep: write it flatter", mark)
            if self._count > MOST_VALUES:
                raise _refusal(f"more than {MOST_VALUES} values, too many for a configuration", mark)
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def build(self, node: yaml.Node, key: Key) -> Any:
        """Convert a node; notes the lines of its keys."""
        self._count_expanded(node)
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        with self._entered(node):
            if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
                return [self._child(item, item.start_mark.line, (*key, str(i))) for i, item in enumerate(node.value)]
            if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
                mapping: dict[str | int, Any] = {}
                for name, line, value in self._items(node, key):
                    if name not in mapping:  # else a merged one that the mapping overrides
                        mapping[name] = self._child(value, line, (*key, str(name)))
                return mapping
        raise _unknown_tag(node)

    def _child(self, node: yaml.Node, line: int, key: Key) -> Any:
        self._lines[key] = line + 1
        return self.build(node, key)

    def _items(self, node: yaml.MappingNode, key: Key) -> Iterator[tuple[str | int, int, yaml.Node]]:
        """Keys of a mapping with their lines, from 0, and value nodes; merged ones (<<) last."""
        lines: dict[str | int, int] = {}
        merged: list[yaml.Node] = []
        for name_node, value_node in node.value:
            mark = name_node.start_mark
            if name_node.tag == f"{_TAG}merge":
                several = isinstance(value_node, yaml.SequenceNode)
                merged.extend(value_node.value if several else [value_node])
                continue
            name = _scalar(name_node) if isinstance(name_node, yaml.ScalarNode) else None
            if isinstance(name, bool) or not isinstance(name, str | int):
                what = name_node.value if isinstance(name_node, yaml.ScalarNode) else "a list or mapping"
                raise _refusal(f"{what!r} cannot be a key: put it in quotes", mark)
            if name in lines:
                place = ".".join((*key, str(name)))
                raise _refusal(f"{place}: given twice, in line {lines[name] + 1} too: remove one", mark)
            lines[name] = mark.line
            yield name, mark.line, value_node
        for other in merged:
            if not isinstance(other, yaml.MappingNode):
                raise _refusal("<< takes a mapping, or a list of mappings", other.start_mark)
            self._count_expanded(other)
            with self._entered(other):
                yield from self._items(other, key)

    def _count_expanded(self, node: yaml.Node) -> None:
        self._expanded += 1
        if self._expanded > MOST_VALUES:
            raise _refusal(f"more than {MOST_VALUES} values after its aliases (*) are expanded", node.start_mark)

    @contextmanager
    def _entered(self, node: yaml.Node) -> Iterator[None]:
        if id(node) in self._open:
            raise _refusal("a value that contains itself through an alias (*): write it out", node.start_mark)
        self._open.add(id(node))
        try:
            yield
        finally:
            self._open.discard(id(node))


for _kind, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F_]+|0o[0-7_]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"{_TAG}{_kind}", re.compile(rf"(?:{_pattern})$"), list(_first))


def _scalar(node: yaml.ScalarNode) -> str | int | float | bool | None:
    text = node.value
    if node.tag == f"{_TAG}str":
        bad = next((c for c in text if c == "\0" or "\ud800" <= c <= "\udfff"), None)
        if bad is not None:
            raise _refusal(f"a string contains the character {bad!r}: remove it", node.start_mark)
        return str(text)
    if node.tag == f"{_TAG}null":
        return None
    if node.tag == f"{_TAG}bool" and text.lower() in ("true", "false"):
        return bool(text.lower() == "true")
    try:
        if node.tag == f"{_TAG}int":
            number = int(text.replace("_", ""), {"0x": 16, "0o": 8}.get(text[:2], 10))
            if -(2**63) <= number < 2**63:
                return number
            raise _refusal(f"{brief(text)} is too large for a 64-bit integer", node.start_mark)
        if node.tag == f"{_TAG}float":
            value = float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
            if math.isfinite(value):
                return value
            raise _refusal(f"{brief(text)} is not a finite number", node.start_mark)
    except ValueError:
        raise _refusal(f"{brief(text)} is not a valid number", node.start_mark) from None
    raise _unknown_tag(node)


def _unknown_tag(node: yaml.Node) -> yaml.MarkedYAMLError:
    tag = str(node.tag).replace(_TAG, "!!")
    return _refusal(f"the YAML tag {brief(tag)} is not supported: write a plain value", node.start_mark)


def _refusal(problem: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=_OURS + problem, problem_mark=mark)


_OURS = "\0"
"""Marks messages of this module, to tell them from those of PyYAML."""


def _plain_problem(problem: str) -> str:
    if problem.startswith(_OURS):
        return problem[1:]
    if problem.startswith("but found another document"):
        return "a second YAML document begins here (---): give one experiment per file"
    if "'\\t'" in problem:
        return "not YAML: a tab in the indentation: indent with spaces"
    return f"not YAML: {problem}"
