"""The checks: each a function from one fit's tree to a `Check`. This face is their list."""

from .calibration import class_calibration as class_calibration
from .calibration import coverage_of_intervals as coverage_of_intervals
from .convergence import agreement_of_chains as agreement_of_chains
from .convergence import convergence_of_weights as convergence_of_weights
from .convergence import effective_draws as effective_draws
from .failure import completion as completion
from .hamiltonian import divergences as divergences
from .hamiltonian import energy as energy
from .hamiltonian import tree_depth as tree_depth
from .importance import importance_khat as importance_khat
from .leave_one_out import loo_reliability as loo_reliability
from .optimisation import elbo_convergence as elbo_convergence

# In the order of the report: what voids everything first.
__all__ = [
    "completion",
    "agreement_of_chains",
    "effective_draws",
    "divergences",
    "energy",
    "tree_depth",
    "elbo_convergence",
    "importance_khat",
    "loo_reliability",
    "coverage_of_intervals",
    "class_calibration",
    "convergence_of_weights",
]
