"""Effect handlers on any model over Haiku networks; the face is the list.

The gradient estimators, ``handler(model, guide_trace)``, take the place of
`numpyro.handlers.replay` in an estimate of the evidence lower bound: `replay` runs the model at
one draw of the weights for the whole batch, these give each example a draw of its own.
"""

from .anchoring import anchored as anchored
from .masks import masks_per_example as masks_per_example
from .outputs import local_reparameterization as local_reparameterization
from .signs import flipout as flipout
from .starting import start_at as start_at
