"""The result of every method: draws, what was learned beside them, and where they came from."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.handlers import block, seed, substitute

from .data import Scaling
from .errors import InputError, ModelError
from .types import Array, Key


@dataclass(frozen=True)
class Provenance:
    """Where a posterior came from.

    Attributes
    ----------
    method, settings
        Name of the method, and its settings as text by name.
    kind
        ``"mcmc"``; ``"density"`` for an approximation that can be evaluated; or ``"implicit"``
        (MC dropout, ensembles, point estimates).
    seed
        The key's data.
    seconds_compiling, seconds_running
        Wall seconds of tracing and compiling, and of running.
    peak_bytes
        Bytes of the largest compiled program: its arguments, results and temporaries.
    gradients
        Gradient evaluations of the log joint, one a minibatch.
    failure
        Empty, or a sentence that says how the fit ended early, or that it is of no use.
    """

    method: str
    settings: Mapping[str, str]
    kind: str
    seed: tuple[int, ...]
    seconds_compiling: float = 0.0
    seconds_running: float = 0.0
    peak_bytes: int = 0
    gradients: int = 0
    failure: str = ""
    device: str = field(default_factory=lambda: jax.devices()[0].device_kind)
    versions: Mapping[str, str] = field(
        default_factory=lambda: {
            package: importlib.metadata.version(package)
            for package in ("ppbdl", "jax", "numpyro", "dm-haiku", "optax", "arviz")
        }
    )


@dataclass(frozen=True)
class Posterior:
    """Draws from a posterior, exact or approximate, whatever the method.

    Attributes
    ----------
    draws
        Latent sites by name, each of shape (chain, draw, ...), on their own support.
    params
        Parameters learned as point estimates (the model's own and the guide's), with (chain,)
        in front of every array.
    mutables
        State such as BatchNorm's running statistics, with (chain,) in front.
    stats
        What the method tells of each draw, of shape (chain, draw): ``diverging``, ``lp``,
        ``log_q``, ``log_prior``, ...
    shape
        (chains, draws); also where there is no latent to draw.
    observed
        Names of the model's observed sites.
    provenance
        Method, settings, seed, versions, cost, failure.
    losses
        The minimised objective, (chain, step); None for MCMC.
    kept_losses
        With early stopping: ``step`` (look,) and ``loss`` (chain, look) of the rows kept back,
        nats a row.  The posterior is that of each chain's least one.
    iterates
        Of an optimisation, up to 1,000 of its steps, ``step`` (kept step,), and by name up to 50 of
        the unconstrained parameters there: ``value`` (chain, kept step), and ``scale`` (chain,):
        the guide's standard deviation about a mean, 1 for such a deviation, NaN where not known.
    findings
        What the model found when it looked the fit over, if it does, by group: such as a VAE's
        ``code``, with (chain,) in front of every array.
    scaling
        The data's standardisation, so that predictions come back in the user's units.
    x_shape
        Shape of one row of inputs, which `predict` holds new inputs against.
    """

    draws: Mapping[str, Array]
    params: Mapping[str, Any]
    mutables: Mapping[str, Any]
    stats: Mapping[str, Any]
    shape: tuple[int, int]
    observed: tuple[str, ...]
    provenance: Provenance
    losses: np.ndarray | None = None
    kept_losses: Mapping[str, np.ndarray] = field(default_factory=dict)
    iterates: Mapping[str, Any] = field(default_factory=dict)
    findings: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    scaling: Scaling | None = None
    x_shape: Any = None

    def __repr__(self) -> str:
        chains, draws = self.shape
        sites = ", ".join(f"{name} {value.shape[2:]}" for name, value in self.draws.items())
        return (
            f"Posterior({self.provenance.method}, {chains} chain(s) of {draws} draw(s): "
            f"{sites or 'no latents'})"
        )


def seed_of(key: Key) -> tuple[int, ...]:
    """Tell a key's data as integers, to be recorded."""
    return tuple(int(word) for word in np.ravel(jax.random.key_data(key)))


def placing(program: Any, values: Mapping[str, Array], learned: tuple[Any, Any]) -> Any:
    """Put one draw's latents, and the parameters and state of its chain, into a program.

    Raises
    ------
    ModelError
        If a latent has another shape here than where it was fitted.
    """
    params, mutables = learned

    def place(site: dict[str, Any]) -> Any:
        name = site["name"]
        if site["type"] == "param":
            return params.get(name)
        if site["type"] == "mutable":
            return mutables.get(name)
        if site["type"] != "sample" or site["is_observed"] or name not in values:
            return None
        here, fitted = tuple(site["fn"].shape()), values[name].shape
        if here != fitted:
            raise ModelError(
                "x",
                expected=f"inputs for which the latent {name!r} has the shape {fitted} of the fit",
                got=f"inputs for which it has the shape {here}",
                remedy="A latent of the fitted rows says nothing of others: pass the fit's own x, "
                "or draw the latent from a guide that amortises it.",
            )
        return values[name]

    return substitute(program, substitute_fn=place)


def one_draw(posterior: Posterior, chain: int = 0, draw: int = 0) -> tuple[Any, Any]:
    """Give one draw's latents, and the parameters and state of its chain.

    Raises
    ------
    InputError
        If there is no such chain or draw.
    """
    for name, at, number in zip(("chain", "draw"), (chain, draw), posterior.shape, strict=True):
        if not 0 <= at < number:
            raise InputError(
                name,
                expected=f"from 0 to {number - 1}",
                got=repr(at),
                remedy=f"The posterior is {posterior!r}.",
            )
    values = {name: jnp.asarray(a[chain, draw]) for name, a in posterior.draws.items()}
    learned = (posterior.params, posterior.mutables)
    return values, jax.tree.map(lambda a: jnp.asarray(a[chain]), learned)


def at_draw(program: Any, drawn: tuple[Any, Any]) -> Any:
    """Make a program that declares networks a plain function, with the weights of `one_draw`.

    Raises
    ------
    ModelError
        When run: if the fit knows nothing of one of the parameters.
    """
    _, (params, _) = drawn

    def require(site: dict[str, Any]) -> None:
        if site["type"] == "param" and site["name"] not in params:
            raise ModelError(
                "posterior",
                expected=f"a fit of this model, which learns the parameter {site['name']!r}",
                got=f"one that learned {sorted(params)}",
                remedy="Pass what fit gave for this very model.",
            )

    def run(*args: Any) -> Any:
        with block(), seed(rng_seed=0):
            return placing(substitute(program, substitute_fn=require), *drawn)(*args)

    return run
