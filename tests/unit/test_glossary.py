"""docs/glossary.md: its words stand in order, and what it names exists."""

from __future__ import annotations

import pkgutil
import re

from labkit import paths

TEXT = (paths.REPOSITORY / "docs" / "glossary.md").read_text()


def test_each_list_is_in_order_and_says_where_a_word_is_at_home() -> None:
    for part in TEXT.split("\n## ")[1:]:
        entries = [entry for entry in part.split("\n\n") if entry.startswith("**")]
        words = [re.sub(r"[^a-z]", "", entry.split("**")[1].lower()) for entry in entries]
        assert words == sorted(words)
        for entry in entries:
            assert re.search(r" · [A-Z].*\*.*\*$", entry, re.DOTALL), entry


def test_every_name_is_one_of_the_kits() -> None:
    names = re.findall(r"`(labkit\.[\w.]+)`", TEXT)
    assert len(names) > 15
    for name in names:
        pkgutil.resolve_name(name)


def test_every_lab_and_folder_is_there() -> None:
    labs = {path.name[:2] for path in (paths.REPOSITORY / "labs" / "source").glob("*.md")}
    named = re.findall(r"\*Labs? ([\d, and\n]+)", TEXT)
    assert {number for text in named for number in re.findall(r"\d\d", text)} <= labs
    for folder in re.findall(r"`((?:compose|labs)/[\w./]*)`", TEXT):
        assert (paths.REPOSITORY / folder).exists(), folder
