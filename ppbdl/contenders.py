"""What ``ppbdl compare`` brings together: a table's rows, a network for them, and the methods.

JAX takes seconds to load, and the methods' names are wanted before, so each function imports what
it needs when it runs.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    from .data import Data

DEFAULTS = ("nuts", "autonormal", "iaf", "dropout", "ensemble")
METHODS = (*DEFAULTS, "map", "hmc", "laplace", "mnf", "swag", "multiswag")
SHIPPED = ("yacht", "energy")


def rows_of(
    key: Any, table: str, target: str | None, task: str, test_size: float
) -> tuple[Data, Data]:
    """Read a table: the rows to fit, and those kept back.

    Raises
    ------
    InputError
        If it is neither a data set that ships with ppbdl nor a CSV file with this target.
    """
    from .data import Data
    from .datasets import load

    if table in SHIPPED:
        if task != "regression":
            raise InputError(
                "--task",
                expected=f"regression for the data set {table}",
                got=task,
                remedy="Drop --task, or pass a CSV file.",
            )
        if target is not None:
            raise InputError(
                "--target",
                expected=f"none for the data set {table}, which has its own",
                got=repr(target),
                remedy="Drop --target, or pass a CSV file.",
            )
        return load(table, split=0)
    if not Path(table).is_file():
        raise InputError(
            "table",
            expected=f"a CSV file, or one of {', '.join(SHIPPED)}",
            got=f"{table!r}, which is neither",
            remedy="Check the path.",
        )
    import pandas as pd

    try:
        frame = pd.read_csv(table)
    except (ValueError, UnicodeError) as error:
        raise InputError(
            "table",
            expected="a CSV file with a header line",
            got=f"{table!r} ({error})",
            remedy="Save the table as comma-separated text in UTF-8.",
        ) from error
    if target is None:
        raise InputError(
            "--target",
            expected=f"one of the columns {', '.join(map(str, frame.columns))}",
            got="none",
            remedy="Name the column to predict.",
        )
    data = Data.from_frame(frame, target, task, name=Path(table).stem)
    return data.split(key, test_size)


def model_of(data: Data, task: str, hidden: int) -> Any:
    """Give the network of one hidden layer, with the likelihood of the task."""
    import haiku as hk
    import jax

    from .models import BNN, Categorical, Normal, Poisson

    likelihood = {
        # Nearly noiseless data, such as yacht's, would drive a free noise to zero, where no
        # sampler mixes; a twentieth of the target's spread is small enough to tell apart.
        "regression": Normal(floor=0.05),
        "count": Poisson(),
        "classification": Categorical(len(data.classes or ())),
    }[task]
    outputs = len(data.classes) if data.classes else 1

    def net(x: Any) -> Any:
        return hk.nets.MLP([hidden, outputs], activation=jax.nn.tanh)(x)

    return BNN(net, likelihood=likelihood)


def methods_of(chosen: list[str], data: Data, steps: int, draws: int) -> dict[str, Any]:
    """Give the methods by the names they have in a report."""
    import optax
    from numpyro.infer.autoguide import AutoIAFNormal

    from .guides import MNF, AutoNormal, MCDropout
    from .inference import HMC, MAP, NUTS, SVI, SWAG, Ensemble, Laplace

    def adam(rate: float, steps: int) -> Any:
        # Falling for half of the steps, then level, so that the checks can tell a fit that has
        # ended from one that was merely slowed down.
        return optax.adam(optax.cosine_decay_schedule(rate, max(steps // 2, 1), alpha=0.05))

    # A step of the inverse autoregressive flow costs as much as ten of the others.
    few = max(steps // 10, 1)
    fast, slow = adam(1e-2, steps), optax.chain(optax.clip_by_global_norm(10.0), adam(1e-3, few))
    batch = 512 if data.rows > 1024 else None
    iaf = functools.partial(AutoIAFNormal, num_flows=2)
    point = MAP(fast, steps, batch)
    # Averages want gradients that differ from step to step.
    swag = SWAG(replace(point, batch_size=batch or max(data.rows // 8, 1)))
    settings = {
        "nuts": ("NUTS", NUTS(draws, draws, chains=2)),
        "autonormal": ("AutoNormal", SVI(AutoNormal(init_scale=1e-3), fast, steps, batch)),
        "iaf": ("AutoIAFNormal", SVI(iaf, slow, few, batch)),
        "dropout": ("MCDropout", SVI(MCDropout(0.01), fast, steps, batch)),
        "ensemble": ("Ensemble", Ensemble(point, members=5)),
        "map": ("MAP", point),
        "hmc": ("HMC", HMC(draws, draws, chains=2)),
        "laplace": ("Laplace", Laplace("full", fast, steps, batch)),
        "mnf": ("MNF", SVI(MNF(init_scale=1e-3), fast, steps, batch)),
        "swag": ("SWAG", swag),
        "multiswag": ("MultiSWAG", Ensemble(swag, members=5)),
    }
    return dict(settings[name] for name in chosen)
