"""The TensorBoard tags of training and steering, each with a description, and their layout on the page.

Training and steering write the same tags, so that TensorBoard compares them. Names in braces stand for a purpose of the
ledger, a head of the action space, a quantity of the campaign and so on. Steps are decisions unless the description
says otherwise. Besides ``RUN``, the runs ``RUN/policy`` and ``RUN/rules/NAME`` hold the successes of the policy and of
each rule for the same cost, under the same tags; ``RUN/evaluations`` holds what the evaluations of a search have found.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

RULES, POLICY, EVALUATIONS = "rules", "policy", "evaluations"
"""Sub-runs: of each rule, of the policy against cost, and of evaluations against cost."""


class TagKind(StrEnum):
    """TensorBoard plugin of a tag."""

    SCALAR = "scalars"
    HISTOGRAM = "histograms"
    IMAGE = "images"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag, or a family of tags."""

    name: str
    kind: TagKind
    description: str

    def matches(self, tag: str) -> bool:
        """Whether ``tag`` is this tag or belongs to this family."""
        return re.match(regex(self.name), tag) is not None


@dataclass(frozen=True, slots=True)
class Chart:
    """Tags that share a chart."""

    title: str
    tags: tuple[str, ...]


_S, _H, _I, _T = TagKind.SCALAR, TagKind.HISTOGRAM, TagKind.IMAGE, TagKind.TEXT
TAGS = (
    Tag("learning/return_mean", _S, "Mean return of a campaign: undiscounted sum of its rewards."),
    Tag("learning/return_std", _S, "Standard deviation of the returns of the last campaigns."),
    Tag("learning/returns", _H, "Returns of the last campaigns."),
    Tag("learning/node_seconds_per_success", _S, "Cost of a success while exploring, over the last campaigns."),
    Tag("learning/cost_per_success", _S, "The same, for campaigns with a cost of their own."),
    Tag("learning/decisions_per_campaign", _S, "Mean number of decisions of the last campaigns."),
    Tag("learning/policy_loss", _S, "Negative clipped surrogate objective; noisy around zero."),
    Tag("learning/value_loss", _S, "Mean squared error of the critic."),
    Tag("learning/loss", _S, "Objective of the optimiser: sum of policy, value and entropy terms."),
    Tag("learning/entropy", _S, "Entropy of the policy in nats, summed over the heads; low for confident choices."),
    Tag("learning/approx_kl", _S, "KL divergence of the policy from that before an update; large steps above 0.05."),
    Tag("learning/start_kl", _S, "KL divergence of the policy from the imitation that it started as, in nats."),
    Tag("learning/clip_fraction", _S, "Share of the samples with a clipped probability ratio."),
    Tag("learning/clip_range", _S, "Clip range of the probability ratio."),
    Tag("learning/explained_variance", _S, "Fraction of return variance explained by the critic: 1 all, 0 none."),
    Tag("learning/learning_rate", _S, "Learning rate of the optimiser."),
    Tag("learning/updates", _S, "Passes over collected decisions so far."),
    Tag("learning/lag", _S, "Age, in updates, of the policy that made the decisions learned from."),
    Tag("learning/lag_max", _S, "The largest lag among the decisions of an update."),
    Tag("learning/lag_by_duration/{quarter}", _S, "Lag of the chunks in each quartile of step duration."),
    Tag("learning/decisions_per_s", _S, "Decisions collected and learned from per second."),
    Tag("learning/other/{name}", _S, "Other values that the algorithm logs, under its own names."),
    Tag("learning/actions/{name}", _H, "Choices: a quantity that decisions name, or a head of the action space."),
    Tag("learning/masked_share", _S, "Mean share of masked choices."),
    Tag("learning/masked_shares", _H, "Share of masked choices, by decision."),
    Tag("distributed/learner_idle", _S, "Share of time in which the learner waited for actors."),
    Tag("distributed/actor_busy", _S, "Share of time that actors spent in their environments, over the last chunks."),
    Tag("distributed/actors", _S, "Number of live actors."),
    Tag("distributed/restarts", _S, "Replacements of lost actors so far."),
    Tag("distributed/failures/{kind}", _S, "Environment failures so far, by kind."),
    Tag("distributed/chunk_transitions", _S, "Mean number of decisions per chunk."),
    Tag("winning/successes", _S, "Successes of a campaign, or the mean of several; steps are node-seconds."),
    Tag("winning/node_seconds_per_success", _S, "Allocated node-seconds per success, the objective."),
    Tag("winning/cost_per_success", _S, "Cost per success, for campaigns with a cost of their own."),
    Tag("winning/success_rate", _S, "Share of campaigns with at least one success."),
    Tag("winning/goal_rate", _S, "Share of campaigns that reached their goal."),
    Tag("found/best/{objective}", _S, "Best value so far of an objective; steps are node-seconds."),
    Tag("found/objective/{name}", _S, "Value of each evaluation, by objective and stage; steps are node-seconds."),
    Tag("found/failures/{stage}", _S, "Evaluations so far without a result, by stage; steps are node-seconds."),
    Tag("machine/node_seconds", _S, "Node-seconds allocated so far."),
    Tag("machine/utilisation", _S, "Share of the allocated core-seconds that tasks held."),
    Tag("machine/share/{purpose}", _S, "Share of the allocated core-seconds by purpose; they add up to 1."),
    Tag("machine/tasks/{state}", _S, "Number of task attempts in this state."),
    Tag("machine/answers/{command}", _S, "Decisions so far that started, stopped or resized a task, or waited."),
    Tag("machine/busy_cores", _S, "Cores held by tasks now."),
    Tag("machine/queued_tasks", _S, "Tasks waiting for cores."),
    Tag("machine/latency_p50_ms", _S, "Median time of the policy for a decision, over the last 1000 decisions."),
    Tag("machine/latency_p99_ms", _S, "99th percentile of the same time."),
    Tag("machine/task_s", _H, "Durations of ended attempts, in seconds."),
    Tag("machine/allocation", _I, "Cores or nodes down, seconds across, coloured by purpose."),
    Tag("machine/tasks", _I, "The same picture, with a colour for each task."),
    Tag(
        "campaign/{name}",
        _S,
        "Quantities of the campaign: final ones in training, those of each decision in steering.",
    ),
    Tag("pictures/{name}", _I, "Pictures of the campaign, such as its films."),
    Tag("about/goal", _T, "The campaign, its machine, and the policy."),
    Tag("about/configuration", _T, "The configuration with defaults, as YAML."),
    Tag("about/versions", _T, "Versions, commit, platform."),
    Tag("about/reproduce", _T, "Commands that repeat the run."),
    Tag("about/result", _T, "Result of the run and of each rule."),
)

LAYOUT: dict[str, tuple[Chart, ...]] = {
    "Is it learning?": (
        Chart("return of a campaign", ("learning/return_mean",)),
        Chart("losses", ("learning/policy_loss", "learning/value_loss")),
        Chart("entropy of the policy, nats", ("learning/entropy",)),
        Chart("size of the steps", ("learning/approx_kl", "learning/clip_fraction", "learning/start_kl")),
        Chart("explained variance of the critic", ("learning/explained_variance",)),
        Chart("lag of the data, updates", ("learning/lag", "learning/lag_max", "learning/lag_by_duration/{quarter}")),
        Chart("decisions per second", ("learning/decisions_per_s",)),
    ),
    "Is it winning?": (
        Chart("successes against node-seconds", ("winning/successes",)),
        Chart("node-seconds per success", ("winning/node_seconds_per_success",)),
        Chart("cost per success, where it is not node-seconds", ("winning/cost_per_success",)),
        Chart("share of campaigns with a success, and with the goal", ("winning/success_rate", "winning/goal_rate")),
    ),
    "What has been found?": (
        Chart("best value against node-seconds", ("found/best/{objective}",)),
        Chart("value of each evaluation against node-seconds", ("found/objective/{name}",)),
        Chart("evaluations without a result against node-seconds", ("found/failures/{stage}",)),
    ),
    "Is the machine busy?": (
        Chart("utilisation of the cores", ("machine/utilisation",)),
        Chart("share of the core-seconds by purpose", ("machine/share/{purpose}",)),
        Chart("tasks by state", ("machine/tasks/{state}",)),
        Chart("decisions by command", ("machine/answers/{command}",)),
        Chart("busy cores and queued tasks", ("machine/busy_cores", "machine/queued_tasks")),
        Chart("decision latency, ms", ("machine/latency_p50_ms", "machine/latency_p99_ms")),
    ),
    "Are the ranks busy?": (
        Chart(
            "learner idle, actors busy, shares of their time", ("distributed/learner_idle", "distributed/actor_busy")
        ),
        Chart("actors, and replacements of lost ones", ("distributed/actors", "distributed/restarts")),
        Chart("failures of environments", ("distributed/failures/{kind}",)),
        Chart("size of a chunk, transitions", ("distributed/chunk_transitions",)),
    ),
}
"""Charts of the custom scalars page, by the question that they answer."""

METRICS = ("winning/node_seconds_per_success", "winning/success_rate", "learning/return_mean")
"""Metrics of the HParams page."""


@lru_cache(maxsize=4096)
def find(tag: str) -> Tag | None:
    """The entry of a tag; None for an unknown tag.

    >>> find("machine/share/idle").name, find("machine/shares")
    ('machine/share/{purpose}', None)
    """
    return next((entry for entry in TAGS if entry.matches(tag)), None)


def regex(name: str) -> str:
    """Regular expression of a tag or family of tags, for the custom scalars page."""
    return "^" + re.sub(r"\\\{.*?\\\}", ".+", re.escape(name)) + "$"
