"""Inference methods: settings with one verb, ``run(key, model, data) -> Posterior``."""

from .alpha import AlphaELBO as AlphaELBO
from .elbo import AnalyticELBO as AnalyticELBO
from .ensemble import Ensemble as Ensemble
from .map import MAP as MAP
from .nuts import NUTS as NUTS
from .svi import SVI as SVI
