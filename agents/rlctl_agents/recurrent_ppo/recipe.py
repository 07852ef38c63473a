"""How RecurrentPPO is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sb3_contrib import RecurrentPPO

from rlctl_agents.asynchronous.on_policy import AsyncRecurrentPPO
from rlctl_agents.ppo.recipe import attach, on_policy
from rlctl_agents.recipe import How, Setting
from rlctl_agents.recurrent_ppo.description import RecurrentDescription, RecurrentOptions

if TYPE_CHECKING:
    from rlctl.distributed.learner.context import LearnerContext


class RecurrentRecipe(RecurrentDescription):
    """See ``rlctl_agents.recipe.Recipe``."""

    def kind(self, how: How) -> type[Any]:
        """The class."""
        return RecurrentPPO if how is How.TOGETHER else AsyncRecurrentPPO

    def make(self, how: How, setting: Setting, options: RecurrentOptions) -> Any:
        """A new model."""
        kwargs = {"net_arch": options.net_arch, "lstm_hidden_size": options.lstm_units}
        return self.kind(how)("MlpLstmPolicy", setting.env, policy_kwargs=kwargs, **on_policy(setting, options))

    def attach(self, model: Any, ranks: LearnerContext, options: RecurrentOptions) -> None:
        """Give the model its actors."""
        attach(model, ranks, options)

    def manifest(self, options: RecurrentOptions) -> dict[str, Any]:
        """Nothing more."""
        return {}


recipe = RecurrentRecipe()
