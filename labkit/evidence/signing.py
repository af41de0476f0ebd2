"""Signatures under evidence: that this host received this file from this learner at this time.

A chain of hashes holds no secret, so whoever runs labkit on a computer of their own can write a false
one. Where the instructor runs the server, the host signs what was handed in with a key that learners
cannot read (Ed25519). From then on the file cannot be changed, nor handed in by somebody else, without
breaking the signature. What the learner's own processes wrote into it before is as true as those are.

The signature lies beside the evidence, in `LAB.evidence.sig`, as JSON:

    version, lab, learner    1; the notebook's name and whose it is, as the host knows it
    lines, head, sha256      of the evidence: number of lines, hash of the last one, hash of the whole
                             file, unpacked
    signed                   when, in UTC
    key, signature           16 hex digits of the public key's SHA-256; Ed25519 over the other fields,
                             in Base64
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.errors import UsageError
from labkit.evidence import files, keys, reader

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_FIELDS = ("version", "lab", "learner", "lines", "head", "sha256", "signed", "key")
_PURPOSE = b"labkit evidence\n"  # a signature of something else is none of evidence
_NEW_KEY = "labkit signing-key KEYFILE makes a pair of keys"


class Signed(StrEnum):
    """What becomes of a signature."""

    SIGNED = "signed"
    UNSIGNED = "unsigned"
    BROKEN = "broken"


class NotWritten(UsageError):
    """A signature that cannot be written: no room is left, or the folder is not the host's."""


def make_key(path: Path) -> Path:
    """Write a new pair of keys, as `keys.write_pair` does, and return the path of the public one."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return keys.write_pair(path, Ed25519PrivateKey.generate())


def private_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key; raises UsageError where it is none, or others could read it too."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = keys.private(path, _NEW_KEY)
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"the key {path} is not of Ed25519", hint=_NEW_KEY)
    return key


def public_key(path: Path) -> Ed25519PublicKey:
    """Read a public key; raises UsageError where it is none."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key = keys.public(path, _NEW_KEY)
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"the public key {path} is not of Ed25519", hint=_NEW_KEY)
    return key


def sign(
    evidence: Path, key: Ed25519PrivateKey, *, lab: str, learner: str, now: datetime | None = None
) -> Path:
    """Sign a file of evidence as one learner's, and return the path of the signature beside it.

    The folder may be the learner's: no link in it is followed. Raises UsageError where the evidence
    cannot be read, its chain is broken, or a line of it is another learner's; NotWritten where the
    signature cannot be written.
    """
    data = reader.content(evidence)
    found = reader.parse(evidence, data)
    if found.broken:
        raise UsageError(
            f"{evidence} was not signed: {found.broken[0][1]}",
            hint="the learner removes it, runs the notebook again and hands in anew",
        )
    others = sorted({line.row["learner"] for line in found.lines} - {learner})
    if others:
        raise UsageError(
            f"{evidence} was not signed: it is of {others[0]!r}, not of {learner!r}",
            hint="on the server, LABKIT_LEARNER is the learner's id",
        )
    fields = {
        "version": 1,
        "lab": lab,
        "learner": learner,
        "lines": len(found.lines),
        "head": found.head,
        "sha256": hashlib.sha256(data).hexdigest(),
        "signed": (now or datetime.now(UTC)).isoformat(timespec="seconds"),
        "key": _name_of(key.public_key()),
    }
    signature = base64.b64encode(key.sign(_message(fields))).decode()
    target = signature_beside(evidence)
    text = json.dumps({**fields, "signature": signature}, indent=2) + "\n"
    _write_into_a_strangers_folder(target, text.encode())
    return target


def signature_beside(evidence: Path) -> Path:
    """Return where the signature of a file of evidence lies."""
    stem = evidence.name.removesuffix(".gz").removesuffix(files.SUFFIX)
    return evidence.with_name(f"{stem}{files.SIGNATURE_SUFFIX}")


def verify(
    evidence: Path, data: bytes, key: Ed25519PublicKey, *, lab: str, learner: str
) -> tuple[Signed, str]:
    """Tell whether evidence is signed for a lab and a learner; the text says why where it is not.

    `data` is what the file holds, unpacked, as `reader.content` returns it.
    """
    path = signature_beside(evidence)
    try:
        content, _ = keys.read(path, "signature")
    except FileNotFoundError:
        return Signed.UNSIGNED, f"{path.name} is not there"
    except UsageError as problem:
        return Signed.BROKEN, str(problem.args[0])
    try:
        fields = json.loads(content)
        given = base64.b64decode(fields["signature"], validate=True)
        stated = {name: fields[name] for name in _FIELDS}
        message = _message(stated)
    except (ValueError, KeyError, TypeError, RecursionError):
        return Signed.BROKEN, f"{path.name} is no signature"
    if why := _why_not(key, stated, given, message):
        return Signed.BROKEN, f"{path.name} {why}"
    expected = {"lab": lab, "learner": learner, "sha256": hashlib.sha256(data).hexdigest()}
    for name, value in expected.items():
        if stated[name] != value:
            return Signed.BROKEN, f"{path.name} is of another {name if name != 'sha256' else 'file'}"
    return Signed.SIGNED, ""


def _why_not(key: Ed25519PublicKey, stated: Mapping[str, Any], given: bytes, message: bytes) -> str:
    """Say why a signature is not valid; empty where it is."""
    from cryptography.exceptions import InvalidSignature

    if stated["version"] != 1:
        return "is of a version that this labkit does not know"
    if stated["key"] != _name_of(key):
        return f"was made with another key than {_name_of(key)}"
    try:
        key.verify(given, message)
    except InvalidSignature:
        return "was changed after it was signed"
    return ""


def _message(fields: Mapping[str, Any]) -> bytes:
    kept = {name: fields[name] for name in _FIELDS}
    return _PURPOSE + json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()


def _name_of(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _write_into_a_strangers_folder(target: Path, content: bytes) -> None:
    """Write a file whole, or raise NotWritten; no link that lies in the folder is followed."""
    name = f".{target.name}.{secrets.token_hex(8)}"
    try:
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(name, flags, 0o644, dir_fd=folder), "wb") as file:
                file.write(content)
            os.replace(name, target.name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
            os.close(folder)
    except OSError as problem:
        raise NotWritten(
            f"the signature {target} cannot be written: {problem.strerror}",
            hint="make room there, or sign a copy in a folder of the host's own",
        ) from problem
