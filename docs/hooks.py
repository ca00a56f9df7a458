"""What the site's build adds to MkDocs: pages run like notebooks, and the examples become pages.

The ``python`` blocks of a page run in order, in one namespace, in a folder of their own. What they
print, and what their last expression is, stands below the block. An error stops the build. Blocks
marked ``py`` are shown only, and so are all blocks of a page that says ``run: false`` in front. A
file that a page's code leaves behind with the ending ``.html`` is put beside the page.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import sys
import textwrap
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
BLOCK = re.compile(r"^(?P<indent> *)```python\n(?P<code>.*?)^(?P=indent)```$", re.M | re.S)
_LEFT: dict[str, bytes] = {}


def run(text: str, folder: Path, name: str = "page") -> str:
    """Run a page's python blocks within `folder`; give the text with their output below them."""
    import matplotlib as mpl

    mpl.use("Agg")
    if str(HERE) not in sys.path:
        sys.path.insert(0, str(HERE))
    namespace: dict[str, Any] = {"__name__": "page"}

    def with_output(block: re.Match[str]) -> str:
        # Blank lines in front, so that a traceback names the page's own line.
        lines = "\n" * text[: block.start("code")].count("\n")
        printed, shown = _execute(lines + textwrap.dedent(block["code"]), namespace, name)
        below = f"\n\n```{{ .text .output }}\n{printed.rstrip()}\n```" if printed.strip() else ""
        below += f"\n\n{shown}\n" if shown else ""
        return block[0] + textwrap.indent(below, block["indent"])

    with contextlib.chdir(folder):
        return BLOCK.sub(with_output, text)


def _execute(code: str, namespace: dict[str, Any], name: str) -> tuple[str, str]:
    """Run one block; give what it printed, and the HTML of its last expression."""
    tree, printed, value = ast.parse(code, name), io.StringIO(), None
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, name, "exec"), namespace)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), name, "eval"), namespace)
        html = getattr(value, "_repr_html_", None)
        if value is not None and html is None:
            print(repr(value))
    # A data frame's table comes with a look of its own, which the site's would have to fight.
    shown = "" if html is None else html().replace(' border="1" class="dataframe"', "")
    return printed.getvalue(), f'<div class="shown">{_one_line(shown)}</div>' if shown else ""


def _one_line(html: str) -> str:
    """Return HTML without the line breaks at which Markdown would end it."""
    return re.sub(r"\s*\n\s*", " ", html.strip())


def on_config(config: Any) -> Any:
    config.nav.append({"Examples": [f"examples/{path.stem}.md" for path in _examples()]})
    return config


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    for path in _examples():
        opening, _, code = path.read_text().removeprefix('"""').partition('"""')
        number, title = path.stem[:2], path.stem[3:].replace("_", " ").replace("vae", "VAE")
        heading = f"# {number}. {title[0].upper()}{title[1:]}"
        content = f"{heading}\n\n{opening.strip()}\n\n```py\n{code.strip()}\n```\n"
        files.append(File.generated(config, f"examples/{path.stem}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    # The repository's own links lead to a program; the site's to its page.
    up = "../" * page.file.src_uri.count("/")
    text = re.sub(r"\]\((?:\.\./)+examples(?:/(\w+)\.py)?\)", partial(_to_example, up), markdown)
    if not page.meta.get("run", True):
        return text
    with TemporaryDirectory() as folder:
        text = run(text, Path(folder), page.file.src_uri)
        beside = Path(page.file.dest_uri).parent
        for left in Path(folder).glob("*.html"):
            _LEFT[str(beside / left.name)] = left.read_bytes()
    return text


def on_post_build(config: Any) -> None:
    from mkdocs.exceptions import PluginError

    for place, content in _LEFT.items():
        target = Path(config.site_dir) / place
        if target.exists():
            raise PluginError(f"A page's code wrote {place}, which is a page of the site itself.")
        target.write_bytes(content)
    _LEFT.clear()


def _examples() -> list[Path]:
    return sorted(EXAMPLES.glob("*.py"))


def _to_example(up: str, link: re.Match[str]) -> str:
    return f"]({up}examples/{link[1] or _examples()[0].stem}.md)"
