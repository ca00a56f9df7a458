"""Flows: bijections as NumPyro transforms, and the distributions that they make."""

from .coupling import AffineCoupling as AffineCoupling
from .flow import Flow as Flow
