"""Learns a prior from earlier campaigns or from a twin, and says how well it predicts campaigns that were left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlctl.config.load import config_hash
from rlctl.config.provenance import provenance
from rlctl.config.schema import Config
from rlctl.core.errors import ConfigError, StorageError, brief
from rlctl.monitoring.progress import Progress, working
from rlctl.plugins.registry import configured_campaign
from rlctl.plugins.transferable import Transferable
from rlctl.steering.recorded_reading import read_recorded_each
from rlctl.surrogates.campaign_prior import PRIOR, CampaignPrior, write_prior
from rlctl.surrogates.prior_evidence import MOST_FOLDS, Evidence, folds, prior_evidence
from rlctl.system.files import require_folder, storage_errors

FEWEST = 3
"""Campaigns that a prior is learned from at least."""

_NAMES = {"loss": "objective", "cost": "duration"}


@dataclass(frozen=True, slots=True)
class LearnedPrior:
    """A prior that was written.

    Attributes:
        folder: where.
        campaigns, evaluations, failed: that it was learned from, and how many evaluations gave no result.
        learned: what it says something of.
        evidence: how well campaigns were predicted that were left out.
    """

    folder: Path
    campaigns: int
    evaluations: int
    failed: int
    learned: Sequence[str]
    evidence: Sequence[Evidence]

    def to_json(self) -> dict[str, Any]:
        """For JSON."""
        counts = {"campaigns": self.campaigns, "evaluations": self.evaluations, "failed": self.failed}
        evidence = [one.to_json() for one in self.evidence]
        return {"prior": str(self.folder), **counts, "learned": list(self.learned), "left_out": evidence}

    def to_text(self) -> str:
        """For people."""
        left_out = "left out in turn" if self.campaigns <= MOST_FOLDS else "a tenth of them left out at a time"
        lines = [f"{self.campaigns} campaigns, {self.evaluations} evaluations, {self.failed} of them without a result"]
        lines.append(f"{left_out}, what comes after the first evaluations is predicted, with and without the prior:")
        lines.append(f"  {'':9} {'known':>5}  {'rank correlation':>21}  log density, gain")
        for one in self.evidence:
            ranks = f"{one.rank:.2f}, without {one.rank_without:.2f}"
            lines.append(f"  {_NAMES[one.output]:9} {one.known:>5}  {ranks:>21}  {one.gain:+.2f}")
        if not self.evidence:
            lines.append("  no campaign has evaluations enough: this is not known")
        elif not self.helps:
            lines.append("it hardly helps: these campaigns have little in common")
        lines.append(f"wrote {self.folder}; use it with this line below campaign.options: prior: {self.folder}")
        return "\n".join(lines)

    @property
    def helps(self) -> bool:
        """Whether predictions from few evaluations of campaigns that were left out are better with the prior."""
        fewest = min(one.known for one in self.evidence)
        return any(one.known == fewest and one.gain > 0.0 and one.rank > one.rank_without for one in self.evidence)


def learn_prior(
    config: Config,
    sources: Sequence[Path],
    out: Path,
    progress: Progress,
    problems: int = 0,
    evaluations: int = 40,
    seed: int | None = None,
) -> LearnedPrior:
    """Learn a prior and write its folder; an earlier prior there is replaced.

    Args:
        config: whose parameters, objective and stages are meant.
        sources: run folders and CSV files, a campaign each.
        problems: of the configuration's twin that are drawn in place of ``sources``.
        evaluations: of each of these problems.
        seed: of all that is left to chance; None: that of the configuration.

    Raises:
        ConfigError: the sources cannot be used, or are too few.
        StorageError: the folder cannot be written, or holds something else.
    """
    require_folder(out)
    if out.is_dir() and any(out.iterdir()) and not (out / PRIOR).exists():
        raise StorageError(f"{out} holds other files: give another folder")
    seed = config.seed if seed is None else seed
    with config.source.located():
        transfer = _transferable(config).transfer(config.machine.capacity())
        if (count := problems or len(sources)) < FEWEST:
            one = "one was given" if count == 1 else f"{count} were given"
            raise ConfigError(f"a prior is learned from {FEWEST} campaigns or more, and {one}")
        tables = [] if problems else read_recorded_each(sources)
        if problems:
            campaigns = list(transfer.drawn(problems, evaluations, seed))
        else:
            campaigns = [transfer.recorded(table) for table in tables]
        ground = transfer.ground(seed)
        with working(progress, "leaving out campaigns", folds(campaigns), "parts"):
            evidence = prior_evidence(campaigns, ground, seed, lambda: progress.advance(1))
        prior = CampaignPrior.learn(campaigns, ground, seed)
        if not prior.outputs:
            raise ConfigError("no two of these campaigns have results: nothing can be learned")
    counts = [len(one.succeeded) for one in campaigns]
    failed = sum(int((~one.succeeded).sum()) for one in campaigns)
    about = {
        "campaign": config.campaign.name,
        "config_hash": config_hash(config),
        "seed": seed,
        "sources": [table.to_json() for table in tables] or {"twin": problems, "evaluations": evaluations},
        "campaigns": counts,
        "failed": failed,
        "left_out": [one.to_json() for one in evidence],
        **provenance(),
    }
    with storage_errors(out):
        write_prior(out, prior, transfer.inputs, about)
    return LearnedPrior(out, len(counts), sum(counts), failed, list(prior.outputs), evidence)


def _transferable(config: Config) -> Transferable:
    factory = configured_campaign(config)
    if not isinstance(factory, Transferable):
        raise ConfigError(f"campaign {brief(factory.name)} uses no prior", ("campaign", "name"))
    return factory
