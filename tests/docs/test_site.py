"""The site builds without a warning, asks no other server for anything, and gives no answer away."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.authoring import release
from tests.docs.markdown import DOCS, ROOT

SOURCES = release.find_labs(ROOT / "labs" / "source")
_LOADED = re.compile(
    r"<(?:script|link|img|iframe|source|object|embed)\b[^>]*?\b(?:src|href|data)=\"([^\"]*)"
)
_SHORTEST_ANSWER = 4  # characters; `x=1` may stand anywhere


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does; where the kernel allows it, with no network at all."""
    target = tmp_path_factory.mktemp("site")
    alone = [
        "unshare",
        "--user",
        "--map-root-user",
        "--net",
        "sh",
        "-c",
        'ip link set lo up && exec "$@"',
        "-",
    ]
    works = shutil.which("unshare") and subprocess.run([*alone, "true"], check=False).returncode == 0
    build: list[str | Path] = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-b",
        "html",
        DOCS,
        target,
    ]
    done = subprocess.run(
        [*(alone if works else []), *build], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return target


@pytest.mark.docs
def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        for address in _LOADED.findall(page.read_text(encoding="utf-8")):
            assert not re.match(r"(?:[a-z]+:)?//", address), f"{page.name} loads {address}"
    for style in site.rglob("*.css"):
        found = re.findall(
            r"url\([\"']?((?:https?:)?//[^)]*)|@import", style.read_text(encoding="utf-8")
        )
        assert not found, f"{style.name} loads {found}"


@pytest.mark.docs
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_labs_page_has_its_pictures_and_no_answer(site: Path, source: Path) -> None:
    page = (site / "labs" / f"{source.stem}.html").read_text(encoding="utf-8")
    text = html.unescape(re.sub(r"<[^>]+>", "", page))
    assert "The output on this page is recorded" in text
    assert f"_images/{source.stem}-1.png" in page
    assert "BEGIN SOLUTION" not in text
    for cell in release.read_source(source).cells:
        hidden = [*release.solution(cell).splitlines(), *release.hidden_lines(cell.source)]
        for line in hidden:
            if len(line.strip()) >= _SHORTEST_ANSWER:
                assert line.strip() not in text
        if "remove-cell" in cell.metadata.tags:
            assert cell.source not in text


@pytest.mark.docs
def test_every_command_has_a_section(site: Path) -> None:
    page = (site / "reference" / "command.html").read_text(encoding="utf-8")
    for command in ("up", "exec", "vm-export", "fault-inject", "checkpoint-restore"):
        assert f'id="labkit-{command}"' in page
