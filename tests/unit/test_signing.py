"""The host's signature under evidence: what it holds, and what breaks it."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from labkit.errors import UsageError
from labkit.evidence import reader, signing
from labkit.evidence.signing import Signed
from tests.grading.course import write_evidence

LAB = "03_reach_a_container"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "host.key"
    signing.make_key(path)
    return path


@pytest.fixture
def evidence(tmp_path: Path) -> Path:
    path = tmp_path / "in" / f"{LAB}.evidence.jsonl"
    path.parent.mkdir()
    write_evidence(path, "ada")
    return path


def sign(evidence: Path, key: Path, **more: Any) -> Path:
    named = {"lab": LAB, "learner": "ada", **more}
    return signing.sign(evidence, signing.private_key(key), **named)


def verdict(evidence: Path, key: Path, learner: str = "ada", lab: str = LAB) -> tuple[Signed, str]:
    public = signing.public_key(Path(f"{key}.pub"))
    return signing.verify(evidence, reader.content(evidence), public, lab=lab, learner=learner)


def test_signed_unsigned_and_whose(evidence: Path, key: Path) -> None:
    assert verdict(evidence, key) == (Signed.UNSIGNED, f"{LAB}.evidence.sig is not there")
    path = sign(evidence, key)
    assert path == evidence.parent / f"{LAB}.evidence.sig"
    fields = json.loads(path.read_text())
    assert (fields["lab"], fields["learner"], fields["lines"]) == (LAB, "ada", 4)
    assert fields["head"] == json.loads(evidence.read_text().splitlines()[-1])["hash"]
    assert verdict(evidence, key) == (Signed.SIGNED, "")
    assert verdict(evidence, key, learner="bob")[1].endswith("is of another learner")
    assert verdict(evidence, key, lab="04_join_an_overlay")[1].endswith("is of another lab")
    packed = Path(f"{evidence}.gz")
    packed.write_bytes(gzip.compress(evidence.read_bytes()))
    assert verdict(packed, key) == (Signed.SIGNED, "")


@pytest.mark.parametrize(
    "name", ["version", "lab", "learner", "lines", "head", "sha256", "signed", "key"]
)
def test_every_field_is_signed(evidence: Path, key: Path, name: str) -> None:
    path = sign(evidence, key)
    fields = json.loads(path.read_text())
    fields[name] = fields[name] + 1 if isinstance(fields[name], int) else fields[name][:-1] + "~"
    path.write_text(json.dumps(fields))
    assert verdict(evidence, key)[0] is Signed.BROKEN
    del fields[name]
    path.write_text(json.dumps(fields))
    assert verdict(evidence, key) == (Signed.BROKEN, f"{path.name} is no signature")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"[" * 9000, b"\xff", b'{"signature": 3}', b"{" + b" " * 10**6]
)
def test_what_is_no_signature_is_broken(evidence: Path, key: Path, content: bytes) -> None:
    sign(evidence, key).write_bytes(content)
    assert verdict(evidence, key) == (Signed.BROKEN, f"{LAB}.evidence.sig is no signature")


def test_a_changed_byte_breaks_it(evidence: Path, key: Path) -> None:
    sign(evidence, key)
    evidence.write_text(evidence.read_text().replace("3 packets", "9 packets"))
    assert verdict(evidence, key) == (Signed.BROKEN, f"{LAB}.evidence.sig is of another file")


def test_the_key_is_its_owners_alone(tmp_path: Path, key: Path) -> None:
    assert key.stat().st_mode & 0o777 == 0o600
    with pytest.raises(UsageError, match="is there already"):
        signing.make_key(key)
    key.chmod(0o640)
    with pytest.raises(UsageError, match="is open to others"):
        signing.private_key(key)
    link = tmp_path / "link.key"
    link.symlink_to(key)
    with pytest.raises(UsageError, match="a link to another file"):
        signing.private_key(link)
    with pytest.raises(UsageError, match="there is no public key"):
        signing.public_key(tmp_path / "none.pub")
    with pytest.raises(UsageError, match="no public key that can be read") as refused:
        signing.public_key(key)
    assert key.read_text() not in str(refused.value)


def test_only_whole_evidence_of_the_learner_is_signed(evidence: Path, key: Path) -> None:
    with pytest.raises(UsageError, match="it is of 'ada', not of 'bob'"):
        sign(evidence, key, learner="bob")
    evidence.write_text(evidence.read_text().replace("3 packets", "9 packets"))
    with pytest.raises(UsageError, match="was changed after it was written"):
        sign(evidence, key)


def test_a_learners_folder_leads_nowhere_else(tmp_path: Path, evidence: Path, key: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("not to be touched")
    (evidence.parent / f"{LAB}.evidence.sig").symlink_to(other)
    sign(evidence, key)
    assert other.read_text() == "not to be touched"
    assert verdict(evidence, key)[0] is Signed.SIGNED
    assert len(os.listdir(evidence.parent)) == 2
    moved = tmp_path / "link"
    moved.symlink_to(evidence.parent)
    with pytest.raises(UsageError, match="cannot be written"):
        sign(moved / evidence.name, key)
