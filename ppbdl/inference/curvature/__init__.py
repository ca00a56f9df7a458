"""The curvature of a log joint density at a point, in the forms that a Laplace fit has for it."""

from .evidence import Tuned as Tuned
from .evidence import tuned as tuned
from .layout import Point as Point
from .layout import layout_of as layout_of
from .matrix import Curvature as Curvature
from .matrix import curvature_of as curvature_of
from .precision import PROGRAMS as PROGRAMS
from .precision import Prior as Prior
from .precision import diagonal as diagonal
from .precision import hopeless as hopeless
from .precision import kronecker as kronecker
from .precision import newton as newton
from .precision import potential as potential
from .precision import warn as warn
from .products import low_rank as low_rank
from .products import newton_without as newton_without
from .products import perturbed as perturbed
from .sums import Rows as Rows
from .sums import rows_of as rows_of
