"""Keys in files: a private one that its owner alone can read, and the public one beside it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.errors import UsageError
from labkit.evidence import files

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

_MAX_BYTES = 10_000  # of a key or a signature


def write_pair(path: Path, key: Ed25519PrivateKey | RSAPrivateKey) -> Path:
    """Write a new private key, readable by its owner alone, and the public one beside it, `.pub`.

    Returns the path of the public key. Raises UsageError where one of the files is there already or
    cannot be written.
    """
    from cryptography.hazmat.primitives import serialization

    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    beside = path.with_name(f"{path.name}.pub")
    for target in (path, beside):
        if os.path.lexists(target):
            raise UsageError(f"{target} is there already", hint="a key is never written over")
    for target, content, mode in ((path, private, 0o600), (beside, public, 0o644)):
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(target, flags, mode), "wb") as file:
                file.write(content)
        except OSError as problem:
            raise UsageError(
                f"the key {target} cannot be written: {problem.strerror}", hint="name another file"
            ) from problem
    return beside


def read(path: Path, what: str, hint: str = "") -> tuple[bytes, int]:
    """Return the content of a small plain file, and its mode.

    Raises UsageError where it cannot be read; FileNotFoundError where it is not there and there is no
    hint where to get one.
    """
    try:
        with files.open_plain(path) as file:
            return file.read(_MAX_BYTES), os.fstat(file.fileno()).st_mode
    except FileNotFoundError:
        if not hint:
            raise
        raise UsageError(f"there is no {what} {path}", hint=hint) from None
    except OSError as problem:
        raise UsageError(f"the {what} {path} cannot be read: {problem.strerror}") from problem


def private(path: Path, hint: str) -> PrivateKeyTypes:
    """Read a private key; raises UsageError where it is none, or others could read it too."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data, mode = read(path, "key", hint)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(
            f"the key {path} is open to others (mode {mode & 0o777:04o}): they could sign with it",
            hint=f"chmod 600 {path}; if they could read it, make a new one",
        )
    try:
        return load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as problem:
        raise UsageError(f"{path} holds no private key that can be read", hint=hint) from problem


def public(path: Path, hint: str) -> PublicKeyTypes:
    """Read a public key; raises UsageError where it is none."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    data, _ = read(path, "public key", hint)
    try:
        return load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as problem:
        raise UsageError(f"{path} holds no public key that can be read", hint=hint) from problem
