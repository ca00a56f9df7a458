"""Declarative models: frozen dataclasses that are NumPyro programs ``(x, y=None)``."""

from .bnn import BNN as BNN
from .density import FlowDensity as FlowDensity
from .dequantization import Dequantized as Dequantized
from .dequantization import bits_per_dimension as bits_per_dimension
from .flows import IAF as IAF
from .flows import MAF as MAF
from .flows import NSF as NSF
from .flows import PlanarFlow as PlanarFlow
from .flows import RealNVP as RealNVP
from .glow import Glow as Glow
from .glow import ImageRealNVP as ImageRealNVP
from .likelihoods import Bernoulli as Bernoulli
from .likelihoods import Categorical as Categorical
from .likelihoods import HeteroscedasticNormal as HeteroscedasticNormal
from .likelihoods import Normal as Normal
from .likelihoods import Poisson as Poisson
from .likelihoods import SplineNoise as SplineNoise
from .linear import LinearRegression as LinearRegression
from .mixture import GaussianMixture as GaussianMixture
from .priors import Horseshoe as Horseshoe
from .priors import LayerScale as LayerScale
from .priors import ScaleInvariant as ScaleInvariant
from .priors import ScaleMixture as ScaleMixture
from .stochastic import StochasticUnits as StochasticUnits
from .vae import VAE as VAE
