"""What an experiment may say: strict and typed, the same for training, comparison and steering."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, PrivateAttr, Tag, model_validator

from rlctl.config.yaml_source import Source
from rlctl.core.machine import Capacity, NodeGroup

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


class GroupSection(Section):
    """Equal nodes.

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


class MachineSection(GroupSection):
    """The allocation: equal nodes, or groups of them.

    Attributes:
        groups: of unequal nodes, which only the simulated executor has; the other keys are left out then.
    """

    groups: list[GroupSection] = Field(default_factory=list, max_length=64)

    @model_validator(mode="after")
    def _one_way(self) -> MachineSection:
        beside = self.model_fields_set - {"groups"}
        if self.groups and beside:
            raise ValueError(f"groups say it all: leave out {', '.join(sorted(beside))}")
        return self

    def capacity(self) -> Capacity:
        """The same, as executors want it."""
        if self.groups:
            return Capacity.of([NodeGroup(**dict(group)) for group in self.groups])
        return Capacity(nodes=self.nodes, cores=self.cores, gpus=self.gpus, memory_mb=self.memory_mb)


class ExecutorSection(Section):
    """What runs the tasks of a real campaign; its factory checks the options.

    Attributes:
        name: as registered under ``rlctl.executors``.
        options: the executor's own.
    """

    name: str = "local"
    options: dict[str, Any] = Field(default_factory=dict)


class EnvironmentSection(Section):
    """What is done about environments that fail on an actor; each one that failed is made anew.

    Attributes:
        step_timeout_s: a step or reset that takes longer hangs; null: as long as it takes.
        backoff_s: pause before a failed environment is made anew; doubled with each further failure in a row.
        backoff_limit_s: and no longer than this.
        give_up: failures in a row after which the actor leaves; in lock-step the job ends.
        diverged_reward: of the step in which a simulation blew up (it raised ``rlctl.SimulationDiverged``, or gave
            numbers that are not finite), which ends its episode.
    """

    step_timeout_s: float | None = Field(default=None, gt=0)
    backoff_s: float = Field(default=1.0, ge=0)
    backoff_limit_s: float = Field(default=60.0, ge=0)
    give_up: int = Field(default=10, ge=1)
    diverged_reward: float = 0.0


class AgentEntry(Section):
    """One of several agents that learn side by side: what differs from ``train``.

    Attributes:
        seed: of this agent; if None, drawn from that of ``train`` and the agent's number.
        options: merged into the learner's options.
    """

    seed: int | None = Field(default=None, ge=0)
    options: dict[str, Any] = Field(default_factory=dict)


class DistributedSection(Section):
    """How training is spread over MPI ranks; of no effect in a single process, but for ``mode``.

    Attributes:
        mode: ``asynchronous``: actors decide with a copy of the policy and never wait for each other; ``lockstep``:
            environments step together and the learner decides for all, which is reproducible to the bit.
        agents: several that learn side by side, each with its own learners and actors; empty: one.
        learners: of each agent; they average their gradients. One in lock-step.
        ranks_per_env: of each environment, which gets a communicator of so many.
        envs_per_actor: that an actor steps together.
        simulations: ``twin``, or ``executor``: each environment runs the campaign's real tasks, as ``executor`` says,
            on an allocation of its own as ``machine`` says.
        keep_simulations: whether the files of real tasks stay when their episode has ended.
        chunk_steps: steps after which an actor sends what it has; at the end of an episode it does so anyway if
            ``chunk_episode``, and after ``chunk_s`` seconds. null: an eighth of ``train.options.n_steps``, so that what
            PPO learns from is less than an update old; 64 for algorithms that learn from a replay buffer.
        chunk_s: see there.
        chunk_episode: see there.
        discount_s: seconds in which the future is discounted by ``gamma``; null: each step discounts alike.
        weights: ``sent``: with each acknowledgement; ``window``: read from the learner's memory (MPI RMA).
        lease_s: who has not been heard of for so long is gone.
        respawn: how often lost actors are replaced while the training runs, where the MPI can.
        environment: what is done about environments that fail.
    """

    mode: Literal["asynchronous", "lockstep"] = "asynchronous"
    agents: list[AgentEntry] = Field(default_factory=list, max_length=1024)
    learners: int = Field(default=1, ge=1, le=1024)
    ranks_per_env: int = Field(default=1, ge=1, le=65_536)
    envs_per_actor: int = Field(default=1, ge=1, le=65_536)
    simulations: Literal["twin", "executor"] = "twin"
    keep_simulations: bool = False
    chunk_steps: int | None = Field(default=None, ge=1, le=1 << 20)
    chunk_s: float = Field(default=10.0, gt=0)
    chunk_episode: bool = False
    discount_s: float | None = Field(default=None, gt=0)
    weights: Literal["sent", "window"] = "sent"
    lease_s: float = Field(default=60.0, gt=0)
    respawn: int = Field(default=100, ge=0)
    environment: EnvironmentSection = Field(default_factory=EnvironmentSection)


class TrainSection(Section):
    """How a policy is learned; the learner checks the options.

    Attributes:
        algorithm: as registered under ``rlctl.learners``.
        decisions: how many decisions to learn from.
        num_envs: campaigns that are stepped together.
        start: a saved policy, by its name in ``policies`` or its folder, whose network the learning goes on with; null:
            a new one.
        seed: of the learner; the experiment's seed if None.
        checkpoint_decisions: decisions between two checkpoints, which is what a kill can cost.
        validation_instances: that the policy and every rule play at checkpoints, for the curves; 0: none.
        distributed: over MPI ranks.
        options: the learner's own.
    """

    algorithm: str = "ppo"
    decisions: int = Field(ge=1)
    num_envs: int = Field(default=64, ge=1, le=65_536)
    start: str | None = None
    seed: int | None = Field(default=None, ge=0)
    checkpoint_decisions: int = Field(default=100_000, ge=1)
    validation_instances: int = Field(default=4, ge=0, le=10_000)
    distributed: DistributedSection = Field(default_factory=DistributedSection)
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
        max_steps: steps after which an episode of a Gymnasium environment is cut, since a policy may never end it; the
            table says how many were.
        decision_timeout_s: a rule that does not answer a decision for so long hangs, and so does a campaign or task
            model; in ``tune``, ``check`` and the rules' part of ``train`` too. null: never.
    """

    instances: int = Field(default=256, ge=2)
    seed: int = Field(default=1_000_000, ge=0)
    max_steps: int = Field(default=10_000, ge=1)
    decision_timeout_s: float | None = Field(default=60.0, gt=0)


class SteerSection(Section):
    """The real campaign.

    Attributes:
        fallback: the policy that answers where the steering one fails; None: the first allowed choice of each head.
        decision_timeout_s: a policy that does not answer for so long hangs: then ``fallback`` answers, and without one
            the campaign stops, with exit code 3. So it does where the campaign itself hangs. null: never.
        stop_after_failures: attempts of tasks that may fail in the same way without a success between them; then the
            campaign stops, with exit code 3, and waits for ``--resume``. null: it never does.
        stop_after_first_failures: likewise, as long as no task has ever succeeded; null: as ``stop_after_failures``.
        rules_on_twin: whether, once the campaign has ended, the rules play its twin for the curves beside it.
    """

    fallback: str | None = None
    decision_timeout_s: float | None = Field(default=60.0, gt=0)
    stop_after_failures: int | None = Field(default=10, ge=1)
    stop_after_first_failures: int | None = Field(default=3, ge=1)
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
