"""Classes from few labels: a generative model of rows, of which some have their label.

    c ~ uniform,    z ~ N(0, I),    y ~ likelihood(decoder(z, c)),
    q(c, z | y) = q(c | y) q(z | y, c)

Kingma et al. (2014), *Semi-supervised Learning with Deep Generative Models*.  With
L(y, c) = E_q(z | y, c) [log p(y | z, c) + log p(c) + log p(z) - log q(z | y, c)], a row adds to the
objective (equations 6, 7 and 9)

    L(y, c) + supervision * log q(c | y)                 where its label c is known,
    sum_c q(c | y) [L(y, c) - log q(c | y)]              where it is not.

The sum is exact: a row has a code for each label, and a label is the weights of all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro

from ppbdl.data import Data
from ppbdl.errors import DataError, InputError, require_positive, require_whole
from ppbdl.module import haiku_module
from ppbdl.posterior import Posterior, at_draw
from ppbdl.types import Array, Key, as_key

from .codes import CodePrior, StandardNormal, VampPrior
from .examination import some_rows
from .labels import EachLabel, ItsLabel, Label
from .latent_variable import LatentVariableModel, drawn_of


@dataclass(frozen=True, eq=False)
class M2(LatentVariableModel):
    """The semi-supervised model M2: Kingma et al. (2014), section 2.

    x is the label of each row, (rows,), a whole number from 0, or -1 where it is not known; y is
    the rows.  The verbs take labels as x too, each of them known.

    The bound that `IWAE` and `log_likelihood` give of a row without a label stays below log p(y),
    however many the draws: the label is averaged in each; `log_marginal` is the estimate.

    Their M1 wants no class: it is a `VAE` of all rows, and a classifier, such as a `BNN`, of
    ``vae.encode(posterior, y).mean`` of those with a label.  An M2 of these codes is M1+M2.

    Parameters
    ----------
    shape, latent, likelihood, networks, posterior, prior, weights
        As for `LatentVariableModel`; `networks` makes the classifier q(c | y) as well.
    classes
        Number of labels.
    supervision
        Weight of log q(c | y) of a row whose label is known, by which q(c | y) learns of labels at
        all.  The paper's is 0.1 times the number of rows over the number of labels.  With too
        small a one q(c | y) settles before the decoder knows the labels; short fits want more.

    Examples
    --------
    >>> import numpy as np, ppbdl
    >>> from ppbdl.models import Dense, Normal
    >>> c = np.arange(60) % 2
    >>> y = np.random.default_rng(0).normal(6.0 * c[:, None] - 3.0, 1.0, (60, 3))
    >>> m2 = M2((3,), 1, Normal(1.0), Dense((16,)), classes=2, supervision=30.0)
    >>> data = ppbdl.Data(np.where(np.arange(60) < 4, c, -1), y)
    >>> svi = ppbdl.SVI(m2.guide, steps=300, draws=1)
    >>> posterior = ppbdl.fit(0, m2, data, svi, progress=False)
    >>> float((m2.classify(posterior, y).argmax(axis=1) == c).mean())
    1.0
    >>> m2.encode(posterior, y, c).mean.shape, m2.sample(1, posterior, [0, 1, 1]).shape
    ((60, 1), (3, 3))
    """

    prior: CodePrior = StandardNormal()
    classes: int = field(kw_only=True)
    supervision: float = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole(classes=self.classes)
        require_positive(supervision=self.supervision)
        if isinstance(self.prior, VampPrior):
            raise InputError(
                "prior",
                expected="one without pseudo-inputs: the encoder wants a label for each",
                got="VampPrior",
                remedy="Take StandardNormal or MixturePrior.",
            )

    def __call__(self, x: Any, y: Any = None) -> None:
        """Declare the generative model, and the classification term where there is a y."""
        known, plate = self._read(x, y), numpyro.plate("data", len(x))
        even = jnp.full((len(x), self.classes), 1 / self.classes)
        prior = self._prior(None).expand((even.size,))
        with plate:
            drawn: Any = numpyro.sample("label", Label(even), infer={"local": True})
            weights = _where_known(known, known, drawn)
            z: Any = numpyro.sample("z", EachLabel(prior, weights), infer={"local": True})
        fn = self._decode(z.reshape(-1, self.latent), self._every_label(len(x)))
        if y is not None:
            log_q = jax.nn.log_softmax(self._logits(y))
        with plate:
            numpyro.sample("y", ItsLabel(fn, weights), obs=y)
            if y is not None:
                numpyro.factor("supervision", self.supervision * (known * log_q).sum(-1))

    def guide(self, x: Any, y: Any = None) -> None:
        """Declare q(c | y), summed out, and q(z | y, c)."""
        self._guess_noise()
        known = self._read(x, y)
        weights = _where_known(known, known, jax.nn.softmax(self._logits(y)))
        every_y = jnp.repeat(jnp.asarray(y), self.classes, axis=0)
        q = self._encode(every_y, self._every_label(len(x)))
        with numpyro.plate("data", len(x)):
            numpyro.sample("label", Label(weights, summed_out=True))
            numpyro.sample("z", EachLabel(q, weights))

    def require(self, data: Data) -> None:
        """Refuse labels out of range, and data without any: `fit` asks.

        Raises
        ------
        DataError
            If a label is neither -1 nor one of the classes, or none is known.
        """
        super().require(data)
        self._require_labels(data.x, least=-1)
        if (data.x < 0).all():
            raise DataError(
                "x",
                expected="a label for some of the rows",
                got=f"-1, which is no label, in all {data.rows}",
                remedy="Pass the labels that are known; without any, fit a VAE.",
            )

    def examine(self, key: Key, posterior: Posterior, data: Data) -> Posterior:
        """Look a fit over, each row with its label, or the likeliest."""
        if "classifier$params" in posterior.params:
            data = some_rows(key, data)
            guessed = np.asarray(self.classify(posterior, data.y)).argmax(axis=1)
            data = replace(data, x=np.where(data.x < 0, guessed, data.x))
        return super().examine(key, posterior, data)

    def classify(self, posterior: Posterior, y: Any, *, chain: int = 0) -> Array:
        """Give q(c | y), (rows, classes)."""
        self._require_shape(y)
        return jax.nn.softmax(at_draw(self._logits, drawn_of(posterior, chain))(y))

    def sample(
        self, key: Key | int, posterior: Posterior, x: Any, *, chain: int = 0, draw: int = 0
    ) -> Array:
        """Draw a row for each of these labels, (rows, *shape)."""
        keys, drawn = jax.random.split(as_key(key)), drawn_of(posterior, chain, draw)
        z = at_draw(self._prior, drawn)(None).sample(keys[0], (len(x),))
        return self.decode(posterior, z, x, chain=chain, draw=draw).sample(keys[1])

    def log_marginal(
        self, key: Key | int, posterior: Posterior, y: Any, x: Any = None, **settings: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """Estimate log p(y), or log p(y | x) at labels x, as `LatentVariableModel` does.

        log p(y) is summed over the labels, each with samples of its own.
        """
        of_label = super().log_marginal
        if x is not None:
            return of_label(key, posterior, y, x, **settings)
        keys = enumerate(jax.random.split(as_key(key), self.classes))
        each = [of_label(k, posterior, y, np.full(len(y), c), **settings) for c, k in keys]
        log_p, errors = np.stack(each, axis=1)
        total = np.logaddexp.reduce(log_p)
        error = np.sqrt(((np.exp(log_p - total) * errors) ** 2).sum(0))
        return total - np.log(self.classes), error

    def _read(self, x: Any, y: Any) -> Array:
        """Give the labels as rows of one 1, or of zeros where there is none."""
        self._require_shape(y)
        labels = jnp.asarray(x)
        if labels.ndim != 1 or labels.dtype.kind != "i":
            raise InputError(
                "x",
                expected="the label of each row, (rows,) whole numbers, -1 where it is not known",
                got=f"{labels.dtype} of shape {labels.shape}",
                remedy="Pass labels.astype(int); Data(labels, y) to fit.",
            )
        return jax.nn.one_hot(labels, self.classes)

    def _given(self, x: Any, rows: int, y: Any = None) -> Any:
        known = super()._given(x, rows, y)
        self._require_labels(np.asarray(x), least=0)
        return known

    def _require_labels(self, labels: np.ndarray, least: int) -> None:
        bad = np.flatnonzero((labels < least) | (labels >= self.classes))
        if len(bad):
            raise DataError(
                "x",
                expected=f"labels from {least} to {self.classes - 1}",
                got=f"{len(bad)} others, the first in row {bad[0]}: {labels[bad[0]]}",
                remedy="Count classes from 0, and give the model as many as there are.",
            )

    def _every_label(self, rows: int) -> Array:
        return jnp.tile(jnp.eye(self.classes), (rows, 1))

    def _logits(self, y: Any) -> Array:
        shown = jax.ShapeDtypeStruct((1, *self.shape), jnp.result_type(float))
        network = haiku_module("classifier", self.networks.encoder(self.classes), shown)
        return network(jnp.asarray(y, shown.dtype))

    def _prior(self, x: Any) -> Any:
        return self.prior.build(self.latent, self.shape, lambda y: self._encode(y, x))

    def _encode(self, y: Any, x: Any) -> Any:
        return self._guessed(y, x)

    def _decode(self, z: Any, x: Any) -> Any:
        return self._declared(z, x).to_event(len(self.shape))


def _where_known(known: Array, label: Array, otherwise: Array) -> Array:
    return jnp.where(known.any(-1, keepdims=True), label, otherwise)
