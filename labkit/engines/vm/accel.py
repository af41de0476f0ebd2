"""Decides whether QEMU may use KVM: only where KVM was tried and works.

``/dev/kvm`` can be there and still hang the guest (nested virtualisation that is half configured), so a
kernel is booted up to the first line of its initramfs, with a deadline. The verdict is remembered until
the machine is booted again or QEMU changes.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from labkit import files, paths
from labkit.engines import debian

_DEADLINE = 10.0  # seconds; a working KVM needs about one
_MARK = b"labkit: this accelerator works"
STEADY = (8, 1)
"""From this QEMU on, no emulated processor runs code that another one is rewriting."""

TRANSLATED_MB = 128
"""Of code that QEMU keeps for a lab; its own measure is 1 GB. Lab 03 filled 0.4 (bench/idle.py)."""
_DEVICE = Path("/dev/kvm")


@dataclass(frozen=True)
class Verdict:
    """Which accelerator QEMU gets ("kvm" or "tcg", its own emulation), and why."""

    accel: str
    reason: str
    remedy: str = ""

    @property
    def options(self) -> list[str]:
        """QEMU's options for it; a machine's saved state fits where they are the same.

        Emulated, the CPU is a plain one: with `max`, Debian 13's 6.12 kernel panics under QEMU 7.2's
        emulation unless cx16 is off, and once in a while even then (measured).
        """
        if self.accel == "kvm":
            return ["-accel", "kvm", "-cpu", "host"]
        return ["-accel", "tcg,thread=multi", "-cpu", "Westmere,cx16=off"]

    @property
    def options_of_a_lab(self) -> list[str]:
        """QEMU's options for a lab, one of many here: it keeps less of the code that it translates.

        When that is full, QEMU drops it and translates anew, which an older QEMU does not do safely.
        """
        if self.accel == "kvm" or not is_steady():
            return self.options
        accelerator, kind, *more = self.options
        return [accelerator, f"{kind},tb-size={TRANSLATED_MB}", *more]


@cache
def qemu_version() -> str:
    """Return QEMU's version line; raises BuildError where QEMU is missing."""
    argv = [debian.tool("qemu-system-x86_64"), "--version"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()[0]


def qemu_release() -> tuple[int, int] | None:
    """Return QEMU's version as numbers, (7, 2) say; None where its line names none."""
    found = re.search(r"version (\d+)\.(\d+)", qemu_version())
    return (int(found[1]), int(found[2])) if found else None


def is_steady() -> bool:
    """Return whether this QEMU is new enough; one that does not say its version is taken for new."""
    return (qemu_release() or STEADY) >= STEADY


def decide(machine: Path) -> Verdict:
    """Return the verdict for this machine, trying KVM where that was not done since it booted."""
    if not _DEVICE.exists():
        return Verdict("tcg", "there is no /dev/kvm, so QEMU emulates", "turn on virtualisation")
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        user = os.environ.get("USER", "$USER")
        return Verdict(
            "tcg",
            "/dev/kvm is not open to this user, so QEMU emulates",
            f"sudo usermod --append --groups kvm {user}, then log in again",
        )
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    now = {"boot": boot, "qemu": qemu_version()}
    memory = paths.cache() / "accel.json"
    if memory.exists():
        known = json.loads(memory.read_text())
        if known["when"] == now:
            return Verdict(**known["verdict"])
    verdict = _try_kvm(machine)
    files.write_json(memory, {"when": now, "verdict": asdict(verdict)})
    return verdict


def _try_kvm(machine: Path) -> Verdict:
    argv = [
        debian.tool("qemu-system-x86_64"),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-machine", "q35"),
        *Verdict("kvm", "").options,
        *("-m", "256", "-serial", "stdio"),
        *("-kernel", str(machine / "vmlinuz"), "-initrd", str(machine / "initrd")),
        *("-append", "console=ttyS0 quiet panic=-1 labkit.probe"),
    ]
    try:
        tried = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_DEADLINE, check=False
        )
    except subprocess.TimeoutExpired:
        return Verdict("tcg", f"KVM was tried and hung for {_DEADLINE:.0f} s, so QEMU emulates")
    if _MARK in tried.stdout:
        return Verdict("kvm", "KVM was tried and works")
    last = (tried.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
    return Verdict("tcg", f"KVM was tried and failed ({last}), so QEMU emulates")
