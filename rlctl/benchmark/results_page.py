"""Renders results as Markdown: the page of a family, and the tables that other pages quote."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlctl.benchmark import result_rows as rows
from rlctl.benchmark.family import BEST_SEED, CAMPAIGNS
from rlctl.benchmark.result_rows import FamilyResults, Row, read_results
from rlctl.benchmark.systems import UNTUNED
from rlctl.core.errors import ConfigError

SIGNIFICANT = 0.05
"""A p value below it, corrected by Holm's method, names the cheaper one."""

_QUOTED = re.compile(r"<!-- results: (?P<family>[\w.-]+)(?: (?P<table>\w+))? -->\n(?P<text>.*?)<!-- end -->", re.DOTALL)


def page(results: FamilyResults) -> str:
    """The whole page."""
    made = results.made
    parts = [
        f"# Results: {results.family}",
        f"Made by `{made['command']}`: {made['instances']} evaluation instances. Machine: nodes {made['nodes']}, cores "
        f"{made['cores']}. Brackets are 95 % intervals over instances and training seeds; docs/benchmark.md says "
        "how each figure is made.",
        f"![Cost per success of each system, and successes against cost]({results.family}.svg)",
        _chosen(results),
        "## Systems",
        systems_table(results),
    ]
    sections: Mapping[str, Callable[[FamilyResults], str]] = {
        "Tests": tests_table,
        "Preparation": preparation_table,
        "Controls": controls_table,
        "Other games": variants_table,
        "Real campaigns": real_table,
        "How each was made": _made_table,
        "Not done": _skipped,
    }
    for title, table in sections.items():
        if text := table(results):
            parts += [f"## {title}", text]
    versions = ", ".join(f"{name} {version}" for name, version in made.get("versions", {}).items())
    parts.append(f"Commit {made.get('commit')}; {versions}; Python {made.get('python')}.")
    return "\n\n".join(parts) + "\n"


def summary_table(results: FamilyResults) -> str:
    """What READMEs quote: all systems but single seeds and the defaults of tuned rules, in a few columns."""
    kept = results.chosen.get("candidates", ())
    hidden = [name for name, one in results.systems.items() if one["kind"] == UNTUNED and name not in kept]
    shown = [name for name in order(results) if ", seed " not in name and name not in hidden]
    relative = f"relative to {_reference(results)}"
    return _table(
        ["system", f"{_unit(results)} [95 %]", relative, "geometric mean", "instances lost"],
        [
            [
                _named(results, name),
                _shown(results.of(rows.COST, name)),
                _shown(results.of(rows.SUMS, name), _ratio),
                _shown(results.of(rows.GEOMETRIC, name), _ratio),
                _shown(results.of(rows.LOST, name), _percent),
            ]
            for name in shown
        ],
    )


def systems_table(results: FamilyResults) -> str:
    """All measures of all systems."""
    columns: list[tuple[str, str, Callable[[float], str]]] = [
        (_unit(results), rows.COST, _figure),
        (f"relative to {_reference(results)}", rows.SUMS, _ratio),
        ("geometric mean", rows.GEOMETRIC, _ratio),
        ("instances lost", rows.LOST, _percent),
        ("worst decile", rows.DECILE, _figure),
        ("no success", rows.NONE, _percent),
        ("cost without goal", rows.UNREACHED, _percent),
        ("area", rows.AREA, _share),
    ]
    lines = [
        [_named(results, name), *(_shown(results.of(measure, name), form) for _, measure, form in columns)]
        for name in order(results)
    ]
    return _table(["system", *(title for title, *_ in columns)], lines)


def tests_table(results: FamilyResults) -> str:
    """Sign-flip tests of the policy against the chosen rule."""
    lines = []
    for name in (results.family, *results.variants):
        for one in results.find(rows.FLIPS, family=name):
            ratio, holm = (results.of(measure, one.system, name) for measure in (rows.GEOMETRIC, rows.HOLM))
            p = "" if holm is None else f"{holm.median:.2g} ({holm.unit.removeprefix('p, ')})"
            sure = (one if holm is None else holm).median or 0.0
            cheaper = (
                "" if ratio is None or sure >= SIGNIFICANT else "policy" if (ratio.median or 0.0) > 1.0 else "rule"
            )
            lines.append([name, one.system, f"{one.median:.2g}", p, cheaper])
    return _table(["game", "rule", "p", "p by Holm", "significantly cheaper"], lines, words=2)


def preparation_table(results: FamilyResults) -> str:
    """What trainings and tuned rules took, and when the policy has paid for itself."""
    lines = [
        [one.system, "processor time", f"{_figure(one.median or 0.0)} core-seconds"]
        for one in _all(results, rows.PREPARED)
    ]
    lines += [
        [one.system, f"per success, over {CAMPAIGNS} campaigns", _shown(one)] for one in _all(results, rows.AMORTISED)
    ]
    for one in _all(results, rows.BREAK_EVEN):
        told = "never" if one.median is None else _shown(one, _whole)
        lines.append([f"policy against {one.system}", "has paid for itself after campaigns", told])
    return _table(["system", "figure", "value"], lines, words=2)


def controls_table(results: FamilyResults) -> str:
    """Controls against self-deception."""
    lines = [
        [one.system, f"costs {_shown(one, _ratio)} times the policy", _met(one)] for one in _all(results, rows.CONTROL)
    ]
    for one in _all(results, rows.HIDDEN):
        lines.append(["hidden numbers in `fields`", f"{one.median:g} found in {one.runs} campaigns", _met(one)])
    return _table(["control", "result", "as it should be"], lines, words=3)


def failed_controls(results: FamilyResults) -> list[str]:
    """A line for each control that did not come out as it should."""
    return [
        f"NOT as it should be: {one.system}: {_shown(one, _ratio)} ({one.measure})"
        for one in (*_all(results, rows.CONTROL), *_all(results, rows.HIDDEN))
        if one.met is False
    ]


def variants_table(results: FamilyResults) -> str:
    """The same policies and rules in other games."""
    lines = [
        [
            name.removeprefix(f"{results.family}: "),
            _named(results, one.system),
            _shown(one),
            _shown(results.of(rows.SUMS, one.system, name), _ratio),
            _shown(results.of(rows.GEOMETRIC, one.system, name), _ratio),
        ]
        for name in results.variants
        for one in results.find(rows.COST, family=name)
    ]
    heads = ["game", "system", _unit(results), f"relative to {_reference(results)}", "geometric mean"]
    return _table(heads, lines, words=2)


def real_table(results: FamilyResults) -> str:
    """Real campaigns against their twins."""
    heads, lines = ["system", "campaigns", "per success, real"], []
    for one in _all(results, rows.REAL):
        lines.append([one.system, str(one.runs), _shown(results.of(f"{rows.COST}, real", one.system))])
    for head, measure in (("real / twin", rows.REAL), ("real / calibrated twin", rows.CALIBRATED)):
        if found := _all(results, measure):
            heads += [head, "within 10 %"]
            for line, one in zip(lines, found, strict=True):
                line += [_shown(one, _ratio), _met(one)]
    return _table(heads, lines)


TABLES: Mapping[str, Callable[[FamilyResults], str]] = {
    "summary": summary_table,
    "systems": systems_table,
    "tests": tests_table,
    "preparation": preparation_table,
    "controls": controls_table,
    "variants": variants_table,
    "real": real_table,
}


def with_tables(text: str, folder: Path) -> str:
    """A page with each table between ``<!-- results: FAMILY TABLE -->`` and ``<!-- end -->`` as the results say.

    Args:
        folder: of the results.

    Raises:
        ConfigError: there are no such results, or no such table.
    """

    def table(found: re.Match[str]) -> str:
        file, kind = folder / f"{found['family']}.json", found["table"] or "summary"
        if not file.exists() or kind not in TABLES:
            raise ConfigError(f"{found[0].splitlines()[0]}: there is no {file}, or no table {kind!r}")
        head = found[0].splitlines()[0]
        return f"{head}\n{TABLES[kind](read_results(file))}\n<!-- end -->"

    return _QUOTED.sub(table, text)


def _chosen(results: FamilyResults) -> str:
    chosen = results.chosen
    text = f"Chosen on {chosen.get('instances')} validation instances: the rule *{chosen.get('rule')}*"
    if "seed" in chosen:
        text += f", and training seed {chosen['seed']} for *{BEST_SEED}*"
    return text + ". All figures are of other instances."


def _made_table(results: FamilyResults) -> str:
    lines = []
    for name, record in results.systems.items():
        told = ", ".join(f"{key} {_told(value)}" for key, value in record.items() if key not in ("kind", "as"))
        lines.append([name, record.get("kind", ""), told])
    return _table(["system", "kind", "made with"], lines, words=3)


def _skipped(results: FamilyResults) -> str:
    return "\n".join(f"* {what}: {why}" for what, why in results.skipped.items())


def _all(results: FamilyResults, measure: str) -> list[Row]:
    return results.find(measure)


def order(results: FamilyResults) -> list[str]:
    """The judged policy first, then by cost per success; what has no finite cost last."""
    judged = results.made.get("judged")
    found = {one.system: one.median for one in results.find(rows.COST)}
    own = [name for name in found if judged and (name in (judged, BEST_SEED) or name.startswith(f"{judged}, seed "))]
    rest = sorted((name for name in found if name not in own), key=lambda name: found[name] or float("inf"))
    return own + rest


def _named(results: FamilyResults, name: str) -> str:
    if name == results.chosen.get("rule"):
        return f"**{name}** (chosen rule)"
    return f"**{name}**" if name == results.made.get("judged") else name


def _reference(results: FamilyResults) -> str:
    return "the policy" if results.made.get("judged") else "the chosen rule"


def _unit(results: FamilyResults) -> str:
    return next((one.unit for one in results.find(rows.COST)), "per success")


def _shown(one: Row | None, form: Callable[[float], str] | None = None) -> str:
    if one is None:
        return ""
    form = form or _figure
    value, low, high = ("∞" if x is None else form(x) for x in (one.median, one.low, one.high))
    return value if value == low == high else f"{value} [{low}, {high}]"


def _met(one: Row) -> str:
    return {True: "yes", False: "NO", None: ""}[one.met]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".removesuffix(".")


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _share(value: float) -> str:
    return f"{value:.2f}"


def _percent(value: float) -> str:
    return f"{round(100 * value)} %"


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_told(item)}" for key, item in value.items()) + "}"
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _table(heads: Sequence[str], lines: Iterable[Sequence[str]], words: int = 1) -> str:
    """A table whose first ``words`` columns are text, the others numbers."""
    found = [list(line) for line in lines]
    if not found:
        return ""
    ruler = "|" + "|".join("---" if n < words else "---:" for n in range(len(heads))) + "|"
    return "\n".join(["| " + " | ".join(heads) + " |", ruler, *("| " + " | ".join(line) + " |" for line in found)])
