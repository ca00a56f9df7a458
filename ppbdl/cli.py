"""The ``ppbdl`` command: compare methods on a table, or rebuild a report.

JAX and ArviZ take seconds to load, so each command imports what it needs when it runs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .contenders import DEFAULTS, METHODS, SHIPPED, methods_of, model_of, rows_of
from .errors import FitError, InputError, require_whole

if TYPE_CHECKING:
    from .diagnostics import Report


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
        help=f"a CSV file, or a data set that ships with ppbdl: {', '.join(SHIPPED)}",
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
        default=",".join(DEFAULTS),
        help=f"methods to compare, of {', '.join(METHODS)}, joined by commas; the first is the "
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
    from .diagnostics import report

    split_key, fit_key = jax.random.split(jax.random.key(args.seed))
    train, test = rows_of(split_key, args.table, args.target, args.task, args.test_size)
    print(
        f"{train.name}: {train.rows} rows to fit, {test.rows} kept back, "
        f"{len(train.feature_names)} inputs, target {train.target_name!r}",
        flush=True,
    )
    model = model_of(train, args.task, args.hidden)
    chosen = methods_of(methods, train, args.steps, args.draws)
    tree = fit_all(fit_key, model, train.standardized(), chosen, test=test)
    tree.attrs["title"] = f"{train.name}: {train.target_name}"
    # A method that failed at once left nothing to compare the others with.
    whole = [name for name, fit in tree.children.items() if fit.children]
    tree.attrs["reference"] = (whole or list(tree.children))[0]
    print("Writing the report ...", file=sys.stderr, flush=True)
    partial = data_file.with_name(data_file.name + ".part")
    tree.to_netcdf(partial, engine="h5netcdf")
    os.replace(partial, data_file)
    found = report(tree, page)
    print()
    _show(found)
    print(f"\n{page}\n{page.with_suffix('.json')}\n{data_file}")
    print(f"{time.perf_counter() - start:.0f} seconds in all", file=sys.stderr)
    return 0


def _chosen(text: str) -> list[str]:
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in METHODS]
    if unknown or not names:
        raise InputError(
            "--methods",
            expected=f"some of {', '.join(METHODS)}",
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

    from .diagnostics import DiagnosticsError, report

    try:
        tree = xr.open_datatree(file, engine="h5netcdf")  # lazily: it may be larger than memory
    except (OSError, ValueError) as error:
        raise InputError(
            "file",
            expected="a netCDF file that ppbdl compare or ArviZ wrote",
            got=f"{args.file!r} ({error})",
            remedy="Run ppbdl compare again.",
        ) from error
    page = _writable("--out", args.out or str(file.with_suffix(".html")))
    try:
        found = report(tree, page)
    except DiagnosticsError as error:
        raise InputError(
            "file", expected="a tree of fits", got=f"{args.file!r} ({error})", remedy="Check it."
        ) from error
    _show(found)
    print(f"\n{page}\n{page.with_suffix('.json')}")
    return 0


def _show(found: Report) -> None:
    """Print a report's summary, in colour where standard output is a terminal."""
    from rich.console import Console

    # What is no terminal has no width: 120 columns hold the table of methods.
    Console(width=shutil.get_terminal_size((120, 40)).columns).print(found)
