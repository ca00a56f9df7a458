"""Checks, scores and one report for any ArviZ `DataTree`, whoever made it."""

from .agreement import disagreements as disagreements
from .agreement import distance as distance
from .bootstrapping import bootstrap_interval as bootstrap_interval
from .checking import check as check
from .comparison import Assessment as Assessment
from .comparison import assess as assess
from .comparison import compare as compare
from .cross_validation import CrossValidation as CrossValidation
from .cross_validation import loo as loo
from .cross_validation import stacking_weights as stacking_weights
from .decomposition import decompose as decompose
from .decomposition import entropy_split as entropy_split
from .decomposition import kwon_diagonals as kwon_diagonals
from .decomposition import kwon_matrices as kwon_matrices
from .decomposition import variance_split as variance_split
from .diversity import Diversity as Diversity
from .diversity import diversity_of as diversity_of
from .errors import DiagnosticsError as DiagnosticsError
from .fidelity import plot_fidelity as plot_fidelity
from .learning import learning_curve as learning_curve
from .learning import plot_learning_curve as plot_learning_curve
from .metrics import BrierParts as BrierParts
from .metrics import accuracy as accuracy
from .metrics import adaptive_ece as adaptive_ece
from .metrics import brier as brier
from .metrics import brier_decomposition as brier_decomposition
from .metrics import coverage as coverage
from .metrics import crps as crps
from .metrics import crps_gaussian as crps_gaussian
from .metrics import ece as ece
from .metrics import gaussian_log_score as gaussian_log_score
from .metrics import interval as interval
from .metrics import interval_score as interval_score
from .metrics import log_score as log_score
from .metrics import nll as nll
from .metrics import pit as pit
from .metrics import rmse as rmse
from .metrics import sharpness as sharpness
from .novelty import Separation as Separation
from .novelty import novelty_scores as novelty_scores
from .novelty import separation as separation
from .novelty import separation_intervals as separation_intervals
from .plots import plot_class_draws as plot_class_draws
from .plots import plot_rejection as plot_rejection
from .plots import plot_scores as plot_scores
from .plots import plot_sweep as plot_sweep
from .recalibration import ConformalIntervals as ConformalIntervals
from .recalibration import ConformalSets as ConformalSets
from .recalibration import Temperature as Temperature
from .recalibration import conformal_intervals as conformal_intervals
from .recalibration import conformal_sets as conformal_sets
from .recalibration import scale_temperature as scale_temperature
from .rejection import RejectionCurve as RejectionCurve
from .rejection import rejection_curve as rejection_curve
from .remedies import Remedy as Remedy
from .remedies import remedy_of as remedy_of
from .reporting import Report as Report
from .reporting import report as report
from .rows import uncertain_rows as uncertain_rows
from .scoring import scores as scores
from .thinning import thinned as thinned
from .verdict import Check as Check
from .verdict import worst as worst

__all__ = [
    "Assessment",
    "BrierParts",
    "Check",
    "ConformalIntervals",
    "ConformalSets",
    "CrossValidation",
    "DiagnosticsError",
    "Diversity",
    "RejectionCurve",
    "Remedy",
    "Report",
    "Separation",
    "Temperature",
    "accuracy",
    "adaptive_ece",
    "assess",
    "bootstrap_interval",
    "brier",
    "brier_decomposition",
    "check",
    "compare",
    "conformal_intervals",
    "conformal_sets",
    "coverage",
    "crps",
    "crps_gaussian",
    "decompose",
    "disagreements",
    "distance",
    "diversity_of",
    "ece",
    "entropy_split",
    "gaussian_log_score",
    "interval",
    "interval_score",
    "kwon_diagonals",
    "kwon_matrices",
    "learning_curve",
    "log_score",
    "loo",
    "nll",
    "novelty_scores",
    "pit",
    "plot_class_draws",
    "plot_fidelity",
    "plot_learning_curve",
    "plot_rejection",
    "plot_scores",
    "plot_sweep",
    "rejection_curve",
    "remedy_of",
    "report",
    "rmse",
    "scale_temperature",
    "scores",
    "separation",
    "separation_intervals",
    "sharpness",
    "stacking_weights",
    "thinned",
    "uncertain_rows",
    "variance_split",
    "worst",
]
