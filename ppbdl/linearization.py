"""Predictions of a network linearised about its posterior's mode.

The generalised Gauss-Newton matrix of a Laplace approximation is the exact Hessian of the model
that is linear in the latents u,

    eta(x, u) = eta(x, m) + J(x) (u - m),    J = d eta / du  at the mode m,

where eta are the likelihood's parameters on the whole line (log scale, log rate, logits, ...).
That model's predictions belong to that Gaussian; those of the network itself need not (Immer,
Korzepa and Bauer 2021, *Improving predictions of Bayesian neural nets via local linearization*).
For a regression they have a closed form: the delta method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import distributions as dist
from numpyro.handlers import block, seed, substitute, trace
from numpyro.primitives import Messenger

from .compiling import Program, remembered
from .errors import InputError, ModelError
from .gaussian import Gaussian, first_chain
from .likelihood import likelihood_of
from .posterior import Posterior, placing
from .prediction import Prediction, inputs_of, look, one_site, scaling_of
from .streaming import BUDGET
from .types import Array, Model


def run_at(
    model: Model, learned: tuple[Any, Any], values: Mapping[str, Array], x: Any, y: Any = None
) -> tuple[dict[str, Any], Array]:
    """Trace a model at unconstrained values of its latents.

    Returns
    -------
    The sites, and the log determinant of the map from the values to the latents' supports.
    """
    log_dets = [jnp.zeros(())]

    def place(site: dict[str, Any]) -> Array | None:
        if site["type"] != "sample" or site["name"] not in values:
            return None
        value, transform = values[site["name"]], dist.biject_to(site["fn"].support)
        there = transform(value)
        if jnp.shape(there) != tuple(site["fn"].shape()):
            raise ModelError(
                "x",
                expected=f"inputs for which the latent {site['name']!r} has the shape "
                f"{jnp.shape(there)} of the fit",
                got=f"inputs for which it has the shape {tuple(site['fn'].shape())}",
                remedy="A latent of the fitted rows says nothing of other rows.",
            )
        log_dets.append(jnp.sum(transform.log_abs_det_jacobian(value, there)))
        return there

    program = seed(placing(model, {}, learned), jax.random.key(0))
    sites = trace(substitute(program, substitute_fn=place)).get_trace(x, y)
    return sites, sum(log_dets[1:], log_dets[0])


@dataclass(frozen=True, eq=False)
class linearized:
    """The same model, with its likelihoods' parameters linear in the latents about the mode.

    It goes with the same posterior: ``predict(key, linearized(model, posterior), posterior, x)``.

    Parameters
    ----------
    model, posterior
        The model, and what a fit by `Laplace` gave for it.

    Raises
    ------
    InputError
        If the posterior holds no mode.

    Examples
    --------
    >>> import numpy as np, ppbdl, ppbdl.models
    >>> x = np.linspace(-1, 1, 20)[:, None]
    >>> data = ppbdl.Data(x, 2 * x[:, 0] + 0.1 * np.cos(9 * x[:, 0]))
    >>> model = ppbdl.models.LinearRegression(noise=0.1)
    >>> posterior = ppbdl.fit(0, model, data, ppbdl.Laplace(steps=300), progress=False)
    >>> ppbdl.predict(1, linearized(model, posterior), posterior, x[:3]).mean.shape
    (3,)
    """

    model: Model
    posterior: Posterior

    def __post_init__(self) -> None:
        _gaussian(self.posterior)

    def __call__(self, x: Any, y: Any = None) -> Any:
        """Run the model at the latents it is given, with linearised likelihoods."""
        with _Linearizing(self.model, self.posterior, x, y):
            return self.model(x, y)


class _Linearizing(Messenger):
    def __init__(self, model: Model, posterior: Posterior, x: Any, y: Any):
        self._model, self._inputs, self._observed = model, (x, y), posterior.observed
        self._mode = first_chain(posterior.params["laplace"]["mode"])
        self._learned = first_chain((posterior.params, posterior.mutables))
        super().__init__()

    def __enter__(self) -> Any:
        self._values: dict[str, Array] = {}
        return super().__enter__()

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and msg["name"] in self._observed:
            likelihood = likelihood_of(msg["name"], msg["fn"])
            bijections = {n: likelihood.bijection(n) for n in likelihood.params}
            real = {n: bijection for n, bijection in bijections.items() if bijection is not None}

            def parameters(values: Mapping[str, Array]) -> dict[str, Array]:
                with block():
                    sites, _ = run_at(self._model, self._learned, values, *self._inputs)
                here = likelihood_of(msg["name"], sites[msg["name"]]["fn"]).params
                return {n: bijection.inv(here[n]) for n, bijection in real.items()}

            tangent = {n: self._values.get(n, mode) - mode for n, mode in self._mode.items()}
            eta, change = jax.jvp(parameters, (self._mode,), (tangent,))
            msg["fn"] = likelihood.at({n: t(eta[n] + change[n]) for n, t in real.items()})

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and msg["name"] in self._mode:
            self._values[msg["name"]] = dist.biject_to(msg["fn"].support).inv(msg["value"])


def delta_method(
    model: Model, posterior: Posterior, x: Any, *, site: str | None = None
) -> Prediction:
    """Predict the mean and variance of y by linearising its mean about the mode; in closed form.

    The mean is that of the likelihood at the mode, the epistemic variance ``J H^-1 J'`` with J the
    mean's derivative, the aleatoric variance the likelihood's at the mode.

    Parameters
    ----------
    model, posterior
        The model, and what a fit by `Laplace` gave for it.
    x, site
        As for `predict`.

    Raises
    ------
    InputError
        If x or the site do not fit, or the posterior has no Gaussian.
    ModelError
        If y is a class: the probabilities are no linear function of anything that is normal.

    Examples
    --------
    >>> import numpy as np, ppbdl, ppbdl.models
    >>> x = np.linspace(-1, 1, 20)[:, None]
    >>> data = ppbdl.Data(x, 2 * x[:, 0] + 0.1 * np.cos(9 * x[:, 0]))
    >>> model = ppbdl.models.LinearRegression(noise=0.1)
    >>> posterior = ppbdl.fit(0, model, data, ppbdl.Laplace(steps=300), progress=False)
    >>> delta_method(model, posterior, x[:3]).epistemic.shape
    (3,)
    """
    gaussian = _gaussian(posterior)
    inputs, name = inputs_of(posterior, x), one_site(posterior, site)
    kind = look(model, posterior, inputs, None)[name]["kind"]
    if kind != "moments":
        raise ModelError(
            "model",
            expected=f"a likelihood {name!r} of numbers with a mean and a variance",
            got="classes" if kind == "classes" else "one without",
            remedy="Draw: predict(key, linearized(model, posterior), posterior, x).",
        )
    if not gaussian.blocks:
        raise InputError(
            "posterior",
            expected="a Gaussian in closed form",
            got="draws of a matrix-free fit",
            remedy="Draw: predict(key, linearized(model, posterior), posterior, x); or fit with "
            'another curvature, such as "low_rank".',
        )
    learned = first_chain((posterior.params, posterior.mutables))
    rows = jax.tree.leaves(inputs)[0].shape[0]
    # A row's derivative in the noise, its mode, and as much again to compute them.
    at_once = int(np.clip(BUDGET // (16 * gaussian.size), 1, rows))
    mean, epistemic, aleatoric = jax.tree.map(
        np.asarray, _moments_program(model, name, at_once)(gaussian, learned, inputs)
    )
    scaling = scaling_of(posterior, name)
    epistemic, aleatoric = scaling.variance(epistemic), scaling.variance(aleatoric)
    return Prediction(scaling.mean(mean), aleatoric, epistemic, aleatoric + epistemic)


@remembered
def _moments_program(model: Model, name: str, at_once: int) -> Program:
    """Make the function that gives mean, epistemic and aleatoric variance of all rows."""

    def moments(gaussian: Gaussian, learned: Any, x: Any) -> Any:
        def of_row(row: Any) -> Any:
            def mean(noise: Array) -> tuple[Array, Array]:
                one = jax.tree.map(lambda a: a[None], row)
                fn = run_at(model, learned, gaussian.at(noise), one)[0][name]["fn"]
                shape = fn.shape()
                centre, spread = (jnp.broadcast_to(a, shape)[0] for a in (fn.mean, fn.variance))
                return jnp.asarray(centre, jnp.result_type(float)), spread

            noise = jnp.zeros(gaussian.size)
            centre, pull, spread = jax.vjp(mean, noise, has_aux=True)
            each = jax.vmap(pull)(jnp.eye(centre.size).reshape(-1, *centre.shape))[0]
            return centre, jnp.sum(each**2, axis=1).reshape(centre.shape), spread

        return jax.lax.map(of_row, x, batch_size=at_once)

    return Program(moments)


def _gaussian(posterior: Posterior) -> Gaussian:
    if "laplace" not in posterior.params:
        raise InputError(
            "posterior",
            expected="what a fit by Laplace gave, with its mode",
            got=f"a fit by {posterior.provenance.method}",
            remedy="Fit with ppbdl.Laplace().",
        )
    return Gaussian.of(first_chain(posterior.params["laplace"]))
