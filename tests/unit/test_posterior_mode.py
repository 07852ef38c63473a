"""Hyperparameters of Gaussian processes: the density's derivatives are right, and its greatest value is found."""

from __future__ import annotations

import numpy as np
import pytest
import scipy

from rlctl.surrogates.gaussian_process import GaussianProcess
from rlctl.surrogates.output_model import OutputModel
from rlctl.surrogates.posterior_mode import Floats, Prior, negative_log_density, posterior_mode

pytestmark = pytest.mark.quick

PRIOR = Prior(
    np.array([1.9, 1.9, 1.9, 0.0, -4.0]),
    np.array([1.7, 1.7, 1.7, 1.0, 1.0]),
    np.array([-4.0, -4.0, -4.0, -5.0, -16.0]),
    np.array([6.0, 6.0, 6.0, 5.0, 1.0]),
)


def points(count: int, seed: int) -> tuple[Floats, Floats, Floats]:
    """Inputs, squared distances along each of three length scales, and standardized outputs."""
    rng = np.random.default_rng(seed)
    x = rng.random((count, 3))
    y = np.sin(5.0 * x[:, 0]) + 2.0 * x[:, 1] ** 2 + 0.05 * rng.standard_normal(count)
    return x, (x.T[:, :, None] - x.T[:, None, :]) ** 2, (y - y.mean()) / y.std()


def test_gradient_is_that_of_the_density_and_curvature_its_mean_over_outputs() -> None:
    _, squares, y = points(20, 1)
    at = PRIOR.mean + np.array([0.3, -0.8, 0.1, -0.2, 0.4])
    _, gradient, information = negative_log_density(at, squares, y, PRIOR, expected=True)

    def slopes(y: Floats) -> Floats:
        return negative_log_density(at, squares, y, PRIOR)[1]

    def numeric(of: int) -> float:
        h = 1e-5 * np.eye(5)[of]
        ends = [negative_log_density(at + sign * h, squares, y, PRIOR)[0] for sign in (1.0, -1.0)]
        return (ends[0] - ends[1]) / 2e-5

    assert gradient == pytest.approx([numeric(i) for i in range(5)], rel=1e-5)
    # Fisher: the expected Hessian is the covariance of the gradient, over outputs drawn from the process.
    r = np.sqrt(5.0 * (squares * np.exp(-2.0 * at[:3])[:, None, None]).sum(0))
    covariance = np.exp(at[3]) * (1.0 + r + r * r / 3.0) * np.exp(-r) + np.exp(at[4]) * np.eye(20)
    rng = np.random.default_rng(2)
    drawn = np.array([slopes(np.linalg.cholesky(covariance) @ rng.standard_normal(20)) for _ in range(4000)])
    assert np.cov(drawn.T) + np.diag(PRIOR.deviation**-2) == pytest.approx(information, rel=0.15, abs=0.3)


@pytest.mark.parametrize(("count", "seed"), [(3, 0), (10, 1), (30, 2), (80, 3)])
def test_the_mode_is_as_good_as_that_of_a_long_descent(count: int, seed: int) -> None:
    _, squares, y = points(count, seed)
    found = posterior_mode(PRIOR.mean, squares, y, PRIOR)

    def density(at: Floats) -> tuple[float, Floats]:
        loss, gradient, _ = negative_log_density(at, squares, y, PRIOR)
        return loss, gradient

    bounds = scipy.optimize.Bounds(PRIOR.low, PRIOR.high)
    long = scipy.optimize.minimize(density, found, jac=True, method="L-BFGS-B", bounds=bounds)
    assert negative_log_density(found, squares, y, PRIOR)[0] <= long.fun + 0.02
    assert ((found >= PRIOR.low) & (found <= PRIOR.high)).all()


def test_inputs_that_share_a_length_scale_are_one_distance() -> None:
    x, _, y = points(12, 4)
    shared = GaussianProcess(np.array([0, 1, 1]))
    shared.fit(x, y)
    assert len(shared.parameters) == 4
    turned = np.column_stack([x[:, 0], x[:, 2], x[:, 1]])
    again = GaussianProcess(np.array([0, 1, 1]))
    again.fit(turned, y)
    assert again.parameters == pytest.approx(shared.parameters, abs=1e-6)


def test_output_models_warp_skewed_values_and_invert_it() -> None:
    x, _, y = points(40, 5)
    model = OutputModel(np.arange(3))
    model.tune(x, np.exp(3.0 * y), np.random.default_rng(0))
    assert model.unwarped(model.warped(np.exp(3.0 * y))) == pytest.approx(np.exp(3.0 * y))
    before, after = (float(abs(scipy.stats.skew(values))) for values in (np.exp(3.0 * y), model.points))
    assert after < 0.5 * before
