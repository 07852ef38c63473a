"""What an experiment may say: strict and typed, the same for training, comparison and steering."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, PrivateAttr, Tag

from rlctl.executors.base import Capacity
from rlctl.yaml_source import Source

SCHEMA = 1


class Section(BaseModel):
    """A mapping of known keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class CampaignSection(Section):
    """Which campaign; its factory checks the options.

    Attributes:
        name: as registered under ``rlctl.campaigns``.
        options: the campaign's own.
    """

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class MachineSection(Section):
    """The allocation: equal nodes.

    Attributes:
        nodes: how many.
        cores: of each node, as many as the campaign may use.
        gpus: of each node.
        memory_mb: of each node, MiB, for tasks that say what they need; null: memory is not booked.
    """

    nodes: int = Field(default=1, ge=1, le=100_000)
    cores: int = Field(default=2, ge=1, le=100_000)
    gpus: int = Field(default=0, ge=0, le=1_000)
    memory_mb: int | None = Field(default=None, ge=1)

    def capacity(self) -> Capacity:
        """The same, as executors want it."""
        return Capacity(nodes=self.nodes, cores=self.cores, gpus=self.gpus, memory_mb=self.memory_mb)


class ExecutorSection(Section):
    """What runs the tasks of a real campaign; its factory checks the options.

    Attributes:
        name: as registered under ``rlctl.executors``.
        options: the executor's own.
    """

    name: str = "local"
    options: dict[str, Any] = Field(default_factory=dict)


class TrainSection(Section):
    """How a policy is learned; the learner checks the options.

    Attributes:
        algorithm: as registered under ``rlctl.learners``.
        decisions: how many decisions to learn from.
        num_envs: campaigns that are stepped together.
        seed: of the learner; the experiment's seed if None.
        checkpoint_decisions: decisions between two checkpoints, which is what a kill can cost.
        validation_instances: that the policy and every rule play at checkpoints, for the curves; 0: none.
        options: the learner's own.
    """

    algorithm: str = "ppo"
    decisions: int = Field(ge=1)
    num_envs: int = Field(default=64, ge=1, le=65_536)
    seed: int | None = Field(default=None, ge=0)
    checkpoint_decisions: int = Field(default=100_000, ge=1)
    validation_instances: int = Field(default=4, ge=0, le=10_000)
    options: dict[str, Any] = Field(default_factory=dict)


class RuleEntry(Section):
    """A rule with its parameters; those left out keep the rule's defaults.

    Attributes:
        rule: as registered under ``rlctl.policies``.
        parameters: the rule's own.
    """

    rule: str
    parameters: dict[str, Any] = Field(default_factory=dict)


class RuleFile(RuleEntry):
    """What ``rlctl tune`` writes: a rule, its parameters and how they were found."""

    schema_version: Literal[1] = Field(alias="schema")
    tuning: dict[str, Any] = Field(default_factory=dict)
    _source: Source = PrivateAttr(default_factory=Source)

    @property
    def source(self) -> Source:
        """The file that it was read from, and the lines of its keys."""
        return self._source


class EvaluateSection(Section):
    """The held-out comparison.

    Attributes:
        instances: number of instances, the same for each policy.
        seed: of the held-out instances, apart from those of training.
    """

    instances: int = Field(default=256, ge=2)
    seed: int = Field(default=1_000_000, ge=0)


class SteerSection(Section):
    """The real campaign.

    Attributes:
        fallback: the policy that answers where the steering one fails; None: the first allowed choice of each head.
        rules_on_twin: whether, once the campaign has ended, the rules play its twin for the curves beside it.
    """

    fallback: str | None = None
    rules_on_twin: bool = True


Entry = Annotated[
    Annotated[RuleEntry, Tag("mapping")] | Annotated[str, Tag("path")],
    Discriminator(lambda value: "path" if isinstance(value, str) else "mapping"),
]


class Config(Section):
    """One experiment.

    Attributes:
        schema: version of this format.
        seed: what everything random is drawn from, unless a section has a seed of its own.
        campaign: the campaign.
        machine: the allocation.
        executor: what runs the real tasks.
        train: how to learn; ``rlctl train`` needs it, the other commands do not.
        evaluate: the held-out comparison.
        steer: the real campaign.
        policies: by name, a rule with parameters, or the path of a rule file or of a saved policy's folder.
    """

    schema_version: Literal[1] = Field(alias="schema")
    seed: int = Field(ge=0)
    campaign: CampaignSection
    machine: MachineSection = Field(default_factory=MachineSection)
    executor: ExecutorSection = Field(default_factory=ExecutorSection)
    train: TrainSection | None = None
    policies: dict[str, Entry] = Field(default_factory=dict)
    evaluate: EvaluateSection = Field(default_factory=EvaluateSection)
    steer: SteerSection = Field(default_factory=SteerSection)
    _source: Source = PrivateAttr(default_factory=Source)

    @property
    def source(self) -> Source:
        """The file that it was read from, and the lines of its keys."""
        return self._source

    def resolve(self, path: str | Path) -> Path:
        """``path`` as seen from the configuration file's folder."""
        return self._source.path.parent / path
