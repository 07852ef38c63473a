"""The configuration of an experiment as strict pydantic models, the same for training, comparison and steering."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from rlctl.config.benchmark_section import BenchmarkSection
from rlctl.config.section import Section
from rlctl.config.twin_section import Twin
from rlctl.core.errors import ConfigError
from rlctl.core.machine import Capacity, NodeGroup


class CampaignSection(Section):
    """The campaign.

    Attributes:
        name: entry point in the group ``rlctl.campaigns``.
        options: options of the campaign; its factory validates them.
    """

    name: str = "search"
    options: dict[str, Any] = Field(default_factory=dict)


class NodeGroupSection(Section):
    """A group of equal nodes.

    Attributes:
        nodes: number of nodes.
        cores: cores of each node that the campaign may use.
        gpus: GPUs of each node.
        memory_mb: memory of each node in MiB, for tasks that request memory; null: memory is not scheduled.
    """

    nodes: int = Field(default=1, ge=1, le=100_000)
    cores: int = Field(default=2, ge=1, le=100_000)
    gpus: int = Field(default=0, ge=0, le=1_000)
    memory_mb: int | None = Field(default=None, ge=1)


class MachineSection(Section):
    """The allocation: equal nodes, or groups of equal nodes.

    Attributes:
        nodes: number of nodes.
        cores: cores of each node that the campaign may use.
        gpus: GPUs of each node.
        memory_mb: memory of each node in MiB, for tasks that request memory; null: memory is not scheduled.
        groups: groups of unequal nodes, for the simulated executor only; excludes the other keys.
    """

    nodes: int = Field(default=1, ge=1, le=100_000)
    cores: int = Field(default=2, ge=1, le=100_000)
    gpus: int = Field(default=0, ge=0, le=1_000)
    memory_mb: int | None = Field(default=None, ge=1)
    groups: list[NodeGroupSection] = Field(default_factory=list, max_length=64)

    @model_validator(mode="after")
    def _groups_exclude_the_rest(self) -> MachineSection:
        beside = self.model_fields_set - {"groups"}
        if self.groups and beside:
            raise ValueError(f"groups describe the whole machine: leave out {', '.join(sorted(beside))}")
        return self

    def capacity(self) -> Capacity:
        """The allocation as executors take it."""
        if self.groups:
            return Capacity.of([NodeGroup(**dict(group)) for group in self.groups])
        return Capacity(nodes=self.nodes, cores=self.cores, gpus=self.gpus, memory_mb=self.memory_mb)


class ExecutorSection(Section):
    """The executor of real tasks.

    Attributes:
        name: entry point in the group ``rlctl.executors``.
        options: options of the executor; its factory validates them.
    """

    name: str = "local"
    options: dict[str, Any] = Field(default_factory=dict)


class EnvironmentSection(Section):
    """Handling of environments that fail on an actor; the actor makes a new one in place of each failed one.

    Attributes:
        step_timeout_s: a step or reset that takes longer has failed; null: no limit.
        backoff_s: pause before a failed environment is made again; it doubles with each failure in a row.
        backoff_limit_s: longest pause.
        give_up: failures in a row after which the actor exits; in lock-step mode the job ends.
        diverged_reward: reward of a step in which the simulation diverged, that is, raised
            ``rlctl.SimulationDiverged`` or returned numbers that are not finite; the episode terminates.
    """

    step_timeout_s: float | None = Field(default=None, gt=0)
    backoff_s: float = Field(default=1.0, ge=0)
    backoff_limit_s: float = Field(default=60.0, ge=0)
    give_up: int = Field(default=10, ge=1)
    diverged_reward: float = 0.0


class AgentEntry(Section):
    """One of several agents that learn at the same time: its differences from ``train``.

    Attributes:
        seed: seed of this agent; null: derived from the seed of ``train`` and the agent's number.
        options: merged into the options of the learner.
    """

    seed: int | None = Field(default=None, ge=0)
    options: dict[str, Any] = Field(default_factory=dict)


class DistributedSection(Section):
    """Distribution of training over MPI ranks; a single process uses only ``mode``.

    Attributes:
        mode: ``asynchronous``: actors act with a copy of the policy and never wait for each other; ``lockstep``:
            all environments step together and the learner acts for all, which is reproducible to the bit.
        agents: agents that learn at the same time, each with its own learners and actors; empty: one.
        learners: learner ranks of each agent, which average their gradients; lock-step mode has one.
        ranks_per_env: MPI ranks of each environment; it gets a communicator of this size.
        envs_per_actor: environments that an actor steps together.
        simulations: ``twin``; or ``executor``: each environment runs the campaign's real tasks with the configured
            ``executor``, on an allocation of its own of the size ``machine``.
        keep_simulations: keep the files of real tasks after their episode.
        chunk_steps: an actor sends its transitions after this many steps. null: an eighth of
            ``train.options.n_steps``, so that the data of PPO are less than one update old; 64 for algorithms with a
            replay buffer.
        chunk_s: it also sends them after this many seconds.
        chunk_episode: it also sends them at the end of each episode.
        discount_s: seconds over which the discount is ``gamma``; null: each step is discounted by ``gamma``.
        weights: ``sent``: actors receive the weights with each acknowledgement; ``window``: they read them from the
            learner's memory (MPI RMA).
        lease_s: a rank that has sent no message for this long counts as lost.
        respawn: largest number of replacements of lost actors, where the MPI library supports it.
        environment: handling of environments that fail.
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
    """Training.

    Attributes:
        algorithm: entry point in the group ``rlctl.learners``.
        decisions: number of decisions to learn from.
        num_envs: campaigns that are stepped together.
        start: rule that is imitated first, by its name in ``policies`` or of a rule; or saved policy, by its name or
            folder, whose network is trained further. ``best_rule``: the cheapest on the twin of the rules that
            can be imitated, where there is one and enough decisions. null: a new network.
        seed: seed of the learner; null: the seed of the experiment.
        checkpoint_decisions: decisions between two checkpoints, the most that a kill can lose.
        validation_instances: instances of the policy and of every rule at each checkpoint, for the curves; 0: none.
        judgement_instances: instances on which the trained policy is judged against the rules in the end; 0: it is not.
        distributed: distribution over MPI ranks.
        options: options of the learner, which validates them.
    """

    algorithm: str = "ppo"
    decisions: int = Field(ge=1)
    num_envs: int = Field(default=64, ge=1, le=65_536)
    start: str | None = "best_rule"
    seed: int | None = Field(default=None, ge=0)
    checkpoint_decisions: int = Field(default=100_000, ge=1)
    validation_instances: int = Field(default=4, ge=0, le=10_000)
    judgement_instances: int = Field(default=64, ge=0, le=10_000)
    distributed: DistributedSection = Field(default_factory=DistributedSection)
    options: dict[str, Any] = Field(default_factory=dict)


class RuleEntry(Section):
    """A rule with its parameters.

    Attributes:
        rule: entry point in the group ``rlctl.policies``.
        parameters: parameters of the rule; the others keep their defaults.
    """

    rule: str
    parameters: dict[str, Any] = Field(default_factory=dict)


class RuleFile(Section):
    """A rule file, as ``rlctl tune`` writes it.

    Attributes:
        rule: entry point in the group ``rlctl.policies``.
        parameters: parameters of the rule; the others keep their defaults.
        tuning: how the parameters were found.
    """

    schema_version: Literal[1] = Field(alias="schema")
    rule: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    tuning: dict[str, Any] = Field(default_factory=dict)

    @property
    def entry(self) -> RuleEntry:
        """The rule with its parameters."""
        return RuleEntry(rule=self.rule, parameters=self.parameters)


class EvaluateSection(Section):
    """The held-out comparison.

    Attributes:
        instances: number of instances, the same for each policy.
        seed: seed of the held-out instances, which differ from those of training for every seed.
        given: these instances, in this order, in place of drawn ones; then ``instances`` does not count, and ``seed``
            only seeds the bootstrap of the intervals.
        max_steps: step limit of an episode of a Gymnasium environment, since a policy may never end it; the table
            shows how many episodes reached it.
        decision_timeout_s: time limit of one call of a rule, campaign or task model; also in ``tune``, ``check`` and
            the evaluation of rules during ``train``. null: no limit.
    """

    instances: int = Field(default=256, ge=2)
    seed: int = Field(default=1_000_000, ge=0)
    given: list[Annotated[int, Field(ge=0, lt=2**63)]] | None = Field(default=None, min_length=1)
    max_steps: int = Field(default=10_000, ge=1)
    decision_timeout_s: float | None = Field(default=60.0, gt=0)


class SteerSection(Section):
    """The real campaign.

    Attributes:
        fallback: policy that decides where the steering policy fails; null: the campaign's own fallback, a rule, or the
            first allowed choice of each head where it has none.
        clean_answers: after a failure, the fallback decides until the policy has given so many valid answers in a row;
            0: only where it fails.
        decision_timeout_s: time limit of a decision. After it ``fallback`` decides; without a fallback, or where the
            campaign itself exceeds the limit, the campaign stops with exit code 3. null: no limit.
        stop_after_failures: attempts of tasks that fail with the same kind of failure, without a success in between,
            before the campaign stops with exit code 3, to be resumed. null: no limit.
        stop_after_first_failures: the same limit until the first task succeeds; null: ``stop_after_failures``.
        rules_on_twin: at the end of the campaign, run the rules on its twin for comparison curves.
    """

    fallback: str | None = None
    clean_answers: int = Field(default=3, ge=0, le=10_000)
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
        seed: seed of all random numbers, except in sections with a seed of their own.
        campaign: the campaign.
        program: program that the campaign runs; see ``rlctl.programs.options.ProgramOptions``.
        programs: several programs by name, in place of ``program``.
        folder: folder of the files that programs name; null: that of this file.
        machine: the allocation.
        executor: the executor of real tasks.
        train: training; only ``rlctl train`` needs it.
        evaluate: the held-out comparison.
        steer: the real campaign.
        policies: policies by name: a rule with parameters, or the path of a rule file or saved policy.
        benchmark: what ``rlctl benchmark`` judges; only that command needs it.
        twin: what stands in for real evaluations in training and comparison; null: problems that the campaign invents.
    """

    schema_version: Literal[1] = Field(default=1, alias="schema")
    seed: int = Field(default=0, ge=0)
    campaign: CampaignSection
    program: dict[str, Any] | None = None
    programs: dict[str, dict[str, Any]] = Field(default_factory=dict)
    folder: str | None = None
    machine: MachineSection = Field(default_factory=MachineSection)
    executor: ExecutorSection = Field(default_factory=ExecutorSection)
    train: TrainSection | None = None
    policies: dict[str, Entry] = Field(default_factory=dict)
    benchmark: BenchmarkSection | None = None
    twin: Twin | None = None
    evaluate: EvaluateSection = Field(default_factory=EvaluateSection)
    steer: SteerSection = Field(default_factory=SteerSection)

    @model_validator(mode="after")
    def _program_or_programs(self) -> Config:
        if self.program is not None and self.programs:
            raise ConfigError("give program, or programs by name, not both", ("programs",))
        return self

    @property
    def training(self) -> TrainSection:
        """The section ``train``.

        Raises:
            ConfigError: there is none.
        """
        if self.train is None:
            raise ConfigError(f"{self.source.path}: the section train is missing: add it")
        return self.train

    @property
    def judged(self) -> BenchmarkSection:
        """The section ``benchmark``.

        Raises:
            ConfigError: there is none.
        """
        if self.benchmark is None:
            raise ConfigError(f"{self.source.path}: the section benchmark is missing: add it, e.g. benchmark: {{}}")
        return self.benchmark

    def with_rules(self, rules: Mapping[str, RuleEntry]) -> Config:
        """The same with rules among its policies, by name."""
        return self.model_copy(update={"policies": {**self.policies, **rules}})

    def resolve(self, path: str | Path) -> Path:
        """``path`` relative to the folder of the configuration file."""
        return self._source.path.parent / path
