"""Directives whose text is made from the code, so that it cannot differ from it.

``{keys} module:Model`` lists the keys of a section of the configuration, ``{rules}`` the registered rules with their
parameters, and ``{commands}`` the command line.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import re
from collections.abc import Iterator
from typing import Any, ClassVar

import typer
from docutils import nodes
from docutils.parsers.rst import directives
from field_text import bounds, default_text, meanings, models_in, type_text
from pydantic import BaseModel
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

log = logging.getLogger(__name__)


class Generated(SphinxDirective):
    """What the directives below share: Markdown in, nodes out."""

    def section(self, title: str, markdown: str, *inner: nodes.Node) -> nodes.section:
        """A section under a title in the typeface of code."""
        node = nodes.section(ids=[nodes.make_id(title)], names=[nodes.fully_normalize_name(title)])
        node += nodes.title(title, "", nodes.literal(title, title))
        self.state.document.note_implicit_target(node, node)
        node += self.parse_text_to_nodes(markdown)
        node += inner
        return node

    def warn(self, text: str) -> None:
        """Tell that the code leaves something unsaid; the build treats warnings as errors."""
        log.warning(text, location=self.get_location())


class Keys(Generated):
    """``{keys} module:Model``: each key with its type, bounds, default and meaning, sections within it after it.

    ``:flat:`` leaves these sections out, where another list on the page has them already.
    """

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {"prefix": directives.unchanged, "flat": directives.flag}

    def run(self) -> list[nodes.Node]:
        """The list, then a section for each model that the keys hold."""
        module, _, name = self.arguments[0].partition(":")
        model = getattr(importlib.import_module(module), name)
        prefix = self.options.get("prefix", "")
        self._alternatives = set[type[BaseModel]]()
        inner = () if "flat" in self.options else self._inner(model, prefix)
        return [*self.parse_text_to_nodes(self._list(model)), *inner]

    def _inner(self, model: type[BaseModel], prefix: str) -> Iterator[nodes.section]:
        for name, field in model.model_fields.items():
            key = ".".join(filter(None, [prefix, field.alias or name]))
            models = list(models_in(field.annotation))
            for inner in models:
                title = f"{key}.NAME" if str(field.annotation).startswith("dict") else key
                if len(models) > 1:  # one of several, known by its first key; listed where it occurs first
                    if inner in self._alternatives:
                        continue
                    self._alternatives.add(inner)
                    first = next(iter(inner.model_fields.items()))
                    title += f" with {first[1].alias or first[0]}"
                intro = first_paragraph(inner)
                yield self.section(title, f"{intro}\n\n{self._list(inner)}", *self._inner(inner, key))

    def _list(self, model: type[BaseModel]) -> str:
        said = {k: v for base in reversed(model.__mro__) for k, v in meanings(base, "Attributes").items()}
        lines = []
        for name, field in model.model_fields.items():
            meaning = field.description or (said.get(field.alias or name) or said.get(name))
            if meaning is None:
                self.warn(f"{model.__module__}.{model.__name__}.{name}: its meaning is not documented (Attributes:)")
            facts = [type_text(field.annotation), *bounds(field.metadata), default_text(field)]
            lines += [f"`{field.alias or name}` *{', '.join(facts)}*", f": {sentence(meaning or '')}", ""]
        return "\n".join(lines)


class Rules(Generated):
    """``{rules}``: every rule that rlctl itself registers, with its parameters and the range of its tuning."""

    def run(self) -> list[nodes.Node]:
        """A section for each."""
        points = importlib.metadata.distribution("rlctl").entry_points.select(group="rlctl.policies")
        return [self._rule(point.name, point.load()) for point in sorted(points, key=lambda p: p.name)]

    def _rule(self, name: str, rule: Any) -> nodes.section:
        said = {k: v for base in reversed(rule.__mro__) for k, v in meanings(base, "Args").items()}
        defaults = {k: p.default for base in rule.__mro__ for k, p in inspect.signature(base).parameters.items()}
        lines = [first_paragraph(rule), ""]
        scales = {(): "", ("log",): ", logarithmic", ("int",): ", whole"}
        space = {"one*other" if "*" in key else key: limits for key, limits in getattr(rule, "SPACE", {}).items()}
        for parameter, (low, high, *scale) in space.items():
            if parameter not in said:
                self.warn(f"rule {name}: {parameter} is not documented (Args:)")
            facts = f"tuned in {low:g} to {high:g}{scales[tuple(scale)]}"
            if parameter in defaults:  # else it is one of **keywords
                default = "null" if defaults[parameter] is None else f"{defaults[parameter]:g}"
                facts = f"default {default}, {facts}"
            lines += [f"`{parameter}` *{facts}*", f": {sentence(said.get(parameter, ''))}", ""]
        return self.section(name, "\n".join(lines))


class Commands(Generated):
    """``{commands} module:app``: every command of a typer program as it explains itself."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """A section for each."""
        module, _, name = self.arguments[0].partition(":")
        group: Any = typer.main.get_command(getattr(importlib.import_module(module), name))
        program = module.partition(".")[0]
        return [self._command(f"{program} {key}", command) for key, command in group.commands.items()]

    def _command(self, title: str, command: Any) -> nodes.section:
        context = command.make_context(title, [], resilient_parsing=True)
        usage = command.get_usage(context).removeprefix("Usage: ")
        example = (command.epilog or "").removeprefix("Example: ")
        if not example:
            self.warn(f"{title}: the command has no example (epilog)")
        lines = [inspect.cleandoc(command.help or ""), "", "```text", usage, "```", ""]
        for parameter in command.params:
            record = parameter.get_help_record(context)
            if record is None:
                continue
            name, text = record
            # What follows the name of an argument is its type, which tells nobody anything.
            name = name if name.startswith("-") else name.partition(" ")[0]
            if not text.partition("[")[0].strip():
                self.warn(f"{title}: {name} is not explained")
            lines += [f"`{name}`", f": {escaped(text)}", ""]
        return self.section(title, "\n".join([*lines, "For example:", "", "```text", example, "```"]))


def first_paragraph(thing: Any) -> str:
    """What a docstring says first."""
    return sentence(inspect.getdoc(thing).split("\n\n")[0])  # type: ignore[union-attr]


def sentence(text: str) -> str:
    """Text of a docstring as a sentence of Markdown."""
    text = escaped(" ".join(text.split())).replace("``", "`")
    text = text[:1].upper() + text[1:]
    return text if not text or text.endswith((".", ":")) else text + "."


def escaped(text: str) -> str:
    """Text without what Markdown or HTML would take for markup; code between backquotes stays."""
    parts = re.split(r"(`+[^`]*`+)", text)
    return "".join(p if p.startswith("`") else re.sub(r"([\[\]<>*_|])", r"\\\1", p) for p in parts)


def by_last_name(app: Sphinx, env: Any, node: Any, contnode: nodes.Node) -> nodes.Node | None:
    """Docstrings say ``ConfigError``, not where it lives: finds it if there is one object of that name only."""
    if node.get("refdomain") != "py":
        return None
    domain = env.get_domain("py")
    name = str(node["reftarget"]).rpartition(".")[2]
    found = [full for full in domain.objects if full.rpartition(".")[2] == name]
    if len(found) != 1:
        return None
    resolved: nodes.Node | None = domain.resolve_xref(env, node["refdoc"], app.builder, "obj", found[0], node, contnode)
    return resolved


def setup(app: Sphinx) -> dict[str, Any]:
    """What Sphinx calls."""
    app.add_directive("keys", Keys)
    app.add_directive("rules", Rules)
    app.add_directive("commands", Commands)
    app.connect("missing-reference", by_last_name)
    return {"parallel_read_safe": True}
