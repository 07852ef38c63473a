"""The vocabulary of the curves: every tag that training and steering write, each with its sentence, and their layout.

Both write the same tags, so that one board compares them. A name in braces stands for whatever there is: a purpose of
the ledger, a head of the actions, a quantity of the campaign. Steps are decisions, except where the sentence says
otherwise. The runs are ``RUN``; ``RUN/policy`` and ``RUN/rules/NAME`` hold what the policy and each rule reach for the
same cost, under the same tags.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

RULES, POLICY = "rules", "policy"
"""Sub-runs: one for each rule, and one for the policy's own curve against cost."""


class TagKind(StrEnum):
    """What TensorBoard makes of a tag."""

    SCALAR = "scalars"
    HISTOGRAM = "histograms"
    IMAGE = "images"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag, or a family of tags."""

    name: str
    kind: TagKind
    sentence: str

    def matches(self, tag: str) -> bool:
        """Whether ``tag`` is this one, or of this family."""
        return re.fullmatch(re.sub(r"\\\{.*?\\\}", ".+", re.escape(self.name)), tag) is not None


@dataclass(frozen=True, slots=True)
class Chart:
    """Some tags in one chart."""

    title: str
    tags: tuple[str, ...]


_S, _H, _I, _T = TagKind.SCALAR, TagKind.HISTOGRAM, TagKind.IMAGE, TagKind.TEXT
TAGS = (
    Tag("learning/return_mean", _S, "Mean return of a campaign: undiscounted sum of its rewards."),
    Tag("learning/return_std", _S, "Standard deviation of the returns of the last campaigns."),
    Tag("learning/returns", _H, "Returns of the last campaigns."),
    Tag("learning/node_seconds_per_success", _S, "Cost of a success while exploring, over the last campaigns."),
    Tag("learning/decisions_per_campaign", _S, "Mean number of decisions of the last campaigns."),
    Tag("learning/policy_loss", _S, "The clipped surrogate objective, negated; noisy around zero."),
    Tag("learning/value_loss", _S, "Mean squared error of the critic."),
    Tag("learning/loss", _S, "What the optimiser minimises: policy, value and entropy terms together."),
    Tag("learning/entropy", _S, "Entropy of the policy in nats, summed over the heads; firm choices have little."),
    Tag("learning/approx_kl", _S, "Divergence of the policy from that before an update; above 0.05 steps are long."),
    Tag("learning/clip_fraction", _S, "Share of the samples whose probability ratio was clipped."),
    Tag("learning/clip_range", _S, "The ratio at which it is clipped."),
    Tag("learning/explained_variance", _S, "How much of the returns the critic foresees: 1 all, 0 nothing."),
    Tag("learning/learning_rate", _S, "Learning rate of the optimiser."),
    Tag("learning/updates", _S, "Passes over collected decisions so far."),
    Tag("learning/lag", _S, "How many updates old the policy was that made the decisions learned from."),
    Tag("learning/lag_max", _S, "The largest lag among the decisions of an update."),
    Tag("learning/lag_by_duration/{quarter}", _S, "Lag of the quarter of the chunks with the quickest, ... steps."),
    Tag("learning/decisions_per_s", _S, "Decisions collected and learned from per second."),
    Tag("learning/other/{name}", _S, "What else the algorithm logs, under its own name."),
    Tag("learning/actions/{head}", _H, "Choices of one head of the actions."),
    Tag("learning/masked_share", _S, "Mean share of the choices that the mask forbade."),
    Tag("learning/masked_shares", _H, "Share of the choices that the mask forbade, by decision."),
    Tag("distributed/learner_idle", _S, "Share of the time that the learner waited for its actors."),
    Tag("distributed/actor_busy", _S, "Share of the actors' time inside their environments, over the last chunks."),
    Tag("distributed/actors", _S, "Actors that are there."),
    Tag("distributed/restarts", _S, "Actors that were started in place of lost ones, so far."),
    Tag("distributed/failures/{kind}", _S, "Failures of environments so far, by kind."),
    Tag("distributed/chunk_transitions", _S, "Mean number of decisions in the chunks that actors sent."),
    Tag("winning/successes", _S, "Successes of a campaign, a mean if of many; its steps are node-seconds."),
    Tag("winning/node_seconds_per_success", _S, "Allocated node-seconds over successes: the number that counts."),
    Tag("winning/cost_per_success", _S, "The same of what the campaign counts as its cost, where that is another."),
    Tag("winning/success_rate", _S, "Share of the campaigns that had a success."),
    Tag("winning/goal_rate", _S, "Share of the campaigns that reached their goal."),
    Tag("machine/node_seconds", _S, "Allocated so far."),
    Tag("machine/utilisation", _S, "Share of the allocated core-seconds that tasks occupied."),
    Tag("machine/share/{purpose}", _S, "Share of the allocated core-seconds by purpose; all purposes make 1."),
    Tag("machine/tasks/{state}", _S, "Number of task attempts in this state."),
    Tag("machine/answers/{command}", _S, "How many answers so far started, stopped or resized a task, or waited."),
    Tag("machine/busy_cores", _S, "Cores that a task holds now."),
    Tag("machine/queued_tasks", _S, "Tasks that wait for cores."),
    Tag("machine/latency_p50_ms", _S, "Median time that the policy took to answer, over the last 1000 decisions."),
    Tag("machine/latency_p99_ms", _S, "The same, of the slowest one in a hundred."),
    Tag("machine/task_s", _H, "Durations of the ended attempts, in seconds."),
    Tag("machine/allocation", _I, "Cores or nodes down, seconds across; the colour is the purpose."),
    Tag("machine/tasks", _I, "The same; each task has a colour, which it keeps over its attempts."),
    Tag(
        "campaign/{name}",
        _S,
        "The campaign's own: its final figures in training, a decision's fields in steering.",
    ),
    Tag("pictures/{name}", _I, "The campaign's own pictures, such as its films."),
    Tag("about/goal", _T, "What the campaign is, on which machine, and who decides."),
    Tag("about/configuration", _T, "The configuration, defaults filled in, as YAML."),
    Tag("about/versions", _T, "Versions, commit, platform."),
    Tag("about/reproduce", _T, "The commands that do it again."),
    Tag("about/result", _T, "How it ended, beside each rule."),
)

LAYOUT: dict[str, tuple[Chart, ...]] = {
    "Is it learning?": (
        Chart("return of a campaign", ("learning/return_mean",)),
        Chart("losses", ("learning/policy_loss", "learning/value_loss")),
        Chart("entropy of the policy, nats", ("learning/entropy",)),
        Chart("size of the steps", ("learning/approx_kl", "learning/clip_fraction")),
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
    "Is the machine busy?": (
        Chart("utilisation of the cores", ("machine/utilisation",)),
        Chart("share of the core-seconds by purpose", ("machine/share/{purpose}",)),
        Chart("tasks by state", ("machine/tasks/{state}",)),
        Chart("what was decided", ("machine/answers/{command}",)),
        Chart("busy cores and queued tasks", ("machine/busy_cores", "machine/queued_tasks")),
        Chart("decision latency, ms", ("machine/latency_p50_ms", "machine/latency_p99_ms")),
    ),
    "Are the ranks busy?": (
        Chart(
            "learner idle, actors busy, shares of their time", ("distributed/learner_idle", "distributed/actor_busy")
        ),
        Chart("actors, and those that replaced lost ones", ("distributed/actors", "distributed/restarts")),
        Chart("failures of environments", ("distributed/failures/{kind}",)),
        Chart("size of a chunk, transitions", ("distributed/chunk_transitions",)),
    ),
}
"""Charts of the custom scalars, by the question that they answer."""

METRICS = ("winning/node_seconds_per_success", "winning/success_rate", "learning/return_mean")
"""What the HParams page compares runs by."""


@lru_cache(maxsize=4096)
def find(tag: str) -> Tag | None:
    """The entry of a tag; None if the vocabulary does not have it.

    >>> find("machine/share/idle").name, find("machine/shares")
    ('machine/share/{purpose}', None)
    """
    return next((entry for entry in TAGS if entry.matches(tag)), None)


def regex(name: str) -> str:
    """What the custom scalars page finds a tag, or a family of tags, by."""
    return "^" + re.sub(r"\\\{.*?\\\}", ".+", re.escape(name)) + "$"
