"""Finds out which packets of Swarm's get from one machine to another, and where those stop that do not.

Its words: `listen ADDRESS WORD`, or `send ADDRESS WORD MTU TARGET=PORT,PORT…`. On every machine one
listens while the others send. The WORD is in each packet, so that packets of others do not count;
ports are 2377/tcp, 7946/tcp, 7946/udp, 4789/udp, esp, and mtu, which is 4789/udp in a packet of MTU
bytes that must not be fragmented.

Who listens looks three times: a tap sees what comes in before the firewall and what goes out behind it,
a raw socket gets what the firewall has let in, also where Swarm has the port already, and a listener
takes connections where nobody else does. It says `listening` on stderr, and prints one JSON object when
it is interrupted. Who sends prints one JSON object at its end.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import time

TCP, UDP, ESP = 6, 17, 50
PORTS = {"2377/tcp": 2377, "7946/tcp": 7946, "7946/udp": 7946, "4789/udp": 4789, "mtu": 4789}
OUTGOING = 4  # of a packet's kinds, linux/if_packet.h
ALL_PROTOCOLS = 3
PROBE_MTU = (10, 3)  # IP_MTU_DISCOVER, IP_PMTUDISC_PROBE: not to be fragmented, whatever was learnt
TRIES, PAUSE_S, PATIENCE_S = 3, 0.2, 4.0
SYN, ACK = 2, 16


def payload(word: str, kind: str, size: int = 0) -> bytes:
    """Return what a probe carries: nothing that VXLAN or gossip would take for theirs."""
    return (b"\0" * 8 + f"labkit {word} {kind} ".encode()).ljust(size, b".")


def kind_of(data: bytes, word: str) -> str:
    """Return the kind of a probe of ours, empty for other packets."""
    found = data.partition(f"labkit {word} ".encode())[2]
    return found.split(b" ")[0].decode() if found else ""


def read(packet: bytes, word: str) -> tuple[str, str, str, str] | None:
    """Return a packet's source, destination, port and part of what is looked at, None for others."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return None
    head, proto = (packet[0] & 15) * 4, packet[9]
    source, target = (socket.inet_ntoa(packet[at : at + 4]) for at in (12, 16))
    if proto == TCP and len(packet) >= head + 14:
        ports = struct.unpack_from(">HH", packet, head)
        flags = packet[head + 13] & (SYN | ACK)
        part = {SYN: "syn", SYN | ACK: "synack"}.get(flags, "")
        port = ports[1] if part == "syn" else ports[0]
        return (source, target, f"{port}/tcp", part) if part and port in (2377, 7946) else None
    if proto in (UDP, ESP):
        kind = kind_of(packet[head:200], word)
        return (source, target, kind, "probe") if kind else None
    return None


def listen(address: str, word: str) -> None:
    """Look until interrupted, and tell what came and went."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ALL_PROTOCOLS))
    tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    raw = [socket.socket(socket.AF_INET, socket.SOCK_RAW, proto) for proto in (UDP, ESP)]
    taken, doors = {}, []
    for port in (2377, 7946):
        door = socket.socket()
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((address, port))
            door.listen(64)
            doors.append(door)
        except OSError as problem:
            taken[f"{port}/tcp"] = os.strerror(problem.errno or errno.EADDRINUSE)
    seen, passed = set(), set()
    print("listening", file=sys.stderr, flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            for ready in select.select([tap, *raw, *doors], [], [])[0]:
                if ready in doors:
                    ready.accept()[0].close()
                elif ready is tap:
                    packet, sender = tap.recvfrom(65535)
                    if found := read(packet, word):
                        seen.add(("out" if sender[2] == OUTGOING else "in", *found))
                elif found := read(ready.recv(65535), word):
                    passed.add(found[:3])
    print(json.dumps({"taken": taken, "seen": sorted(seen), "passed": sorted(passed)}))


def connect(address: str, target: str, port: int) -> str:
    """Return what comes of a connection; empty where it is made."""
    with socket.socket() as link:
        link.settimeout(PATIENCE_S)
        try:
            link.bind((address, 0))
            link.connect((target, port))
        except OSError as problem:
            return os.strerror(problem.errno) if problem.errno else "no answer"
    return ""


def throw(address: str, target: str, kind: str, word: str, mtu: int) -> str:
    """Send a probe that nobody answers; returns what the kernel says, empty where it takes it."""
    said = ""
    if kind == "esp":
        out = socket.socket(socket.AF_INET, socket.SOCK_RAW, ESP)
        data = b"labk" + payload(word, kind)  # its first four bytes are for the number of a key
    else:
        out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        data = payload(word, kind, mtu - 28 if kind == "mtu" else 0)
    if kind == "mtu":
        out.setsockopt(socket.IPPROTO_IP, *PROBE_MTU)
    with out:
        out.bind((address, 0))
        for _ in range(TRIES):
            try:
                out.sendto(data, (target, PORTS.get(kind, 0)))
                said = ""
            except OSError as problem:
                said = os.strerror(problem.errno or errno.EIO)
                if problem.errno == errno.ECONNREFUSED:  # an answer to the one before: nobody listens
                    said = ""
            time.sleep(PAUSE_S)
    return said


def send(address: str, word: str, mtu: int, targets: dict[str, list[str]]) -> None:
    """Send all that was asked for, side by side, and tell what came of it."""
    told: dict[str, dict[str, str]] = {target: {} for target in targets}

    def one(target: str, kind: str) -> None:
        if kind.endswith("/tcp"):
            told[target][kind] = connect(address, target, PORTS[kind])
        else:
            told[target][kind] = throw(address, target, kind, word, mtu)

    threads = [
        threading.Thread(target=one, args=(target, kind))
        for target, kinds in targets.items()
        for kind in kinds
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(told))


if __name__ == "__main__":
    doing, own, secret, *rest = sys.argv[1:]
    if doing == "listen":
        listen(own, secret)
    else:
        longest, *asked = rest
        send(own, secret, int(longest), {a.split("=")[0]: a.split("=")[1].split(",") for a in asked})
