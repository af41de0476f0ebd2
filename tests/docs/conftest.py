"""The mark of the tests that build the site; `pytest -m 'not docs'` saves their minute."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark."""
    config.addinivalue_line("markers", "docs: builds the documentation site")
