"""Real data sets: the smallest ship inside, others are read from a folder, all are verified."""

from .loading import load as load

__all__ = ["load"]
