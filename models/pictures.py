"""The pictures that people expect of an autoencoder: each a matplotlib Figure of a model's fit.

For models of images y alone, (height, width, 1 or 3 channels): `VAE`, `Autoencoder` and whatever
else has their verbs.  Save one with ``figure.savefig``; a notebook shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtr, ndtri

from ppbdl.errors import InputError, require_positive, require_whole
from ppbdl.posterior import Posterior, at_draw
from ppbdl.types import Key, as_key

from .canvas import INK, middle, number_of, scatter, sheet, show
from .codes import moments
from .latent_variable import LatentVariableModel, drawn_of
from .likelihoods import Bernoulli
from .pixels import ContinuousBernoulli

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DRAWS = 100  # of each row's code: they tell a standard deviation to within 7 %
_STEPS = 11  # of a traversal


def latent_scatter(
    model: Any, posterior: Posterior, y: Any, labels: Any, names: Sequence[str] | None = None
) -> Figure:
    """Show the mean codes of rows by class; of more than two dimensions, their first components.

    Parameters
    ----------
    y
        Rows, (rows, *shape).
    labels
        Each row's class 0, 1, ...
    names
        Of the classes; None shows the numbers.

    Examples
    --------
    >>> import numpy as np, ppbdl
    >>> from ppbdl.models import VAE, Dense, pictures
    >>> y = np.random.default_rng(0).integers(0, 2, size=(64, 4, 4, 1))
    >>> vae = VAE((4, 4, 1), networks=Dense((16,)))
    >>> svi = ppbdl.SVI(vae.guide, steps=50, draws=1)
    >>> posterior = ppbdl.fit(0, vae, ppbdl.Data(None, y), svi, progress=False)
    >>> figure = pictures.latent_scatter(vae, posterior, y, labels=y[:, 0, 0, 0])
    >>> figure.axes[0].get_xlabel()
    '$z_1$'
    """
    _require_images(model)
    with sheet(5.2, 5) as figure:
        scatter(figure.subplots(), _codes(model, posterior, y), labels, names)
    return figure


def manifold(model: Any, posterior: Posterior, number: int = 20) -> Figure:
    """Show the images that codes of two dimensions decode to, at quantiles of the standard normal.

    Kingma and Welling (2014), figure 4: equal steps of probability from left to right for z_1, and
    upwards for z_2.

    Parameters
    ----------
    number
        Of codes in each direction.
    """
    _require_images(model)
    require_whole(number=number)
    with sheet(5, 5 * model.shape[0] / model.shape[1]) as figure:
        _plane(figure.subplots(), model, posterior, number)
    return figure


def interpolation(
    model: Any, posterior: Posterior, start: Any, end: Any, number: int = 10
) -> Figure:
    """Show the way from one image to another: on the line between their codes, and on a circle.

    The codes that a normal prior expects lie near a sphere, which a line cuts short and a great
    circle keeps to: White (2016), *Sampling Generative Networks*, section 2.1.  Opposite codes have
    no one circle, and those of one dimension none: then both rows are of the line.

    Parameters
    ----------
    start, end
        Two images, each of the model's shape.
    number
        Of codes on the way, both ends counted.
    """
    _require_images(model)
    require_whole(number=number)
    ends = np.stack([np.asarray(start), np.asarray(end)])
    (first, last), share = _codes(model, posterior, ends), np.linspace(0, 1, number)[:, None]
    paths = [_line(first, last, share), _great_circle(first, last, share)]
    found = _decoded(model, posterior, np.concatenate(paths)).reshape(2, number, *model.shape)
    rows = np.concatenate([ends[[[0], [0]]], found, ends[[[1], [1]]]], axis=1)
    with sheet(0.6 * (number + 2) + 1, 1.6 * model.shape[0] / model.shape[1] + 0.3) as figure:
        axes = figure.subplots()
        show(axes, rows, _limits(model, rows), ["line", "great circle"])
        places = [middle(model.shape[1], column) for column in (0, number + 1)]
        axes.set_xticks(places, ["start", "end"])
    return figure


def prior_samples(key: Key | int, model: Any, posterior: Posterior, number: int = 64) -> Figure:
    """Show images of codes drawn from p(z): the means of p(y | z), without the pixels' own noise.

    Raises
    ------
    InputError
        If the model has no prior of its codes alone.
    """
    _require_images(model)
    require_whole(number=number)
    if not isinstance(model, LatentVariableModel) or not hasattr(model, "sample"):
        raise InputError(
            "model",
            expected="one that tells what codes there are, such as a VAE",
            got=type(model).__name__,
            remedy="Show its manifold, or its interpolation.",
        )
    prior = at_draw(model._prior, drawn_of(posterior))(model._given(None, number))
    images = _decoded(model, posterior, prior.sample(as_key(key), (number,)))
    columns = int(np.ceil(np.sqrt(number)))
    padded = np.full((-(-number // columns) * columns, *model.shape), np.nan)
    padded[:number] = images
    rows = padded.reshape(-1, columns, *model.shape)
    with sheet(5, 5 * len(rows) / columns * model.shape[0] / model.shape[1]) as figure:
        show(figure.subplots(), rows, _limits(model, images))
    return figure


def reconstructions(key: Key | int, model: Any, posterior: Posterior, y: Any) -> Figure:
    """Show rows, what their codes decode to, and how much that differs between draws of the code.

    The mean and the standard deviation, of colours the root of the mean square, are of E[y | z]
    over draws of q(z | y): the pixels' own noise is not in it.
    """
    _require_images(model)
    y = np.asarray(y)
    z = np.asarray(model.encode(posterior, y).sample(as_key(key), (_DRAWS,)))
    each = _decoded(model, posterior, z.reshape(-1, z.shape[-1])).reshape(_DRAWS, *y.shape)
    mean = each.mean(axis=0)
    spread = np.sqrt(each.var(axis=0).mean(axis=-1, keepdims=True))
    images, height = np.stack([y, mean]), model.shape[0] / model.shape[1]
    with sheet(0.6 * len(y) + 1.6, 1.8 * height + 0.9) as figure:
        top, bottom = figure.subplots(2, height_ratios=[2, 1])
        show(top, images, _limits(model, images), ["given", "mean"])
        shown = show(bottom, spread[None], (0.0, spread.max() or 1.0), ["sd"], "Blues")
        bar = figure.colorbar(shown, ax=bottom, location="bottom", aspect=60, shrink=0.9)
        bar.outline.set_visible(False)
        bar.set_label("standard deviation over the code")
    return figure


def traversals(model: Any, posterior: Posterior, y_row: Any, spread: float = 3.0) -> Figure:
    """Show what each dimension of a row's code does: from -spread to spread, the others as found.

    On top is the dimension whose images vary most; those that vary less than a hundredth of it are
    left out, and counted.

    Parameters
    ----------
    y_row
        One image of the model's shape.
    """
    _require_images(model)
    require_positive(spread=spread)
    code = _codes(model, posterior, np.asarray(y_row)[None])[0]
    steps = np.linspace(-spread, spread, _STEPS)
    z = np.tile(code, (len(code), _STEPS, 1))
    for k in range(len(code)):
        z[k, :, k] = steps
    images = _decoded(model, posterior, z.reshape(-1, len(code)))
    images = images.reshape(len(code), _STEPS, *model.shape)
    varies = images.var(axis=1).sum(axis=(1, 2, 3))
    order = np.argsort(-varies)
    order = order[varies[order] >= 0.01 * varies.max()]
    height = 0.5 * len(order) * model.shape[0] / model.shape[1]
    with sheet(0.5 * _STEPS + 1, height + 0.8) as figure:
        axes = figure.subplots()
        words = [f"$z_{{{k + 1}}}$" for k in order]
        show(axes, images[order], _limits(model, images), words)
        places = [middle(model.shape[1], k) for k in range(_STEPS)]
        axes.set_xticks(places, [number_of(step) for step in steps])
        if left_out := len(code) - len(order):
            axes.set_xlabel(f"dimensions that change next to nothing: {left_out}")
    return figure


def three_panels(
    model: Any,
    panels: Sequence[tuple[str, Posterior]],
    y: Any,
    labels: Any,
    names: Sequence[str] | None = None,
) -> Figure:
    """Show fits side by side: the codes of rows, and below them the manifold.

    Made for the three of a VAE by the reconstruction alone, by the divergence alone, and by both,
    which are ``SVI(temperature=...)`` near zero, large, and 1.  The dashed circle has 95 % of the
    prior, whatever each panel's scale.

    Parameters
    ----------
    panels
        Each fit's title and posterior.
    y, labels, names
        As for `latent_scatter`.
    """
    _require_images(model)
    with sheet(3.4 * len(panels), 3.4 * (1 + model.shape[0] / model.shape[1])) as figure:
        columns = figure.subplots(2, len(panels), squeeze=False).T
        for (title, posterior), (above, below) in zip(panels, columns, strict=True):
            around = np.sqrt(-2 * np.log(0.05)) * np.exp(1j * np.linspace(0, 2 * np.pi, 200))
            above.plot(around.real, around.imag, color=INK, lw=0.9, ls=(0, (4, 3)))
            scatter(above, _codes(model, posterior, y), labels, names)
            above.set_title(title)
            _plane(below, model, posterior, number=15)
    return figure


def _plane(axes: Any, model: Any, posterior: Posterior, number: int) -> None:
    if model.latent != 2:
        raise InputError(
            "model",
            expected="a code of two dimensions, to be laid out in a plane",
            got=f"one of {model.latent}",
            remedy="Show its traversals, or fit a model with latent=2.",
        )
    images = _decoded(model, posterior, _grid(number)).reshape(number, number, *model.shape)
    height, width = model.shape[:2]
    show(axes, images, _limits(model, images), gap=0)
    ticks = np.array([-1.0, 0.0, 1.0])
    places, words = ndtr(ticks) * number, [number_of(tick) for tick in ticks]
    axes.set_xticks(places * width - 0.5, words)
    axes.set_yticks((number - places) * height - 0.5, words)
    axes.set_xlabel("$z_1$")
    axes.set_ylabel("$z_2$")


def _grid(number: int) -> np.ndarray:
    """Give codes (number^2, 2) at the middles of cells of equal probability, from the top left."""
    ticks = ndtri((np.arange(number) + 0.5) / number)
    return np.stack(np.meshgrid(ticks, ticks[::-1]), axis=-1).reshape(-1, 2)


def _line(start: np.ndarray, end: np.ndarray, share: np.ndarray) -> np.ndarray:
    return (1 - share) * start + share * end


def _great_circle(start: np.ndarray, end: np.ndarray, share: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(start) * np.linalg.norm(end)
    angle = np.arccos(np.clip(start @ end / lengths, -1, 1)) if lengths else 0.0
    if np.sin(angle) < 1e-3:
        return _line(start, end, share)
    parts = np.sin((1 - share) * angle) * start + np.sin(share * angle) * end
    return parts / np.sin(angle)


def _codes(model: Any, posterior: Posterior, y: Any) -> np.ndarray:
    return np.asarray(moments(model.encode(posterior, y))[0], float)


def _decoded(model: Any, posterior: Posterior, z: Any) -> np.ndarray:
    images = np.asarray(model.decode(posterior, z).mean)
    if np.isnan(images).any():
        raise InputError(
            "model",
            expected="a likelihood whose pixels have a mean",
            got=repr(model.likelihood),
            remedy="Take DiscretizedLogistic(levels) for levels of grey.",
        )
    return images


def _limits(model: Any, images: np.ndarray) -> tuple[float, float]:
    """Tell which values are white and black."""
    of_ink = isinstance(model.likelihood, Bernoulli | ContinuousBernoulli)
    return (0.0, 1.0) if of_ink else (float(images.min()), float(images.max()))


def _require_images(model: Any) -> None:
    shape = tuple(model.shape)
    if len(shape) != 3 or shape[2] not in (1, 3):
        raise InputError(
            "model",
            expected="one of images, of shape (height, width, 1 or 3 channels)",
            got=f"one of rows of shape {shape}",
            remedy="Make it for images with channels last, (28, 28, 1) say.",
        )
