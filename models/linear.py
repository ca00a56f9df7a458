"""Conjugate linear regression, whose posterior and evidence are known: the yardstick.

    b, w ~ N(0, scale^2),    y ~ N(b + x w, noise^2)

Bishop (2006), *Pattern Recognition and Machine Learning*, sections 3.3 and 3.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpyro
import numpyro.distributions as dist

from ppbdl.data import Data
from ppbdl.errors import require_positive


@dataclass(frozen=True)
class LinearRegression:
    """Linear regression with known noise and a normal prior.

    Parameters
    ----------
    noise
        Standard deviation of y about the line.
    scale
        Prior standard deviation of the intercept and of each weight.

    Examples
    --------
    >>> x = np.linspace(-1, 1, 50)[:, None]
    >>> mean, covariance = LinearRegression(noise=0.1).exact_posterior(Data(x, 1 + 2 * x[:, 0]))
    >>> mean.round(2).tolist()
    [1.0, 2.0]
    """

    noise: float = 1.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        require_positive(noise=self.noise, scale=self.scale)

    def __call__(self, x: Any, y: Any = None) -> None:
        """Declare the model: sites ``intercept`` (), ``weights`` (features,) and ``y`` (rows,)."""
        intercept = numpyro.sample("intercept", dist.Normal(0.0, self.scale))
        prior = dist.Normal(0.0, self.scale).expand([x.shape[1]]).to_event(1)
        weights = numpyro.sample("weights", prior)
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("y", dist.Normal(intercept + x @ weights, self.noise), obs=y)

    def exact_posterior(self, data: Data) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of (intercept, weights) given the data.

        Shapes (1 + features,) and (1 + features, 1 + features).
        """
        design = _design(data.x)
        precision = np.eye(design.shape[1]) / self.scale**2 + design.T @ design / self.noise**2
        covariance = np.linalg.inv(precision)
        return covariance @ design.T @ np.float64(data.y) / self.noise**2, covariance

    def exact_predictive(self, data: Data, x: Any) -> tuple[np.ndarray, np.ndarray]:
        """Mean and epistemic variance of y at new inputs, each (rows,); the noise comes on top."""
        mean, covariance = self.exact_posterior(data)
        design = _design(x)
        return design @ mean, np.einsum("ij,jk,ik->i", design, covariance, design)

    def log_evidence(self, data: Data) -> float:
        """log p(y | x), the parameters integrated out."""
        design = _design(data.x)
        covariance = self.scale**2 * design @ design.T + self.noise**2 * np.eye(data.rows)
        _, log_det = np.linalg.slogdet(covariance)
        y = np.float64(data.y)
        quadratic = y @ np.linalg.solve(covariance, y)
        return float(-0.5 * (quadratic + log_det + data.rows * np.log(2 * np.pi)))


def _design(x: Any) -> np.ndarray:
    x = np.asarray(x, float)
    return np.column_stack([np.ones(len(x)), x])
