"""What a method cannot run on, and the errors that say so."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.handlers import seed, substitute, trace

from ..errors import FitError, InputError, ModelError
from ..potential import constrained
from ..structure import Structure
from ..types import Array, Model
from .elbo import log_density

TRIES = 100  # starting points to try until the density and its gradient are finite


def refuse(method: str, structure: Structure, allow: tuple[str, ...]) -> None:
    """Raise `ModelError` if the model has parts with which a method of this name cannot deal.

    `allow` has those with which it can, by the names that a `Structure` gives them.
    """
    problems = {
        "subsampled": (
            "no subsampling plate: it would see one batch for ever",
            "Drop subsample_size, and give batch_size to a method that takes it.",
        ),
        "params": (
            "no learnable parameters, which a sampler would leave where they start",
            "Give them priors: random_haiku_module, or numpyro.sample.",
        ),
        "mutables": (
            "no mutable state",
            "Use a network without running statistics, or fit with SVI.",
        ),
        "local": (
            "no latents marked as local or of a minibatch's rows, which an amortised guide must "
            "draw",
            "Drop infer={'local': True} and batch_size, or fit with SVI and the guide.",
        ),
        "discrete": (
            "continuous latents only",
            "Fit with SVI(loss=numpyro.infer.TraceEnum_ELBO()), or with NUTS.",
        ),
    }
    for part, (expected, remedy) in problems.items():
        sites = getattr(structure, part)
        if sites and part not in allow:
            raise ModelError(
                "model", expected=f"for {method}, {expected}", got=str(list(sites)), remedy=remedy
            )
    if not structure.latents:
        raise ModelError(
            "model",
            expected=f"for {method}, at least one continuous latent site",
            got="none",
            remedy="Give the unknowns priors with numpyro.sample.",
        )


def no_start(
    method: str, model: Model, structure: Structure, flat: Array, x: Any, y: Any, chain: int
) -> FitError:
    """Make the error of a chain for which no starting point had a density; it blames a site."""
    names: list[str] = []

    # Traced, because NumPyro refuses a distribution's bad parameters where it sees values.
    @jax.jit
    def finite(flat: Array, x: Any, y: Any) -> list[Array]:
        values = constrained(model, structure, flat, x, y, jax.random.key(0))
        sites = trace(substitute(seed(model, jax.random.key(0)), data=values)).get_trace(x, y)
        samples = [site for site in sites.values() if site["type"] == "sample"]
        names.extend(site["name"] for site in samples)
        return [jnp.all(jnp.isfinite(log_density(site))) for site in samples]

    goods = finite(flat, x, y)
    bad = [name for name, good in zip(names, goods, strict=True) if not good]
    site = bad[0] if bad else structure.observed[0]
    return FitError(
        f"{method}: no finite density in {TRIES} starting points of chain {chain}; the last one "
        f"fails in site {site!r}. Look at that site's prior and at the data's scale.",
        step=0,
        site=site,
    )


def require_blackjax(method: str) -> ModuleType:
    """Import BlackJAX, an optional package, or say how to come by it."""
    try:
        import blackjax
    except ImportError as error:
        raise InputError(
            "method",
            expected=f"BlackJAX to be installed, whose kernel {method} is",
            got=f"an ImportError: {error}",
            remedy="Run pip install 'ppbdl[blackjax]'.",
        ) from error
    return blackjax
