"""V-trace: values of states under the current policy, from steps of an older one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


def vtrace(
    log_ratios: Float32,
    values: Float32,
    next_values: Float32,
    rewards: Float32,
    discounts: Float32,
    goes_on: NDArray[np.bool_],
    decay: float,
    rho_limit: float = 1.0,
    c_limit: float = 1.0,
) -> tuple[Float32, Float32]:
    """Targets for the critic, and advantages.

    Espeholt et al. 2018 (arXiv:1802.01561), equation 1, with ``c`` times ``decay`` (their remark 2) and a discount for
    each step. With ``vs`` a target, the advantage is ``vs - V``: where both policies are the same, that is generalised
    advantage estimation (Schulman et al., arXiv:1506.02438).

    Args:
        log_ratios: [T, n], logarithm of the probability of each action under the current policy over that under the
            one that chose it.
        values: [T, n], of the states that were acted on, under the current critic.
        next_values: [T, n], of those that followed; where an episode was cut off, of the last one that was seen.
        rewards: [T, n].
        discounts: [T, n], of what followed a step; 0 where the episode terminated.
        goes_on: [T, n], whether the next row is the next step of the same episode; False in the last row.
        decay: lambda.
        rho_limit, c_limit: where the ratios are truncated.

    Returns:
        targets and advantages, [T, n] each.
    """
    ratios = np.exp(log_ratios)
    deltas = np.minimum(ratios, rho_limit) * (rewards + discounts * next_values - values)
    carried = discounts * decay * np.minimum(ratios, c_limit) * goes_on
    advantages = np.empty_like(values)
    following = np.zeros(values.shape[1], values.dtype)
    for t in range(len(values) - 1, -1, -1):
        following = deltas[t] + carried[t] * following
        advantages[t] = following
    return values + advantages, advantages
