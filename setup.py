"""Puts the kit's top-level folders into the wheel, as labkit/_kit; all else is in pyproject.toml.

They stay on top of the repository because people read and edit them there. An editable install takes
them from there too, and `labkit.paths` knows both places.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

KIT = (
    "bench/plain_up.sh",
    "compose/**/*",
    "labs/claims.yaml",
    "labs/evidence/*.jsonl.gz",
    "labs/release/*.ipynb",
    "labs/source/*.md",
    "tests/matrix.json",
)


def kit_files() -> list[Path]:
    """Return the files to copy, relative to the repository."""
    found = (path for pattern in KIT for path in Path().glob(pattern))
    return sorted(path for path in found if path.is_file() and "__pycache__" not in path.parts)


class BuildWithKit(build_py):
    """Copies the kit's files beside the modules of a package that is built, not of an editable one."""

    def run(self) -> None:
        """Build the modules, then copy."""
        super().run()
        if self.editable_mode:
            return
        for path in kit_files():
            target = Path(self.build_lib, "labkit", "_kit", path)
            self.mkpath(str(target.parent))
            self.copy_file(str(path), str(target))


setup(cmdclass={"build_py": BuildWithKit})
