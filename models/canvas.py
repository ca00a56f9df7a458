"""How the pictures of models look: classes' colours, quiet axes, and images laid out as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ppbdl.errors import InputError

# Of the classes: any two differ by 24 in CIELAB, also as seen without red, green or blue cones.
COLOURS = ("#2f6ea5", "#d98324", "#59242d", "#933beb", "#a3ccbe",
           "#595916", "#ccbe7a", "#eb3b75", "#5ebceb", "#243659")  # fmt: skip
INK, _QUIET = "#22303c", "#71808d"
_STYLE: Any = {
    "axes.edgecolor": _QUIET,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "font.size": 9,
    "text.color": INK,
    "xtick.color": _QUIET,
    "ytick.color": _QUIET,
}


@contextmanager
def sheet(width: float, height: float) -> Iterator[Any]:
    """Give an empty figure, and our style for what is put into it; the caller's stays as it was."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def scatter(axes: Any, codes: np.ndarray, labels: Any, names: Sequence[str] | None) -> None:
    """Show codes by class, each class by its colour and its name."""
    from matplotlib.patheffects import withStroke

    labels = np.asarray(labels)
    if labels.shape != (len(codes),) or labels.dtype.kind not in "iu":
        raise InputError(
            "labels",
            expected=f"{len(codes)} integers, the class of each row of y",
            got=f"{labels.dtype} of shape {labels.shape}",
            remedy="Pass an index of the classes for each row.",
        )
    if names is not None and len(names) <= labels.max():
        raise InputError(
            "names",
            expected=f"{labels.max() + 1} names, one for each class",
            got=f"{len(names)}",
            remedy="Pass a name for each class from 0 on, or None.",
        )
    codes, words = _in_a_plane(codes)
    colours = np.array(COLOURS)[labels % len(COLOURS)]
    order = np.random.default_rng(0).permutation(len(codes))  # so that no class covers the others
    size = float(np.clip(6000 / len(codes), 2, 20))
    axes.scatter(*codes[order].T, s=size, c=colours[order], alpha=0.6, linewidths=0)
    near = 0.04 * max(axes.dataLim.width, axes.dataLim.height)
    groups: list[tuple[np.ndarray, list[int]]] = []  # classes in one place, whose names would hide
    for label in np.unique(labels):
        place = np.median(codes[labels == label], axis=0)
        there = (found for at, found in groups if np.linalg.norm(at - place) <= near)
        if (found := next(there, None)) is None:
            groups.append((place, [label]))
        else:
            found.append(label)
    for place, found in groups:
        axes.annotate(
            ", ".join(str(label) if names is None else names[label] for label in found),
            place,
            color=COLOURS[found[0] % len(COLOURS)] if len(found) == 1 else INK,
            ha="center",
            va="center",
            weight="bold",
            size=11 if len(found) == 1 else 9,
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xlabel(words[0])
    axes.set_ylabel(words[1])


def _in_a_plane(codes: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Give codes of two dimensions, or the first two principal components of more."""
    if codes.shape[1] == 2:
        return codes, ["$z_1$", "$z_2$"]
    if codes.shape[1] < 2:
        raise InputError(
            "model",
            expected="a code of two dimensions or more",
            got="one of a single dimension",
            remedy="Show its traversals.",
        )
    off = codes - codes.mean(axis=0)
    _, lengths, directions = np.linalg.svd(off, full_matrices=False)
    share = lengths**2 / (lengths**2).sum()
    words = [
        f"{which} principal component of {codes.shape[1]} dimensions ({part:.0%} of the variance)"
        for which, part in zip(("first", "second"), share, strict=False)
    ]
    return off @ directions[:2].T, words


def show(
    axes: Any,
    images: np.ndarray,
    limits: tuple[float, float],
    words: Sequence[str] = (),
    colours: str = "gray_r",
    gap: int = 1,
) -> Any:
    """Lay out images (rows, columns, height, width, channels) as one, with words for the rows."""
    low, high = limits
    values = np.clip((images - low) / ((high - low) or 1.0), 0, 1)
    gaps: Any = [(0, 0), (0, 0), (0, gap), (0, gap), (0, 0)]
    padded = np.pad(values, gaps, constant_values=np.nan)
    rows, columns, height, width, channels = padded.shape
    joined = padded.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)
    joined = joined[: rows * height - gap, : columns * width - gap]
    if channels == 1:
        shown = axes.imshow(low + (high - low) * joined[..., 0], colours, vmin=low, vmax=high)
    else:
        shown = axes.imshow(np.nan_to_num(joined, nan=1.0))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.set_yticks([middle(images.shape[2], row) for row in range(len(words))], words)
    return shown


def middle(side: int, place: int) -> float:
    """Tell where an image's middle lies, in pixels of the whole with its gaps."""
    return place * (side + 1) + (side - 1) / 2


def number_of(tick: float) -> str:
    """Write a number with a minus sign, as matplotlib does."""
    return f"{tick:.3g}".replace("-", "\N{MINUS SIGN}")
