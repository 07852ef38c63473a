"""``CampaignFactory``: makes the campaigns of one kind, their twins, and what their real programs need."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rlctl.core.campaign import Campaign
from rlctl.core.errors import ContractError, Key
from rlctl.core.machine import Capacity, Scoring
from rlctl.core.policy import Policy
from rlctl.core.records import Record
from rlctl.core.simulation import Launch, Outage, Simulated, TaskModel
from rlctl.core.task import TaskSpec


class CampaignFactory(ABC):
    """What a package registers under the entry point group ``rlctl.campaigns``: makes campaigns of one kind.

    A factory is a subclass; one that declares its options as a pydantic model derives from ``rlctl.SimpleFactory``. It
    is called as ``Factory(options)``, with the mapping ``campaign.options`` of the configuration, and raises
    ``ConfigError`` for options that it does not know or cannot use. An instance is fixed by its seed: ``campaign(7)``
    and ``task_model(7)`` belong together.

    Attributes:
        version: raised when saved policies no longer fit.
        capacity: the allocation that environments and checks take unless they are given one.
        scoring: says which nodes tasks go to; None: where the least is left for others.
        runs_programs: whether it runs the programs of the configuration: then it is called as ``Factory(options,
            programs)``, with a ``rlctl.programs.configured.ConfiguredPrograms``.
        default_policy: rule that steers where no policy is named; None: one has to be named.
        default_fallback: rule that decides where the policy fails and the configuration names no other; None: the
            first allowed choice is taken.
        opponents: the strongest rules of this kind of campaign, as names of registered rules: a trained policy is
            compared with them too where the configuration's ``policies`` have no entry for them.
        changeable: keys of the configuration that may change while a campaign goes on, with all below them; ``*``
            stands for a name. They are those that ``Campaign.extend`` takes over.
        by_hand: whether evaluations may be made elsewhere; see ``Campaign.open_evaluations``.
        measured: attributes of what decisions show that hold measured times, which may be equal to a hidden number.
    """

    name: str
    version: int = 1
    capacity: Capacity = Capacity()
    scoring: Scoring | None = None
    runs_programs: ClassVar[bool] = False
    default_policy: str | None = None
    default_fallback: str | None = None
    opponents: tuple[str, ...] = ()
    changeable: ClassVar[tuple[str, ...]] = ()
    by_hand: ClassVar[bool] = False
    measured: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def campaign(self, seed: int) -> Campaign:
        """The campaign of instance ``seed``."""

    def task_model(self, seed: int) -> TaskModel:
        """The twin: what the tasks of instance ``seed`` would do, for the simulated executor.

        Raises:
            ContractError: by default; such a campaign can only be steered.
        """
        raise ContractError(f"campaign {self.name} has no twin: its factory has no task_model(seed)")

    @property
    def has_twin(self) -> bool:
        """Whether ``task_model`` is written."""
        return type(self).task_model is not CampaignFactory.task_model

    def check(self, capacity: Capacity, real: bool) -> None:
        """Refuse a machine that campaigns cannot be played on; called before anything is made.

        Args:
            real: with real programs.

        Raises:
            ConfigError: they cannot.
        """
        return None

    def prepare(self, folder: Path, seed: int) -> None:
        """Write what the real programs of instance ``seed`` need into its run folder; by default, nothing.

        Called again when the configuration has changed.
        """
        return None

    def changed_input(self, folder: Path) -> str | None:
        """A file of the user that is not what it was at ``prepare``, which has read it; by default none."""
        return None

    def known(self) -> Sequence[Mapping[str, Any]]:
        """Results from elsewhere with which campaigns begin, for ``Campaign.know``, ready for JSON; by default none.

        Raises:
            ConfigError: they cannot be read.
        """
        return ()

    def sample_tasks(self, capacity: Capacity, seed: int) -> Sequence[tuple[Key, TaskSpec]]:
        """Tasks that show what is run on a machine, each with the key of the configuration that describes it.

        ``rlctl check`` looks whether their programs are there, shows the first, and runs it with ``--probe``. By
        default none: it looks at the tasks that the campaign starts first.
        """
        return ()

    def privileged(self, seed: int) -> NDArray[np.float32]:
        """Hidden quantities of the instance, for a critic in training only; by default none."""
        return np.zeros(0, np.float32)

    def hidden(self, seed: int) -> Sequence[float]:
        """Numbers of the instance that no policy may be shown, as the campaign holds them; by default ``privileged``.

        ``rlctl benchmark`` searches all that ``Decision.fields`` leads to for them, but for what is ``measured``.
        """
        numbers: list[float] = self.privileged(seed).tolist()
        return numbers

    def least_cost(self, seed: int, capacity: Capacity) -> float | None:
        """A cost that no policy can go below in instance ``seed``, whatever it knows; None, the default: not known."""
        return None

    def outcomes(self, launches: Sequence[tuple[TaskModel, Launch]]) -> list[Simulated]:
        """What tasks of many instances do; a twin that gains from computing them together overrides it."""
        return [model.outcomes([launch])[0] for model, launch in launches]

    def play(self, capacity: Capacity, players: Sequence[tuple[Policy, int]]) -> list[dict[str, float]] | None:
        """Play whole campaigns without asking for each decision, for tuning; None, the default: that cannot be done.

        Args:
            capacity: the allocation of each.
            players: (policy, instance) of each campaign.

        Returns:
            ``cost``, ``successes`` and ``decisions`` of each, as if it had been played on its twin.
        """
        return None

    def outages(self, seed: int, capacity: Capacity) -> Sequence[Outage]:
        """When nodes are not there, on the twin of instance ``seed``; by default never."""
        return ()

    def repetitions(self, seed: int, count: int) -> Sequence[TaskModel]:
        """So many task models of instance ``seed``, each with chance drawn anew, in which no task fails by chance.

        ``rlctl report`` names the results of a run that lie beyond them; see ``rlctl.steering.plausibility``. Empty,
        the default: the report compares with other instances.
        """
        return ()

    def write_twin_files(self, model: TaskModel, folder: Path) -> bool:
        """Write the files of the tasks that ran on a twin, as real ones leave them, for ``pictures``.

        Returns:
            whether there are such files; by default not.
        """
        return False

    def pictures(self, folder: Path, records: Sequence[Record]) -> dict[str, bytes]:
        """PNG pictures of a steered campaign by name, for reports and TensorBoard; by default none.

        It only reads, and tasks may be running and writing meanwhile.

        Args:
            folder: the run's folder of task files, the one that ``prepare`` was given.
            records: of the run's journal, so far.
        """
        return {}
