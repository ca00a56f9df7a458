"""Real data sets, whose files are verified before they are parsed, and simulated ones.

The smallest ship inside; others are read from a folder, or downloaded once.
"""

from .images import fetch_images as fetch_images
from .loading import load as load
from .plumes import simulate_plumes as simulate_plumes
from .series import load_series as load_series

__all__ = ["load", "fetch_images", "load_series", "simulate_plumes"]
