"""The checks: each a function from one fit's tree to a `Check`. This face is their list."""

from .calibration import class_calibration as class_calibration
from .calibration import coverage_of_intervals as coverage_of_intervals
from .calibration import pit_uniformity as pit_uniformity
from .collapse import use_of_code as use_of_code
from .convergence import agreement_of_chains as agreement_of_chains
from .convergence import convergence_of_weights as convergence_of_weights
from .convergence import effective_draws as effective_draws
from .diversity import ensemble_diversity as ensemble_diversity
from .diversity import spread_of_draws as spread_of_draws
from .diversity import stuck_chains as stuck_chains
from .explained import explained_variance as explained_variance
from .failure import completion as completion
from .flow import soundness_of_flow as soundness_of_flow
from .hamiltonian import divergences as divergences
from .hamiltonian import energy as energy
from .hamiltonian import tree_depth as tree_depth
from .importance import importance_khat as importance_khat
from .iterates import convergence_of_iterates as convergence_of_iterates
from .leave_one_out import loo_reliability as loo_reliability
from .optimisation import elbo_convergence as elbo_convergence
from .prior import prior_predictive as prior_predictive
from .prior import prior_sensitivity as prior_sensitivity
from .replication import dispersion_of_counts as dispersion_of_counts
from .replication import possible_replicates as possible_replicates
from .replication import predictive_statistic as predictive_statistic
from .simulation import simulated_calibration as simulated_calibration
from .superchains import agreement_of_superchains as agreement_of_superchains
from .surprise import surprising_rows as surprising_rows

# Those of one fit, without settings (`predictive_statistic` needs the statistic of your choice),
# causes before their symptoms, since the first of the gravest is told.
__all__ = [
    "completion",
    "divergences",
    "stuck_chains",
    "spread_of_draws",
    "agreement_of_chains",
    "effective_draws",
    "energy",
    "tree_depth",
    "agreement_of_superchains",
    "ensemble_diversity",
    "elbo_convergence",
    "convergence_of_iterates",
    "importance_khat",
    "soundness_of_flow",
    "use_of_code",
    "explained_variance",
    "prior_predictive",
    "prior_sensitivity",
    "possible_replicates",
    "dispersion_of_counts",
    "loo_reliability",
    "coverage_of_intervals",
    "pit_uniformity",
    "class_calibration",
    "surprising_rows",
    "simulated_calibration",
    "convergence_of_weights",
]
