"""M2 against what is known exactly: bound and evidence of linear networks have closed forms."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpyro.handlers import seed, trace
from scipy import stats
from scipy.special import logsumexp

import ppbdl
from ppbdl.errors import InputError
from ppbdl.inference.elbo import AnalyticELBO
from ppbdl.models import Convolutional, Dense, DiscretizedLogistic, Normal, VampPrior
from ppbdl.models.semi_supervised import M2

NOISE, CLASSES, LATENT = 0.5, 3, 2
LINEAR = M2((4,), LATENT, Normal(NOISE), Dense(()), classes=CLASSES, supervision=5.0)
Y = np.random.default_rng(0).normal(size=(6, 4))
MIXED = np.array([-1, 0, 2, -1, 1, -1], np.int32)


def parameters(model: M2, seed_: int = 1) -> dict[str, Any]:
    """Weights of networks of one layer, larger than at the start, so that every term counts."""
    sites = trace(seed(model.guide, 0)).get_trace(MIXED, Y)
    sites |= trace(seed(model, 0)).get_trace(MIXED, Y)
    params = {name: s["value"] for name, s in sites.items() if s["type"] == "param"}
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed_), len(leaves))
    pairs = zip(keys, leaves, strict=True)
    return tree.unflatten([0.7 * jax.random.normal(k, leaf.shape) for k, leaf in pairs])


def enumerated(params: dict[str, Any], x: np.ndarray, y: Any, supervision: float) -> Any:
    """The objective of each row by hand: each label in turn, expectations over z in closed form."""
    (w, b), (v, a), (u, o) = (
        (params[f"{net}$params"]["linear_0.w"], params[f"{net}$params"]["linear_0.b"])
        for net in ("classifier", "encoder", "decoder")
    )
    log_q = jax.nn.log_softmax(y @ w + b)
    rows = []
    for i, label in enumerate(x):
        of_label = []
        for c in range(CLASSES):
            raw = jnp.concatenate([y[i], jnp.eye(CLASSES)[c]]) @ v + a
            mean, spread = raw[:LATENT], jnp.exp(7 * jnp.tanh(raw[LATENT:] / 7))
            centre = jnp.concatenate([mean, jnp.eye(CLASSES)[c]]) @ u + o
            squares = ((y[i] - centre) ** 2).sum() + ((u[:LATENT].T * spread) ** 2).sum()
            fits = -0.5 * squares / NOISE**2 - 4 * jnp.log(NOISE * jnp.sqrt(2 * jnp.pi))
            divergence = 0.5 * (spread**2 + mean**2 - 1 - 2 * jnp.log(spread)).sum()
            of_label.append(fits - divergence - jnp.log(CLASSES))
        if label >= 0:
            rows.append(of_label[label] + supervision * log_q[i, label])
        else:
            rows.append(sum(jnp.exp(log_q[i, c]) * (of_label[c] - log_q[i, c]) for c in range(3)))
    return jnp.stack(rows)


@pytest.mark.parametrize(
    ("x", "supervision"), [(MIXED, 8.0), (np.full(6, -1), 0.5), (np.arange(6) % 3, 8.0)]
)
def test_the_bound_and_its_gradient_are_those_of_an_enumeration_by_hand(
    x: np.ndarray, supervision: float
) -> None:
    model = M2((4,), LATENT, Normal(NOISE), Dense(()), classes=CLASSES, supervision=supervision)
    params, x = parameters(model), x.astype(np.int32)

    def objective(params: Any, key: Any) -> Any:
        return -jnp.asarray(AnalyticELBO().loss(key, params, model, model.guide, x, Y))

    keys = jax.random.split(jax.random.key(2), 2000)
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(objective), (None, 0)))(params, keys)
    truth, slope = jax.value_and_grad(lambda p: enumerated(p, x, Y, supervision).sum())(params)
    # 72 normal z: beyond 5 once in 24,000 runs; what has no noise agrees to float32.
    pairs = map(jax.tree.leaves, ((values, slopes), (truth, slope)))
    for found, exact in zip(*pairs, strict=True):
        error = np.std(found, axis=0) / np.sqrt(len(keys))
        assert (abs(found.mean(0) - exact) < 5 * error + 1e-4 * (1 + abs(exact))).all()


def test_batches_are_unbiased_for_all_rows() -> None:
    # Noise so wide that what is drawn of z does not matter, and a step of no length: an epoch's
    # batches then partition the bound of all rows, exactly.
    model = M2((4,), LATENT, Normal(100.0), Dense(()), classes=CLASSES, supervision=5.0)
    y = 30 * np.random.default_rng(1).normal(size=(12, 4))
    data = ppbdl.Data(np.where(np.arange(12) < 4, np.arange(12) % 3, -1), y)

    def losses(steps: int, batch_size: int | None) -> np.ndarray:
        svi = ppbdl.SVI(model.guide, optax.sgd(0.0), steps, batch_size, draws=1)
        posterior = ppbdl.fit(0, model, data, svi, progress=False)
        assert posterior.losses is not None
        return posterior.losses[0]

    whole, batches = losses(1, None), losses(40, 3)
    np.testing.assert_allclose(batches.reshape(10, 4).mean(1), whole[0], rtol=1e-4)
    assert batches.std() > 0.05 * whole[0]  # else there was nothing to average


def placed(model: M2, params: dict[str, Any], x: np.ndarray) -> ppbdl.Posterior:
    """A posterior with these weights: a fit whose only step has no length, from them."""
    svi = ppbdl.SVI(model.guide, optax.sgd(0.0), steps=1, draws=1)
    fitted = ppbdl.fit(0, model, ppbdl.Data(x, Y), svi, progress=False)
    object.__setattr__(fitted, "params", jax.tree.map(lambda a: np.asarray(a)[None], params))
    return fitted


def exact_evidence(params: dict[str, Any]) -> np.ndarray:
    """log p(y | c) of linear decoders, (classes, rows)."""
    u, o = (np.asarray(params["decoder$params"][f"linear_0.{leaf}"], float) for leaf in "wb")
    covariance: Any = u[:LATENT].T @ u[:LATENT] + NOISE**2 * np.eye(4)
    return np.stack(
        [stats.multivariate_normal(u[LATENT + c] + o, covariance).logpdf(Y) for c in range(CLASSES)]
    )


def test_the_evidence_is_summed_over_the_labels() -> None:
    params = parameters(LINEAR)
    params["encoder$params"] = jax.tree.map(lambda a: 0.1 * a, params["encoder$params"])
    # q(z | y, c) is then near the prior, which is wide enough to draw from.
    posterior, exact = placed(LINEAR, params, MIXED), exact_evidence(params)
    found, error = LINEAR.log_marginal(1, posterior, Y, samples=50_000)
    truth = logsumexp(exact, axis=0) - np.log(CLASSES)
    assert abs((found - truth) / error).max() < 5  # a normal z's: once in 300,000 runs
    assert error.max() < 0.1
    labels = [0, 1, 2, 0, 1, 2]
    found, error = LINEAR.log_marginal(1, posterior, Y, labels, samples=50_000)
    assert (
        abs((found - exact[labels, range(6)]) / error).max() < 5
    )  # a normal z's: once in 300,000 runs
    assert error.max() < 0.1


def test_a_row_is_scored_without_the_classification_term() -> None:
    params = parameters(LINEAR)
    posterior, labels = placed(LINEAR, params, MIXED), np.arange(6) % 3
    data = ppbdl.Data(labels, Y)
    draws = [
        ppbdl.log_likelihood(key, LINEAR, posterior, data, guide=LINEAR.guide)["y"].ravel()
        for key in range(100)
    ]
    exact = exact_evidence(params)[labels, range(6)] - np.log(CLASSES)
    assert (np.mean(draws, axis=0) < exact).all()  # a bound on log p(y, c)
    q = np.asarray(LINEAR.classify(posterior, Y))[range(6), labels]
    by_hand = enumerated(params, labels, Y, 0.0)
    error = np.std(draws, axis=0) / np.sqrt(len(draws))
    assert (abs(np.mean(draws, axis=0) - by_hand) < 5 * error + 1e-3).all()
    assert (abs(5.0 * np.log(q)) > 10 * error).any()  # which the term would show in


def stripes(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three parallel stripes, longer than they are apart: c is which of them, z where in it."""
    rng = np.random.default_rng(seed)
    c = rng.integers(0, 3, rows)
    place = np.stack([1.5 * rng.normal(size=rows), 2.0 * (c - 1)], axis=1)
    turn = np.array([[0.8, 0.6], [-0.6, 0.8]])
    return (place + 0.2 * rng.normal(size=(rows, 2))) @ turn, c


def test_few_labels_and_many_rows_beat_the_labels_alone() -> None:
    (y, c), (new, truth) = stripes(600, 0), stripes(600, 1)
    model = M2((2,), 1, Normal(0.3), Dense((32,)), classes=3, supervision=300.0)
    first = np.concatenate([np.flatnonzero(c == k)[2:4] for k in range(3)])
    data = ppbdl.Data(np.where(np.isin(np.arange(600), first), c, -1), y)

    def accuracy(data: ppbdl.Data) -> float:
        svi = ppbdl.SVI(model.guide, optax.adam(1e-2), steps=800, draws=1)
        posterior = ppbdl.fit(0, model, data, svi, progress=False)
        return float((model.classify(posterior, new).argmax(1) == truth).mean())

    alone, together = accuracy(data.take(first)), accuracy(data)
    # Measured: 0.78 and 1.00; with the first two of each class 0.98 and 1.00.
    assert together > 0.97 > alone + 0.1, (alone, together)


def test_images_are_drawn_by_their_label() -> None:
    likelihood, networks, levels = DiscretizedLogistic(8), Convolutional((4, 4), 16), 8
    rng = np.random.default_rng(0)
    c = np.arange(120) % 2
    bright = np.where(c[:, None, None, None] == 1, 0.95, 0.05)
    y = rng.binomial(levels - 1, np.broadcast_to(bright, (120, 4, 4, 1)))
    model = M2((4, 4, 1), 2, likelihood, networks, classes=2, supervision=30.0)
    data = ppbdl.Data(np.where(np.arange(120) < 20, c, -1), y)
    svi = ppbdl.SVI(model.guide, optax.adam(5e-3), steps=200, batch_size=60, draws=1)
    posterior = ppbdl.fit(0, model, data, svi, progress=False)
    assert (model.classify(posterior, y).argmax(1) == c).mean() > 0.95
    labelled = np.where(data.x < 0, model.classify(posterior, y).argmax(1), data.x)
    q = model.encode(posterior, y, labelled)
    kl = 0.5 * (q.variance + q.mean**2 - 1 - np.log(q.variance)).mean(0)
    np.testing.assert_allclose(posterior.findings["code"]["kl"][0], kl, rtol=1e-3)
    drawn = model.sample(1, posterior, c)
    assert drawn.shape == y.shape
    assert ((np.asarray(drawn).mean((1, 2, 3)) > (levels - 1) / 2) == (c == 1)).mean() > 0.9
    # As NumPyro draws from the model, too: of the label that is given, or of either.
    again = ppbdl.predict(2, model, posterior, np.repeat([0, 1, -1], 40), draws=True).draws["y"]
    sides = np.asarray(again).mean((0, 1, 3, 4, 5)).reshape(3, 40) > (levels - 1) / 2
    assert sides[0].mean() < 0.1
    assert sides[1].mean() > 0.9
    assert 0 < sides[2].sum() < 40  # once in 5e11 runs it is not
    carried = model.decode(posterior, model.encode(posterior, y[:3], c[:3]).mean, 1 - c[:3]).mean
    assert ((np.asarray(carried).mean((1, 2, 3)) > (levels - 1) / 2) != (c[:3] == 1)).all()


def test_a_certain_classifier_has_a_finite_bound_and_gradient() -> None:
    params = parameters(LINEAR)
    params["classifier$params"]["linear_0.b"] = jnp.array([500.0, 0.0, -500.0])

    def objective(params: Any) -> Any:
        return jnp.asarray(
            AnalyticELBO().loss(jax.random.key(0), params, LINEAR, LINEAR.guide, MIXED, Y)
        )

    value, slope = jax.value_and_grad(objective)(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, slope)))


def test_a_learned_noise_is_learned() -> None:
    y, c = stripes(300, 0)
    model = M2((2,), 1, Normal(), Dense((16,)), classes=3, supervision=10.0)
    data = ppbdl.Data(np.where(np.arange(300) < 30, c, -1), y)
    svi = ppbdl.SVI(model.guide, optax.adam(1e-2), steps=300, draws=1)
    posterior = ppbdl.fit(0, model, data, svi, progress=False)
    assert 0.1 < posterior.draws["noise"].item() < 0.5


@pytest.mark.parametrize(
    ("x", "y", "match"),
    [
        (MIXED + 1, Y, "x: expected labels from -1 to 2, got 1 others, the first in row 2: 3"),
        (MIXED - 1, Y, "from -1 to 2, got 3 others, the first in row 0: -2"),
        (np.full(6, -1), Y, "fit a VAE"),
        (MIXED + 0.0, Y, "x: .*whole numbers"),
        (None, Y, "x: expected the label of each row"),
        (MIXED[:, None], Y, "x: expected the label of each row"),
        (MIXED, Y[:, :3], r"y: expected rows of shape \(4,\)"),
    ],
)
def test_what_cannot_be_fitted_is_refused(x: Any, y: np.ndarray, match: str) -> None:
    svi = ppbdl.SVI(LINEAR.guide, steps=1, draws=1)
    with pytest.raises(InputError, match=match):
        ppbdl.fit(0, LINEAR, ppbdl.Data(x, y), svi, progress=False)


def test_what_the_verbs_cannot_take_is_refused() -> None:
    posterior = placed(LINEAR, parameters(LINEAR), MIXED)
    with pytest.raises(InputError, match="from 0 to 2, got 3 others"):
        LINEAR.encode(posterior, Y, MIXED)
    with pytest.raises(InputError, match="from 0 to 2, got 1 others, the first in row 1: 3"):
        LINEAR.sample(0, posterior, [0, 3])
    with pytest.raises(InputError, match="label of each row"):
        LINEAR.encode(posterior, Y)
    with pytest.raises(InputError, match="6 rows"):
        LINEAR.encode(posterior, Y, [0, 1])
    with pytest.raises(InputError, match="y: "):
        LINEAR.classify(posterior, Y[:, :2])


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"classes": 0}, "classes"),
        ({"supervision": 0.0}, "supervision"),
        ({"prior": VampPrior()}, "prior"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=word):
        M2((4,), **({"classes": 2, "supervision": 1.0} | settings))
