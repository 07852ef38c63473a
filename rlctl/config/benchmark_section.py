"""The section ``benchmark`` of a configuration."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from rlctl.config.section import Section


class ClairvoyantSection(Section):
    """A rule on a twin that shows the truth, for comparison: what complete knowledge is worth.

    Attributes:
        rule: entry point in the group ``rlctl.policies``.
        parameters: parameters of the rule; the others keep their defaults.
        options: changes to ``campaign.options`` by which the twin shows the truth.
    """

    rule: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    options: dict[str, Any] = Field(default_factory=dict)


class SearchedRuleSection(Section):
    """A rule whose parameters are the policy: it is tuned with each seed, as ``rlctl tune`` does.

    Attributes:
        rule: entry point in the group ``rlctl.policies``.
        instances, step: see there.
    """

    rule: str
    instances: int = Field(default=24, ge=1, le=100_000)
    step: float = Field(default=0.25, ge=0.001, le=1.0)


class BenchmarkSection(Section):
    """What ``rlctl benchmark`` trains, tunes and compares; see [](benchmark.md).

    Attributes:
        seeds: number of trainings, with the seeds 1, 2, 3 and so on; 0: nothing is trained.
        search: in place of a training: the policy is this rule, tuned with ``decisions`` decisions for each seed.
        tune: rules that are tuned with ``decisions`` decisions on the twin; null: the rules among ``policies``, and the
            campaign's opponents.
        decisions: on the twin for the tuning of each rule; null: as many as a training has.
        controls: evaluation instances of the controls against self-deception.
        clairvoyant: a rule on a twin that shows the truth.
        variants: other games by name, for which nothing is trained or tuned: changes to keys of the configuration.
        real: evaluation instances that the policy and the best rule also steer for real.
        calibrated: changes to keys of the configuration by which its twin has the durations of the machine that real
            campaigns run on; these are then compared with both twins.
    """

    seeds: int = Field(default=5, ge=0, le=100)
    search: SearchedRuleSection | None = None
    tune: list[str] | None = None
    decisions: int | None = Field(default=None, ge=1)
    controls: int = Field(default=64, ge=2, le=100_000)
    clairvoyant: ClairvoyantSection | None = None
    variants: dict[str, dict[str, Any]] = Field(default_factory=dict)
    real: int = Field(default=0, ge=0, le=100_000)
    calibrated: dict[str, Any] = Field(default_factory=dict)
