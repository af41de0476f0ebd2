"""The sandbox's system-call filter: what a Jupyter kernel needs of Linux, and nothing else.

A classic BPF program for bubblewrap's `--seccomp`. It is an allowlist: a call that is not in it ends in
ENOSYS, as under a kernel too old to have it, so that libraries fall back and calls that Linux gets next
year are refused as well. Some calls are let through by an argument; what is refused there ends in the
error that its rule names. Nothing is killed. Other ABIs of the same processor (i386, x32) get ENOSYS.

What is out, and why: reading and changing other processes (`ptrace`, `process_vm_readv`, `kcmp`,
`pidfd_getfd`); namespaces and mounts; keyrings; memory that belongs to no process and so escapes being
counted (`memfd_create`, System V and POSIX queues and shared memory, extended attributes, huge pages,
`fcntl`'s record locks); all sockets but AF_UNIX and TCP over IPv4, so those of AF_VSOCK and AF_ALG,
which no network namespace holds, and raw ones; `io_uring`, `bpf`, `perf_event_open`, `userfaultfd` and
whatever else has often been the way out of other sandboxes. A process cannot clear its parent-death
signal, which is what ends a sandbox whose grader was killed.

TCP is there because ipykernel brings what a forked process prints over 127.0.0.1. The network namespace
leads nowhere, so a `connect` to anywhere else ends as on a machine without a network.

Numbers: Linux's arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h (which is
aarch64's); a test compares them with the headers of the machine it runs on. The layout of an
instruction and of what the program reads: linux/filter.h, `struct sock_filter`, and linux/seccomp.h,
`struct seccomp_data`.
"""

from __future__ import annotations

import errno
import platform
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from labkit.errors import LabkitError

# Calls that are let through whatever they ask for: name, number on x86_64, number on aarch64.
_ALLOWED = """\
# files
read 0 63, write 1 64, open 2 -, close 3 57, stat 4 -, fstat 5 80, lstat 6 -, lseek 8 62,
pread64 17 67, pwrite64 18 68, readv 19 65, writev 20 66, preadv 295 69, pwritev 296 70,
preadv2 327 286, pwritev2 328 287, access 21 -, dup 32 23, dup2 33 -, dup3 292 24, sendfile 40 71,
flock 73 32, fsync 74 82, fdatasync 75 83, sync_file_range 277 84, truncate 76 45, ftruncate 77 46,
fallocate 285 47, fadvise64 221 223, readahead 187 213, copy_file_range 326 285, getdents 78 -,
getdents64 217 61, getcwd 79 17, chdir 80 49, fchdir 81 50, rename 82 -, renameat 264 38,
renameat2 316 276, mkdir 83 -, mkdirat 258 34, rmdir 84 -, creat 85 -, link 86 -, linkat 265 37,
unlink 87 -, unlinkat 263 35, symlink 88 -, symlinkat 266 36, readlink 89 -, readlinkat 267 78,
chmod 90 -, fchmod 91 52, fchmodat 268 53, fchmodat2 452 452, chown 92 -, fchown 93 55,
lchown 94 -, fchownat 260 54, umask 95 166, utime 132 -, utimes 235 -, utimensat 280 88,
futimesat 261 -, statfs 137 43, fstatfs 138 44, getxattr 191 8, lgetxattr 192 9, fgetxattr 193 10,
listxattr 194 11, llistxattr 195 12, flistxattr 196 13, openat 257 56, openat2 437 437,
newfstatat 262 79, statx 332 291, faccessat 269 48, faccessat2 439 439, close_range 436 436
# waiting for files
poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72, pipe 22 -, pipe2 293 59, epoll_create 213 -,
epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22, epoll_pwait2 441 441,
eventfd 284 -, eventfd2 290 19, signalfd 282 -, signalfd4 289 74, timerfd_create 283 85,
timerfd_settime 286 86, timerfd_gettime 287 87
# memory
brk 12 214, munmap 11 215, mprotect 10 226, mremap 25 216, msync 26 227, madvise 28 233,
mlock 149 228, munlock 150 229, get_mempolicy 239 236, membarrier 324 283
# processes and threads
fork 57 -, vfork 58 -, execve 59 221, execveat 322 281, exit 60 93, exit_group 231 94,
wait4 61 260, waitid 247 95, getpid 39 172, gettid 186 178, getppid 110 173, getpgid 121 155,
setpgid 109 154, getpgrp 111 -, getsid 124 156, setsid 112 157, getuid 102 174, geteuid 107 175,
getgid 104 176, getegid 108 177, getresuid 118 148, getresgid 120 150, getgroups 115 158,
capget 125 90, getrlimit 97 163, setrlimit 160 164, getrusage 98 165, sysinfo 99 179, uname 63 160,
times 100 153, getcpu 309 168, sched_yield 24 124, sched_getparam 143 121,
sched_setscheduler 144 119, sched_getscheduler 145 120, sched_get_priority_max 146 125,
sched_get_priority_min 147 126, sched_rr_get_interval 148 127, sched_getaffinity 204 123,
sched_setaffinity 203 122, sched_getattr 315 275, getpriority 140 141, setpriority 141 140,
ioprio_get 252 31, arch_prctl 158 -, set_tid_address 218 96, set_robust_list 273 99, futex 202 98,
futex_waitv 449 449, rseq 334 293, pidfd_open 434 434
# signals
kill 62 129, tkill 200 130, tgkill 234 131, rt_sigaction 13 134, rt_sigprocmask 14 135,
rt_sigreturn 15 139, rt_sigpending 127 136, rt_sigtimedwait 128 137, rt_sigsuspend 130 133,
rt_sigqueueinfo 129 138, sigaltstack 131 132, pause 34 -, restart_syscall 219 128,
pidfd_send_signal 424 424
# time
time 201 -, gettimeofday 96 169, clock_gettime 228 113, clock_getres 229 114,
clock_nanosleep 230 115, nanosleep 35 101, alarm 37 -, getitimer 36 102, setitimer 38 103,
timer_create 222 107, timer_settime 223 110, timer_gettime 224 108, timer_getoverrun 225 109,
timer_delete 226 111, getrandom 318 278
# sockets that exist
bind 49 200, listen 50 201, connect 42 203, accept 43 202, accept4 288 242, shutdown 48 210,
getsockname 51 204, getpeername 52 205, getsockopt 55 209, sendto 44 206, sendmsg 46 211,
sendmmsg 307 269, recvfrom 45 207, recvmsg 47 212, recvmmsg 299 243
"""
# The column of the numbers, and AUDIT_ARCH_* of linux/audit.h.
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

# Instructions: load a word of seccomp_data; go on further below; go on so if equal, or at least as
# great; mask; answer.
_LOAD, _GO, _EQUAL, _AT_LEAST, _AND, _ANSWER = 0x20, 0x05, 0x15, 0x35, 0x54, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000  # SECCOMP_RET_*
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # where they begin in seccomp_data


class SandboxError(LabkitError):
    """No sandbox can be had on this machine."""

    exit_code = 3


@dataclass(frozen=True)
class _Test:
    """What a call is answered by one of its arguments, of which Linux reads the lower 32 bits here.

    ``answers`` are for each value an errno, 0 where the call is let through, or the test of another
    argument; ``otherwise`` is the errno of any other value. Only the bits in ``mask`` count.
    """

    argument: int
    answers: Mapping[int, int | _Test]
    otherwise: int
    mask: int = 0xFFFFFFFF


_AF_UNIX, _AF_INET, _AF_NETLINK = 1, 2, 16
# SOCK_STREAM, without SOCK_CLOEXEC and SOCK_NONBLOCK, of protocol 0 or IPPROTO_TCP.
_TCP = _Test(1, {1: _Test(2, {0: 0, 6: 0}, errno.EPERM)}, errno.ENETUNREACH, 0xF)
_NAMESPACES = 0x7E020000  # CLONE_NEWNS, -CGROUP, -UTS, -IPC, -USER, -PID, -NET
_CLONE_FILES, _CLONE_THREAD = 0x400, 0x10000
_MAP_HUGETLB = 0x40000
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_SETOWN, F_GETOWN, F_DUPFD_CLOEXEC, F_GETPIPE_SZ: no
# record locks, which take memory of Linux without a limit, and no greater pipes.
_FCNTL = (0, 1, 2, 3, 4, 8, 9, 1030, 1032)
# A terminal's, but not TIOCSTI, TIOCLINUX and TIOCSETD; of a new one TIOCGPTN, TIOCSPTLCK and
# TIOCGPTLCK; and FICLONE, whose errors Python's and cp's ways of copying a file know.
_IOCTL = (*(n for n in range(0x5401, 0x5460) if n not in (0x5412, 0x541C, 0x5423)),)
_IOCTL += (0x80045430, 0x40045431, 0x80045439, 0x40049409)
# PR_GET_PDEATHSIG, PR_GET_DUMPABLE, PR_SET_NAME, PR_GET_NAME, PR_GET_SECCOMP, PR_CAPBSET_READ,
# PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS, PR_SET_VMA: not PR_SET_PDEATHSIG.
_PRCTL = (2, 3, 15, 16, 21, 23, 38, 39, 0x53564D41)
# TCP_NODELAY, SO_REUSEADDR, TCP_KEEPIDLE, -INTVL and -CNT, SO_KEEPALIVE, SO_LINGER, SO_REUSEPORT,
# SO_PASSCRED, TCP_USER_TIMEOUT, SO_RCVTIMEO and SO_SNDTIMEO: no programs, no other protocols above TCP,
# and no greater buffers than the monitor counts for a socket. On other levels these numbers have other
# meanings, none of which does harm.
_SETSOCKOPT = (1, 2, 4, 5, 6, 9, 13, 15, 16, 18, 20, 21)

# Calls that are let through by an argument: numbers on x86_64 and on aarch64, and the test. There is no
# clone3: it has its flags in memory, where no filter sees them.
_TESTED: dict[str, tuple[int, int, _Test]] = {
    # Threads share their open files, so that the limit on those holds for all of a process.
    "clone": (
        56,
        220,
        _Test(
            0,
            {0: 0, _CLONE_FILES: 0, _CLONE_FILES | _CLONE_THREAD: 0},
            errno.EPERM,
            _NAMESPACES | _CLONE_FILES | _CLONE_THREAD,
        ),
    ),
    # ZeroMQ looks for the names of interfaces, and goes on without in this error of AF_NETLINK alone.
    "socket": (
        41,
        198,
        _Test(0, {_AF_UNIX: 0, _AF_INET: _TCP, _AF_NETLINK: errno.EOPNOTSUPP}, errno.EAFNOSUPPORT),
    ),
    "socketpair": (53, 199, _Test(0, {_AF_UNIX: 0}, errno.EAFNOSUPPORT)),
    "prctl": (157, 167, _Test(0, dict.fromkeys(_PRCTL, 0), errno.EPERM)),
    "fcntl": (72, 25, _Test(1, dict.fromkeys(_FCNTL, 0), errno.EPERM)),
    "ioctl": (16, 29, _Test(1, dict.fromkeys(_IOCTL, 0), errno.ENOTTY)),
    "prlimit64": (302, 261, _Test(0, {0: 0}, errno.EPERM)),  # of the process itself
    "mmap": (9, 222, _Test(3, {0: 0}, errno.EPERM, _MAP_HUGETLB)),
    "setsockopt": (54, 208, _Test(2, dict.fromkeys(_SETSOCKOPT, 0), errno.EPERM)),
}


def program(machine: str = platform.machine()) -> bytes:
    """Return the filter for a processor, as `platform.machine()` calls it: for bubblewrap's --seccomp.

    Raises SandboxError for a processor that it does not know.
    """
    if machine not in _MACHINES:
        raise SandboxError(
            f"there is no system-call filter for this processor, {machine}: only for "
            f"{' and '.join(_MACHINES)}",
            hint="grade on one of those",
        )
    column, architecture = _MACHINES[machine]
    refuse = _answer(errno.ENOSYS)
    code = [_op(_LOAD, _ARCHITECTURE), _op(_EQUAL, architecture, 1), refuse, _op(_LOAD, _NUMBER)]
    for first, last in _runs(allowed(machine).values()):
        code += [_op(_AT_LEAST, first, 0, 2), _op(_AT_LEAST, last + 1, 1, 0), _answer(0)]
    for *numbers, test in _TESTED.values():
        code += _when(numbers[column], _steps(test))
    return b"".join([*code, refuse])


def _steps(test: _Test) -> list[bytes]:
    """Return the instructions that answer by an argument."""
    steps = [_op(_LOAD, _ARGUMENTS + 8 * test.argument), _op(_AND, test.mask)]
    for value, answer in test.answers.items():
        steps += _when(value, _steps(answer) if isinstance(answer, _Test) else [_answer(answer)])
    return [*steps, _answer(test.otherwise)]


def _when(value: int, steps: list[bytes]) -> list[bytes]:
    """Return instructions that are for one value of what was loaded, and passed over for others."""
    return [_op(_EQUAL, value, 1, 0), _op(_GO, len(steps)), *steps]


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """Pack one instruction; the last two are how many are passed over."""
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _answer(error: int) -> bytes:
    """Return the instruction that ends in an error, or lets the call through for 0."""
    return _op(_ANSWER, _ERRNO | error if error else _ALLOW)


def allowed(machine: str = platform.machine()) -> dict[str, int]:
    """Return the calls that are let through whatever they ask for, and their numbers."""
    rows = [entry.split() for entry in re.sub("#.*", ",", _ALLOWED).split(",")]
    column = _MACHINES[machine][0] + 1
    return {row[0]: int(row[column]) for row in rows if row and row[column] != "-"}


def _runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return the first and the last of each run of numbers."""
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs
