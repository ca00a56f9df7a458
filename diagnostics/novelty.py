"""How novel each row looks to a classifier, and how well that tells novel rows from known ones.

From the mean class probabilities p of a row, and from its draws p_t::

    nll of the top class    -log max_c p_c
    entropy                 H[p] = -sum_c p_c log p_c
    total variance          1 - sum_c p_c^2 = trace(diag(p) - p p')
    mutual information      H[p] - mean_t H[p_t]
    energy                  -mean_t log sum_c exp(l_tc),  l_t the logits

The first is the baseline of Hendrycks and Gimpel (2017, arXiv:1610.02136), the third the trace of
the one-hot label's covariance (Kwon et al. 2020, doi:10.1016/j.csda.2019.106816), the fourth the
epistemic part of the entropy (Houlsby et al. 2011, arXiv:1112.5745), which needs draws; the last
(Liu et al. 2020, arXiv:2010.03759) needs logits, whose sum a softmax takes away. A binary
likelihood has their difference l alone: they are taken as (-l/2, l/2), so that the energy is the
same whichever label is called 1, and orders rows as the other scores of a single draw do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .errors import DiagnosticsError

_FALSE_REJECTION = 0.05
_RECALL = 0.95
_SCORES = ("auroc", "aupr", "fpr95", "detected")


def novelty_scores(
    probs: np.ndarray,
    mutual_information: np.ndarray | None = None,
    energy: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Return each row's scores of novelty by name; the larger, the more novel.

    Parameters
    ----------
    probs
        Mean predictive probabilities, ``(row, class)``: ``mean`` of a `ppbdl.Prediction`, or
        ``probs`` of `decompose`.
    mutual_information
        ``(row,)``, in nats, where there are draws: their ``epistemic``.
    energy
        ``(row,)``, in nats, where the likelihood has logits: ``energy`` of a prediction's draws,
        or ``y_energy`` in the tree, averaged over the draws. It compares rows of one fit only.

    Returns
    -------
    dict
        ``"nll of the top class"`` and ``"entropy"``, in nats, ``"total variance"``, and, where
        they were given, ``"mutual information"`` and ``"energy"``, each ``(row,)``.

    Raises
    ------
    DiagnosticsError
        If the probabilities are none, or the rows differ.

    Examples
    --------
    >>> scores = novelty_scores(np.array([[0.5, 0.5], [1.0, 0.0]]))
    >>> for name, score in scores.items():
    ...     print(name, score.round(6))
    nll of the top class [0.693147 0.      ]
    entropy [0.693147 0.      ]
    total variance [0.5 0. ]
    """
    probs = _probabilities(probs)
    # All from the classes below the top one: 1 - max p loses its digits where a row is sure, and
    # a network's rows are sure by the thousand, so that they would tie.
    lower = np.sort(probs, axis=1)[:, :-1]
    rest = lower.sum(axis=1)
    nll = -np.log1p(-rest)
    logs = np.log(np.where(lower > 0, lower, 1.0))
    scores = {
        "nll of the top class": nll,
        "entropy": (1 - rest) * nll - (lower * logs).sum(axis=1),
        "total variance": rest * (2 - rest) - (lower**2).sum(axis=1),
    }
    given = {"mutual_information": mutual_information, "energy": energy}
    for argument, score in given.items():
        if score is None:
            continue
        own = _finite(argument, score)
        if len(own) != len(probs):
            raise DiagnosticsError(
                argument,
                expected=f"one number for each of the {len(probs)} rows of probs",
                got=str(len(own)),
                remedy="Take both from the same prediction.",
            )
        scores[argument.replace("_", " ")] = own
    return scores


@dataclass(frozen=True)
class Separation:
    """How well a score tells novel rows from known ones; novel is the positive class throughout.

    Attributes
    ----------
    auroc
        Probability that a novel row scores above a known one, ties counting half.
    aupr
        Average precision. That of a useless score is the share of novel rows,
        ``novel / (known + novel)``, so that it compares only between sets of the same sizes.
    fpr95
        Share of the known rows flagged at the highest threshold that flags at least 95 % of the
        novel ones. Papers that call the known rows positive print another number.
    detected
        Share of the novel rows flagged at the lowest threshold that flags at most 5 % of the
        known ones: the share rejected at 5 % false rejection.
    threshold
        That threshold: a score of at least this is flagged. Infinite if every one flags more.
    known, novel
        Number of rows.
    """

    auroc: float
    aupr: float
    fpr95: float
    detected: float
    threshold: float
    known: int
    novel: int


def separation(known: np.ndarray, novel: np.ndarray) -> Separation:
    """Measure how well a score separates novel rows from known ones.

    Parameters
    ----------
    known, novel
        One score of the known rows, and the same score of the novel ones, ``(row,)`` each; the
        larger, the more novel. Rows that tie are flagged together or not at all.

    Raises
    ------
    DiagnosticsError
        If either is empty, or not finite.

    Examples
    --------
    >>> found = separation(np.array([0.1, 0.4, 0.6, 0.8]), np.array([0.2, 0.7, 0.9]))
    >>> found.fpr95, round(found.auroc, 6), round(found.detected, 6), found.threshold
    (0.75, 0.666667, 0.333333, 0.9)
    """
    # Half a second to import, as long as all of this package.
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    known, novel = _finite("known", known), _finite("novel", novel)
    label = np.repeat([0, 1], [len(known), len(novel)])
    score = np.concatenate([known, novel])
    false_positive, recall, threshold = roc_curve(label, score, drop_intermediate=False)
    flags_novel = np.argmax(recall >= _RECALL)
    spares_known = np.flatnonzero(false_positive <= _FALSE_REJECTION)[-1]
    return Separation(
        auroc=float(roc_auc_score(label, score)),
        aupr=float(average_precision_score(label, score)),
        fpr95=float(false_positive[flags_novel]),
        detected=float(recall[spares_known]),
        threshold=float(threshold[spares_known]),
        known=len(known),
        novel=len(novel),
    )


def separation_intervals(
    known: np.ndarray, novel: np.ndarray, level: float = 0.95, resamples: int = 1000
) -> dict[str, tuple[float, float]]:
    """Return bootstrap intervals of a `separation`, known and novel rows resampled apart.

    Parameters
    ----------
    known, novel
        As for `separation`.
    level, resamples
        Probability that the intervals hold the scores of ever more such rows; about, for few. And
        the number of resamples, from a fixed seed.

    Returns
    -------
    dict
        ``auroc``, ``aupr``, ``fpr95`` and ``detected``: the ends of each, from 0 to 1.

    Raises
    ------
    DiagnosticsError
        As `separation`, or of a single row on either side.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> ends = separation_intervals(rng.normal(size=200), 2 + rng.normal(size=100), resamples=50)
    >>> low, high = ends["auroc"]
    >>> low < 0.92 < high
    True
    """
    from scipy.stats import bootstrap

    known, novel = _finite("known", known), _finite("novel", novel)
    for name, scores in (("known", known), ("novel", novel)):
        if len(scores) < 2:
            raise DiagnosticsError(
                name,
                expected="at least two rows to resample",
                got="one",
                remedy="Score more rows.",
            )

    def score(known: np.ndarray, novel: np.ndarray) -> np.ndarray:
        found = separation(known, novel)
        return np.array([getattr(found, name) for name in _SCORES])

    # The basic bootstrap takes away the bias that resampling adds (Davison and Hinkley 1997, 5.2).
    found = bootstrap(
        (known, novel),
        score,
        vectorized=False,
        method="basic",
        n_resamples=resamples,
        confidence_level=level,
        rng=np.random.default_rng(0),
        batch=100,
    )
    low, high = np.clip(found.confidence_interval, 0.0, 1.0)
    return {name: (float(a), float(b)) for name, a, b in zip(_SCORES, low, high, strict=True)}


def _probabilities(probs: np.ndarray) -> np.ndarray:
    probs = np.asarray(probs, dtype=float)
    if probs.ndim != 2 or not probs.size or not _add_to_one(probs):
        raise DiagnosticsError(
            "probs",
            expected="probabilities (row, class), each row adding to 1",
            got=f"an array {probs.shape} of another kind",
            remedy="Average the draws' probabilities; don't pass logits, labels or single draws.",
        )
    return probs / probs.sum(axis=1, keepdims=True)


def _add_to_one(probs: np.ndarray) -> bool:
    # Up to what half precision rounds; logits and percentages are further off.
    return bool((probs >= 0).all() and (np.abs(probs.sum(axis=1) - 1) < 1e-2).all())


def _finite(argument: str, scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, dtype=float)
    if scores.ndim != 1 or not scores.size or not np.isfinite(scores).all():
        wrong = np.count_nonzero(~np.isfinite(scores))
        raise DiagnosticsError(
            argument,
            expected="finite scores (row,) of at least one row",
            got=f"an array {scores.shape}, {wrong} of it not finite",
            remedy="Score every row; mend a model whose predictions are NaN.",
        )
    return scores
