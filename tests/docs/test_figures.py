"""Every figure of every lab can be read by everybody: as words, in contrast, and from the last row."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import nbformat
import pytest

from labkit import paths
from labkit.authoring import release, runner

IMAGE = re.compile(r'<img src="data:image/png;base64,[^"]+" alt="([^"]*)">')
LABS = release.find_labs(paths.SOURCES)
FIRST = """
```{{code-cell}}
from tests import figures
figures.look_at_all({file!r})
```

"""


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.stem)
def test_figures(lab: Path, tmp_path: Path) -> None:
    file = tmp_path / "figures.jsonl"
    text = lab.read_text()
    before = text.index("```{code-cell}")
    source = tmp_path / "source" / lab.name
    source.parent.mkdir()
    source.write_text(text[:before] + FIRST.format(file=str(file)) + text[before:])
    env = {"PYTHONPATH": str(paths.REPOSITORY)}
    (result,) = runner.run_labs([source], workdir=tmp_path, env=env, timeout=120, replay=paths.EVIDENCE)
    assert not result.error
    figures = [json.loads(line) for line in file.read_text().splitlines()]
    assert figures
    for figure in figures:
        assert len(figure["alt"]) > 60, figure
        assert figure["faint"] == [], figure["alt"]
        assert figure["smallest"] >= 8, figure["alt"]
    notebook = nbformat.read(result.notebook_path, as_version=4)  # type: ignore[no-untyped-call]
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert [text for output in outputs for text in texts_of(output)] == [f["alt"] for f in figures]


def texts_of(output: dict[str, Any]) -> list[str | None]:
    """The alternative texts of the pictures in an output: a picture, or those in a panel's HTML."""
    data, about = output.get("data", {}), output.get("metadata", {})
    if "image/png" in data:
        return [about.get("image/png", {}).get("alt") or about.get("alt")]
    return [unescape(text) for text in IMAGE.findall(data.get("text/html", ""))]
