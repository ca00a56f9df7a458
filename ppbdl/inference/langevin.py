"""The compiled parts of stochastic-gradient MCMC: start, steps, a look at the curvature, draws.

`stochastic` tells the update and its conventions.  Here too, programs know a model, its rule of
update and shapes; keys, data, step sizes and the numbers of steps are arguments.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from numpyro.handlers import seed, substitute, trace

from ..compiling import Program, remembered, strong
from ..latents import initial_latents
from ..noise import normal
from ..potential import constrained, potential
from ..structure import Shapes, Structure, inspect_model
from ..types import Array, Key, Model
from .batches import Batches, scale_rows
from .elbo import log_density
from .loop import Loop

_DECAY, _DAMPING = 0.99, 1e-2  # of the preconditioner


class Rule(NamedTuple):
    """What of the update is compiled in.

    Attributes
    ----------
    friction
        The share a of the velocity that a step takes away.
    preconditioned
        Whether G is adapted during warm-up, or 1.
    cyclical
        Whether the step size falls along a cosine in every cycle, with no noise in its warm-up.
    schedule
        From the step to a factor of the step size.
    batch_size
        Rows in a minibatch; None for all of them.
    """

    friction: float
    preconditioned: bool
    cyclical: bool
    schedule: Callable[[Any], Any] | None
    batch_size: int | None


class Plan(NamedTuple):
    """What of the update is an argument: other numbers compile nothing."""

    step_size: Any
    cycle: Any  # steps in a cycle, which is the whole run where there are no cycles
    warmup: Any  # steps at a cycle's start


class State(NamedTuple):
    """What a chain carries from step to step."""

    params: Array  # u
    velocity: Array  # v; empty where friction leaves nothing of it
    squares: Array  # running mean of g^2; empty unless preconditioned
    order: Array
    keys: Array  # of the noise and of the epochs
    step: Array
    plan: Plan


class Programs(NamedTuple):
    """The compiled parts of a fit.

    ``init(key, chain, plan, x, y) -> state``; ``advance(state, x, y, n) -> (state, energies,
    good)``, an energy being that of the state before its step; ``sizes(plan, steps)``, the step
    sizes; ``look(state, v, key, x, y) -> (G^1/2 H G^1/2 v, v' G^1/2 g)`` with H the energy's
    Hessian and g its gradient on a fresh batch; ``scale(state) -> G^1/2``; ``constrain(u, x, y)``;
    and ``blame(state, x, y) -> site``, which names what is not finite in the next step.
    """

    structure: Structure
    batches: Batches
    init: Program
    advance: Loop
    sizes: Program
    look: Program
    scale: Program
    constrain: Program
    blame: Callable[[State, Any, Any], str]

    @property
    def seconds_compiling(self) -> float:
        """Seconds spent compiling so far, over all fits."""
        return sum(part.seconds for part in self if isinstance(part, (Program, Loop)))

    @property
    def peak_bytes(self) -> int:
        """Bytes that the largest of the programs holds."""
        return max(part.peak_bytes for part in self if isinstance(part, (Program, Loop)))


@remembered
def programs_of(model: Model, rule: Rule, shapes: Shapes) -> Programs:
    """Make the programs of a model's chains, or find those of an earlier fit."""
    structure = inspect_model(model, shapes, rule.batch_size)
    batches = Batches(shapes.rows, rule.batch_size)
    energy = potential(scale_rows(model, structure, shapes.size / batches.size), structure)
    nothing = (0,)

    def init(key: Key, chain: Array, plan: Plan, x: Any, y: Any) -> State:
        start, *keys = jax.random.split(jax.random.fold_in(key, chain), 3)
        flat = initial_latents(start, model, structure, *batches.head(x, y))
        return strong(
            State(
                params=flat,
                velocity=jnp.zeros(nothing if rule.friction == 1 else flat.shape, flat.dtype),
                squares=jnp.zeros(flat.shape if rule.preconditioned else nothing, flat.dtype),
                order=batches.no_order,
                keys=jnp.stack(keys),
                step=jnp.zeros((), jnp.int32),
                plan=plan,
            )
        )

    def size_at(plan: Plan, step: Array) -> Array:
        size = plan.step_size * (rule.schedule(step) if rule.schedule else 1.0)
        if not rule.cyclical:
            return size
        # Zhang et al. (2020), equation 1.
        return 0.5 * size * (1 + jnp.cos(jnp.pi * (step % plan.cycle) / plan.cycle))

    def preconditioner(squares: Array) -> Array:
        # Li et al. (2016), algorithm 1; damped relative to the gradient's own size.
        return 1 / (jnp.sqrt(squares) + _DAMPING * jnp.sqrt(jnp.mean(squares)))

    def step(state: State, x: Any, y: Any) -> tuple[State, Array]:
        order = batches.order(state.order, state.keys[1], state.step)
        inputs = batches.take(order, state.step, x, y)
        value, grad = jax.value_and_grad(energy)(state.params, *inputs)
        warming = state.step % state.plan.cycle < state.plan.warmup
        size, squares, scale = size_at(state.plan, state.step), state.squares, 1.0
        if rule.preconditioned:
            decay = jnp.where(state.step == 0, 0.0, jnp.where(warming, _DECAY, 1.0))
            squares = decay * squares + (1 - decay) * grad**2
            scale = preconditioner(squares)
        variance = rule.friction * size * scale
        if rule.cyclical:
            variance = jnp.where(warming, 0.0, variance)
        key = jax.random.fold_in(state.keys[0], state.step)
        noise = normal(key, grad.shape, grad.dtype)
        move = jnp.sqrt(variance) * noise - 0.5 * size * scale * grad
        if rule.friction != 1:
            move = (1 - rule.friction) * state.velocity + move
        velocity = state.velocity if rule.friction == 1 else move
        params = state.params + move
        return State(
            params, velocity, squares, order, state.keys, state.step + 1, state.plan
        ), value

    def scale(state: State) -> Array:
        if not rule.preconditioned:
            return jnp.ones_like(state.params)
        return jnp.sqrt(preconditioner(state.squares))

    def look(state: State, v: Array, key: Key, x: Any, y: Any) -> tuple[Array, Array]:
        first = jnp.zeros((), jnp.int32)
        x, y = batches.take(batches.order(batches.no_order, key, first), first, x, y)
        root = scale(state)
        grad, turned = jax.jvp(lambda u: jax.grad(energy)(u, x, y), (state.params,), (root * v,))
        return root * turned, jnp.vdot(root * v, grad)

    def constrain(flat: Array, x: Any, y: Any) -> dict[str, Array]:
        x, y = batches.head(x, y)
        one = functools.partial(constrained, model, structure, x=x, y=y, key=jax.random.key(0))
        sites = jax.vmap(jax.vmap(one))(flat)
        # Of a batch's rows, a deterministic site would tell of those rows only.
        return {n: a for n, a in sites.items() if n in structure.latents or not rule.batch_size}

    def blame(state: State, x: Any, y: Any) -> str:
        names: list[str] = []

        # Traced, because NumPyro refuses a distribution's bad parameters where it sees values.
        @jax.jit
        def finite(state: State, x: Any, y: Any) -> list[Array]:
            order = batches.order(state.order, state.keys[1], state.step)
            x, y = batches.take(order, state.step, x, y)
            key = jax.random.key(0)
            values = constrained(model, structure, state.params, x, y, key)
            sites = trace(substitute(seed(model, key), data=values)).get_trace(x, y)
            found = [(s["name"], log_density(s)) for s in sites.values() if s["type"] == "sample"]
            found += structure.unflatten(jax.grad(energy)(state.params, x, y)).items()
            names.extend(name for name, _ in found)
            return [jnp.all(jnp.isfinite(value)) for _, value in found]

        goods = finite(state, x, y)
        bad = [name for name, good in zip(names, goods, strict=True) if not good]
        return bad[0] if bad else structure.observed[0]  # else the update itself overflowed

    return Programs(
        structure,
        batches,
        Program(init),
        Loop(step, None),
        Program(jax.vmap(size_at, (None, 0))),
        Program(look),
        Program(scale),
        Program(constrain),
        blame,
    )
