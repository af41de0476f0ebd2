"""The system-call filter, run instruction by instruction, for both processors."""

from __future__ import annotations

import errno
import re
import struct
from functools import cache
from pathlib import Path

import pytest

from labkit.grading import seccomp
from labkit.grading.seccomp import SandboxError

MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
HEADERS = {
    "x86_64": [Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")],
    "aarch64": [Path("/usr/include/asm-generic/unistd.h")],
}
# Numbers on x86_64 and aarch64 of calls that have no place in a sandbox.
REFUSED = {
    **{"ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271)},
    **{"kcmp": (312, 272), "pidfd_getfd": (438, 438), "process_madvise": (440, 440)},
    **{"memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194)},
    **{"shmat": (30, 196), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180)},
    **{"keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218)},
    **{"unshare": (272, 97), "setns": (308, 268), "clone3": (435, 435), "mount": (165, 40)},
    **{"umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "fsopen": (430, 430)},
    **{"open_tree": (428, 428), "move_mount": (429, 429), "mount_setattr": (442, 442)},
    **{"io_uring_setup": (425, 425), "io_setup": (206, 0), "bpf": (321, 280)},
    **{"perf_event_open": (298, 241), "userfaultfd": (323, 282), "personality": (135, 92)},
    **{"seccomp": (317, 277), "fanotify_init": (300, 262), "inotify_init1": (294, 26)},
    **{"open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "init_module": (175, 105)},
    **{"finit_module": (313, 273), "kexec_load": (246, 104), "reboot": (169, 142)},
    **{"swapon": (167, 224), "settimeofday": (164, 170), "clock_settime": (227, 112)},
    **{"adjtimex": (159, 171), "syslog": (103, 116), "quotactl": (179, 60), "acct": (163, 89)},
    **{"setuid": (105, 146), "setgid": (106, 144), "capset": (126, 91), "vmsplice": (278, 75)},
    **{"setxattr": (188, 5), "fsetxattr": (190, 7), "mknodat": (259, 33), "mlockall": (151, 230)},
    **{"move_pages": (279, 239), "remap_file_pages": (216, 234), "set_mempolicy": (238, 237)},
}


@cache
def instructions(machine: str) -> list[tuple[int, ...]]:
    """The filter's: operation, how many are passed over if true and if false, and a value."""
    code = list(struct.iter_unpack("=HBBI", seccomp.program(machine)))
    assert len(code) <= 4096  # what Linux takes
    return code


def answer(machine: str, number: int, *arguments: int, architecture: int = 0) -> int:
    """Run the filter on a call as Linux does; returns the errno, 0 where it is let through."""
    code = instructions(machine)
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=IIQ6Q", number, architecture or MACHINES[machine], 0, *padded)
    at = word = 0
    while True:
        operation, if_true, if_false, value = code[at]
        at += 1
        if operation == 0x20:
            (word,) = struct.unpack_from("=I", data, value)
        elif operation == 0x54:
            word &= value
        elif operation == 0x05:
            at += value
        elif operation in (0x15, 0x35):
            holds = word == value if operation == 0x15 else word >= value
            at += if_true if holds else if_false
        elif operation == 0x06:
            assert value == 0x7FFF0000 or value & 0xFFFF0000 == 0x00050000
            return value & 0xFFFF
        else:
            raise AssertionError(f"no instruction of ours: {operation:#x}")


@pytest.mark.parametrize("machine", MACHINES)
def test_what_a_kernel_needs_is_let_through_and_nothing_else(machine: str) -> None:
    column = list(MACHINES).index(machine)
    tested = {row[column] for row in seccomp._TESTED.values()}
    free = set(seccomp.allowed(machine).values())
    assert not tested & free
    for number in range(600):
        if number not in tested:
            assert answer(machine, number) == (0 if number in free else errno.ENOSYS), number
    refused = {name: numbers[column] for name, numbers in REFUSED.items()}
    assert not set(refused) & {*seccomp.allowed(machine), *seccomp._TESTED}
    assert not set(refused.values()) & (free | tested)


@pytest.mark.parametrize("machine", MACHINES)
def test_other_abis_of_the_processor_are_refused(machine: str) -> None:
    read = seccomp.allowed(machine)["read"]
    assert answer(machine, read) == 0
    for other in (0x40000003, 0x40000028, *set(MACHINES.values()) - {MACHINES[machine]}):
        assert answer(machine, read, architecture=other) == errno.ENOSYS
    assert answer(machine, 0x40000000 | read) == errno.ENOSYS  # x32


@pytest.mark.parametrize(
    ("call", "arguments", "error"),
    [
        ("clone", (17,), 0),  # fork
        ("clone", (0x3D0F00,), 0),  # a thread, as glibc starts it
        ("clone", (0x4111,), 0),  # vfork
        ("clone", (0x10000000 | 17,), errno.EPERM),  # CLONE_NEWUSER
        ("clone", (0x40000000 | 17,), errno.EPERM),  # CLONE_NEWNET
        ("clone", (0x3D0F00 & ~0x400,), errno.EPERM),  # a thread with open files of its own
        ("socket", (1, 0x80001, 0), 0),
        ("socket", (2, 0x80001, 6), 0),
        ("socket", (2, 1, 262), errno.EPERM),  # MPTCP
        ("socket", (2, 2, 0), errno.ENETUNREACH),  # UDP
        ("socket", (2, 3, 1), errno.ENETUNREACH),  # raw
        ("socket", (10, 1, 0), errno.EAFNOSUPPORT),
        ("socket", (16, 3, 0), errno.EOPNOTSUPP),
        ("socket", (38, 5, 0), errno.EAFNOSUPPORT),  # AF_ALG
        ("socket", (40, 1, 0), errno.EAFNOSUPPORT),  # AF_VSOCK
        ("socket", ((1 << 32) | 40, 1, 0), errno.EAFNOSUPPORT),  # Linux reads 32 bits
        ("socketpair", (1, 1, 0), 0),
        ("socketpair", (30, 1, 0), errno.EAFNOSUPPORT),  # AF_TIPC
        ("prctl", (15,), 0),
        ("prctl", (1, 0), errno.EPERM),  # PR_SET_PDEATHSIG
        ("prctl", ((1 << 32) | 1, 0), errno.EPERM),
        ("prctl", (4, 0), errno.EPERM),  # PR_SET_DUMPABLE
        ("fcntl", (3, 1030), 0),
        ("fcntl", (3, 6), errno.EPERM),  # F_SETLK
        ("fcntl", (3, 1031), errno.EPERM),  # F_SETPIPE_SZ
        ("ioctl", (3, 0x5413), 0),
        ("ioctl", (3, 0x5412), errno.ENOTTY),  # TIOCSTI
        ("prlimit64", (0, 7), 0),
        ("prlimit64", (1, 7), errno.EPERM),
        ("mmap", (0, 4096, 3, 0x22), 0),
        ("mmap", (0, 1 << 21, 3, 0x40022), errno.EPERM),  # MAP_HUGETLB
        ("setsockopt", (3, 6, 1), 0),
        ("setsockopt", (3, 1, 7), errno.EPERM),  # SO_SNDBUF
        ("setsockopt", (3, 1, 50), errno.EPERM),  # SO_ATTACH_BPF
        ("setsockopt", (3, 6, 31), errno.EPERM),  # TCP_ULP
    ],
)
def test_some_calls_are_let_through_by_an_argument(
    call: str, arguments: tuple[int, ...], error: int
) -> None:
    for column, machine in enumerate(MACHINES):
        number = seccomp._TESTED[call][column]
        assert isinstance(number, int)
        assert answer(machine, number, *arguments) == error, machine


@pytest.mark.parametrize("machine", MACHINES)
def test_the_numbers_are_the_ones_of_linux(machine: str) -> None:
    header = "\n".join(path.read_text() for path in HEADERS[machine] if path.exists())
    if not header:
        pytest.skip("no headers of Linux are here")
    found = {name: int(n) for name, n in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header)}
    column = list(MACHINES).index(machine)
    ours = seccomp.allowed(machine) | {name: row[column] for name, row in seccomp._TESTED.items()}
    ours |= {name: numbers[column] for name, numbers in REFUSED.items()}
    # Later than some headers, and asm-generic's name for another.
    renamed = {"fchmodat2": 452, "newfstatat": found.get("fstatat", found.get("newfstatat"))}
    assert {name: (renamed | found).get(name) for name in ours} == ours


def test_another_processor_is_refused() -> None:
    with pytest.raises(SandboxError, match="for this processor, riscv64: only for x86_64 and aarch64"):
        seccomp.program("riscv64")
