"""Reads YAML with the line of each key, and refuses what a configuration never needs.

The words of YAML 1.2 are meant: ``no`` and ``on`` are names, ``12:30`` is no number, dates are texts. Documents cannot
be deep, huge or cyclic, however they are written, so that no file can keep rlctl busy or fill its memory.
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

from rlctl.core.errors import ConfigError, Key, RlctlError

MOST_BYTES = 1 << 20
MOST_VALUES = 20_000
"""Keys and values of a document, aliases written out."""
DEEPEST = 30

_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class Source:
    """Where the keys of a configuration stand.

    Attributes:
        path: the file; empty if the configuration was made by a program.
        lines: of each key and of each item of a list, from 1.
        overrides: keys that were given with ``--set``.
    """

    path: Path = Path()
    lines: Mapping[Key, int] = field(default_factory=dict)
    overrides: tuple[Key, ...] = ()

    def place(self, key: Key) -> str:
        """``FILE:LINE: key``, of the key or of what it stands in.

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
        """Complaints about a key that come up inside get file and line."""
        try:
            yield
        except RlctlError as error:
            if error.key is None:
                raise
            raise type(error)(f"{self.place(error.key)}: {error.problem}") from error


def read_mapping(path: Path) -> tuple[dict[str, Any], dict[Key, int]]:
    """The mapping that a YAML file holds, and the line of each of its keys.

    Raises:
        ConfigError: there is no such file, or it holds something else; one line.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give a YAML file")
    lines: dict[Key, int] = {}
    data = parse(_text(path), str(path), lines)
    if data is None:
        raise ConfigError(f"{path} is empty; see configs/ of rlctl for examples")
    if not isinstance(data, dict):
        kind = {"list": "list", "str": "text"}.get(type(data).__name__, f"single value ({data!r})")
        raise ConfigError(f"{path} holds a {kind}, not a mapping of keys to values")
    return data, lines


def parse(text: str, where: str, lines: dict[Key, int] | None = None) -> Any:
    """The value that a YAML text means.

    Args:
        where: what a complaint begins with.
        lines: filled with the line of each key.

    Raises:
        ConfigError: it is no YAML, or nothing that a configuration may hold.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            return None if node is None else _Builder(loader, lines if lines is not None else {}).build(node, ())
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = _in_our_words(" ".join((error.problem or error.context or "cannot be read").split()))
        raise ConfigError(f"{where}{f':{mark.line + 1}' if mark else ''}: {problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{where}:{line}: not YAML: it holds the unprintable character {error.character!r}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
    except (ValueError, IndexError, RecursionError) as error:  # what PyYAML lets through, e.g. for "%YAML 9999...9"
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
        raise ConfigError(f"{path} has more than {MOST_BYTES >> 20} MiB: that is no configuration; give a YAML file")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigError(f"{path} is not a text file in UTF-8 but in UTF-16: save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not a text file in UTF-8; give a YAML file") from None


class _Loader(yaml.SafeLoader):
    """Composes nodes, never too many and never too deep."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 -- PyYAML's way; filled below, for this class alone

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._count = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node and what it holds."""
        self._count += 1
        self._depth += 1
        try:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            if self._depth > DEEPEST:
                raise _refusal(f"more than {DEEPEST} levels deep: write it flatter", mark)
            if self._count > MOST_VALUES:
                raise _refusal(f"more than {MOST_VALUES} values: that is no configuration", mark)
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


for _kind, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F_]+|0o[0-7_]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"{_TAG}{_kind}", re.compile(rf"(?:{_pattern})$"), list(_first))


class _Builder:
    """Makes values of nodes."""

    def __init__(self, loader: _Loader, lines: dict[Key, int]) -> None:
        self._loader = loader
        self._lines = lines
        self._open: set[int] = set()
        self._count = 0

    def build(self, node: yaml.Node, key: Key) -> Any:
        """The value of a node, the lines of its keys noted."""
        self._count += 1
        if self._count > MOST_VALUES:
            raise _refusal(f"more than {MOST_VALUES} values once its aliases (*) are written out", node.start_mark)
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if id(node) in self._open:
            raise _refusal("a value that holds itself, through an alias (*): write it out", node.start_mark)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
                return [self._item(item, (*key, str(i))) for i, item in enumerate(node.value)]
            if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
                return self._mapping(node, key)
        finally:
            self._open.discard(id(node))
        raise _unknown_tag(node)

    def _item(self, node: yaml.Node, key: Key) -> Any:
        self._lines[key] = node.start_mark.line + 1
        return self.build(node, key)

    def _mapping(self, node: yaml.MappingNode, key: Key) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        first: dict[Any, int] = {}
        merged: list[yaml.Node] = []
        for name_node, value_node in node.value:
            line = name_node.start_mark.line + 1
            if name_node.tag == f"{_TAG}merge":
                several = isinstance(value_node, yaml.SequenceNode)
                merged.extend(value_node.value if several else [value_node])
                continue
            name = _scalar(name_node) if isinstance(name_node, yaml.ScalarNode) else None
            if isinstance(name, bool) or not isinstance(name, str | int):
                what = name_node.value if isinstance(name_node, yaml.ScalarNode) else "a list or mapping"
                raise _refusal(f"{what!r} cannot be a key: put it in quotes", name_node.start_mark)
            if name in first:
                place = ".".join((*key, str(name)))
                raise _refusal(f"{place}: given twice, in line {first[name]} too: remove one", name_node.start_mark)
            first[name] = line
            inner = (*key, str(name))
            self._lines[inner] = line
            result[name] = self.build(value_node, inner)
        for other in merged:
            if not isinstance(other, yaml.MappingNode):
                raise _refusal("<< takes a mapping, or a list of mappings", other.start_mark)
            aside: dict[Key, int] = {}
            values = _Builder.build(self._aside(aside), other, key)
            for name, value in values.items():
                if name not in result:
                    result[name] = value
                    inner = (*key, str(name))
                    self._lines |= {k: line for k, line in aside.items() if k[: len(inner)] == inner}
        return result

    def _aside(self, lines: dict[Key, int]) -> _Builder:
        """The same, with lines of its own: what is merged gives way to what is there."""
        other = _Builder(self._loader, lines)
        other._open = self._open
        # What is merged again and again is counted again and again.
        other._count = self._count = self._count + 1
        return other


def _scalar(node: yaml.ScalarNode) -> str | int | float | bool | None:
    text = node.value
    if node.tag == f"{_TAG}str":
        bad = next((c for c in text if c == "\0" or "\ud800" <= c <= "\udfff"), None)
        if bad is not None:
            raise _refusal(f"a text with the character {bad!r}: remove it", node.start_mark)
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
            raise _refusal(f"{_short(text)} is too large a whole number (64 bits)", node.start_mark)
        if node.tag == f"{_TAG}float":
            value = float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
            if math.isfinite(value):
                return value
            raise _refusal(f"{_short(text)} is not a finite number: give one", node.start_mark)
    except ValueError:
        raise _refusal(f"{_short(text)} is not a number that can be used", node.start_mark) from None
    raise _unknown_tag(node)


def _unknown_tag(node: yaml.Node) -> yaml.MarkedYAMLError:
    tag = str(node.tag).replace(_TAG, "!!")
    return _refusal(f"the YAML tag {_short(tag)} is not known here: write a plain value", node.start_mark)


def _refusal(problem: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=_OURS + problem, problem_mark=mark)


_OURS = "\0"
"""Marks our own words, as against those of PyYAML."""


def _in_our_words(problem: str) -> str:
    if problem.startswith(_OURS):
        return problem[1:]
    if problem.startswith("but found another document"):
        return "a second YAML document begins here (---): give one experiment per file"
    if "'\\t'" in problem:
        return "not YAML: a tab where YAML wants blanks: indent with blanks"
    return f"not YAML: {problem}"


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
