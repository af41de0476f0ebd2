"""An apt repository beside Debian's that a Docker engine comes from: its key, and what apt is told.

apt takes nothing from it that the key of its row has not signed, and this key counts for this
repository alone. The engine's own packages come from it and never from Debian; of all others, Debian's
are taken where Debian has them.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass

from labkit.errors import BuildError

_BLOCK = re.compile(rb"-----BEGIN PGP ([A-Z ]+)-----\s*?\n(.*?)-----END PGP \1-----", re.DOTALL)
_PUBLIC_KEY, _SECRET_KEY = 6, 5  # the tags of OpenPGP's packets, RFC 9580, section 5
# What apt says of a signature or a checksum that does not fit, with gpgv and with sqv.
_DISTRUST = re.compile("is not signed|signature|mismatch|unexpected size")


class RepositoryRefused(BuildError):
    """An apt repository, or a package of it, is not what the key of its row has signed."""


@dataclass(frozen=True)
class Repository:
    """An apt repository that is signed, and the packages that come from it and from nowhere else."""

    address: str
    suite: str
    components: tuple[str, ...]
    key: bytes
    """The public keys that it is signed with, as OpenPGP packets."""
    packages: tuple[str, ...]

    def parts(self) -> tuple[str, ...]:
        """Return what an image that is made from it has in its key, beside the packages."""
        return (self.address, self.suite, *self.components, self.key.hex())

    def sources(self) -> str:
        """Return the repository as apt reads it, the key included, so that no key lies in a file."""
        # apt uses the packages of `file:` in place, where dpkg in the new root does not see them.
        address = re.sub("^file:", "copy:", self.address)
        key = "".join(f" {line or '.'}\n" for line in _armoured(self.key).splitlines())
        return (
            f"Types: deb\nURIs: {address}\nSuites: {self.suite}\n"
            f"Components: {' '.join(self.components)}\nSigned-By:\n{key}"
        )

    def preferences(self) -> str:
        """Return which repository wins, as apt reads it.

        Told by what Debian's own packages say of themselves, not by a host: a mirror may carry both.
        """
        names = " ".join(package.partition("=")[0] for package in self.packages)
        return (
            f"Package: {names}\nPin: release o=Debian\nPin-Priority: -1\n\n"
            "Package: *\nPin: release o=Debian\nPin-Priority: 900\n"
        )

    def refusal(self, lines: Sequence[str]) -> RepositoryRefused | None:
        """Return the error for a build that ended with these lines, if they tell of distrust in it."""
        # apt writes the scheme and the slashes of a file's address its own way.
        place = re.sub(r"^\w+:/*", "", self.address).rstrip("/")
        why = [line.strip() for line in lines if place in line and _DISTRUST.search(line)]
        if not why:
            return None
        told = "\n".join(f"  {line}" for line in why)
        return RepositoryRefused(
            f"the apt repository {self.address} was refused: expected what the key of its row has "
            f"signed, found otherwise; apt said:\n{told}",
            hint="compare the key of the row in your versions file with the one that who runs the "
            "repository names; where the key is right, the repository is being renewed, or was changed",
        )


def public_keys(content: bytes) -> bytes:
    """Return the public keys in a key file, armoured or not, as OpenPGP packets.

    Raises ValueError for what is no public key, a private one too.
    """
    packets = content
    if b"-----BEGIN" in content:
        blocks = _BLOCK.findall(content)
        kinds = {kind.decode() for kind, _ in blocks} or {"block without an end"}
        if kinds != {"PUBLIC KEY BLOCK"}:
            raise ValueError(f"holds a PGP {', '.join(sorted(kinds))}")
        packets = b"".join(_packets(body) for _, body in blocks)
    first = packets[0] if packets else 0
    tag = first & 0x3F if first & 0x40 else first >> 2 & 0x0F
    if first & 0x80 and tag == _SECRET_KEY:
        raise ValueError("holds a private key")
    if not first & 0x80 or tag != _PUBLIC_KEY:
        raise ValueError("holds no OpenPGP key")
    return packets


def _packets(body: bytes) -> bytes:
    """Return what a block of armour holds, without its headers and its checksum."""
    lines = [line.strip() for line in body.splitlines()]
    if b"" in lines:
        lines = lines[lines.index(b"") + 1 :]
    try:
        return base64.b64decode(b"".join(x for x in lines if x[:1] != b"="), validate=True)
    except binascii.Error as problem:
        raise ValueError(f"is damaged: {problem}") from problem


def _armoured(packets: bytes) -> str:
    text = base64.encodebytes(packets).decode()
    name = "PGP PUBLIC KEY BLOCK"
    return f"-----BEGIN {name}-----\n\n{text}-----END {name}-----\n"
