"""The page of environment variables names all that the code reads, and no other."""

from __future__ import annotations

import re

from tests.docs.markdown import DOCS, ROOT

PLACES = ["labkit", "compose", "tests", "tools", "Makefile"]
_NAME = re.compile(r"LABKIT_[A-Z_]+[A-Z]")


def test_every_variable_is_on_the_page() -> None:
    files = [path for name in PLACES for path in [ROOT / name, *(ROOT / name).rglob("*")]]
    used = {
        name
        for path in files
        if path.is_file() and (path.suffix in (".py", ".yaml", ".sh") or not path.suffix)
        for name in _NAME.findall(path.read_text(encoding="utf-8", errors="replace"))
    }
    page = (DOCS / "reference" / "environment.md").read_text(encoding="utf-8")
    assert set(_NAME.findall(page)) == used
