"""Checks, scores and one report for any ArviZ `DataTree`, whoever made it."""

from .agreement import distance as distance
from .checking import check as check
from .comparison import Assessment as Assessment
from .comparison import as_text as as_text
from .comparison import assess as assess
from .comparison import compare as compare
from .cross_validation import CrossValidation as CrossValidation
from .cross_validation import loo as loo
from .decomposition import decompose as decompose
from .decomposition import entropy_split as entropy_split
from .decomposition import kwon_diagonals as kwon_diagonals
from .decomposition import kwon_matrices as kwon_matrices
from .decomposition import variance_split as variance_split
from .errors import DiagnosticsError as DiagnosticsError
from .metrics import accuracy as accuracy
from .metrics import adaptive_ece as adaptive_ece
from .metrics import brier as brier
from .metrics import coverage as coverage
from .metrics import crps as crps
from .metrics import crps_gaussian as crps_gaussian
from .metrics import ece as ece
from .metrics import gaussian_log_score as gaussian_log_score
from .metrics import interval as interval
from .metrics import log_score as log_score
from .metrics import nll as nll
from .metrics import pit as pit
from .metrics import rmse as rmse
from .metrics import sharpness as sharpness
from .novelty import Separation as Separation
from .novelty import novelty_scores as novelty_scores
from .novelty import separation as separation
from .plots import plot_class_draws as plot_class_draws
from .plots import plot_rejection as plot_rejection
from .plots import plot_scores as plot_scores
from .plots import plot_sweep as plot_sweep
from .rejection import RejectionCurve as RejectionCurve
from .rejection import rejection_curve as rejection_curve
from .reporting import report as report
from .scoring import scores as scores
from .verdict import Check as Check
from .verdict import worst as worst

__all__ = [
    "Assessment",
    "Check",
    "CrossValidation",
    "DiagnosticsError",
    "RejectionCurve",
    "Separation",
    "accuracy",
    "adaptive_ece",
    "as_text",
    "assess",
    "brier",
    "check",
    "compare",
    "coverage",
    "crps",
    "crps_gaussian",
    "decompose",
    "distance",
    "ece",
    "entropy_split",
    "gaussian_log_score",
    "interval",
    "kwon_diagonals",
    "kwon_matrices",
    "log_score",
    "loo",
    "nll",
    "novelty_scores",
    "pit",
    "plot_class_draws",
    "plot_rejection",
    "plot_scores",
    "plot_sweep",
    "rejection_curve",
    "report",
    "rmse",
    "scores",
    "separation",
    "sharpness",
    "variance_split",
    "worst",
]
