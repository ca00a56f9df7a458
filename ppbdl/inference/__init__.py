"""Inference methods: settings with one verb, ``run(key, model, data) -> Posterior``."""

from .alpha import AlphaELBO as AlphaELBO
from .chees import ChEES as ChEES
from .elbo import AnalyticELBO as AnalyticELBO
from .ensemble import Ensemble as Ensemble
from .free_bits import FreeBits as FreeBits
from .hmc import HMC as HMC
from .importance import IWAE as IWAE
from .laplace import Laplace as Laplace
from .map import MAP as MAP
from .mclmc import MCLMC as MCLMC
from .nuts import NUTS as NUTS
from .sghmc import SGHMC as SGHMC
from .sgld import SGLD as SGLD
from .stopping import EarlyStopping as EarlyStopping
from .svi import SVI as SVI
from .swag import SWAG as SWAG
