"""Every bijection of the face, walked by one contract in double precision."""

import inspect
import sys
from functools import cache

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpyro.distributions import transforms as numpyros

from ppbdl import flows
from ppbdl.errors import InputError
from ppbdl.flows import Chain, Repeat

from .cases import (
    CASES,
    MASKS,
    SLOW_TO_COMPILE,
    TRANSFORMERS,
    autoregressive,
    bijection,
    coupling,
    key,
    quickly,
    weights,
)
from .contract import both_ways, hold, log_dets, place

pytestmark = pytest.mark.usefixtures("x64")
BATCH = 6
RANDOM = settings(
    max_examples=25,
    deadline=None,  # the first example compiles
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
ADVERSARIAL = (0.0, -0.0, 1e-300, -1e-9, 50.0, -50.0, 1e3)


@cache
def looks(name):
    case = CASES[name]
    return quickly(lambda w, u: both_ways(case.build(w), u))


@pytest.mark.parametrize("name", CASES)
@RANDOM
@given(data=st.data())
def test_it_comes_back_and_knows_its_jacobian(name, data):
    case = CASES[name]
    numbers = st.sampled_from((*case.edges, *ADVERSARIAL)) | st.floats(-9, 9)
    u = data.draw(hnp.arrays(np.float64, (BATCH, *case.shape), elements=numbers))
    for looked in looks(name)(weights(name), np.clip(u, -case.reach, case.reach)):
        hold(looked, case.factor)


def corners(name):
    """A batch that holds every edge and extreme of the case, and some random numbers."""
    case = CASES[name]
    special = np.array([*case.edges, *ADVERSARIAL])
    u = np.resize(special, (len(special), *case.shape))
    drawn = 2 * np.random.default_rng(1).normal(size=(BATCH, *case.shape))
    u = np.concatenate([u, drawn])
    return np.clip(u, -case.reach, case.reach)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW_TO_COMPILE)) for name in CASES],
)
def test_gradients_are_right_and_finite_to_second_order(name):
    """Of the inverse with respect to weights as well: f(f^-1(y; w); w) = y does not change with w.

    The sum of log-dets there and back is zero whatever w, too.
    """
    case, w = CASES[name], weights(name)
    u, ours = corners(name), bijection(name)
    y = jnp.asarray(place(ours.codomain, u.reshape(ours.forward_shape(u.shape))))
    v = np.random.default_rng(2).normal(size=y.shape)

    def score(w, y):
        x, log_det = case.build(w).inverse_and_log_det(y)
        return jnp.tanh(x).sum() + log_det.sum()

    def there_and_back(w):
        x, back = case.build(w).inverse_and_log_det(y)
        again, there = case.build(w).forward_and_log_det(x)
        scale = jax.lax.stop_gradient(1 + jnp.abs(x).sum() + jnp.abs(y).sum())
        return ((v * again).sum() + (there + back).sum()) / scale

    @quickly
    def derivatives(w, y):
        gradient = jax.grad(score, (0, 1))
        first, second = jax.jvp(gradient, (w, y), (jax.tree.map(jnp.ones_like, w), v))
        each = jax.vmap(lambda y: log_dets(case.build(w), y[None])[0])(y)
        return first, second, jax.grad(there_and_back)(w), log_dets(case.build(w), y), each

    first, second, zero, log_det, each = derivatives(w, y)
    for leaf in jax.tree.leaves((first, second)):
        assert np.isfinite(leaf).all()
    for leaf in jax.tree.leaves(zero):
        np.testing.assert_allclose(leaf, 0, atol=1e-8)
    np.testing.assert_allclose(each, log_det, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["spline", "steep spline"])
def test_a_spline_keeps_the_contract_at_its_own_knots(name):
    """There the formula changes from one bin's to the next one's; the knots are the case's own."""
    spline, factor = bijection(name), CASES[name].factor
    xs, ys, slopes = spline._knots(jnp.dtype("float64"))
    for knots, fused, sign in (
        (xs, spline.forward_and_log_det, 1),
        (ys, spline.inverse_and_log_det, -1),
    ):
        _, log_det = fused(knots.T)
        np.testing.assert_allclose(log_det, sign * jnp.log(slopes.T), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(spline(xs.T), ys.T, atol=1e-13)
    np.testing.assert_allclose(spline.inv(ys.T), xs.T, atol=1e-13 * factor / 1e4)
    for u in (xs.T, jnp.nextafter(xs.T, jnp.inf), jnp.nextafter(xs.T, -jnp.inf)):
        hold(both_ways(spline, u)[0], factor)
    for u in (ys.T, jnp.nextafter(ys.T, jnp.inf), jnp.nextafter(ys.T, -jnp.inf)):
        hold(both_ways(spline, u)[1], factor)


@pytest.mark.parametrize("make", [
    lambda: flows.Logit(),
    lambda: flows.Logit(0.05),
    lambda: flows.Power(2.0, upper=2.0),
    lambda: flows.Power(-1.7),
    lambda: flows.Fused(numpyros.SoftplusTransform()),
])  # fmt: skip
def test_the_last_numbers_inside_a_domain_have_finite_images(make):
    """A rounding away from an edge; at zero a small number, for JAX takes the least ones for 0."""
    for way in (make(), make().inv):
        support = way.domain
        lower, upper = (getattr(support, f"{end}_bound", None) for end in ("lower", "upper"))
        lower = -700.0 if lower is None else 1e-150 if lower == 0 else np.nextafter(lower, np.inf)
        upper = 700.0 if upper in (None, np.inf) else np.nextafter(upper, -np.inf)
        y, log_det = way.forward_and_log_det(jnp.array([lower, upper]))
        assert np.isfinite(y).all()
        assert np.isfinite(log_det).all()


# The walk leaves out nothing.


def parts_of(bijection):
    yield type(bijection)
    for name in bijection.arrays:
        value = getattr(bijection, name)
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, flows.Bijection):
                yield from parts_of(part)


def test_every_bijection_of_the_face_has_a_case():
    classes = {v for v in vars(flows).values() if inspect.isclass(v)}
    faced = {c for c in classes if issubclass(c, flows.Bijection)} - {flows.Bijection}
    assert faced == {part for name in CASES for part in parts_of(bijection(name))}
    makers = {
        name
        for name, value in vars(flows).items()
        if callable(value) and not inspect.isclass(value) and not name.startswith("_")
    }
    conditioners = {"mlp", "cnn", "made"}
    assert makers == set(TRANSFORMERS) | set(MASKS) | conditioners | {"actnorm_start", "examine"}


# The contract catches what it should.


class WrongSign(flows.RationalQuadraticSpline):
    def inverse_and_log_det(self, y):
        x, log_det = super().inverse_and_log_det(y)
        return x, -log_det


class WrongTail(flows.RationalQuadraticSpline):
    def forward_and_log_det(self, x):
        y, log_det = super().forward_and_log_det(x)
        return jnp.where(x > self.bound, y + 1e-6, y), log_det


class ForgottenSlope(flows.RationalQuadraticSpline):
    def forward_and_log_det(self, x):
        y, log_det = super().forward_and_log_det(x)
        return y, jnp.zeros_like(log_det)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [(WrongSign, "way back"), (WrongTail, "round trip"), (ForgottenSlope, "log-det")],
)
def test_a_planted_fault_is_caught(wrong, message):
    spline = wrong(weights("spline"), 2.5)
    both = quickly(lambda u: both_ways(spline, u))(corners("spline"))
    with pytest.raises(AssertionError, match=message):
        list(map(hold, both))


# What is particular to some.


@pytest.mark.parametrize(
    "name", ["maf given a context", *(f"autoregressive, {t}" for t in TRANSFORMERS)]
)
def test_an_autoregressive_jacobian_is_triangular(name):
    forward, backward = looks(name)(weights(name), corners(name)[:BATCH])
    for looked in (forward, backward):
        assert (np.triu(looked.jacobian, 1) == 0).all()
    assert (np.tril(forward.jacobian, -1) != 0).any()


def test_a_block_autoregressive_jacobian_is_triangular():
    forward, _ = looks("block autoregressive")(
        weights("block autoregressive"), corners("block autoregressive")[-BATCH:]
    )
    assert (np.triu(forward.jacobian, 1) == 0).all()


@pytest.mark.parametrize("mask", MASKS)
def test_a_coupling_keeps_what_its_mask_says(mask):
    make, sizes, shape = MASKS[mask]
    for flip in (False, True):
        chosen = make(*sizes, flip=flip)
        case = coupling("affine", chosen, shape)
        x = jax.random.normal(key(0), (50, *shape))
        y = quickly(lambda x, case=case: case.build(case.weights(key(1)))(x))(x)
        kept = np.broadcast_to(chosen.array, shape)
        np.testing.assert_array_equal((x == y).all(0), kept)


def test_a_chain_of_scans_is_the_chain_of_its_layers():
    case, w = CASES["repeated couplings"], weights("repeated couplings")
    layers = [case.build(jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], w)) for i in range(3)]
    x = jax.random.normal(key(0), (5, 4))
    ours, truth = case.build(w), Chain(layers)
    for fused, known in (
        (ours.forward_and_log_det, truth.forward_and_log_det),
        (ours.inverse_and_log_det, truth.inverse_and_log_det),
    ):
        for part, expected in zip(quickly(fused)(x), quickly(known)(x), strict=True):
            np.testing.assert_allclose(part, expected, rtol=1e-12, atol=1e-12)


def test_a_program_of_equal_layers_does_not_grow_with_their_number():
    def size(layers):
        case = CASES["repeated couplings"]
        keys = jax.random.split(key(0), layers)
        w = jax.eval_shape(
            jax.vmap(lambda k: jax.tree.map(lambda leaf: leaf[0], case.weights(k))), keys
        )
        loss = jax.grad(lambda w, y: case.build(w).inverse_and_log_det(y)[1].sum())
        return len(jax.jit(loss).lower(w, jnp.ones((5, 4))).as_text())

    assert size(16) < 1.02 * size(4)


def test_activation_normalisation_standardises_its_first_batch():
    batch = 3 + 2 * jax.random.normal(key(0), (10, 4, 4, 3))
    batch = batch.at[..., 2].set(7.0)
    x = flows.Affine(**flows.actnorm_start(batch)).inv(batch)
    np.testing.assert_allclose(x.mean((0, 1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(x.std((0, 1, 2)), [1, 1, 0], atol=1e-12)


@pytest.mark.parametrize("transformer", TRANSFORMERS)
def test_single_precision_comes_back_through_32_layers(transformer):
    """To within 8 roundings of y, eps (1 + |y|), carried back by the inverse's Jacobian; its
    log-dets agree to within 64.

    A random spline's own inverse multiplies small changes by up to 10^6 at this depth.
    """
    first, second = (coupling(transformer, flows.half(8, flip), (8,)) for flip in (False, True))

    def chain(w):
        return Repeat(lambda w: Chain([first.build(w[0]), second.build(w[1])]), w)

    keys = jax.random.split(key(0), 16)
    w = quickly(jax.vmap(lambda k: (first.weights(k), second.weights(k))))(keys)
    x = jax.random.normal(key(1), (200, 8))
    jacobian = quickly(jax.vmap(jax.jacfwd(chain(w))))(x)

    @quickly
    def there_and_back(w, x):
        y, log_det = chain(w).forward_and_log_det(x)
        return y, log_det, *chain(w).inverse_and_log_det(y)

    w32, x32 = jax.tree.map(jnp.float32, (w, x))
    y, log_det, back, log_det_back = there_and_back(w32, x32)
    assert {part.dtype for part in (y, log_det, back, log_det_back)} == {jnp.dtype("float32")}
    moved = np.linalg.norm(np.linalg.inv(jacobian), axis=(1, 2)) * (1 + np.abs(y).max(1))
    error = np.abs(back - x32).max(1)
    assert (error <= 8 * np.finfo(np.float32).eps * moved).all()
    # A log slope of each layer moves with what comes into it.
    assert (abs(log_det + log_det_back) <= 64 * np.finfo(np.float32).eps * moved).all()


def test_a_splines_tails_give_no_nan():
    """Far out, where the formula of the last bin would overflow if it were carried on."""
    raw = np.zeros(14)
    raw[[0, 4]], raw[[5, 9]] = -3.0, 3.0

    @quickly
    def slopes(raw, x):
        def total(raw, x):
            spline = flows.RationalQuadraticSpline(raw, 2.5)
            parts = (*spline.forward_and_log_det(x), *spline.inverse_and_log_det(x))
            return sum(part.sum() for part in parts)

        return jax.grad(total, (0, 1))(raw, x)

    by_raw, by_x = slopes(raw, np.array([-1e200, 3.0, 1e200]))
    np.testing.assert_array_equal(by_raw, 0)
    np.testing.assert_array_equal(by_x, 2)


def test_a_tree_of_arrays_goes_through_jit():
    """What a bijection is made of can be traced: it may be an argument of a compiled function."""
    for name in ("affine", "spline", "lu", "planar", "radial", "sylvester", "scaled logit"):
        u = corners(name)[-BATCH:]
        x = place(bijection(name).domain, u)
        compiled = quickly(lambda b, x: b.forward_and_log_det(x))(bijection(name), x)
        for part, expected in zip(compiled, bijection(name).forward_and_log_det(x), strict=True):
            np.testing.assert_allclose(part, expected, rtol=1e-12, atol=1e-12)


def test_the_estimated_trace_of_a_continuous_flow_is_unbiased():
    """The mean of 400 keys' log-dets lies within 5 of its standard errors of the exact one: 6
    false alarms in 10^7, were the keys not fixed.  The path is the same."""
    matrix = jnp.array([[0.5, 0.8, -0.3], [0.1, -0.4, 0.9], [0.7, 0.2, 0.3]])

    def velocity(t, x):
        return jnp.tanh(x @ matrix + t)

    x = jnp.array([0.3, -0.2, 0.1])
    y, truth = quickly(flows.Continuous(velocity).forward_and_log_det)(x)
    several = jax.vmap(lambda k: flows.Continuous(velocity, k).forward_and_log_det(x))
    ys, log_dets = quickly(several)(jax.random.split(jax.random.key(0), 400))
    np.testing.assert_allclose(ys, jnp.broadcast_to(y, ys.shape), atol=1e-4)
    assert log_dets.std() > 0.1
    assert abs(log_dets.mean() - truth) < 5 * log_dets.std() / 20


def test_a_continuous_flow_that_cannot_be_solved_is_nan():
    flow = flows.Continuous(lambda t, x: 1e3 * x**3)  # it blows up before time 1
    assert np.isnan(flow(jnp.array([1.0]))).all()


def test_diffrax_missing_is_told_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffrax", None)
    with pytest.raises(InputError, match=r"pip install 'ppbdl\[ode\]'"):
        flows.Continuous(lambda t, x: x)


# At the door.


@pytest.mark.parametrize(
    ("act", "argument"),
    [
        (lambda: flows.Power(0.0), "exponent"),
        (lambda: flows.Power(2.0, upper=-1.0), "upper"),
        (lambda: flows.Logit(0.5), "lam"),
        (lambda: flows.RationalQuadraticSpline(jnp.zeros((2, 12))), "raw"),
        (lambda: flows.RationalQuadraticSpline(jnp.zeros(11), bound=0.0), "bound"),
        (lambda: flows.rational_quadratic(bins=1), "bins"),
        (lambda: flows.affine(limit=-1.0), "limit"),
        (lambda: flows.LU(jnp.eye(2), jnp.eye(2), jnp.zeros(2), order=(0, 0)), "order"),
        (lambda: flows.Squeeze()(jnp.zeros((3, 4, 1))), "x"),
        (lambda: flows.Squeeze().inv(jnp.zeros((4, 4, 6))), "x"),
        (lambda: flows.Split(flows.Squeeze())(jnp.zeros((4, 4, 2))), "bijection"),
        (lambda: flows.Sylvester(jnp.ones((1, 2)), *jnp.zeros((2, 3, 3)), jnp.zeros(3)), "bias"),
        (lambda: flows.Continuous(lambda t, x: x, tolerance=0.0), "tolerance"),
        (lambda: Chain([]), "bijections"),
        (lambda: Chain([jnp.exp]), "bijections"),
        (lambda: flows.half(1), "mask"),
        (lambda: flows.channel(1), "mask"),
        (lambda: flows.checkerboard(1, 1), "mask"),
        (lambda: flows.Mask.of(np.ones(3, bool)), "mask"),
        (lambda: flows.Mask.of(np.arange(3)), "mask"),
        (lambda: bijection("coupling, half, affine")(jnp.zeros(4)), "x"),
        (
            lambda: bijection("coupling, checkerboard, rational_quadratic")(jnp.zeros((3, 2, 1))),
            "x",
        ),
        (
            lambda: flows.Coupling(flows.affine(), lambda h: h, flows.half(4))(jnp.zeros(4)),
            "conditioner",
        ),
        (lambda: flows.Autoregressive(flows.affine(), lambda h: h)(jnp.zeros(4)), "conditioner"),
        (lambda: flows.made(5, 2, (3,)), "hidden"),
        (lambda: flows.made(0, 2), "features"),
        (lambda: flows.mlp(0), "outputs"),
        (lambda: flows.cnn(3, hidden=0), "hidden"),
        (lambda: coupled(np.zeros(2), None), "context"),
        (lambda: coupled(np.zeros(2), np.zeros(3)), "context"),
        (lambda: coupled(None, np.zeros(3)), "context"),
        (
            lambda: autoregressive("affine", 3).build(weights("autoregressive, affine"))(
                jnp.zeros(4)
            ),
            "x",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_at_the_door(act, argument):
    with pytest.raises(InputError) as error:
        act()
    assert error.value.argument == argument


def coupled(declared, given):
    """A network made for one context and given another."""
    width = 0 if declared is None else declared.size
    net = hk.without_apply_rng(hk.transform(flows.mlp(2, (4,), width)))
    args = [jnp.ones(2)] + ([declared] if width else [])
    w = net.init(key(0), *args)
    return net.apply(w, jnp.ones(2), given)
