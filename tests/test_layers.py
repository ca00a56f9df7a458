"""Who may import whom: the floors of the house, read from the source."""

import ast
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = [
    {"types", "errors", "arrays", "compiling", "noise"},
    {
        "data",
        "scaling",
        "frame",
        "datasets",
        "structure",
        "latents",
        "module",
        "network",
        "posterior",
        "flows",
        "guides",
    },
    {"handlers", "potential", "streaming", "prediction", "scoring", "datatree", "storage"}
    | {"gaussian", "likelihood", "fisher", "linearization"}
    | {"models"},
    {"inference", "fitting", "comparison", "calibration"},
    {"cli", "contenders", "__init__"},
    {"__main__"},
]
FLOOR = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}
APART = {"diagnostics", "models"}  # the core does not know them; only the command may
COMMAND = {"cli", "contenders", "__main__"}


def part_of(module: str) -> str:
    """The part of ppbdl to which a module belongs: ppbdl.inference.svi to inference."""
    _, _, inside = module.partition(".")
    return inside.split(".")[0] or "__init__"


def imported(module: str, source: str, is_face: bool):
    """Names of the modules that a source imports when it runs, made absolute."""
    package = module if is_face else module.rpartition(".")[0]
    tree = ast.parse(source)
    for node in ast.walk(tree):  # what is imported for type checkers only never runs
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            name = resolve_name("." * node.level + (node.module or ""), package)
            known = FLOOR.keys() | APART
            parts = [alias.name for alias in node.names if alias.name in known]
            yield from (f"ppbdl.{part}" for part in parts) if name == "ppbdl" and parts else (name,)


def violations(sources: dict[str, str]) -> list[str]:
    """What breaks the house's rules, in sources by path such as ``ppbdl/data.py``."""
    found, uses = [], {}
    for path, source in sources.items():
        inside = path if path.startswith("ppbdl/") else f"ppbdl/{path}"
        module = inside.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        part = part_of(module)
        if part not in FLOOR and part != "diagnostics":
            found.append(f"{path}: has no floor")
            continue
        for name in imported(module, source, inside.endswith("/__init__.py")):
            top, target = name.split(".")[0], part_of(name)
            if top in APART:
                found.append(f"{path}: imports the bare {name}")
            if top != "ppbdl" or target == part:
                continue
            uses.setdefault(part, set()).add(target)
            if part == "diagnostics":
                found.append(f"{path}: diagnostics imports {name}")
            elif target in APART and part not in COMMAND:
                found.append(f"{path}: the core imports {name}")
            elif target not in APART and FLOOR.get(target, 99) > FLOOR[part]:
                found.append(f"{path}: imports {name} from a higher floor")
    try:
        TopologicalSorter(uses).prepare()
    except CycleError as error:
        found.append(f"a circle: {' -> '.join(error.args[1])}")
    return found


def test_the_house_keeps_its_floors():
    folders = [folder for folder in ("ppbdl", "models", "diagnostics") if (ROOT / folder).is_dir()]
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    sources = {path.relative_to(ROOT).as_posix(): path.read_text() for path in paths}
    links = ("ppbdl/models/", "ppbdl/diagnostics/")  # some versions of rglob follow links
    sources = {path: text for path, text in sources.items() if not path.startswith(links)}
    assert len(sources) > 10
    assert violations(sources) == []


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"ppbdl/data.py": "from .prediction import predict"}, "higher floor"),
        ({"ppbdl/data.py": "def f():\n    from . import fitting"}, "higher floor"),
        ({"ppbdl/fitting.py": "from ppbdl import Data"}, "higher floor"),
        ({"ppbdl/guides/dropout.py": "from ..inference.elbo import ELBO"}, "higher floor"),
        ({"ppbdl/prediction.py": "import ppbdl.models.bnn"}, "the core imports"),
        ({"ppbdl/__init__.py": "from . import diagnostics"}, "the core imports"),
        ({"models/bnn.py": "from ppbdl.inference import SVI"}, "higher floor"),
        ({"models/bnn.py": "from models.likelihoods import Normal"}, "bare models"),
        ({"ppbdl/cli.py": "import diagnostics"}, "bare diagnostics"),
        ({"diagnostics/report.py": "from ppbdl.data import Data"}, "diagnostics imports"),
        ({"diagnostics/checks/a.py": "from ...data import Data"}, "diagnostics imports"),
        (
            {"ppbdl/data.py": "from .frame import f", "ppbdl/frame.py": "from .data import d"},
            "circ",
        ),
        ({"ppbdl/utils.py": ""}, "no floor"),
    ],
)
def test_a_planted_violation_is_caught(sources, message):
    (found,) = violations(sources)
    assert message in found


@pytest.mark.parametrize(
    "sources",
    [
        {"ppbdl/cli.py": "from .models import BNN\nfrom .diagnostics import report"},
        {"models/__init__.py": "from .bnn import BNN", "models/bnn.py": "from ppbdl.data import D"},
        {"diagnostics/checks/a.py": "from ..verdict import Verdict"},
        {"ppbdl/types.py": "if TYPE_CHECKING:\n    from .data import Data"},
    ],
)
def test_what_is_allowed_is_not_caught(sources):
    assert violations(sources) == []


def test_numpyro_is_imported_whole_before_its_distributions():
    """ArviZ leaves a lazy NumPyro behind: `import numpyro.distributions` would then run it twice.

    The second copy lacks its own parts, and `numpyro.factor` falls over.
    """
    for path in [*(ROOT / "ppbdl").rglob("*.py"), *(ROOT / "models").rglob("*.py")]:
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [str(node.module)]
            if any(name.partition(".")[0] == "numpyro" for name in names):
                assert not names[0].startswith("numpyro.distributions"), path
                break
