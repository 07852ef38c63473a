"""``SimpleFactory``, the base of factories that declare their options as a pydantic model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from rlctl.config.validation import check_options
from rlctl.core.campaign_factory import CampaignFactory


class NoOptions(BaseModel):
    """For campaigns that have nothing to set."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SimpleFactory(CampaignFactory):
    """A factory of campaigns with checked options; a subclass adds ``name``, ``campaign`` and ``task_model``.

    Attributes:
        Options: the pydantic model of ``campaign.options``.
        options: the options given, as that model.

    Raises:
        ConfigError: unknown or unusable options.
    """

    Options: ClassVar[type[BaseModel]] = NoOptions

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self.options: Any = check_options(self.Options, options, "campaign.options")
