"""Makes the embedded machine: kernel, initramfs, disk and TLS certificates, once, in the cache.

What is published here is never written again: labs run on copy-on-write layers over it. A directory
carries the key of everything it was made from and gets its name last, so it is whole or not there.
"""

from __future__ import annotations

import datetime
import fcntl
import ipaddress
import json
import lzma
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from labkit import paths
from labkit.engines import debian as bootstrap
from labkit.errors import BuildError
from labkit.progress import Progress

if TYPE_CHECKING:
    from cryptography import x509

SUITE = "trixie"
DISK_SIZE = "16G"
_FILES = ("packages", "modules", "initramfs-init", "init", "relay.py", "daemon.json")
_CERTIFICATE_DAYS = 1825
_RECIPE = "4"  # raise it when this file comes to make another machine of the same inputs


def key() -> str:
    """Name the machine by everything that goes into it."""
    folder = paths.COMPOSE / "machine"
    return bootstrap.key_of(SUITE, DISK_SIZE, *(folder / name for name in _FILES), _RECIPE)


def directory() -> Path:
    """Return where the machine is, made or not: vmlinuz, initrd, disk.qcow2, tls/."""
    return paths.cache() / f"machine-{key()}"


@contextmanager
def build_lock() -> Iterator[None]:
    """Let one process at a time build in the cache; a second waits and then finds the work done."""
    paths.cache().mkdir(parents=True, exist_ok=True, mode=0o700)
    with (paths.cache() / "build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in paths.cache().glob("unfinished-*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        yield


def build(progress: Progress) -> Path:
    """Make the machine where it is missing and return its directory. Call under `build_lock`."""
    target = directory()
    if target.exists():
        return target
    lacking = [name for name in bootstrap.TOOLS if not _found(name)]
    if lacking:
        raise bootstrap.missing_tools(lacking)
    packages = bootstrap.listed(paths.COMPOSE / "machine" / "packages")
    root_tar = bootstrap.make_tar(
        paths.cache() / f"root-{bootstrap.key_of(_RECIPE, SUITE, *packages)}.tar",
        suite=SUITE,
        packages=packages,
        hooks=['rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/* "$1"/usr/bin/ctr'],
        progress=progress,
        title="embedded machine from Debian packages",
    )
    unfinished = paths.cache() / f"unfinished-machine-{os.getpid()}"
    unfinished.mkdir(mode=0o700)
    try:
        with progress.stage("kernel, initramfs and certificates"):
            _kernel_and_initramfs(root_tar, unfinished)
            _certificates(unfinished / "tls")
        with progress.stage("disk of the embedded machine"):
            _disk(root_tar, unfinished)
        os.replace(unfinished, target)
    except OSError as problem:
        raise bootstrap.failed("making the machine", [str(problem)], paths.cache()) from problem
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    root_tar.unlink()
    return target


def _found(name: str) -> str | None:
    return shutil.which(name, path=bootstrap.SEARCH_PATH)


def _run(argv: Sequence[str], *, cwd: Path, stdin: bytes | None = None) -> bytes:
    done = subprocess.run(argv, cwd=cwd, input=stdin, capture_output=True, check=False)
    if done.returncode:
        last = done.stderr.decode(errors="replace").splitlines()[-12:]
        raise bootstrap.failed(f"`{Path(argv[0]).name}`", last, cwd)
    return done.stdout


def _kernel_and_initramfs(root_tar: Path, out: Path) -> None:
    """Take the kernel out of the tar and pack busybox, one driver and the first program with it."""
    ram = out / "initramfs"
    for name in ("bin", "dev", "proc", "root"):
        (ram / name).mkdir(parents=True)
    with tarfile.open(root_tar) as archive:
        for member in archive:
            if re.fullmatch(r"\./boot/vmlinuz-.*", member.name):
                (out / "vmlinuz").write_bytes(_content(archive, member))
            elif member.name == "./usr/bin/busybox":
                (ram / "bin" / "busybox").write_bytes(_content(archive, member))
                (ram / "bin" / "busybox").chmod(0o755)
            elif re.search(r"/virtio_blk\.ko(\.xz)?$", member.name):
                driver = _content(archive, member)
                packed = member.name.endswith(".xz")
                (ram / "virtio_blk.ko").write_bytes(lzma.decompress(driver) if packed else driver)
    init = ram / "init"
    init.write_bytes((paths.COMPOSE / "machine" / "initramfs-init").read_bytes())
    init.chmod(0o755)
    names = "\n".join(str(p.relative_to(ram)) for p in sorted(ram.rglob("*"))).encode()
    argv = [bootstrap.tool("cpio"), "--create", "--format=newc", "--owner=0:0", "--quiet"]
    (out / "initrd").write_bytes(_run(argv, cwd=ram, stdin=names))
    shutil.rmtree(ram)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    if file is None:
        raise BuildError(f"{member.name} in the machine's root file system is not a file")
    return file.read()


def _disk(root_tar: Path, out: Path) -> None:
    """Turn the tar into the machine's disk, with what is the machine's own on it."""
    script = """
tar -C tree --numeric-owner -xf "$1"
mkdir -p tree/dev
mkdir -p tree/etc/labkit tree/etc/docker
cp -r tls/server tree/etc/labkit/tls
cp "$2/modules" tree/etc/labkit/modules
cp "$2/daemon.json" tree/etc/docker/daemon.json
mkdir -p tree/usr/local/lib/labkit
cp "$2/relay.py" tree/usr/local/lib/labkit/relay.py
cp "$2/init" tree/sbin/labkit-init
chmod 755 tree/sbin/labkit-init
mkdir -p tree/var/lib/docker
# There is no name server, and saying so makes every look-up fail at once instead of after a minute.
echo "nameserver 127.0.0.1" >tree/etc/resolv.conf
"""
    make_disk(out / "disk.qcow2", script, root_tar, paths.COMPOSE / "machine")
    shutil.rmtree(out / "tls" / "server")


def make_disk(target: Path, script: str, *arguments: Path | str) -> None:
    """Make an ext4 disk of what a shell script puts into the directory `tree`; mounts nothing.

    The script gets the arguments as $1, $2, …; its current directory is that of `target`. As an
    ordinary user it runs inside a user namespace, so that owners stay what a tar says.
    """
    mke2fs, qemu_img = bootstrap.tool("mke2fs"), bootstrap.tool("qemu-img")
    format_it = f"{mke2fs} -q -t ext4 -E lazy_itable_init=1,lazy_journal_init=1 -m 0 -d tree disk.raw"
    whole = f"set -eu\nmkdir tree\ntrap 'rm -rf tree' EXIT\n{script}\n{format_it} {DISK_SIZE}\n"
    argv = ["sh", "-c", whole, "labkit", *map(str, arguments)]
    if os.geteuid():
        argv = ["unshare", "--map-root-user", "--map-auto", "--", *argv]
    out = target.parent
    _run(argv, cwd=out)
    _run([qemu_img, "convert", "-O", "qcow2", "disk.raw", target.name], cwd=out)
    (out / "disk.raw").unlink()


def _certificates(out: Path) -> None:
    """Make a CA, the engine's certificate and the client's: only who can read them gets in."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.datetime.now(datetime.UTC)
    ca_key = ec.generate_private_key(ec.SECP256R1())

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def builder(subject: str, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("labkit CA"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            # The machine's clock may be a little behind this one.
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=_CERTIFICATE_DAYS))
            # Python 3.13 and later refuse certificates that do not name their keys.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
            )
        )

    def private_bytes(secret: ec.EllipticCurvePrivateKey) -> bytes:
        return secret.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def write(path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(data)

    ca = (
        builder("labkit CA", ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_only_signs(), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    for directory, subject, file, usage in (
        (out / "server", "labkit engine", "server-", ExtendedKeyUsageOID.SERVER_AUTH),
        (out, "labkit client", "", ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        secret = ec.generate_private_key(ec.SECP256R1())
        certificate = builder(subject, secret.public_key()).add_extension(
            x509.ExtendedKeyUsage([usage]), critical=False
        )
        if usage == ExtendedKeyUsageOID.SERVER_AUTH:
            names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
            certificate = certificate.add_extension(x509.SubjectAlternativeName(names), critical=False)
        signed = certificate.sign(ca_key, hashes.SHA256())
        write(directory / "ca.pem", ca.public_bytes(serialization.Encoding.PEM))
        write(directory / f"{file}cert.pem", signed.public_bytes(serialization.Encoding.PEM))
        write(directory / f"{file}key.pem", private_bytes(secret))


def _only_signs() -> x509.KeyUsage:
    from cryptography import x509

    used = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(**used, key_cert_sign=True, crl_sign=True)


def facts() -> dict[str, object]:
    """Tell what the cache holds: each file with its size on disk in bytes."""
    held = {
        str(path.relative_to(paths.cache())): path.stat().st_blocks * 512
        for path in sorted(paths.cache().rglob("*"))
        if path.is_file()
    }
    return {"directory": str(paths.cache()), "machine": directory().name, "files": held}


def to_json(value: object) -> str:
    """Write a small record the way the cache keeps them."""
    return json.dumps(value, indent=2, sort_keys=True) + "\n"
