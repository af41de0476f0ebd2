"""The picture of the architecture is that of today's imports, and each module has its paragraph."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.docs.markdown import DOCS, ROOT


def test_the_drawing_is_that_of_the_imports() -> None:
    draw = DOCS / "draw_architecture.py"
    done = subprocess.run([sys.executable, draw, "--check"], check=False)
    assert done.returncode == 0, f"draw it anew: python {draw.relative_to(ROOT)}"


def test_each_module_has_its_paragraph() -> None:
    modules = {
        path.stem
        for path in (ROOT / "labkit").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\*\*`(\w+)`\*\*", page, re.MULTILINE)) == modules - {
        "__init__",
        "__main__",
    }
