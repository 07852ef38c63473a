from types import SimpleNamespace

import numpy as np
import pytest

from rlctl.benchmark.hidden_numbers import find_hidden, reachable
from rlctl.core.campaign import Decision
from rlctl.core.machine import Capacity
from rlctl_agents.rules.ensemble import Fifo
from rlctl_envs.ensemble.campaign import EnsembleCampaign
from rlctl_envs.ensemble.factory import Ensemble

OPTIONS = {"workload": {"tasks": [5, 7], "kinds": [1, 1]}, "ranks": [1, 2]}
MACHINE = Capacity(4, 1)


class Leaking(Ensemble):
    """Its decisions lead to the truth, behind an attribute and a function; ``hide`` says how."""

    def __init__(self, hide):
        super().__init__(OPTIONS)
        self.hide = hide

    def hidden(self, seed):
        return [truth.work_s for truth in self.workload(seed).truths]

    def campaign(self, seed):
        campaign, workload, hide = super().campaign(seed), self.workload(seed), self.hide

        class Campaign(EnsembleCampaign):
            def decision(self):
                found = EnsembleCampaign.decision(self)
                if found is not None:
                    found._fields = {**found.fields, "more": hide(workload)}
                return found

        campaign.__class__ = Campaign
        return campaign


HIDES = {
    "an attribute": lambda workload: SimpleNamespace(notes=[SimpleNamespace(last=workload.truths[0].work_s)]),
    "a closure": lambda workload: lambda: workload,
    "an array": lambda workload: np.array([[0.0, workload.truths[-1].work_s]]),
    "a key": lambda workload: {workload.truths[0].work_s: None},
}


@pytest.mark.parametrize("hide", HIDES.values(), ids=HIDES)
def test_a_campaign_whose_fields_lead_to_hidden_numbers_is_caught(hide):
    found = find_hidden(Leaking(hide), MACHINE, Fifo(), [3, 4])
    assert found
    assert "decision 0 of instance 3: fields['more']" in found[0]


def test_an_honest_campaign_shows_nothing_hidden():
    assert find_hidden(Leaking(lambda workload: None), MACHINE, Fifo(), [3, 4, 5]) == []
    assert find_hidden(Ensemble(OPTIONS), MACHINE, Fifo(), [3, 4, 5]) == []


def test_what_was_measured_may_be_equal_to_what_is_hidden():
    def spent(workload):
        return SimpleNamespace(spent=workload.truths[0].work_s)

    assert find_hidden(Leaking(spent), MACHINE, Fifo(), [3, 4]) == []


def test_whole_numbers_and_those_of_all_instances_tell_nothing():
    class Plain(Leaking):
        def hidden(self, seed):
            return [2.0, 0.125]

    assert find_hidden(Plain(lambda workload: [2.0, 0.125]), MACHINE, Fifo(), [3, 4]) == []


def test_reachable_ends_in_circles_and_skips_texts():
    circle = {"text": "0.5", "yes": True}
    circle["self"] = [circle, Decision("a", 0.25, {}, np.zeros(1, np.float32))]
    assert {value for _, value in reachable(circle, "fields")} == {0.25, 0.0}
