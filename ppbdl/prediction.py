"""Predictions: moments of the posterior predictive distribution, streamed within a byte budget.

For a posterior of T draws, the law of total variance splits the predictive variance of a row into
the mean of the draws' variances, aleatoric, and the variance of the draws' means, epistemic
(Kendall and Gal 2017; Depeweg et al. 2018).  For classes the entropy of the mean probabilities
splits into the mean entropy, aleatoric, and the mutual information, epistemic (Houlsby et al.
2011), and the covariance of the one-hot class as in Kwon et al. (2020).

Latents of a row of which the posterior has no draws (a VAE's code, stochastic units) are drawn
anew: noise of the row, aleatoric.  Such a model runs twice at each draw, and the epistemic part is
the covariance of the two runs over draws.  Entropies have no unbiased estimate from two runs; where
the noise alone decides between more than two classes, the mutual information comes out too high.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import distributions as dist
from numpyro.handlers import seed, trace

from .compiling import remembered
from .data import Data, Scaling
from .errors import InputError, ModelError, require_whole
from .posterior import Posterior, placing
from .streaming import BUDGET, Moments, Stream, energy, entropy, noisy, one_draw, tied, twice
from .types import Array, Key, Model, as_key


@dataclass(frozen=True)
class Prediction:
    """The posterior predictive distribution of each row, in the user's units.

    Attributes
    ----------
    mean
        Predictive mean, (row, ...); for classes the probabilities, (row, class).
    aleatoric, epistemic
        The two parts of the predictive variance, (row, ...); for classes, of the predictive
        entropy, (row,), in nats.  NaN where the likelihood's moments have no closed form.
    total
        Their sum.
    kwon
        For classes, the diagonals of Kwon et al.'s (aleatoric, epistemic) matrices, each
        (row, class); otherwise None.
    draws
        Empty unless asked for: ``y``, one draw of y from each posterior draw, (chain, draw, row,
        ...), with the draw's own ``mean`` and ``variance``; or ``probs``, their ``entropy``
        and, of a likelihood of logits, their ``energy``, minus the log of their summed
        exponentials (Liu et al. 2020); of a binary one the logits are (-l/2, l/2).
    """

    mean: np.ndarray
    aleatoric: np.ndarray
    epistemic: np.ndarray
    total: np.ndarray
    kwon: tuple[np.ndarray, np.ndarray] | None = None
    draws: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def sd(self) -> np.ndarray:
        """Predictive standard deviation, (row, ...); not for classes."""
        return np.sqrt(self.total)


def predict(
    key: Key | int,
    model: Model,
    posterior: Posterior,
    x: Any,
    *,
    site: str | None = None,
    draws: bool = False,
    budget: int = BUDGET,
) -> Prediction:
    """Predict y at new inputs; the observed y is never among the results.

    Parameters
    ----------
    key
        A JAX random key or an integer seed.
    model, posterior
        The model and what `fit` gave for it.
    x
        Inputs in the user's units, (rows, ...), or a `Data`, whose y is not looked at.  For a
        model without inputs, an array of shape (rows, 0).
    site
        The observed site to predict; may be left out if there is one only.
    draws
        Whether to keep the draws, (chain, draw, row, ...), beside their moments.
    budget
        Bytes that may be held at once; more rows or draws are streamed.

    Raises
    ------
    DataError, InputError
        If x is not finite, or of another width than the data of the fit.
    ModelError
        If the model observes y even when it is called without, or has latents that belong to the
        rows of the fit.

    Examples
    --------
    >>> import numpy as np, ppbdl, ppbdl.models
    >>> x = np.linspace(-1, 1, 20)[:, None]
    >>> data = ppbdl.Data(x, 2 * x[:, 0] + 0.1 * np.cos(9 * x[:, 0])).standardized()
    >>> model = ppbdl.models.LinearRegression(noise=0.1)
    >>> posterior = ppbdl.fit(0, model, data, ppbdl.SVI(steps=300), progress=False)
    >>> predict(1, model, posterior, x[:3]).mean.shape
    (3,)
    """
    require_whole(budget=budget)
    inputs = inputs_of(posterior, x)
    name = one_site(posterior, site)
    sites = look(model, posterior, inputs, None)
    _refuse_observed(sites, name)
    _require_rows(sites[name]["fn"].shape(), jax.tree.leaves(inputs)[0].shape[0])
    kind = sites[name]["kind"]
    one = _predictive(model, name, kind, kind != "draws" and noisy(sites, posterior, name))
    moments, kept = Moments(), []
    stream = Stream(posterior, inputs, budget, whole=tied(sites, posterior, name))
    for rows, t, out in stream.run(as_key(key), one, keep=draws):
        moments.add(rows, t.stop - t.start, out["mean"], out["squares"])
        if draws:
            out["draws"].pop("both", None)
            kept.append((rows, t, out["draws"]))
    mean, variance = (parts.get("both", parts) for parts in moments.result())
    each = stream.assemble(kept)
    if kind == "classes":
        return _of_classes(mean, variance, each)
    return _of_moments(mean, variance, each, kind, scaling_of(posterior, name))


def replicate(key: Key | int, model: Model, posterior: Posterior, x: Any, site: str) -> np.ndarray:
    """Draw `site` once from each posterior draw, (chain, draw, row, ...), and keep nothing else.

    They are the draws of `predict` with the same key, without each draw's moments or, for
    classes, its probabilities, which would be as many times more as there are classes.
    """
    inputs = inputs_of(posterior, x)
    sites = look(model, posterior, inputs, None)
    _refuse_observed(sites, site)
    stream = Stream(posterior, inputs, BUDGET, whole=tied(sites, posterior, site))
    blocks = stream.run(as_key(key), _predictive(model, site, "y", False), keep=True)
    y = stream.assemble([(rows, t, out["draws"]) for rows, t, out in blocks])["y"]
    return y if sites[site]["kind"] == "classes" else scaling_of(posterior, site).mean(y)


def _of_classes(mean: Any, variance: Any, each: Any) -> Prediction:
    probs, total = mean["probs"], entropy(mean["probs"])
    epistemic = np.maximum(total - mean["entropy"], 0.0)  # a mutual information, but for errors
    shared = _covariance(variance, "probs")
    kwon = (probs - probs**2 - shared, shared)
    return Prediction(probs, total - epistemic, epistemic, total, kwon, each)


def _of_moments(mean: Any, variance: Any, each: Any, kind: str, scaling: Any) -> Prediction:
    each = {
        name: scaling.variance(a) if name == "variance" else scaling.mean(a)
        for name, a in each.items()
    }
    centre, spread = scaling.mean(mean["mean"]), scaling.variance(variance["mean"])
    if kind == "draws":  # moments without a closed form: only the draws' spread is known
        nan = np.full_like(spread, np.nan)
        return Prediction(centre, nan, nan, spread, None, each)
    epistemic = scaling.variance(_covariance(variance, "mean"))
    within = spread - epistemic + scaling.variance(variance.get("gap", 0.0))  # of means, in draws
    noise = scaling.variance(mean["variance"]) + within
    return Prediction(centre, noise, epistemic, noise + epistemic, None, each)


def _covariance(variance: Any, centre: str) -> np.ndarray:
    """Give the centre's variance over draws; of two runs, their covariance, but not below 0."""
    return np.maximum(variance[centre] - variance.get("gap", 0.0), 0.0)


@remembered
def _predictive(model: Model, name: str, kind: str, again: bool) -> Callable[..., Any]:
    """Make the function that predicts all rows under one draw, and again with other noise."""

    def one(key: Key, values: Any, learned: Any, x: Any) -> dict[str, Array]:
        site = trace(seed(placing(model, values, learned), key)).get_trace(x, None)[name]
        y, fn = site["value"], site["fn"]
        if kind == "y":
            return {"y": y}
        if kind == "classes":
            base = _base(fn)  # whose batch may be smaller: a plate expands it
            each = base.probs.shape[len(base.batch_shape) :]
            probs = jnp.broadcast_to(base.probs, (*fn.batch_shape, *each))
            if isinstance(base, _BERNOULLI):
                probs = jnp.stack([1 - probs, probs], axis=-1)
            found = {"y": y, "probs": probs, "entropy": entropy(probs)}
            return found | energy(base, fn.batch_shape)
        y = jnp.asarray(y, jnp.result_type(float))
        if kind == "draws":
            return {"y": y, "mean": y}
        return {
            "y": y,
            "mean": jnp.broadcast_to(fn.mean, y.shape),
            "variance": jnp.broadcast_to(fn.variance, y.shape),
        }

    return twice(one, "probs" if kind == "classes" else "mean") if again else one


def _kind(fn: dist.Distribution) -> str:
    """Tell how a likelihood is summarised: by class probabilities, by moments, or by draws."""
    if isinstance(_base(fn), _CLASSES) and not fn.event_shape and len(fn.batch_shape) == 1:
        return "classes"
    try:
        _ = fn.mean, fn.variance
    except (NotImplementedError, AttributeError):
        return "draws"
    return "moments"


_BERNOULLI = (dist.BernoulliProbs, dist.BernoulliLogits)
_CLASSES = (*_BERNOULLI, dist.CategoricalProbs, dist.CategoricalLogits)


def _base(fn: Any) -> Any:
    while isinstance(fn, (dist.ExpandedDistribution, dist.MaskedDistribution, dist.Independent)):
        fn = fn.base_dist
    return fn


def look(model: Model, posterior: Posterior, x: Any, y: Any) -> dict[str, Any]:
    """Trace the model on abstract inputs with the posterior's first draw in place."""
    found: dict[str, Any] = {}

    def run(key: Key, values: Any, learned: Any, x: Any, y: Any) -> None:
        found.update(trace(seed(placing(model, values, learned), key)).get_trace(x, y))
        for name in posterior.observed:
            # Here, where the distribution's arrays are alive.
            found[name]["kind"] = _kind(found[name]["fn"])
            found[name]["likelihood"] = type(_base(found[name]["fn"])).__name__

    jax.eval_shape(run, jax.random.key(0), *one_draw(posterior), x, y)
    return found


def scaling_of(posterior: Posterior, name: str) -> Scaling:
    """Give the way back to the user's units, which is none for any but the data's one target."""
    back = posterior.scaling if name == posterior.observed[0] else None
    return Scaling() if back is None else back


def inputs_of(posterior: Posterior, x: Any) -> Any:
    standardised = isinstance(x, Data) and x.scaling is not None
    x = x.x if isinstance(x, Data) else Data(x).x
    shape = jax.tree.map(lambda a: a.shape[1:], x)
    if shape != posterior.x_shape:
        raise InputError(
            "x",
            expected=f"rows of the fitted shape {posterior.x_shape}",
            got=f"rows of shape {shape}",
            remedy="Pass the same columns as in the fit, in the same order.",
        )
    return x if posterior.scaling is None or standardised else posterior.scaling.x(x)


def one_site(posterior: Posterior, site: str | None) -> str:
    if site is None and len(posterior.observed) == 1:
        return posterior.observed[0]
    if site not in posterior.observed:
        raise InputError(
            "site",
            expected=f"one of the observed sites {list(posterior.observed)}",
            got=repr(site),
            remedy="Name the one to predict.",
        )
    return site


def _refuse_observed(sites: dict[str, Any], name: str) -> None:
    if sites[name]["is_observed"]:
        raise ModelError(
            "model",
            expected=f"{name!r} to be generated when y is None",
            got="a site that is observed all the same",
            remedy='Observe the argument: numpyro.sample("y", ..., obs=y).',
        )


def _require_rows(shape: tuple[int, ...], rows: int) -> None:
    if shape[:1] != (rows,):
        raise ModelError(
            "model",
            expected=f"a prediction for each of the {rows} rows of x",
            got=f"predictions of shape {shape}",
            remedy="Size the plate of the rows by x.shape[0], and let it draw no subsample.",
        )
