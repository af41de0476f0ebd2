"""A package comes out of a signed apt repository into a real image, and out of no other one."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from labkit.engines import debian, versions
from labkit.engines.repository import RepositoryRefused
from labkit.progress import Progress

SUITE = "bookworm"
ENGINE = "labkit-engine-test"
# Both repositories have these two: tini is the engine's here, hostname belongs to every Debian.
NAMED, BASE = "tini", "hostname"


@dataclass(frozen=True)
class Signer:
    """A key of its own, made for one test."""

    home: Path

    def gpg(self, *argv: str | Path, stdin: bytes = b"") -> bytes:
        command = ["gpg", "--homedir", self.home, "--batch", "--quiet", "--pinentry-mode=loopback"]
        command += ["--passphrase", "", *argv]
        return subprocess.run(command, input=stdin, capture_output=True, check=True).stdout

    def key(self) -> bytes:
        return self.gpg("--armor", "--export")


@pytest.fixture
def signers() -> Iterator[tuple[Signer, Signer]]:
    """Two keys. Their agents listen on sockets, whose paths have to be short."""
    with tempfile.TemporaryDirectory(prefix="labkit-gpg-") as folder:
        made = tuple(Signer(Path(folder, name)) for name in "ab")
        for signer in made:
            signer.home.mkdir(mode=0o700)
            signer.gpg("--quick-generate-key", "nobody@labkit.invalid", "ed25519", "sign", "never")
        try:
            yield made[0], made[1]
        finally:
            for signer in made:
                subprocess.run(["gpgconf", "--homedir", signer.home, "--kill", "all"], check=True)


def package(pool: Path, name: str, version: str, content: Mapping[str, str]) -> Path:
    """Make a package of text files."""
    tree = pool / f"{name}.tree"
    for place, text in content.items():
        (tree / place).parent.mkdir(parents=True, exist_ok=True)
        (tree / place).write_text(text)
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: all\n"
        "Maintainer: nobody <nobody@labkit.invalid>\nDescription: made in a test of labkit\n"
    )
    deb = pool / f"{name}_{version}_all.deb"
    # Uncompressed, so that a text changed for another of its length leaves the size as it was.
    argv = ["dpkg-deb", "-Znone", "--root-owner-group", "--build", tree, deb]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return deb


def digest(content: bytes) -> str:
    return f"{hashlib.sha256(content).hexdigest()} {len(content)}"


def publish(root: Path, debs: list[Path], signer: Signer) -> None:
    """Write the lists of a repository, and sign them."""
    rows = []
    for deb in debs:
        control = subprocess.run(
            ["dpkg-deb", "--field", deb], capture_output=True, check=True, text=True
        )
        sha, size = digest(deb.read_bytes()).split()
        rows.append(f"{control.stdout}Filename: {deb.relative_to(root)}\nSize: {size}\nSHA256: {sha}\n")
    architecture = subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, check=True, text=True
    ).stdout.strip()
    lists = root / "dists" / "any"
    place = f"engine/binary-{architecture}/Packages"
    packages = "\n".join(rows).encode()
    (lists / place).parent.mkdir(parents=True)
    (lists / place).write_bytes(packages)
    release = (
        f"Suite: any\nCodename: any\nArchitectures: {architecture}\nComponents: engine\n"
        f"Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n {digest(packages)} {place}\n"
    )
    (lists / "InRelease").write_bytes(signer.gpg("--clearsign", stdin=release.encode()))


@pytest.fixture
def published(tmp_path: Path, signers: tuple[Signer, Signer]) -> Path:
    """A repository signed by the first key, as it lies below a web server's root."""
    root = tmp_path / "repository"
    (root / "pool").mkdir(parents=True)
    debs = [
        package(root / "pool", ENGINE, "29.8.0", {"usr/share/labkit/engine": "from the repository\n"}),
        package(root / "pool", NAMED, "0.0.1", {"usr/share/labkit/tini": "from the repository\n"}),
        package(root / "pool", BASE, "99", {"usr/share/labkit/hostname": "from the repository\n"}),
    ]
    publish(root, debs, signers[0])
    return root


def row(tmp_path: Path, root: Path, signer: Signer) -> versions.Release:
    """The row of a versions file for it, as it is read."""
    (tmp_path / "engine.asc").write_bytes(signer.key())
    (tmp_path / "versions.yaml").write_text(f"""
29.8:
  suite: {SUITE}
  packages: [{ENGINE}, {NAMED}]
  repository:
    address: file://{root}
    suite: any
    components: [engine]
    key: engine.asc
""")
    return versions.read(tmp_path / "versions.yaml")["29.8"]


@pytest.fixture(autouse=True)
def nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image of these packages alone; a whole one takes minutes, and apt does the same for it."""
    monkeypatch.setattr(debian, "VARIANT", "extract")


def make(release: versions.Release, target: Path) -> Path:
    """Make a root file system the way that a node's is made."""
    return debian.make_tar(
        target,
        suite=release.suite,
        packages=[BASE, *release.packages],
        hooks=[],
        progress=Progress(),
        title="a node",
        repository=release.repository,
    )


def test_the_engines_packages_come_from_it_and_the_base_from_debian(
    tmp_path: Path, published: Path, signers: tuple[Signer, Signer]
) -> None:
    tar = make(row(tmp_path, published, signers[0]), tmp_path / "node.tar")
    with tarfile.open(tar) as archive:
        names = set(archive.getnames())
    assert "./usr/share/labkit/engine" in names
    assert "./usr/share/labkit/tini" in names  # though Debian's tini is newer
    assert "./usr/share/labkit/hostname" not in names  # though Debian's hostname is older
    assert {"./bin/hostname", "./usr/bin/hostname"} & names


def by_another_key(root: Path, other: Signer) -> None:
    shutil.rmtree(root / "dists")
    publish(root, sorted((root / "pool").glob("*.deb")), other)


def without_signature(root: Path, other: Signer) -> None:
    (root / "dists/any/InRelease").write_bytes(
        other.gpg("--decrypt", "--skip-verify", root / "dists/any/InRelease")
    )


def with_a_list_that_was_changed(root: Path, other: Signer) -> None:
    (packages,) = root.glob("dists/any/engine/*/Packages")
    packages.write_text(packages.read_text().replace("made in a test", "made in a west"))


def with_a_package_that_was_changed(root: Path, other: Signer) -> None:
    deb = root / "pool" / f"{ENGINE}_29.8.0_all.deb"
    size = deb.stat().st_size
    content = {"usr/share/labkit/engine": "from an attacker!!!!\n"}
    shutil.rmtree(root / "pool" / f"{ENGINE}.tree")
    package(root / "pool", ENGINE, "29.8.0", content)
    assert deb.stat().st_size == size


@pytest.mark.parametrize(
    "tampered",
    [
        by_another_key,
        without_signature,
        with_a_list_that_was_changed,
        with_a_package_that_was_changed,
    ],
)
def test_what_the_key_has_not_signed_is_refused(
    tmp_path: Path,
    published: Path,
    signers: tuple[Signer, Signer],
    tampered: Callable[[Path, Signer], None],
) -> None:
    tampered(published, signers[1])
    with pytest.raises(RepositoryRefused, match="was refused") as caught:
        make(row(tmp_path, published, signers[0]), tmp_path / "node.tar")
    assert str(published) in str(caught.value)
    assert "compare the key" in caught.value.hint
    assert not (tmp_path / "node.tar").exists()
