"""``Section``: what all sections of a configuration share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, PrivateAttr

from rlctl.config.yaml_source import Source


class Section(BaseModel):
    """A mapping of known keys.

    Attributes:
        source: file of the section and the lines of its keys; empty unless the section is a whole file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    _source: Source = PrivateAttr(default_factory=Source)

    @property
    def source(self) -> Source:
        """File of the section and the lines of its keys."""
        return self._source
