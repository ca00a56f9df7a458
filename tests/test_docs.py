"""The guide: every check has its page, links lead somewhere, and the site builds offline."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ppbdl.diagnostics import checks

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
NAVIGATION = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
# Attributes by which a browser fetches something; a link to read, `<a href>`, fetches nothing.
FETCHED = re.compile(
    r"""<(?:link\b[^>]*\bhref|(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc)"""
    r"""=["']?(?:https?:)?//""",
    re.I,
)


def name_of(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


@pytest.mark.parametrize("check", checks.__all__)
def test_every_check_has_its_page(check: str) -> None:
    text = (DOCS / "checks" / f"{check}.md").read_text(encoding="utf-8")
    assert f"checks/{check}.md" in NAVIGATION
    assert f"from ppbdl.diagnostics.checks import {check}\n" in text
    for part in ("{ .question }", "| Passes |", "| Reference |", "SideBySide(", "## What to do"):
        assert part in text, part
    assert "## When it does not apply" in text


@pytest.mark.parametrize("check", checks.__all__)
def test_the_page_of_a_check_shows_a_good_and_a_bad_fit(
    check: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(DOCS)
    import hooks

    shown = hooks.run((DOCS / "checks" / f"{check}.md").read_text(encoding="utf-8"), tmp_path)
    assert re.findall(r'class="verdict (\w+)"', shown)[0] == "pass"
    assert re.findall(r'class="verdict (\w+)"', shown)[1] in ("warn", "fail")
    assert len(re.findall(r'<img src="data:image/[^"]{1000,}" alt="[^"]{20,}"', shown)) == 2


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page() -> None:
    named = re.findall(r"([\w/-]+\.md)", NAVIGATION)
    assert len(named) == len(set(named))
    assert set(named) == {name_of(page) for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", text):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_code_of_a_page_is_python(page: Path) -> None:
    """Ours, which is run, and that of others, which is shown."""
    text = page.read_text(encoding="utf-8")
    for code in re.findall(r"^```py(?:thon)?\n(.*?)^```$", text, re.M | re.S):
        if not code.startswith("--8<--"):
            ast.parse(code)


def test_what_a_browser_would_fetch_is_told_from_what_one_reads() -> None:
    fetching = (
        '<script src="https://a.b/c.js">',
        "<link href=//a.b/c.css>",
        '<img src="http://a">',
    )
    assert all(FETCHED.search(text) for text in fetching)
    reading = (
        '<a href="https://a.b">',
        '<img src="data:image/png;base64,//a">',
        '<img src="a//b">',
    )
    assert not any(FETCHED.search(text) for text in reading)


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="the site needs the extra docs")
    # A proxy that nobody serves: what asks for the network fails.
    nowhere = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "all_proxy")}
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT, env=os.environ | nowhere, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    assert not re.search(r"^WARNING", built.stderr, re.M), built.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(PAGES)
    assert (tmp_path / "search" / "search_index.js").exists()
    for page in pages:
        assert not FETCHED.search(page.read_text(encoding="utf-8")), page
    for sheet in (tmp_path / "assets").rglob("*.css"):
        assert not re.search(r"@import|url\([\"']?(?:https?:)?//", sheet.read_text()), sheet
    assert 'class="verdict fail"' in (tmp_path / "checks" / "pit_uniformity.html").read_text()
    assert 'class="verdict' in (tmp_path / "report.html").read_text()
