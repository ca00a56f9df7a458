"""The ``ppbdl`` command: compare methods on a table, or rebuild a report.

JAX and ArviZ take seconds to load, so each command imports what it needs when it runs.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import FitError, InputError, require_whole

if TYPE_CHECKING:
    from .data import Data

_DEFAULTS = ("nuts", "autonormal", "iaf", "dropout", "ensemble")
_METHODS = (*_DEFAULTS, "map", "hmc", "laplace", "mnf", "swag", "multiswag")
_SHIPPED = ("yacht", "energy")


def main(argv: list[str] | None = None) -> int:
    """Run the command; give 0, or 2 after an error that was told."""
    args = _parser().parse_args(argv)
    try:
        return args.run(args)
    except (InputError, FitError) as error:
        print(f"ppbdl {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nppbdl {args.command}: interrupted.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ppbdl", description="One model, every posterior, compared in one report."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    compare = commands.add_parser(
        "compare",
        help="fit a Bayesian neural network by several methods and compare them",
        description="Fit a Bayesian neural network by several methods, keep rows back to compare "
        "them on, print a table, and write OUT.html (the report) and OUT.nc (all the fits).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    compare.add_argument(
        "table",
        nargs="?",
        default="yacht",
        help=f"a CSV file, or a data set that ships with ppbdl: {', '.join(_SHIPPED)}",
    )
    compare.add_argument("--target", help="the CSV file's column to predict")
    compare.add_argument(
        "--task",
        choices=("regression", "classification", "count"),
        default="regression",
        help="what the target is",
    )
    compare.add_argument(
        "--methods",
        default=",".join(_DEFAULTS),
        help=f"methods to compare, of {', '.join(_METHODS)}, joined by commas; the first is the "
        "reference",
    )
    compare.add_argument("--steps", type=int, default=40000, help="optimisation steps of a fit")
    compare.add_argument("--draws", type=int, default=300, help="draws a NUTS chain, after as many")
    compare.add_argument("--hidden", type=int, default=50, help="units of the hidden layer")
    compare.add_argument("--seed", type=int, default=0, help="seed of all randomness")
    compare.add_argument(
        "--test-size", type=float, default=0.1, help="share of a CSV file's rows kept back"
    )
    compare.add_argument("--out", default="ppbdl-compare", help="the two files' path, no ending")
    compare.set_defaults(run=_compare)
    report = commands.add_parser(
        "report",
        help="build the report of a comparison again",
        description="Build the HTML report of a saved comparison (or of any ArviZ netCDF file).",
    )
    report.add_argument("file", help="the netCDF file")
    report.add_argument("--out", help="the HTML file; by default beside FILE, ending in .html")
    report.set_defaults(run=_report)
    return parser


def _compare(args: argparse.Namespace) -> int:
    start = time.perf_counter()
    methods = _chosen(args.methods)
    require_whole(steps=args.steps, draws=args.draws, hidden=args.hidden)
    _require_share(args.test_size)
    data_file, page = (_writable("--out", f"{args.out}{ending}") for ending in (".nc", ".html"))
    print("Loading JAX and NumPyro ...", file=sys.stderr, flush=True)
    import jax

    from .comparison import fit_all
    from .diagnostics import as_text, compare, report

    split_key, fit_key = jax.random.split(jax.random.key(args.seed))
    train, test = _rows(args, split_key)
    print(
        f"{train.name}: {train.rows} rows to fit, {test.rows} kept back, "
        f"{len(train.feature_names)} inputs, target {train.target_name!r}",
        flush=True,
    )
    model = _model(args, train)
    tree = fit_all(
        fit_key,
        model,
        train.standardized(),
        _methods(args, methods, train),
        test=test,
    )
    tree.attrs["title"] = f"{train.name}: {train.target_name}"
    # A method that failed at once left nothing to compare the others with.
    whole = [name for name, fit in tree.children.items() if fit.children]
    tree.attrs["reference"] = (whole or list(tree.children))[0]
    table = as_text(compare(tree))
    print("Writing the report ...", file=sys.stderr, flush=True)
    partial = data_file.with_name(data_file.name + ".part")
    tree.to_netcdf(partial, engine="h5netcdf")
    os.replace(partial, data_file)
    report(tree, page)
    print(f"\n{table}\n\n{page}\n{data_file}")
    print(f"{time.perf_counter() - start:.0f} seconds in all", file=sys.stderr)
    return 0


def _chosen(text: str) -> list[str]:
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in _METHODS]
    if unknown or not names:
        raise InputError(
            "--methods",
            expected=f"some of {', '.join(_METHODS)}",
            got=", ".join(unknown) or "none",
            remedy="Join them by commas: --methods nuts,ensemble.",
        )
    return list(dict.fromkeys(names))


def _require_share(test_size: float) -> None:
    if not 0 < test_size < 1:
        raise InputError(
            "--test-size",
            expected="a share of the rows, between 0 and 1",
            got=str(test_size),
            remedy="Pass a share such as 0.1.",
        )


def _writable(argument: str, name: str) -> Path:
    """Make the folder of a file to come, so that minutes of fitting don't end in an error."""
    path = Path(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            argument,
            expected="a path that can be written",
            got=f"{name!r} ({error.strerror})",
            remedy="Choose another folder.",
        ) from error
    return path


def _rows(args: argparse.Namespace, key: Any) -> tuple[Data, Data]:
    from .data import Data
    from .datasets import load

    if args.table in _SHIPPED:
        if args.task != "regression":
            raise InputError(
                "--task",
                expected=f"regression for the data set {args.table}",
                got=args.task,
                remedy="Drop --task, or pass a CSV file.",
            )
        if args.target is not None:
            raise InputError(
                "--target",
                expected=f"none for the data set {args.table}, which has its own",
                got=repr(args.target),
                remedy="Drop --target, or pass a CSV file.",
            )
        return load(args.table, split=0)
    if not Path(args.table).is_file():
        raise InputError(
            "table",
            expected=f"a CSV file, or one of {', '.join(_SHIPPED)}",
            got=f"{args.table!r}, which is neither",
            remedy="Check the path.",
        )
    import pandas as pd

    try:
        frame = pd.read_csv(args.table)
    except (ValueError, UnicodeError) as error:
        raise InputError(
            "table",
            expected="a CSV file with a header line",
            got=f"{args.table!r} ({error})",
            remedy="Save the table as comma-separated text in UTF-8.",
        ) from error
    if args.target is None:
        raise InputError(
            "--target",
            expected=f"one of the columns {', '.join(map(str, frame.columns))}",
            got="none",
            remedy="Name the column to predict.",
        )
    data = Data.from_frame(frame, args.target, args.task, name=Path(args.table).stem)
    return data.split(key, args.test_size)


def _model(args: argparse.Namespace, data: Data) -> Any:
    import haiku as hk
    import jax

    from .models import BNN, Categorical, Normal, Poisson

    likelihood = {
        # Nearly noiseless data, such as yacht's, would drive a free noise to zero, where no
        # sampler mixes; a twentieth of the target's spread is small enough to tell apart.
        "regression": Normal(floor=0.05),
        "count": Poisson(),
        "classification": Categorical(len(data.classes or ())),
    }[args.task]
    outputs = len(data.classes) if data.classes else 1

    def net(x: Any) -> Any:
        return hk.nets.MLP([args.hidden, outputs], activation=jax.nn.tanh)(x)

    return BNN(net, likelihood=likelihood)


def _methods(args: argparse.Namespace, chosen: list[str], data: Data) -> dict[str, Any]:
    import optax
    from numpyro.infer.autoguide import AutoIAFNormal

    from .guides import MNF, AutoNormal, MCDropout
    from .inference import HMC, MAP, NUTS, SVI, SWAG, Ensemble, Laplace

    def adam(rate: float, steps: int) -> Any:
        # Falling for half of the steps, then level, so that the checks can tell a fit that has
        # ended from one that was merely slowed down.
        return optax.adam(optax.cosine_decay_schedule(rate, max(steps // 2, 1), alpha=0.05))

    # A step of the inverse autoregressive flow costs as much as ten of the others.
    steps, few = args.steps, max(args.steps // 10, 1)
    fast, slow = adam(1e-2, steps), optax.chain(optax.clip_by_global_norm(10.0), adam(1e-3, few))
    batch = 512 if data.rows > 1024 else None
    iaf = functools.partial(AutoIAFNormal, num_flows=2)
    point = MAP(fast, steps, batch)
    # Averages want gradients that differ from step to step.
    swag = SWAG(replace(point, batch_size=batch or max(data.rows // 8, 1)))
    settings = {
        "nuts": ("NUTS", NUTS(args.draws, args.draws, chains=2)),
        "autonormal": ("AutoNormal", SVI(AutoNormal(init_scale=1e-3), fast, steps, batch)),
        "iaf": ("AutoIAFNormal", SVI(iaf, slow, few, batch)),
        "dropout": ("MCDropout", SVI(MCDropout(0.01), fast, steps, batch)),
        "ensemble": ("Ensemble", Ensemble(point, members=5)),
        "map": ("MAP", point),
        "hmc": ("HMC", HMC(args.draws, args.draws, chains=2)),
        "laplace": ("Laplace", Laplace("full", fast, steps, batch)),
        "mnf": ("MNF", SVI(MNF(init_scale=1e-3), fast, steps, batch)),
        "swag": ("SWAG", swag),
        "multiswag": ("MultiSWAG", Ensemble(swag, members=5)),
    }
    return dict(settings[name] for name in chosen)


def _report(args: argparse.Namespace) -> int:
    file = Path(args.file)
    if not file.is_file():
        raise InputError(
            "file",
            expected="a netCDF file",
            got=f"{args.file!r}, which is none",
            remedy="Check it.",
        )
    import xarray as xr

    from .diagnostics import DiagnosticsError, as_text, compare, report

    try:
        tree = xr.open_datatree(file, engine="h5netcdf").load()
    except (OSError, ValueError) as error:
        raise InputError(
            "file",
            expected="a netCDF file that ppbdl compare or ArviZ wrote",
            got=f"{args.file!r} ({error})",
            remedy="Run ppbdl compare again.",
        ) from error
    page = _writable("--out", args.out or str(file.with_suffix(".html")))
    try:
        table = as_text(compare(tree))
        report(tree, page)
    except DiagnosticsError as error:
        raise InputError(
            "file", expected="a tree of fits", got=f"{args.file!r} ({error})", remedy="Check it."
        ) from error
    print(f"{table}\n\n{page}")
    return 0
