"""The vocabulary of the curves."""

import re
from pathlib import Path

from rlctl.monitoring.tags import LAYOUT, METRICS, TAGS, TagKind, find, regex

PAGE = Path(__file__).parents[2] / "docs" / "tensorboard.md"


def test_the_page_has_every_tag_with_its_sentence_and_no_other() -> None:
    rows = re.findall(r"^\| `(.+?)` \| (\w+) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    assert rows == [(tag.name, tag.kind.value, tag.description) for tag in TAGS]


def test_no_two_entries_claim_the_same_tag() -> None:
    for tag in TAGS:
        example = re.sub(r"\{.*?\}", "x", tag.name)
        assert [entry.name for entry in TAGS if entry.matches(example)] == [tag.name]
        assert find(example) is tag


def test_charts_and_metrics_show_scalars_that_there_are() -> None:
    names = {tag.name for tag in TAGS if tag.kind is TagKind.SCALAR}
    assert {tag for charts in LAYOUT.values() for chart in charts for tag in chart.tags} <= names
    assert set(METRICS) <= names
    assert re.match(regex("machine/share/{purpose}"), "machine/share/idle")
    assert not re.match(regex("machine/share/{purpose}"), "machine/utilisation")
