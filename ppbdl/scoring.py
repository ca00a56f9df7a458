"""Scores: the pointwise log likelihood, on which LOO and held-out ELPD rest, and the log prior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import distributions as dist
from numpyro.distributions.util import scale_and_mask
from numpyro.handlers import replay, seed, trace
from numpyro.ops.provenance import eval_provenance
from numpyro.primitives import Messenger

from .compiling import Program, remembered
from .data import Data
from .errors import DataError, ModelError, require_whole
from .posterior import Posterior, placing
from .prediction import look, scaling_of, tied
from .streaming import BUDGET, Stream, one_draw
from .structure import Structure, inspect_model, require_labels, shapes_of
from .types import Array, Key, Model, as_key


def log_likelihood(
    key: Key | int,
    model: Model,
    posterior: Posterior,
    data: Data,
    *,
    guide: Any = None,
    budget: int = BUDGET,
) -> dict[str, np.ndarray]:
    """Score each row's y under each draw: log p(y_i | x_i, draw), per unit of the user's y.

    Discrete latents of a row are summed out.  Continuous latents of a row, such as a VAE's code,
    are drawn from the guide that amortises them and weighed: the draws' values are then
    log p(y_i, z) / q(z), whose log-mean-exp over draws estimates log p(y_i) from below
    (Burda et al. 2016, equation 8).

    Parameters
    ----------
    data
        Rows with y: of the fit, or held out and then in the user's units.
    guide
        The guide of the latents of a row, where there are any.

    Returns
    -------
    dict
        For each observed site an array (chain, draw, row); the sites' joint under the name ``rows``
        if there are several and latents of a row tie them together.

    Raises
    ------
    ModelError
        If the observed values are not one entry a row, or `guide` is missing.

    Examples
    --------
    >>> import numpy as np, ppbdl, ppbdl.models
    >>> x = np.linspace(-1, 1, 20)[:, None]
    >>> data = ppbdl.Data(x, 2 * x[:, 0] + 0.1 * np.cos(9 * x[:, 0]))
    >>> model = ppbdl.models.LinearRegression(noise=0.1)
    >>> posterior = ppbdl.fit(0, model, data, ppbdl.MAP(steps=300), progress=False)
    >>> log_likelihood(1, model, posterior, data)["y"].shape
    (1, 1, 20)
    """
    require_whole(budget=budget)
    if data.y is None:
        raise DataError(
            "data", expected="rows with y", got="no y", remedy="Pass Data(x, y); or call predict."
        )
    x, y = _as_fitted(posterior, data)
    structure = inspect_model(model, shapes_of(data))
    require_labels(structure, data)
    sites = look(model, posterior, x, y)
    _require_rows(sites, structure, data.rows)
    local = [n for n in (*structure.local, *structure.latents) if n not in posterior.draws]
    if local and guide is None:
        raise ModelError(
            "guide",
            expected=f"the guide that amortises {local}, the latents of a row",
            got="None",
            remedy="Pass guide=model.guide, or the guide that was fitted.",
        )
    one = _scorer(
        model,
        guide if local else None,
        structure.observed,
        structure.row_plates,
        structure.plate_depth if structure.discrete else None,
    )
    whole = any(tied(sites, posterior, name) for name in structure.observed)
    stream = Stream(posterior, (x, y), budget, whole=whole)
    kept = [(rows, t, out["draws"]) for rows, t, out in stream.run(as_key(key), one, keep=True)]
    return {
        name: scaling_of(posterior, posterior.observed[0]).log_density(score)
        for name, score in stream.assemble(kept).items()
    }


def log_prior(model: Model, posterior: Posterior, data: Data) -> dict[str, np.ndarray]:
    """Give each latent's log prior density under each draw, summed over its event and plates.

    It is on the latent's own support, as its prior is declared.  Left out are latents of a row, and
    those whose prior rests on another latent, such as the effects of eight schools: what is
    declared of them is a part of the data's model, and the prior that somebody chose is that of
    their population.  (An effect of a group that is declared as a standard normal, and scaled
    later, cannot be told from a parameter, and stays.)  So are discrete latents, which are summed
    out.  A prior that `Laplace` has tuned is not the declared one: then there are none.

    Parameters
    ----------
    data
        The rows of the fit.

    Returns
    -------
    dict
        For each latent site an array (chain, draw).

    Examples
    --------
    >>> import numpy as np, ppbdl, ppbdl.models
    >>> data = ppbdl.Data(np.linspace(-1, 1, 20)[:, None], np.linspace(-2, 2, 20))
    >>> model = ppbdl.models.LinearRegression(noise=0.1)
    >>> posterior = ppbdl.fit(0, model, data, ppbdl.SVI(steps=300), progress=False)
    >>> {name: density.shape for name, density in log_prior(model, posterior, data).items()}
    {'intercept': (1, 1000), 'weights': (1, 1000)}
    """
    x, y = _as_fitted(posterior, data)
    structure = inspect_model(model, shapes_of(data))
    sites = look(model, posterior, x, y)
    names = tuple(
        name
        for name in structure.latents
        if name in posterior.draws
        and not any(f.name in structure.row_plates for f in sites[name]["cond_indep_stack"])
    )
    learned = (posterior.params, posterior.mutables)
    if names:
        names = _resting_on_none(model, names, posterior, x, y)
    if not names or "prior_factor" in posterior.params.get("laplace", {}):
        return {}
    found = _prior_program(model, names)(dict(posterior.draws), learned, x, y)
    return {name: np.asarray(density) for name, density in found.items()}


def _resting_on_none(
    model: Model, names: tuple[str, ...], posterior: Posterior, x: Any, y: Any
) -> tuple[str, ...]:
    """Keep the latents whose density depends on no latent but themselves, by its JAX program."""

    def densities(**named: Any) -> dict[str, Array]:
        values = {name: named[f"latent {name}"] for name in posterior.draws}
        sites = _run(jax.random.key(0), placing(model, values, named["learned"]), (x, y))
        return {name: _density(sites[name]) for name in names}

    values, learned = one_draw(posterior)
    # Prefixed, since a site may have the name of an argument.
    named = {f"latent {name}": value for name, value in values.items()}
    on = eval_provenance(densities, learned=learned, **named)
    return tuple(name for name in names if on[name] <= {f"latent {name}", "learned"})


@remembered
def _prior_program(model: Model, names: tuple[str, ...]) -> Program:
    """Compile the latents' densities; what of the model they don't rest on, XLA leaves out."""

    def densities(draws: Any, learned: Any, x: Any, y: Any) -> dict[str, Array]:
        def of_chain(chain: tuple[Any, Any]) -> dict[str, Array]:
            def of_draw(values: Any) -> dict[str, Array]:
                program = placing(model, values, chain[1])
                sites = _run(jax.random.key(0), program, (x, y))
                return {name: _density(sites[name]) for name in names}

            return jax.lax.map(of_draw, chain[0])

        return jax.lax.map(of_chain, (draws, learned))

    return Program(densities)


def _density(site: dict[str, Any]) -> Array:
    return jnp.sum(scale_and_mask(site["fn"].log_prob(site["value"]), site["scale"]))


def _as_fitted(posterior: Posterior, data: Data) -> tuple[Any, Any]:
    """Give x and y in the units of the fit."""
    if data.scaling is None and posterior.scaling is not None:
        return posterior.scaling.x(data.x), posterior.scaling.y(data.y)
    return data.x, data.y


def _require_rows(sites: dict[str, Any], structure: Structure, rows: int) -> None:
    for name in structure.observed:
        shape = sites[name]["fn"].batch_shape
        if shape[:1] != (rows,):
            raise ModelError(
                "model",
                expected=f"a likelihood {name!r} with the {rows} rows as its first batch axis",
                got=f"batch shape {shape}",
                remedy="Observe in a plate of the rows; to_event only axes within a row.",
            )
    for name in structure.discrete:
        if not any(f.name in structure.row_plates for f in sites[name]["cond_indep_stack"]):
            raise ModelError(
                "model",
                expected="discrete latents in the plate of the rows, to be summed out row by row",
                got=f"{name!r}, which all the rows share",
                remedy="Sum it out in the model (MixtureSameFamily), or score it another way.",
            )


@remembered
def _scorer(
    model: Model,
    guide: Any,
    observed: tuple[str, ...],
    rows: frozenset[str],
    enumerated_depth: int | None,
) -> Callable[..., dict[str, Array]]:
    """Make the function that scores all rows under one draw."""

    def of_rows(key: Key, values: Any, learned: Any, inputs: Any) -> dict[str, Array]:
        sites = _run(key, placing(model, values, learned), inputs)
        return {
            name: _by_row(sites[name]["fn"].log_prob(sites[name]["value"])) for name in observed
        }

    def weighed(key: Key, values: Any, learned: Any, inputs: Any) -> dict[str, Array]:
        q_key, p_key = jax.random.split(key)
        q = _run(q_key, placing(guide, values, learned), inputs)
        p = _run(p_key, replay(placing(model, values, learned), q), inputs)
        log_weight = _of_rows(p, rows) - _of_rows(q, rows)
        return {_joint(observed): log_weight}

    def summed(key: Key, values: Any, learned: Any, inputs: Any) -> dict[str, Array]:
        from numpyro.contrib.funsor import config_enumerate, enum, log_density

        program = _OnlyRows(placing(model, values, learned), rows)

        def of_row(row: Any) -> Array:
            one_row = jax.tree.map(lambda a: a[None], row)
            enumerated = enum(config_enumerate(seed(program, key)), -1 - (enumerated_depth or 0))
            return jnp.asarray(log_density(enumerated, one_row, {}, {})[0])

        return {_joint(observed): jax.vmap(of_row)(inputs)}

    return summed if enumerated_depth is not None else of_rows if guide is None else weighed


class _OnlyRows(Messenger):
    """Leaves only the density of the rows' own sites."""

    def __init__(self, fn: Any, rows: frozenset[str]):
        self.rows = rows
        super().__init__(fn)

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and not any(
            f.name in self.rows for f in msg["cond_indep_stack"]
        ):
            msg["fn"] = msg["fn"].mask(False)


def _run(key: Key, program: Any, inputs: Any) -> Any:
    return trace(seed(program, key)).get_trace(*inputs)


def _by_row(log_prob: Array) -> Array:
    return log_prob.reshape(log_prob.shape[0], -1).sum(-1)


def _of_rows(sites: dict[str, Any], rows: frozenset[str]) -> Array:
    scores = [
        # With what a flow knows of the value that it drew: its inverse would lose digits.
        _by_row(site["fn"].log_prob(site["value"], *filter(None, [site["intermediates"]])))
        for site in sites.values()
        if site["type"] == "sample" and any(f.name in rows for f in site["cond_indep_stack"])
        if not isinstance(site["fn"], dist.Unit)  # a factor is a term of the fit, not of y
    ]
    return jnp.stack(scores).sum(0)


def _joint(observed: tuple[str, ...]) -> str:
    return observed[0] if len(observed) == 1 else "rows"
