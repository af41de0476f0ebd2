"""A gradebook that cannot be opened is told without its password."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from labkit.errors import UsageError
from labkit.grading.gradebook import Book


@pytest.mark.filterwarnings("ignore:Query string argument")
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:s3cr3t@127.0.0.1:9/grades",
        "postgresql://ada:p@s3cr3t@127.0.0.1/grades",
        "postgresql://ada:x/s3cr3t@127.0.0.1/grades",
        "postgresql://127.0.0.1:s3cr3t/grades",
        "mysql+pymysql://127.0.0.1/grades?password=s3cr3t",
        "nosuch://ada:s3cr3t@host/grades",
        "s3cr3t",
        "sqlite:////no/such/folder/grades.db?key=s3cr3t",
    ],
)
def test_no_password_is_told(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match=r"the gradebook .* cannot be opened: ") as refused:
        Book(tmp_path, url)
    assert "s3cr3t" not in "".join(traceback.format_exception(refused.value))
    assert "--db takes a SQLAlchemy URL" in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_the_courses_settings_are_its_owners_alone(tmp_path: Path) -> None:
    Book(tmp_path)
    assert (tmp_path / "nbgrader_config.py").stat().st_mode & 0o077 == 0
