"""The ``ppbdl`` command, and the lazy face that lets it answer at once."""

import ast
import contextlib
import io
import os
import resource
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import ppbdl
from ppbdl.cli import main

matplotlib.use("Agg")

TASKS = {  # of each: the target, methods that are quick to compile, and what the table must hold
    "regression": ("price", "nuts,dropout", ("NUTS", "MCDropout", "RMSE", "coverage")),
    "classification": ("town", "ensemble", ("Ensemble", "accuracy", "ECE")),
    "count": ("rooms", "dropout", ("MCDropout", "RMSE")),
}


def run(*arguments):
    """Call the command here; give its status, its output and its messages."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(argument) for argument in arguments])
    return status, out.getvalue(), err.getvalue()


def in_a_new_process(program):
    """Run a program in a new interpreter; give its output and its processor seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *program], capture_output=True, text=True, check=False, cwd=os.getcwd()
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Houses: two numbers, a column of text, one of truth values, and three kinds of target."""
    rng = np.random.default_rng(0)
    rows = 40
    area = rng.uniform(30, 200, rows)
    frame = pd.DataFrame(
        {
            "area": area.round(1),
            "rooms": rng.poisson(area / 40),
            "town": rng.choice(["Bergen", "Kyiv", "Lima"], rows),
            "garden": rng.integers(0, 2, rows).astype(bool),
            "price": (3 * area + rng.normal(0, 20, rows)).round(2),
        }
    )
    file = tmp_path_factory.mktemp("tables") / "houses.csv"
    frame.to_csv(file, index=False)
    return file


@pytest.fixture(scope="module")
def compared(table, tmp_path_factory):
    """One small comparison of each task, made once: (folder, task) to status, output, messages."""
    folder = tmp_path_factory.mktemp("compared")
    small = ("--steps", 30, "--draws", 8, "--hidden", 3, "--test-size", 0.2)
    return folder, {
        task: run(
            *("compare", table, "--task", task, "--target", target, "--methods", methods),
            *(*small, "--out", folder / "new" / task),
        )
        for task, (target, methods, _) in TASKS.items()
    }


@pytest.mark.parametrize("task", TASKS)
def test_compare_prints_a_table_and_writes_two_files(compared, task):
    folder, results = compared
    status, out, err = results[task]
    assert status == 0, err
    assert "32 rows to fit, 8 kept back" in out
    assert repr(TASKS[task][0]) in out
    for word in ("method", "ELPD", "verdict", *TASKS[task][2]):
        assert word in out
    page, data = (folder / "new" / f"{task}.{ending}" for ending in ("html", "nc"))
    assert f"{page}\n{page.with_suffix('.json')}\n{data}\n" in out
    assert page.read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html")
    tree = xr.open_datatree(data, engine="h5netcdf")
    assert len(tree.children) == len(TASKS[task][1].split(","))
    assert {child.attrs["task"] for child in tree.children.values()} == {task}
    tree.close()
    assert not list(folder.rglob("*.part"))


def test_columns_of_text_become_one_for_each_level(compared):
    tree = xr.open_datatree(compared[0] / "new" / "regression.nc", engine="h5netcdf")
    features = tree["NUTS/constant_data"]["feature"].to_series().tolist()
    tree.close()
    assert features == ["area", "rooms", "town=Bergen", "town=Kyiv", "town=Lima", "garden"]


def test_report_builds_the_same_page_again(compared):
    folder, results = compared
    first = folder / "new" / "regression.html"
    status, out, err = run(
        "report", folder / "new" / "regression.nc", "--out", folder / "again.html"
    )
    assert status == 0, err
    assert (folder / "again.html").read_bytes() == first.read_bytes()
    summary = out[: out.index(str(folder))]
    assert "MCDropout" in summary
    assert summary in results["regression"][1]


def test_report_writes_beside_its_file_by_default(compared):
    folder, _ = compared
    page = folder / "new" / "count.html"
    page.unlink()
    assert run("report", folder / "new" / "count.nc")[0] == 0
    assert page.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compare", "TABLE"], ["--target", "area, rooms, town"]),
        (["compare", "TABLE", "--target", "rent"], ["'rent'", "area, rooms, town"]),
        (["compare", "TABLE", "--target", "town"], ["'town'", "classification"]),
        (["compare", "TABLE", "--target", "price", "--test-size", "2"], ["--test-size", "2.0"]),
        (["compare", "--methods", "nuts,magic"], ["--methods", "magic", "autonormal"]),
        (["compare", "--methods", ","], ["--methods", "none"]),
        (["compare", "--steps", "0"], ["steps", "got 0"]),
        (["compare", "--draws", "-1"], ["draws", "got -1"]),
        (["compare", "--task", "count"], ["--task", "yacht"]),
        (["compare", "--target", "price"], ["--target", "yacht", "'price'"]),
        (["compare", "absent.csv", "--target", "y"], ["absent.csv", "yacht"]),
        (["compare", "EMPTY", "--target", "y"], ["empty.csv", "CSV"]),
        (["compare", "HOLES", "--target", "y"], ["2 in a", "1 in b"]),
        (["compare", "--out", "FILE/below/x"], ["--out", "FILE"]),
        (["report", "absent.nc"], ["absent.nc"]),
        (["report", "TABLE"], ["houses.csv", "netCDF"]),
        (["report", "NOFIT"], ["nofit.nc"]),
    ],
)
def test_an_error_is_one_line_that_says_what_to_do(arguments, words, table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty.csv").write_text("")
    Path("holes.csv").write_text("a,b,y\n1,,2\n,x,3\n,z,4\n")
    Path("FILE").write_text("a file where a folder should be")
    xr.DataTree().to_netcdf("nofit.nc", engine="h5netcdf")
    named = {"TABLE": table, "EMPTY": "empty.csv", "HOLES": "holes.csv", "NOFIT": "nofit.nc"}
    status, out, err = run(*(named.get(argument, argument) for argument in arguments))
    lines = [line for line in err.splitlines() if not line.startswith("Loading")]
    assert status == 2
    assert out == ""
    assert len(lines) == 1
    assert lines[0].startswith(f"ppbdl {arguments[0]}: ")
    assert "Traceback" not in err
    for word in words:
        assert word in lines[0]
    assert not list(Path().glob("*.html"))


@pytest.mark.parametrize("arguments", [[], ["dance"], ["compare", "--steps", "many"]])
def test_a_wrong_command_line_is_told_with_the_usage(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "usage: ppbdl" in capsys.readouterr().err


def test_help_answers_at_once():
    out, seconds = in_a_new_process(["-m", "ppbdl", "--help"])
    assert out.startswith("usage: ppbdl")
    assert "compare" in out
    assert "report" in out
    assert seconds < 1  # of the processor; importing JAX alone takes more


def test_help_and_the_face_load_neither_jax_nor_a_plotting_library():
    program = """
import contextlib, sys, ppbdl, ppbdl.cli
with contextlib.suppress(SystemExit):
    ppbdl.cli.main(["compare", "--help"])
heavy = {"jax", "numpyro", "arviz", "matplotlib", "pandas", "xarray", "scipy"}
print("loaded:", sorted(heavy & sys.modules.keys()))
"""
    assert in_a_new_process(["-c", program])[0].endswith("loaded: []\n")


def test_the_whole_core_loads_no_plotting_library():
    program = "import sys, ppbdl; [getattr(ppbdl, name) for name in ppbdl.__all__]; "
    program += "print('matplotlib' in sys.modules, 'arviz' in sys.modules)"
    assert in_a_new_process(["-c", program])[0] == "False False\n"


def test_every_name_of_the_face_resolves():
    for name in ppbdl.__all__:
        assert getattr(ppbdl, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'magic'"):
        ppbdl.magic  # noqa: B018


def test_the_face_tells_type_checkers_what_it_gives():
    source = ast.parse(Path(ppbdl.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in source.body if isinstance(node, ast.If)]
    told = {
        alias.asname: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(told) == ppbdl.__all__
    assert told == {name: (file, name) for name, file in ppbdl._FILE_OF.items()}
