"""Where the kit's files are: in a checkout, and in an installed wheel."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from labkit import paths


@pytest.fixture
def shipped(tmp_path: Path) -> ModuleType:
    """`labkit.paths` as it is in an installed package."""
    package = tmp_path / "site-packages" / "labkit"
    (package / "_kit").mkdir(parents=True)
    file = shutil.copy(paths.__file__, package)
    spec = importlib.util.spec_from_file_location("shipped_paths", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_in_a_checkout_the_folders_on_top_are_used() -> None:
    assert paths.CHECKOUT == Path(__file__).resolve().parents[2] == paths.results()
    for folder in (paths.COMPOSE, paths.SOURCES, paths.RELEASE, paths.EVIDENCE, paths.JUPYTER_CONFIG):
        assert folder.is_dir()
    assert paths.MATRIX.is_file()
    assert paths.PLAIN_UP.is_file()


def test_in_a_wheel_the_copies_in_the_package_are_used(
    shipped: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "labkit"
    assert shipped.CHECKOUT is None
    assert package / "_kit" / "compose" == shipped.COMPOSE
    assert package / "_kit" / "labs" / "release" == shipped.RELEASE
    assert package / "jupyter" == shipped.JUPYTER_CONFIG
    monkeypatch.chdir(tmp_path)
    assert shipped.results() == tmp_path


def test_one_variable_moves_all_that_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path))
    assert paths.cache() == tmp_path / "cache"
    assert paths.machines() == tmp_path / "labs"


def test_machines_are_where_the_kernel_says_that_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").symlink_to(tmp_path / "data")
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / "home"))
    assert paths.machines() == tmp_path / "data" / "labs"
