"""Real data sets, whose files are verified before they are parsed, and simulated ones.

The smallest ship inside; others are read from a folder, or downloaded once.
"""

from .fields import fetch_fields as fetch_fields
from .images import fetch_images as fetch_images
from .loading import load as load
from .plumes import simulate_plumes as simulate_plumes
from .series import load_series as load_series
from .shallow_water import simulate_shallow_water as simulate_shallow_water

__all__ = [
    "fetch_fields",
    "fetch_images",
    "load",
    "load_series",
    "simulate_plumes",
    "simulate_shallow_water",
]
