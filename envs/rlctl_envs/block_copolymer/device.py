"""The twin's solver in PyTorch, for thousands of films on a GPU; on a CPU ``kernel`` is several times faster."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl_envs.block_copolymer.lanes import GRID, HALF

Floats = NDArray[np.float32]


def advance(
    fields: Floats, gain: Floats, pull: Floats, kick: Floats, steps: NDArray[np.int64], seed: int, device: str = "cuda"
) -> Floats:
    """Advance films, each for its own number of steps.

    Args:
        fields: [film, 32, 32].
        gain, pull, kick: [kx, ky, film], as ``twin.factors`` makes them for ``kernel``.
        steps: [film].
        seed: of the thermal noise of all these films; a film's noise depends on its place in the batch here.
        device: of PyTorch.

    Returns:
        the fields afterwards, [film, 32, 32].
    """
    import torch

    def load(array: Any) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(array), device=device)

    factor, cube, push = (load(a.transpose(2, 1, 0)) for a in (gain, pull, kick))  # [film, ky, kx]
    # ``kernel`` averages the modes of kx = 0 with their conjugates; here a real field of noise is transformed instead.
    push[:, :, 0] /= 2.0**0.5
    push *= (2.0**0.5) * GRID
    length = load(steps)[:, None, None]
    generator = torch.Generator(device=device).manual_seed(seed)
    c = torch.fft.rfft2(load(fields), norm="forward")
    mirror = load(-np.arange(GRID) % GRID)
    for step in range(int(steps.max())):
        field = torch.fft.irfft2(c, s=(GRID, GRID), norm="forward")
        white = torch.randn(field.shape, generator=generator, device=device)
        change = factor * c - cube * torch.fft.rfft2(field**3, norm="forward")
        change += push * torch.fft.rfft2(white, norm="forward")
        edges = change[:, :, :: GRID // 2]  # what belongs to no real field would grow: see ``field.keep_real``
        edges.copy_(0.5 * (edges + edges[:, mirror].conj()))
        c = torch.where(step < length, change, c)
    assert c.shape[-1] == HALF
    out: Floats = torch.fft.irfft2(c, s=(GRID, GRID), norm="forward").cpu().numpy()
    return out
