"""Pictures of autoencoders: that each shows what the model says, and leaves nothing behind."""

from __future__ import annotations

import functools
import itertools
import subprocess
import sys
from dataclasses import replace

import numpy as np
import optax
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy import stats

import ppbdl
from ppbdl.errors import InputError
from ppbdl.models import VAE, Autoencoder, Categorical, Dense, Normal, pictures
from ppbdl.models.canvas import COLOURS, INK, scatter

SHAPE = (8, 8, 1)
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, size=150)
PLACES = np.stack([3 * LABELS, RNG.integers(0, 7, size=150)])


def squares() -> np.ndarray:
    """White squares of two by two pixels, of which the class tells the row."""
    y = np.zeros((150, *SHAPE), int)
    for i, (row, column) in enumerate(PLACES.T):
        y[i, row : row + 2, column : column + 2] = 1
    return y


Y = squares()


@functools.cache
def fitted(latent: int = 2, channels: int = 1):
    if channels == 1:
        vae, y = VAE(SHAPE, latent, networks=Dense((16,))), Y
    else:
        vae, y = VAE((8, 6, 3), latent, Normal(0.3), Dense((16,))), RNG.normal(size=(60, 8, 6, 3))
    svi = ppbdl.SVI(vae.guide, optax.adam(1e-2), steps=400, draws=1)
    return vae, ppbdl.fit(0, vae, ppbdl.Data(None, y), svi, progress=False), y


def shown(figure, axes: int = 0) -> np.ndarray:
    return np.ma.filled(figure.axes[axes].images[0].get_array(), np.nan)


def image_at(sheet: np.ndarray, row: int, column: int, gap: int = 1) -> np.ndarray:
    height, width = (8 + gap) * row, (8 + gap) * column
    return sheet[height : height + 8, width : width + 8]


def test_the_scatter_is_of_the_mean_codes_in_their_classes_colours() -> None:
    vae, posterior, y = fitted()
    axes = pictures.latent_scatter(vae, posterior, y, LABELS, ["low", "middle", "high"]).axes[0]
    points = axes.collections[0]
    drawn = np.column_stack([points.get_offsets(), points.get_facecolors()[:, :3]])
    codes = np.asarray(vae.encode(posterior, y).mean)
    truth = np.column_stack([codes, [to_rgb(COLOURS[label]) for label in LABELS]])
    rows = [np.array(sorted(map(tuple, each))) for each in (drawn, truth)]
    np.testing.assert_allclose(*rows, atol=1e-6)
    for k, text in enumerate(axes.texts):
        assert text.get_text() == ["low", "middle", "high"][k]
        np.testing.assert_allclose(text.xy, np.median(codes[k == LABELS], axis=0), atol=1e-6)


def test_classes_in_one_place_share_their_names() -> None:
    places = np.array([[0.0, 0.0], [0.0, 0.0], [5.0, 1.0]])
    axes = Figure().subplots()
    scatter(axes, places[LABELS], LABELS, ["low", "middle", "high"])
    assert [text.get_text() for text in axes.texts] == ["low, middle", "high"]
    assert [text.get_color() for text in axes.texts] == [INK, COLOURS[2]]
    axes = Figure().subplots()
    scatter(axes, np.zeros((150, 2)), LABELS, None)  # a code that collapsed
    assert [text.get_text() for text in axes.texts] == ["0, 1, 2"]


def test_codes_of_more_dimensions_are_shown_by_their_principal_components() -> None:
    vae, posterior, y = fitted(latent=4)
    axes = pictures.latent_scatter(vae, posterior, y, LABELS).axes[0]
    values = np.linalg.eigvalsh(np.cov(np.asarray(vae.encode(posterior, y).mean).T))[::-1]
    drawn = np.cov(axes.collections[0].get_offsets().T)
    np.testing.assert_allclose(drawn, np.diag(values[:2]), atol=1e-5)
    share = f"{values[0] / values.sum():.0%} of the variance"
    assert axes.get_xlabel() == f"first principal component of 4 dimensions ({share})"
    assert axes.get_ylabel().startswith("second")


def test_the_manifold_is_of_normal_quantiles_rising_to_the_right_and_upwards() -> None:
    vae, posterior, _ = fitted()
    sheet = shown(pictures.manifold(vae, posterior, number=5))
    assert sheet.shape == (40, 40)
    for row, column in itertools.product(range(5), range(5)):
        z = stats.norm.ppf([(column + 0.5) / 5, 1 - (row + 0.5) / 5])
        mean = vae.decode(posterior, z[None]).mean[0, :, :, 0]
        np.testing.assert_allclose(image_at(sheet, row, column, gap=0), mean, atol=1e-5)


def test_the_paths_end_at_the_images_codes_and_lie_on_a_line_and_a_circle() -> None:
    vae, posterior, y = fitted()
    sheet = shown(pictures.interpolation(vae, posterior, y[0], y[1], number=5))
    assert sheet.shape == (2 * 9 - 1, 7 * 9 - 1)
    first, last = np.asarray(vae.encode(posterior, y[:2]).mean)
    middle = vae.decode(posterior, (first + last)[None] / 2).mean[0, :, :, 0]
    np.testing.assert_allclose(image_at(sheet, 0, 3), middle, atol=1e-5)
    for row in range(2):
        np.testing.assert_allclose(image_at(sheet, row, 0), y[0, ..., 0])
        np.testing.assert_allclose(image_at(sheet, row, 6), y[1, ..., 0])
        for column, z in ((1, first), (5, last)):
            mean = vae.decode(posterior, z[None]).mean[0, :, :, 0]
            np.testing.assert_allclose(image_at(sheet, row, column), mean, atol=1e-5)


def test_a_great_circle_keeps_the_norm_and_turns_by_equal_angles() -> None:
    start, end = RNG.normal(size=(2, 6))
    end *= np.linalg.norm(start) / np.linalg.norm(end)
    share = np.linspace(0, 1, 9)[:, None]
    path = pictures._great_circle(start, end, share)
    np.testing.assert_allclose(path[[0, -1]], [start, end])
    np.testing.assert_allclose(np.linalg.norm(path, axis=1), np.linalg.norm(start))
    angles = np.arccos((path[1:] * path[:-1]).sum(1) / (start @ start))
    np.testing.assert_allclose(angles, angles[0])
    line = np.linalg.norm(pictures._line(start, end, share), axis=1)
    assert line.min() < 0.95 * line[0]  # which cuts it short
    for other in (2 * start, -start, np.zeros(6)):  # no circle, or no one: the line
        np.testing.assert_allclose(
            pictures._great_circle(start, other, share), pictures._line(start, other, share)
        )


def test_prior_samples_are_decoded_draws_of_the_prior() -> None:
    vae, posterior, _ = fitted()
    sheet = shown(pictures.prior_samples(1, vae, posterior, number=7))
    assert sheet.shape == (3 * 9 - 1, 3 * 9 - 1)
    assert np.isnan(image_at(sheet, 2, 1)).all()
    assert np.isnan(image_at(sheet, 2, 2)).all()
    images = np.array([image_at(sheet, *divmod(k, 3)) for k in range(7)])
    assert len(np.unique(images.round(4), axis=0)) == 7
    again = shown(pictures.prior_samples(1, vae, posterior, number=7))
    np.testing.assert_array_equal(sheet, again)
    # Each is in the decoder's range: the nearest of a fine grid of codes is near.
    ticks = np.linspace(-4, 4, 121)
    grid = np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 2)
    range_ = np.asarray(vae.decode(posterior, grid).mean[..., 0])
    off = abs(range_[None] - images[:, None]).max((2, 3)).min(1)
    assert off.max() < 0.15, off


def test_reconstructions_have_the_mean_and_spread_over_the_code() -> None:
    """Within 6 errors of 100 draws, for 2 x 320 pixels: less than 1 false alarm in 1,000.

    A standard deviation of a pixel with heavy tails has a larger error: 40 % is let pass.
    """
    vae, posterior, y = fitted()
    figure = pictures.reconstructions(3, vae, posterior, y[:5])
    above, spread = shown(figure), shown(figure, 1)
    q = vae.encode(posterior, y[:5])
    z = q.mean + q.base_dist.scale * RNG.normal(size=(4000, 5, 2))
    each = np.asarray(vae.decode(posterior, z.reshape(-1, 2)).mean).reshape(4000, 5, 8, 8)
    for k in range(5):
        np.testing.assert_allclose(image_at(above, 0, k), y[k, ..., 0])
        sd = each[:, k].std(0)
        assert (abs(image_at(above, 1, k) - each[:, k].mean(0)) < 0.6 * sd + 1e-4).all()
        assert (abs(image_at(spread, 0, k) - sd) < 0.4 * sd + 0.02).all()
    assert figure.axes[2].get_xlabel() == "standard deviation over the code"


def test_traversals_are_ordered_by_how_much_the_images_change() -> None:
    vae, posterior, y = fitted(latent=4)
    axes = pictures.traversals(vae, posterior, y[0], spread=2.0).axes[0]
    code = np.asarray(vae.encode(posterior, y[:1]).mean)[0]
    change, images = [], []
    for k in range(4):
        z = np.tile(code, (11, 1))
        z[:, k] = np.linspace(-2, 2, 11)
        images.append(np.asarray(vae.decode(posterior, z).mean)[..., 0])
        change.append(images[-1].var(0).sum())
    order = [k for k in np.argsort(change)[::-1] if change[k] >= 0.01 * max(change)]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [
        f"$z_{{{k + 1}}}$" for k in order
    ]
    assert [tick.get_text() for tick in axes.get_xticklabels()][::5] == ["−2", "0", "2"]
    sheet = np.ma.filled(axes.images[0].get_array(), np.nan)
    for row, k in enumerate(order):
        for column in (0, 4, 10):
            np.testing.assert_allclose(image_at(sheet, row, column), images[k][column], atol=1e-5)


def test_dimensions_that_change_nothing_are_counted() -> None:
    vae, posterior, y = fitted(latent=4)
    weights = dict(posterior.params["decoder$params"])
    name = next(n for n, w in weights.items() if w.shape[1:] == (4, 16))
    weights[name] = np.asarray(weights[name]) * np.array([1, 0, 1, 0])[:, None]
    dead = replace(posterior, params=posterior.params | {"decoder$params": weights})
    axes = pictures.traversals(vae, dead, y[0]).axes[0]
    assert {tick.get_text() for tick in axes.get_yticklabels()} == {"$z_{1}$", "$z_{3}$"}
    assert axes.get_xlabel() == "dimensions that change next to nothing: 2"


def test_three_panels_have_each_fit_in_a_column() -> None:
    vae, posterior, y = fitted()
    again = ppbdl.fit(
        1, vae, ppbdl.Data(None, y), ppbdl.SVI(vae.guide, steps=5, draws=1), progress=False
    )
    pairs = [("one", posterior), ("two", again), ("three", posterior)]
    figure = pictures.three_panels(vae, pairs, y, LABELS)
    assert [axes.get_title("left") for axes in figure.axes[:3]] == ["one", "two", "three"]
    for k, (_, each) in enumerate(pairs):
        drawn = np.sort(figure.axes[k].collections[0].get_offsets(), axis=0)
        codes = np.sort(np.asarray(vae.encode(each, y).mean), axis=0)
        np.testing.assert_allclose(drawn, codes, atol=1e-6)
        np.testing.assert_allclose(
            shown(figure, 3 + k), shown(pictures.manifold(vae, each, number=15))
        )


def test_images_in_colour_keep_their_colours() -> None:
    vae, posterior, y = fitted(channels=3)
    sheet = shown(pictures.manifold(vae, posterior, number=3))
    assert sheet.shape == (24, 18, 3)
    means = np.asarray(vae.decode(posterior, pictures._grid(3)).mean)
    between = (means - means.min()) / np.ptp(means)
    np.testing.assert_allclose(sheet[:8, :6], between[0], atol=1e-5)
    np.testing.assert_allclose(sheet[16:, 12:], between[8], atol=1e-5)
    figure = pictures.reconstructions(0, vae, posterior, y[:2])
    assert shown(figure).shape == (17, 13, 3)
    assert shown(figure, 1).shape == (8, 13)  # one spread for all colours
    assert (shown(figure)[8] == 1).all()  # what lies between images is white


def test_a_deterministic_autoencoder_has_the_same_pictures_but_for_prior_samples() -> None:
    model = Autoencoder(SHAPE, 2, networks=Dense((16,)))
    posterior = ppbdl.fit(0, model, ppbdl.Data(Y, Y), ppbdl.MAP(steps=50), progress=False)
    figure = pictures.reconstructions(0, model, posterior, Y[:3])
    assert (np.nan_to_num(shown(figure, 1)) < 1e-6).all()
    again = np.asarray(model.reconstruct(posterior, Y[:3]))[..., 0]
    np.testing.assert_allclose(image_at(shown(figure), 1, 2), again[2], atol=1e-5)
    pictures.latent_scatter(model, posterior, Y, LABELS)
    pictures.manifold(model, posterior, number=3)
    with pytest.raises(InputError, match="what codes there are"):
        pictures.prior_samples(0, model, posterior)


def refusals():
    vae, posterior, y = fitted()
    deep, deep_posterior, _ = fitted(latent=4)
    flat = VAE((64,), networks=Dense((16,)))
    levels = VAE(SHAPE, likelihood=Categorical(3), networks=Dense((4,)))
    few = ppbdl.SVI(levels.guide, steps=2, draws=1)
    data = ppbdl.Data(None, y)
    return {
        "no images": (lambda: pictures.manifold(flat, posterior), "height, width"),
        "not in a plane": (lambda: pictures.manifold(deep, deep_posterior), "two dimensions"),
        "nor in three": (
            lambda: pictures.three_panels(deep, [("a", deep_posterior)], y, LABELS),
            "two dimensions",
        ),
        "one dimension": (
            lambda: scatter(Figure().subplots(), np.zeros((150, 1)), LABELS, None),
            "single dimension",
        ),
        "labels": (lambda: pictures.latent_scatter(vae, posterior, y, LABELS[:9]), "150 integers"),
        "no classes": (lambda: pictures.latent_scatter(vae, posterior, y, LABELS + 0.5), "float64"),
        "names": (
            lambda: pictures.latent_scatter(vae, posterior, y, LABELS, ["low", "high"]),
            "3 names",
        ),
        "no mean": (
            lambda: pictures.manifold(levels, ppbdl.fit(0, levels, data, few, progress=False)),
            "pixels have a mean",
        ),
        "number": (lambda: pictures.manifold(vae, posterior, number=0), "number"),
        "spread": (lambda: pictures.traversals(vae, posterior, y[0], spread=-1.0), "spread"),
        "another size": (lambda: pictures.reconstructions(0, vae, posterior, y[:, :7]), "shape"),
    }


def test_what_cannot_be_shown_is_refused() -> None:
    for name, (draw, words) in refusals().items():
        with pytest.raises(InputError, match=words):
            pytest.fail(f"{name}: {draw()}")


def test_a_picture_leaves_nothing_behind_and_can_be_saved(tmp_path) -> None:
    vae, posterior, y = fitted()
    figures, settings = plt.get_fignums(), dict(plt.rcParams)
    drawn = [
        pictures.latent_scatter(vae, posterior, y, LABELS),
        pictures.manifold(vae, posterior),
        pictures.interpolation(vae, posterior, y[0], y[1]),
        pictures.prior_samples(0, vae, posterior),
        pictures.reconstructions(0, vae, posterior, y[:4]),
        pictures.traversals(vae, posterior, y[0]),
        pictures.three_panels(vae, [("a", posterior), ("b", posterior)], y, LABELS),
    ]
    for k, figure in enumerate(drawn):
        figure.savefig(tmp_path / f"{k}.png")  # a warning, of the layout say, is an error
    assert plt.get_fignums() == figures
    assert dict(plt.rcParams) == settings


def test_the_models_load_no_plotting_library() -> None:
    code = "import sys, ppbdl.models, ppbdl.models.pictures; print('matplotlib' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


# Machado et al. (2009), A physiologically-based model for simulation of color vision deficiency:
# of linear RGB, all cones there, and without the long, the middle and the short ones.
CONES = {
    "all": np.eye(3),
    "protanopia": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "deuteranopia": [
        [0.3673, 0.8606, -0.2280],
        [0.2801, 0.6725, 0.0474],
        [-0.0118, 0.0429, 0.9689],
    ],
    "tritanopia": [
        [1.2555, -0.0767, -0.1788],
        [-0.0784, 0.9308, 0.1476],
        [0.0047, 0.6914, 0.3039],
    ],
}


@pytest.mark.parametrize("cones", CONES)
def test_the_classes_colours_differ_to_everyone(cones: str) -> None:
    rgb = np.array([to_rgb(colour) for colour in COLOURS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.transpose(CONES[cones]), 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = linear @ np.transpose(to_xyz) / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)
    least = min(np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2))
    assert least > 24  # 2.3 is just noticed
    assert lab[:, 0].max() < 85  # on white
