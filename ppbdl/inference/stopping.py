"""Early stopping: rows are kept back, and the state that explains them best is the result.

Maximum likelihood of a flexible model overfits if it runs on; how the kept rows are scored tells
when (Prechelt 1998, *Early Stopping, But When?*).  The loss of a state is minus the mean of

    log p(y_i | z, w_i) + log p(w_i) - log q(w_i),    z, w ~ q,

over the kept rows i, with w_i the latents of the row itself, if there are any: nats a row, without
the prior of what the rows share.  The same draws of q score every state.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.handlers import replay, seed, substitute, trace

from ..compiling import Program, remembered
from ..data import Data
from ..errors import FitError, InputError, ModelError, require_whole
from ..guides import bind
from ..structure import Shapes, Structure, inspect_model
from ..types import Array, Key, Model
from .elbo import log_density
from .loop import Turns
from .optimisation import State, programs_of, with_params

if TYPE_CHECKING:
    from .svi import SVI

_DRAWS = 8  # of the guide, at most, for each batch of kept rows


@dataclass(frozen=True)
class EarlyStopping:
    """Settings of early stopping.

    Parameters
    ----------
    share
        Share of the rows that is kept back at random, or their number.  With minibatches it is
        rounded down to whole batches.
    every
        Steps from one look to the next; the last step is looked at, too.
    patience
        Looks without an improvement, after which the fit ends.

    Examples
    --------
    >>> import ppbdl
    >>> ppbdl.MAP(steps=10_000, stopping=EarlyStopping(0.2, every=50)).stopping.patience
    10
    """

    share: float | int = 0.1
    every: int = 100
    patience: int = 10

    def __post_init__(self) -> None:
        require_whole(every=self.every, patience=self.patience)

    def divide(self, key: Key, data: Data, batch_size: int | None) -> tuple[Data, Data]:
        """Split into the rows to fit and the rows that are kept back."""
        count = self.share if isinstance(self.share, int) else round(self.share * data.rows)
        if not 0 < count < data.rows:
            raise InputError(
                "share",
                expected=f"a share or a number of the {data.rows} rows that leaves some for both",
                got=repr(self.share),
                remedy="Pass a share such as 0.1.",
            )
        if batch_size is not None and count > batch_size:
            count -= count % batch_size
        return data.split(jax.random.fold_in(key, 1), count)


class Watch:
    """Looks at a fit's states now and then, and keeps the best of each member.

    Parameters
    ----------
    score
        Of `scorer_of`.
    kept
        The rows that were kept back.
    svi, members
        The optimisation.
    """

    def __init__(self, score: Program | Turns, kept: Data, svi: SVI, members: int | None):
        self._score, self._stopping, self._steps = score, svi.stopping or EarlyStopping(), svi.steps
        size = min(svi.batch_size or kept.rows, kept.rows)
        self._batches = [
            jax.device_put(jax.tree.map(lambda a, i=i: a[i : i + size], (kept.x, kept.y)))
            for i in range(0, kept.rows, size)
        ]
        self._best: State | None = None
        self._least = np.full(members or 1, np.inf)
        self._since = np.zeros(members or 1, int)  # looks since the best
        self._looks: list[tuple[int, np.ndarray]] = []

    @property
    def seconds_compiling(self) -> float:
        """Seconds spent compiling the score so far, over all fits."""
        return self._score.seconds

    def due(self, done: int) -> int:
        """Tell how many steps remain until the next look."""
        return min(self._steps - done, self._stopping.every - done % self._stopping.every)

    def look(self, done: int, state: State) -> None:
        """Score the state after `done` steps."""
        scores = jax.device_get([self._score(state, *batch) for batch in self._batches])
        loss = -np.mean(scores, axis=0).reshape(-1)
        # An infinite loss is a state that gives a kept row no chance at all: never the best.
        better = np.isfinite(loss) & (loss < self._least)
        self._looks.append((done, loss))
        self._least = np.where(better, loss, self._least)
        self._since = np.where(better, 0, self._since + 1)
        if self._best is None or better.all():
            self._best = state
        elif better.any():
            self._best = self._better_of(better, state, self._best)

    def _better_of(self, better: np.ndarray, new: State, old: State) -> State:
        def choose(new: Array, old: Array) -> Array:
            return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        params, mutables = jax.tree.map(
            choose, (new.params, new.mutables), (old.params, old.mutables)
        )
        return new._replace(params=params, mutables=mutables)

    @property
    def waits(self) -> bool:
        """Whether some member improved within the last `patience` looks."""
        return bool((self._since < self._stopping.patience).any())

    def best(self, state: State, site: str) -> State:
        """Give the best state of each member; `state` if there was no look.

        Raises
        ------
        FitError
            If some member's loss was not finite at any look; it names `site`.
        """
        if self._best is not None and not np.isfinite(self._least).all():
            raise FitError(
                "The rows kept back never had a finite log density: some lie where the fitted "
                "model gives them no chance. Look at its support, or fit without early stopping.",
                step=self._looks[-1][0],
                site=site,
            )
        return self._best or state

    @property
    def record(self) -> dict[str, np.ndarray]:
        """The looks: their steps, (look,), and the loss of the kept rows, (chain, look)."""
        steps, losses = [done for done, _ in self._looks], [loss for _, loss in self._looks]
        return {"step": np.array(steps), "loss": np.array(losses).reshape(len(steps), -1).T}


@remembered
def scorer_of(
    model: Model, svi: SVI, members: int | None, fitted: Shapes, kept: Shapes
) -> Program | Turns:
    """Make ``(state, x, y) -> score``, the mean over rows; with members in front where there are.

    Raises
    ------
    ModelError
        If rows can only be scored by those that were fitted, or by summing something out.
    """
    programs = programs_of(model, svi, members, fitted)
    structure = programs.structure
    _require_scorable(model, structure, kept)
    guide = functools.partial(bind, svi.guide, model, structure)

    def score(state: State, x: Any, y: Any) -> Array:
        def at(key: Key) -> Array:
            p, q = (
                substitute(with_params(program, state.params), data=state.mutables)
                for program in (model, guide())
            )
            q_sites = trace(seed(q, key)).get_trace(x, y)
            p_run = seed(replay(p, q_sites), jax.random.fold_in(key, 2))  # as in the objective
            p_sites = trace(p_run).get_trace(x, y)
            of_rows = [p_sites[name] for name in (*structure.observed, *structure.local)]
            drawn = [q_sites[name] for name in structure.local]
            return _total(of_rows) - _total(drawn)

        # The same draws for every state, so that states are compared and not draws.
        draws = min(svi.draws, _DRAWS)  # a point estimate asks for one, and has but one
        scores = jax.lax.map(at, jax.random.split(state.keys[0], draws))
        return scores.mean() / len(jax.tree.leaves((x, y))[0])

    return Turns(Program(score), members) if members else Program(score)


def _total(sites: list[dict[str, Any]]) -> Array:
    return jnp.sum(jnp.array([jnp.sum(log_density(site)) for site in sites]))


def _require_scorable(model: Model, structure: Structure, kept: Shapes) -> None:
    if structure.discrete:
        raise ModelError(
            "stopping",
            expected="a model without discrete latents",
            got=f"{list(structure.discrete)}, to be summed out",
            remedy="Fit without early stopping.",
        )
    latents = inspect_model(model, kept).latents
    own = [name for name, shape in structure.latents.items() if latents.get(name) != shape]
    if own:
        raise ModelError(
            "stopping",
            expected="latents that all the rows share, or that the guide draws from each row",
            got=f"{own[0]!r}, which has an entry for each fitted row",
            remedy="Mark it infer={'local': True} and amortise it, or fit without early stopping.",
        )
