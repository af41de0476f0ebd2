"""The installed wheel does all that a checkout does: on recorded answers, and on a swarm of its own."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import nbformat
import pytest

from labkit import __version__, paths
from tests.dist.conftest import Installed
from tests.jupyter import serving

LAB = "03_reach_a_container"
LIVE = "06_find_a_name"  # the shortest lab with questions of each kind: 77 s in emulation
ANNOUNCEMENTS = "@jupyterlab/apputils-extension:announcements"


def test_the_package_is_whole_without_a_checkout(installed: Installed) -> None:
    assert installed("labkit", "--version").stdout == f"labkit {__version__}\n"
    code = "from labkit import paths; print(paths.CHECKOUT, paths.LABS.is_relative_to(paths.PACKAGE))"
    assert installed("python", "-c", code).stdout.split() == ["None", "True"]
    assert json.loads(installed("labkit", "doctor", "--json").stdout)["engine"] == "vm"
    claims = json.loads(installed("labkit", "claims", "--json").stdout)
    assert all(claim["lab"] for claim in claims)
    assert {version for claim in claims for version in claim["seen"]} == {"20.10", "26.1", "28.5"}


def test_a_lab_runs_on_its_recording_and_reports_into_the_current_directory(
    installed: Installed,
) -> None:
    done = installed("labkit", "run", "03", "--replay", installed.evidence(), "--json")
    outcome = json.loads(done.stdout)
    assert outcome["failed"] == 0 < outcome["passed"]
    assert (installed.cwd / "report" / "index.html").is_file()
    assert "labs/release/00_read_this_first.ipynb\n" in installed("labkit", "release").stdout


def test_labs_are_copied_opened_for_this_machine_only_and_kept(
    installed: Installed, tmp_path: Path
) -> None:
    env = {**installed.env, "LABKIT_REPLAY": str(installed.evidence())}
    argv = [installed.bin / "labkit", "lab", "mine", "--no-browser"]
    log = tmp_path / "jupyter.log"
    with serving(argv, log=log, env=env, cwd=installed.cwd) as url:
        with urllib.request.urlopen(url) as answer:
            page = answer.read().decode()
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(re.sub(r"/lab\?.*", "/api/contents", url))
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(re.sub(r"/lab\?.*", "/labkit/swarm", url))
        with urllib.request.urlopen(re.sub(r"/lab\?", "/labkit/labs?", url)) as answer:
            assert len(json.load(answer)) == 15
        for part in ("container", "extension"):
            script = re.sub(r"/lab\?.*", f"/lab/extensions/labkit/static/{part}.js", url)
            assert urllib.request.urlopen(script).status == 200
    found = re.search(r'id="jupyter-config-data"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert found
    settings = json.loads(found[1])
    assert {ANNOUNCEMENTS, "@jupyter/nbgrader"} <= set(settings["disabledExtensions"])
    assert "labkit" in [extension["name"] for extension in settings["federated_extensions"]]
    assert "copied into mine: 00_read_this_first.ipynb to 14_keep_a_connection.ipynb" in log.read_text()

    work = installed.cwd / "mine" / f"{LAB}.ipynb"
    work.write_text(work.read_text() + "\n")
    mine = work.read_bytes()
    with serving(argv, log=log, env=env, cwd=installed.cwd):
        pass
    assert work.read_bytes() == mine
    assert f"kept as you left it: {LAB}.ipynb\n" in log.read_text()
    assert "already there and untouched: 00_read_this_first.ipynb" in log.read_text()


def hand_in(installed: Installed, notebook: Path, evidence: Path, learner: str) -> Path:
    """Lay a notebook and its evidence down as a submission; the class's folder."""
    folder = installed.cwd / "class" / learner
    folder.mkdir(parents=True)
    shutil.copy(notebook, folder)
    shutil.copy(evidence, folder)
    return folder.parent


def grade(installed: Installed, handed_in: Path, **env: str) -> dict[str, Any]:
    """Grade the one submission of a class."""
    (row,) = json.loads(installed("labkit", "grade", handed_in, "--json", **env).stdout)
    assert row["status"] == "graded", row
    return dict(row)


def test_a_submission_cannot_read_the_solutions_that_the_package_brings(
    installed: Installed, tmp_path: Path
) -> None:
    recordings = installed.evidence()
    installed("labkit", "run", "03", "--replay", recordings)
    notebook = installed.cwd / "report" / "notebooks" / f"{LAB}.ipynb"
    content = nbformat.read(notebook, as_version=4)
    look = "from labkit import paths; print('files:', list(paths.LABS.rglob('*.*')))"
    content.cells.append(nbformat.v4.new_code_cell(look))
    nbformat.write(content, notebook)
    evidence = tmp_path / f"{LAB}.evidence.jsonl"
    evidence.write_bytes(gzip.decompress((recordings / f"{evidence.name}.gz").read_bytes()))
    learner = json.loads(evidence.read_text().splitlines()[0])["learner"]
    row = grade(installed, hand_in(installed, notebook, evidence, learner))
    assert row["points"] > 0
    (marked,) = (installed.cwd / "grades" / "autograded").rglob(f"{LAB}.ipynb")
    outputs = [
        o.text
        for c in nbformat.read(marked, as_version=4).cells
        for o in c.get("outputs", ())
        if o.output_type == "stream"
    ]
    assert "files: []\n" in outputs


def shown(notebook: Path) -> list[Any]:
    """The tables and pictures of a notebook that ran, cell by cell; there are some of both."""
    cells = nbformat.read(notebook, as_version=4).cells
    every = [(cell.id, o["data"]) for cell in cells for o in cell.get("outputs", ()) if "data" in o]
    tables = [(name, d["text/html"]) for name, d in every if "<table" in d.get("text/html", "")]
    pictures = [(name, d["image/png"]) for name, d in every if "image/png" in d]
    assert tables
    assert pictures
    return tables + pictures


@pytest.mark.live
def test_a_lab_on_a_swarm_from_the_wheel(installed: Installed, tmp_path: Path) -> None:
    """The machine and the saved state come from this user's cache; what runs has a place of its own.

    Every check of the lab passes, its evidence gives the same tables and pictures again, and full
    marks. The others are replayed in tests/grading and tests/browser, where a request that was never
    recorded fails; two more run live in tests/browser; `make matrix` runs each on three versions.
    """
    home = tmp_path / "kit"
    home.mkdir()
    paths.cache().mkdir(parents=True, exist_ok=True)
    (home / "cache").symlink_to(paths.cache())
    env = {"LABKIT_HOME": str(home), "LABKIT_LEARNER": "learner"}
    try:
        up = json.loads(installed("labkit", "up", "--json", timeout=900, **env).stdout)
        assert (up["engine"], len(up["nodes"])) == ("vm", 3)
        ran = json.loads(installed("labkit", "run", "06", "--json", timeout=900, **env).stdout)
        assert ran["failed"] == 0 < ran["passed"]
        report = installed.cwd / "report"
        for page in (report / "index.html", report / f"{LIVE}.html"):
            assert 'src="http' not in page.read_text()
        assert "data:image/png;base64" in page.read_text()
        done = report / "notebooks"
        replayed = ("--replay", done, "--report", "again")
        again = json.loads(installed("labkit", "run", "06", *replayed, "--json", **env).stdout)
        assert (again["failed"], again["passed"]) == (0, ran["passed"])
        assert shown(installed.cwd / "again" / "notebooks" / f"{LIVE}.ipynb") == shown(
            done / f"{LIVE}.ipynb"
        )
        handed_in = hand_in(
            installed, done / f"{LIVE}.ipynb", done / f"{LIVE}.evidence.jsonl", "learner"
        )
        row = grade(installed, handed_in, **env)
        marked = [q for q in row["questions"] if q["points"] is not None]  # a person gives the others
        assert marked
        assert [q["id"] for q in marked if q["points"] != q["max"]] == []
        with serving(
            [installed.bin / "labkit", "lab", "mine", "--no-browser"],
            log=tmp_path / "jupyter.log",
            env={**installed.env, **env},
            cwd=installed.cwd,
        ) as url:
            assert urllib.request.urlopen(url).status == 200
        assert "lab default: 3 nodes with Docker 26.1" in (tmp_path / "jupyter.log").read_text()
    finally:
        down = json.loads(installed("labkit", "down", "--all", "--json", **env).stdout)
    assert down == {"down": ["default"]}
    assert not list((home / "labs").glob("*"))
