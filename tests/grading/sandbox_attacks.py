"""What code in a sandbox may try against the machine, and how each try must end.

To add one, write a cell that prints how it went; `call` makes a system call and returns "done" or the
name of its error. An attack that ends the kernel stands in `ENDED`, every other in `HELD`.
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass

from tests.grading.test_seccomp import MACHINES, REFUSED

PRELUDE = """\
import ctypes, errno, fcntl, mmap, os, resource, signal, socket, subprocess, sys, threading, time
from pathlib import Path
libc = ctypes.CDLL(None, use_errno=True)

def call(number, *arguments):
    ctypes.set_errno(0)
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result = libc.syscall(ctypes.c_long(number), *words)
    return "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]

def attempt(function, *arguments):
    try:
        function(*arguments)
        return "done"
    except OSError as error:
        return errno.errorcode[error.errno]
"""


@dataclass(frozen=True)
class Attack:
    """A cell, and the pattern of all that it prints where the sandbox holds."""

    code: str
    printed: str


def _files(*paths: str, mode: str = "w") -> str:
    return f"print(*(attempt(open, path, {mode!r}) for path in {paths!r}))"


HELD = {
    # /proc
    "environments of others": Attack(
        "texts = [path.read_bytes() for path in Path('/proc').glob('[0-9]*/environ')]\n"
        "print(len(texts) > 1, any(b'of the grader' in text for text in texts))",
        "True False",
    ),
    "processes of others": Attack(
        "print(sorted(int(p.name) for p in Path('/proc').glob('[0-9]*'))[0:2], "
        "all(b'bwrap' in p.read_bytes() or b'labkit' in p.read_bytes() for p in "
        "Path('/proc').glob('[0-9]*/cmdline')))",
        r"\[1, 2\] True",
    ),
    "descriptions of keys": Attack(
        _files("/proc/keys", "/proc/key-users", mode="r"), "(EACCES|ENOENT) .*"
    ),
    "settings of Linux": Attack(
        _files(
            "/proc/sys/kernel/core_pattern", "/proc/sys/vm/overcommit_memory", "/proc/sysrq-trigger"
        ),
        "(EROFS|EACCES) (EROFS|EACCES) (EROFS|EACCES|ENOENT)",
    ),
    "memory of the machine": Attack(
        _files("/proc/kcore", "/dev/mem", "/dev/kmem", "/dev/port", mode="rb"),
        "(EACCES|ENOENT)( ENOENT){3}",
    ),
    "being spared when memory is short": Attack(
        "print(attempt(Path('/proc/self/oom_score_adj').write_text, '-1000'))", "EACCES"
    ),
    "rights": Attack(
        "lines = Path('/proc/self/status').read_text().splitlines()\n"
        "names = ('CapEff', 'CapBnd', 'CapAmb', 'NoNew', 'Seccomp:')\n"
        "print(*(line for line in lines if line.startswith(names)))",
        "CapEff:\t0+ CapBnd:\t0+ CapAmb:\t0+ NoNewPrivs:\t1 Seccomp:\t2",
    ),
    "rights of the first process": Attack(
        "lines = Path('/proc/1/status').read_text().splitlines()\n"
        "print(*(line for line in lines if line.startswith(('CapEff', 'NoNew', 'Seccomp:'))))",
        "CapEff:\t0+ NoNewPrivs:\t1 Seccomp:\t2",
    ),
    # Open files
    "open files of the grader": Attack(
        "links = {os.readlink(p) for p in Path('/proc/self/fd').iterdir() if os.path.lexists(p)}\n"
        "print({link.split(':')[0] for link in links} - {'pipe', 'socket', 'anon_inode', '/dev/null', "
        "f'/proc/{os.getpid()}/fd'})",
        r"set\(\)",
    ),
    "a program inherits nothing": Attack(
        "print(subprocess.run(['ls', '/proc/self/fd'], capture_output=True, text=True).stdout.split())",
        r"\['0', '1', '2', '3'\]",
    ),
    "too many open files": Attack(
        "held = []\n"
        "error = attempt(lambda: [held.append(os.open('/dev/null', 0)) for _ in range(1000)])\n"
        "print(error, len(held) < 256)\n"
        "for one in held: os.close(one)",
        "EMFILE True",
    ),
    # Other processes
    "ending a process of the grader": Attack(
        "print(attempt(os.kill, GRADER, 9), attempt(os.kill, 1, 9), Path('/proc/1').exists())",
        "ESRCH done True",
    ),
    "limits of another process": Attack(
        "print(attempt(resource.prlimit, 1, resource.RLIMIT_CPU))", "EPERM"
    ),
    "more of its own limits": Attack(
        "for name in ('AS', 'CPU', 'NPROC', 'NOFILE', 'FSIZE', 'CORE'):\n"
        "    try: resource.setrlimit(getattr(resource, f'RLIMIT_{name}'), (-1, -1))\n"
        "    except (OSError, ValueError): continue\n"
        "    print('raised', name)\n"
        "print('held')",
        "held",
    ),
    "clearing its parent-death signal": Attack("print(call(PRCTL, 1, 0))", "EPERM"),
    "hiding from /proc": Attack("print(call(PRCTL, 4, 0))", "EPERM"),
    "a new user namespace": Attack(
        "print(call(CLONE, 0x10000000 | 17, 0, 0, 0, 0), "
        "subprocess.run(['unshare', '-r', 'true'], capture_output=True).returncode)",
        "EPERM 1",
    ),
    "becoming root": Attack(
        "print(attempt(os.setuid, 0), attempt(os.setgroups, [0]))",
        "(ENOSYS|EINVAL|EPERM) (ENOSYS|EPERM)",
    ),
    "too many threads": Attack(
        "event, threads = threading.Event(), []\n"
        "try:\n"
        "    for _ in range(1000):\n"
        "        threads.append(threading.Thread(target=event.wait))\n"
        "        threads[-1].start()\n"
        "except RuntimeError: threads.pop()\n"
        "event.set()\n"
        "for thread in threads: thread.join()\n"
        "print(len(threads) < 128)",
        "True",
    ),
    # Sockets
    "sockets beside the network": Attack(
        "families = {'VSOCK': 40, 'ALG': 38, 'PACKET': 17, 'BLUETOOTH': 31, 'CAN': 29, 'TIPC': 30}\n"
        "families |= {'KEY': 15, 'RDS': 21, 'XDP': 44, 'QIPCRTR': 42, 'SMC': 43, 'INET6': 10}\n"
        "print({attempt(socket.socket, number, 1) for number in families.values()})",
        "{'EAFNOSUPPORT'}",
    ),
    "netlink": Attack(
        "print({attempt(socket.socket, 16, 3, n) for n in range(23)})", "{'(EOPNOTSUPP|ENOTSUP)'}"
    ),
    "raw sockets and other protocols": Attack(
        "print(*(attempt(socket.socket, 2, *rest) for rest in ((3, 1), (2, 0), (1, 132))))",
        "ENETUNREACH ENETUNREACH EPERM",
    ),
    "the network": Attack(
        "print(*(attempt(socket.create_connection, (host, port), 2) for host, port in "
        "(('127.0.0.1', 22), ('192.0.2.1', 80), ('169.254.169.254', 80))))",
        "ECONNREFUSED ENETUNREACH ENETUNREACH",
    ),
    "sockets of the host in the abstract namespace": Attack(
        "print(attempt(socket.socket(socket.AF_UNIX).connect, b'\\0of-the-grader'))", "ECONNREFUSED"
    ),
    "a program for packets": Attack(
        "one = socket.socket(socket.AF_UNIX)\n"
        "print(attempt(one.setsockopt, 1, 26, bytes(16)), attempt(one.setsockopt, 1, 50, bytes(4)))",
        "EPERM EPERM",
    ),
    # Memory and disk
    "shared memory": Attack(
        "from multiprocessing import shared_memory\n"
        "made = attempt(lambda: shared_memory.SharedMemory(create=True, size=100))\n"
        "print(made, attempt(os.memfd_create, 'x'))",
        "EROFS ENOSYS",
    ),
    "huge pages": Attack("print(attempt(mmap.mmap, -1, 1 << 21, 0x40022))", "EPERM"),
    "locks without end": Attack(
        "print(attempt(fcntl.lockf, open('locked', 'w'), fcntl.LOCK_EX)); os.remove('locked')", "EPERM"
    ),
    "a full disk": Attack(
        "for folder in ('.', '/tmp'):\n"
        "    with open(f'{folder}/big', 'wb', buffering=0) as file:\n"
        "        print(attempt(lambda: [file.write(bytes(2**20)) for _ in range(100)]))\n"
        "print(sum(os.path.getsize(f'{folder}/big') for folder in ('.', '/tmp')) <= 64 * 2**20)\n"
        "for folder in ('.', '/tmp'): os.remove(f'{folder}/big')",
        r"ENOSPC\sENOSPC\sTrue",
    ),
    "writing elsewhere": Attack(
        _files("/x", "/usr/x", "/dev/shm/x", "/etc/x", "/proc/x", "/home/x"),
        "EROFS EROFS (EROFS|EACCES) EROFS (ENOENT|EACCES) EROFS",
    ),
    "devices": Attack(
        "usual = 'core fd full null ptmx pts random shm stderr stdin stdout tty urandom zero'.split()\n"
        "print([p.name for p in Path('/dev').iterdir() if p.name not in usual],\n"
        "      attempt(os.mknod, 'sda', 0o060666, os.makedev(8, 0)))",
        r"\[\] (ENOSYS|EPERM)",
    ),
    "typing into the terminal": Attack(
        "master, slave = os.openpty()\nprint(attempt(fcntl.ioctl, slave, 0x5412, b'x'), os.isatty(0))",
        "ENOTTY False",
    ),
}

# The same calls, made past the C library.
_COLUMN = list(MACHINES).index(platform.machine()) if platform.machine() in MACHINES else 0
for _name, _numbers in REFUSED.items():
    HELD[_name] = Attack(f"print(call({_numbers[_COLUMN]}, 0, 0, 0, 0, 0, 0))", "ENOSYS")
if platform.machine() == "x86_64":
    HELD["a call by the x32 ABI"] = Attack("print(call(0x40000000 | 39))", "ENOSYS")
    # mov eax, 20 (getpid); int 0x80; ret. A kernel without the i386 ABI ends the process with SIGSEGV.
    HELD["a call by the i386 ABI"] = Attack(
        "code = mmap.mmap(-1, 4096, prot=7)\n"
        "code.write(bytes.fromhex('b814000000cd80c3'))\n"
        "address = ctypes.addressof(ctypes.c_char.from_buffer(code))\n"
        "child = os.fork()\n"
        "if child == 0: os._exit(-ctypes.CFUNCTYPE(ctypes.c_int)(address)() & 0x7f)\n"
        "status = os.waitpid(child, 0)[1]\n"
        "print(os.waitstatus_to_exitcode(status) in (errno.ENOSYS, -signal.SIGSEGV))",
        "True",
    )

ENDED = {
    "a fork bomb": Attack("while True:\n    try: os.fork()\n    except OSError: pass", "processes"),
    "a fork bomb of processes that leave their session": Attack(
        "while True:\n    try:\n        if os.fork() == 0: os.setsid()\n    except OSError: pass",
        "processes",
    ),
    "memory in many processes": Attack(
        "for n in range(6):\n    if os.fork() == 0: held = os.urandom(2**20) * 200; time.sleep(60)\n"
        "time.sleep(60)",
        "memory",
    ),
    "memory under a name that looks like a size": Attack(
        "for name in (b'a kB', b'x) 0 0', b'1 kB', b'\\xff kB', b'a\\n: 1 kB', b'()'):\n"
        "    if os.fork() == 0:\n"
        "        libc.prctl(15, name, 0, 0, 0)\n"
        "        held = os.urandom(2**20) * 200; time.sleep(60)\n"
        "time.sleep(60)",
        "memory",
    ),
    "memory in sockets": Attack(
        "held = []\n"
        "for _ in range(20):\n"
        "    if os.fork() == 0:\n"
        "        try:\n"
        "            while True: held.append(socket.socketpair())\n"
        "        except OSError: time.sleep(60)\n"
        "time.sleep(60)",
        "memory",
    ),
    "many small files": Attack("for n in range(10**7): open(f'{n}', 'w').close()", "2000 files"),
    "a signal to everybody": Attack(
        "if os.fork() == 0: os.kill(-1, signal.SIGKILL)\ntime.sleep(60)", "died"
    ),
}


def held(attack: Attack, printed: str) -> bool:
    """Whether an attack ended as it must."""
    return re.fullmatch(attack.printed, printed.strip()) is not None
