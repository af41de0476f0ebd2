"""The programs on the nodes are, to the letter, what the labs' recordings have an answer to."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from labkit import paths, programs

NAMES = sorted(path.stem for path in Path(programs.__file__).parent.glob("[!_]*.py"))


def recorded_programs() -> set[str]:
    """The texts of more than one line that the labs' recordings have sent to `python3 -c`."""
    texts = set()
    for path in (paths.REPOSITORY / "labs" / "evidence").glob("*.gz"):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                argv = json.loads(line).get("argv") or []
                # Run in a place, or as the command of a service.
                if "python3" in argv and "-c" in argv:
                    texts.add(argv[argv.index("-c") + 1])
    return {text for text in texts if "\n" in text}


def test_every_program_is_sent_as_it_was_recorded() -> None:
    asked_by_labs = set(NAMES) - {"attached", "crossing", "hostlook"}  # those are for commands
    assert {programs.source(name) for name in asked_by_labs} == recorded_programs()


@pytest.mark.parametrize("name", NAMES)
def test_every_program_is_described(name: str) -> None:
    assert f"\n    {name} " in (programs.__doc__ or "")
    compile(programs.source(name), name, "exec")


def test_a_command_has_the_text_and_then_its_words() -> None:
    assert programs.argv("watcher", "ipvs") == ["python3", "-c", programs.source("watcher"), "ipvs"]


def test_an_unknown_program_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        programs.source("nobody")
