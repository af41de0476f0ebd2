"""What the source distribution and the wheel hold, and what the wheel says of itself."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

from packaging.metadata import Metadata

from labkit import __version__
from tests.dist.conftest import ROOT


def tree(folder: Path) -> set[str]:
    """The files below a folder of the repository that belong to the kit, by name."""
    return {
        str(path.relative_to(ROOT))
        for path in folder.rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and ".ipynb_checkpoints" not in path.parts
        and not path.name.endswith(".evidence.jsonl")
        # The pages of the labs are made by other tests, perhaps at this moment.
        and not (path.parent == ROOT / "docs" / "labs" and path.name[0].isdigit())
    }


def test_the_wheel_holds_the_package_and_the_kit_and_nothing_else(wheel: Path) -> None:
    kit = tree(ROOT / "labs") | tree(ROOT / "compose") | {"bench/plain_up.sh", "tests/matrix.json"}
    wanted = tree(ROOT / "labkit") | {f"labkit/_kit/{name}" for name in kit}
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == wanted


def test_programs_in_the_wheel_can_be_executed(wheel: Path) -> None:
    for entry in zipfile.ZipFile(wheel).infolist():
        source = ROOT / entry.filename.removeprefix("labkit/_kit/")
        if entry.filename.startswith("labkit/_kit/") and source.stat().st_mode & 0o100:
            assert entry.external_attr >> 16 & 0o111, entry.filename


def test_the_source_distribution_is_enough_to_build_and_test_from(distributions: Path) -> None:
    (archive,) = distributions.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    folders = ("labkit", "labs", "compose", "tests", "tools", "docs", "bench", ".ci")
    files = {"Makefile", "setup.py", "pyproject.toml", "requirements.lock", "LICENSE", "README.md"}
    for wanted in (files, *(tree(ROOT / folder) for folder in folders)):
        assert wanted <= names


def test_the_metadata_is_valid_and_has_the_version_of_the_package(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = Metadata.from_email(archive.read(name), validate=True)
    assert str(metadata.version) == __version__
    assert metadata.description_content_type == "text/markdown"
    assert metadata.license_expression == "Apache-2.0"
