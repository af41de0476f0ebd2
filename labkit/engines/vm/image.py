"""Makes the embedded machine: kernel, initramfs, disk and TLS certificates, once, in the cache.

What is published here is never written again: labs run on copy-on-write layers over it. A directory
carries the key of everything it was made from and gets its name last, so it is whole or not there.
"""

from __future__ import annotations

import json
import lzma
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from labkit import paths
from labkit.engines import debian, images
from labkit.engines.base import key_of
from labkit.engines.vm import certificates
from labkit.errors import BuildError
from labkit.progress import Progress

SUITE = "trixie"
DISK_SIZE = "16G"
_FILES = ("packages", "modules", "initramfs-init", "init", "relay.py", "daemon.json")
_RECIPE = "4"  # raise it when this file comes to make another machine of the same inputs


def key() -> str:
    """Name the machine by everything that goes into it."""
    folder = paths.COMPOSE / "machine"
    return key_of(SUITE, DISK_SIZE, *(folder / name for name in _FILES), _RECIPE)


def directory() -> Path:
    """Return where the machine is, made or not: vmlinuz, initrd, disk.qcow2, tls/."""
    return paths.built(f"machine-{key()}")


def build(progress: Progress) -> Path:
    """Make the machine where it is missing and return its directory. Call under `debian.build_lock`."""
    target = directory()
    if target.exists():
        return target
    if missing := debian.missing_tools():
        raise debian.tools_error(missing)
    packages = debian.listed(paths.COMPOSE / "machine" / "packages")
    root_tar = debian.make_tar(
        paths.cache() / f"root-{key_of(_RECIPE, SUITE, *packages)}.tar",
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
            certificates.make(unfinished / "tls")
        with progress.stage("disk of the embedded machine"):
            _disk(root_tar, unfinished)
        os.replace(unfinished, target)
    except OSError as problem:
        raise debian.failed("making the machine", [str(problem)], paths.cache()) from problem
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    root_tar.unlink()
    return target


def nodes_directory(docker: str) -> Path:
    """Return where the disk with the node image of a Docker version is, made or not."""
    return paths.built(f"nodes-{docker}-{debian.node_key(docker)}")


def node_disk(docker: str, progress: Progress) -> Path:
    """Return the disk that is the engine's store with the node image of a Docker version in it.

    Makes it and the machine where they are missing; raises BuildError.
    """
    target = nodes_directory(docker)
    if target.exists() and directory().exists():
        return target / "disk.qcow2"
    with debian.build_lock():
        build(progress)
        if target.exists():
            return target / "disk.qcow2"
        tar = debian.node_tar(docker, progress)
        unfinished = paths.cache() / f"unfinished-nodes-{os.getpid()}"
        unfinished.mkdir(mode=0o700)
        # compose/node/seed tells why the image is not imported.
        script = 'layer=$("$1" tree "$2" "$3")\ntar -C "$layer" --numeric-owner -xf "$4"'
        seed = paths.COMPOSE / "node" / "seed"
        config = json.dumps(images.config(docker))
        try:
            with progress.stage(f"disk with the node image of Docker {docker}"):
                disk = unfinished / "disk.qcow2"
                make_disk(disk, script, seed, images.name(docker), config, tar)
            os.replace(unfinished, target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return target / "disk.qcow2"


def _run(argv: Sequence[str], *, cwd: Path, stdin: bytes | None = None) -> bytes:
    pipe = subprocess.PIPE
    # A session of its own, so that what it has started can be ended with it.
    with subprocess.Popen(
        argv, cwd=cwd, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
    ) as process:
        try:
            out, errors = process.communicate(stdin)
        except BaseException:
            debian.end_group(process)
            raise
    if process.returncode:
        last = errors.decode(errors="replace").splitlines()[-12:]
        raise debian.failed(f"`{Path(argv[0]).name}`", last, cwd)
    return out


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
    argv = [debian.tool("cpio"), "--create", "--format=newc", "--owner=0:0", "--quiet"]
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
    mke2fs, qemu_img = debian.tool("mke2fs"), debian.tool("qemu-img")
    format_it = f"{mke2fs} -q -t ext4 -E lazy_itable_init=1,lazy_journal_init=1 -m 0 -d tree disk.raw"
    whole = f"set -eu\nmkdir tree\ntrap 'rm -rf tree' EXIT\n{script}\n{format_it} {DISK_SIZE}\n"
    argv = ["sh", "-c", whole, "labkit", *map(str, arguments)]
    if os.geteuid():
        argv = ["unshare", "--map-root-user", "--map-auto", "--", *argv]
    out = target.parent
    _run(argv, cwd=out)
    _run([qemu_img, "convert", "-O", "qcow2", "disk.raw", target.name], cwd=out)
    (out / "disk.raw").unlink()


def facts() -> dict[str, object]:
    """Tell what the cache holds: each file with its size on disk in bytes."""
    held = {
        str(path.relative_to(paths.cache())): path.stat().st_blocks * 512
        for path in sorted(paths.cache().rglob("*"))
        if path.is_file()
    }
    return {"directory": str(paths.cache()), "machine": directory().name, "files": held}
