"""Slides as `labkit class slides` makes them, of a lab that is run on its recording."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from labkit import paths
from labkit.authoring import release
from labkit.classroom import slides
from labkit.progress import Progress


def test_a_labs_own_pictures_are_on_its_slides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / "home"))
    labs = release.find_labs(paths.SOURCES, ["06"])
    (file,) = slides.write(labs, tmp_path / "out", Progress())
    text = file.read_text(encoding="utf-8")
    pictures = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)"', text)
    assert len(pictures) == text.count("<img") > 1
    for picture, alt in pictures:
        assert base64.b64decode(picture).startswith(b"\x89PNG")
        assert len(alt) > 60
    assert not re.search(r"(?:src|href)=\"(?!data:)", text)
