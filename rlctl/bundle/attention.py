"""Attention over sets, in NumPy: one logit for each choice, in any order of the rows.

Each row becomes a token; what is there once is added to all. Choices look at all tokens (Vaswani et al. 2017,
arXiv:1706.03762; over sets as in Lee et al. 2019, arXiv:1810.00825) and have a logit each. What a rule favours is
added to it, times a factor that is learned as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from rlctl.core.sets import SetLayout

ABSENT = np.float32(-1e9)
"""Score of a row that is empty."""
MAX_WEIGHTS = 1 << 24
MAX_SCORES = 1 << 22
"""Of all heads in a decision; they are in memory together."""
MAX_WORK = 1 << 28
"""Multiplications in a decision; they take a tenth of a second or so."""


class AttentionSize(BaseModel):
    """Size of the network, for any observation.

    Attributes:
        width: numbers of a token, which stands for a choice, a task or a group of nodes.
        heads: that these are divided among.
        layers: how often the choices look at all tokens; 0: each is scored by itself, knowing what is there once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(default=32, ge=1, le=4096)
    heads: int = Field(default=2, ge=1, le=64)
    layers: int = Field(default=1, ge=0, le=16)


class AttentionSpec(AttentionSize):
    """What determines the shapes of the weights.

    Attributes:
        once, sets, prior: see ``rlctl.core.sets.SetLayout``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    once: int = Field(ge=0, le=1 << 16)
    sets: list[Annotated[list[int], Field(min_length=2, max_length=2)]] = Field(min_length=1, max_length=16)
    prior: int | None = Field(default=None, ge=0)

    @property
    def layout(self) -> SetLayout:
        """The part that is about the observation."""
        return SetLayout(self.once, tuple((rows, numbers) for rows, numbers in self.sets), self.prior)

    def problem(self) -> str | None:
        """Why no such network can be; None: it can."""
        if any(not 1 <= n <= 1 << 16 for row in self.sets for n in row):
            return "sets of rows or numbers other than 1 to 65536"
        if self.width % self.heads:
            return f"a width of {self.width} cannot be divided among {self.heads} heads"
        if self.prior is not None and self.prior >= self.sets[0][1]:
            return f"prior {self.prior} is beyond the {self.sets[0][1]} numbers of a choice"
        if self.length > MAX_WEIGHTS:
            return f"the network has more than {MAX_WEIGHTS:,} weights"
        if self.scores > MAX_SCORES or self.work > MAX_WORK:
            return f"attention of {self.layout.choices} choices to {self.tokens} rows is too much for a decision"
        return None

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Names and shapes of the weights, in their order; matrices are (outputs, inputs)."""
        w = self.width
        shapes: dict[str, tuple[int, ...]] = {"once.weight": (w, self.once)} if self.once else {}
        for i, (_, numbers) in enumerate(self.read):
            shapes |= {f"set{i}.weight": (w, numbers), f"set{i}.bias": (w,)}
        for i in range(self.layers):
            for name, (outputs, inputs) in {
                "query": (w, w),
                "key": (w, w),
                "value": (w, w),
                "out": (w, w),
                "wide": (2 * w, w),
                "narrow": (w, 2 * w),
            }.items():
                shapes[f"layer{i}.{name}.weight"] = (outputs, inputs)
                shapes[f"layer{i}.{name}.bias"] = (outputs,)
        shapes |= {"score.weight": (1, w), "score.bias": (1,), "favour": (1,)}
        return shapes

    @property
    def read(self) -> list[list[int]]:
        """The sets that the network looks at."""
        return self.sets if self.layers else self.sets[:1]

    @property
    def length(self) -> int:
        """Numbers of all weights."""
        return sum(math.prod(shape) for shape in self.shapes().values())

    @property
    def tokens(self) -> int:
        """Rows of all sets."""
        return sum(rows for rows, _ in self.sets)

    @property
    def scores(self) -> int:
        """How many a layer computes in a decision."""
        return self.heads * self.layout.choices * self.tokens

    @property
    def work(self) -> int:
        """Multiplications in a decision are no more than this."""
        return self.tokens * (self.length + 2 * self.layout.choices * self.width * self.layers)


def attention_logits(spec: AttentionSpec, w: Mapping[str, NDArray[Any]], rows: NDArray[Any]) -> NDArray[Any]:
    """Logits [n, choices] of observations [n, length]; those of empty rows mean nothing.

    Args:
        w: weights by the names of ``AttentionSpec.shapes``, matrices as (inputs, outputs).
    """
    n, choices = len(rows), spec.sets[0][0]
    once = rows[:, : spec.once] @ w["once.weight"] if spec.once else np.zeros((n, spec.width), rows.dtype)
    parts, there, at = [], [], spec.once
    for i, (count, numbers) in enumerate(spec.read):
        x = rows[:, at : at + count * numbers].reshape(n, count, numbers)
        at += count * numbers
        there.append(x[:, :, 0] > 0.5)
        token = x @ w[f"set{i}.weight"]
        token += w[f"set{i}.bias"]
        token += once[:, None]
        parts.append(np.maximum(token, 0.0, out=token))
        if i == 0:
            favoured = None if spec.prior is None else x[:, :, spec.prior]
    absent = ~np.concatenate(there, axis=1)[:, None, None]
    heads, each = spec.heads, spec.width // spec.heads
    scale = rows.dtype.type(1.0 / math.sqrt(each))
    for i in range(spec.layers):
        x, tokens = parts[0], np.concatenate(parts, axis=1)

        def of(name: str, x: NDArray[Any], i: int = i) -> NDArray[Any]:
            y: NDArray[Any] = x @ w[f"layer{i}.{name}.weight"]
            y += w[f"layer{i}.{name}.bias"]
            return y

        query = of("query", x).reshape(n, choices, heads, each).transpose(0, 2, 1, 3)
        key = of("key", tokens).reshape(n, -1, heads, each).transpose(0, 2, 3, 1)
        value = of("value", tokens).reshape(n, -1, heads, each).transpose(0, 2, 1, 3)
        scores = query @ key
        scores *= scale
        np.copyto(scores, ABSENT, where=absent)
        scores -= scores.max(axis=3, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=3, keepdims=True)
        seen = (scores @ value).transpose(0, 2, 1, 3).reshape(n, choices, spec.width)
        x = x + of("out", seen)
        wide = of("wide", x)
        parts[0] = x + of("narrow", np.maximum(wide, 0.0, out=wide))
    logits: NDArray[Any] = (parts[0] @ w["score.weight"])[:, :, 0] + w["score.bias"]
    if favoured is not None:
        logits += w["favour"] * favoured
    return logits
