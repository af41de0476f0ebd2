"""Lets labkit into the embedded machine without starting a process there for it.

Starting a `docker exec` under emulation costs a second; this program runs already, also in a machine
that was restored from a saved state. It listens with TLS and talks to nobody without the client's
certificate. A connection begins with one JSON object on a line:

    {"unix": "/proc/71/root/run/docker.sock"}   carry bytes to that socket and back; where it is not
                                                there yet, wait for it as long as the process lives
    {"clock": 1795370000.0}                     set the clock; answers {"clock": what it is then}
    {"entropy": "5f0c…"}                        go on with other random numbers than every machine out
                                                of the same saved state; answers {"bits": how many}
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import re
import socket
import ssl
import struct
import time
from pathlib import Path

PORT = 2377
TLS = "/etc/labkit/tls"
CHUNK = 1 << 16
SO_TIMESTAMP = 29  # Linux's number; Python has no name for it
PAUSE = 0.1  # seconds between two looks for a socket
RNDADDENTROPY, RNDRESEEDCRNG = 0x40085203, 0x5207  # <linux/random.h>


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes one way until they end."""
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()


async def reach(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a unix socket of a process, waiting while there is the process and not the socket."""
    named = re.match(r"/proc/\d+", path)
    if not named:
        raise ValueError(f"{path!r} is not in a process's root")
    process = Path(named[0])
    while True:
        try:
            return await asyncio.open_unix_connection(path)
        except (FileNotFoundError, ConnectionRefusedError):
            if not process.exists():
                raise
            await asyncio.sleep(PAUSE)


def set_clock(seconds: float) -> dict[str, float]:
    """Set the clock, given in seconds since the epoch; returns what it is then."""
    time.clock_settime(time.CLOCK_REALTIME, seconds)
    return {"clock": time.time()}


def reseed(entropy: bytes) -> dict[str, int]:
    """Give the kernel's generator a new seed, and OpenSSL's in this process, which keeps its own."""
    bits = 8 * len(entropy)
    with open("/dev/random", "wb", buffering=0) as device:
        # struct rand_pool_info: the bits that it counts for, its bytes, and they themselves.
        fcntl.ioctl(device, RNDADDENTROPY, struct.pack("ii", bits, len(entropy)) + entropy)
        fcntl.ioctl(device, RNDRESEEDCRNG)
    ssl.RAND_add(entropy, len(entropy))
    return {"bits": bits}


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection."""
    there: asyncio.StreamWriter | None = None
    try:
        request = json.loads(await reader.readline())
        answer: dict[str, float] | dict[str, int] | None = None
        if "clock" in request:
            answer = set_clock(request["clock"])
        elif "entropy" in request:
            answer = reseed(bytes.fromhex(request["entropy"]))
        if answer:
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
            return
        answers, there = await reach(request["unix"])
        ways = [
            asyncio.ensure_future(carry(reader, there)),
            asyncio.ensure_future(carry(answers, writer)),
        ]
        # Whichever side ends, the other has nobody to talk to.
        _, left = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in left:
            way.cancel()
    except (OSError, ValueError, KeyError, TypeError) as problem:
        print(f"labkit: relay: {type(problem).__name__}: {problem}", flush=True)
    finally:
        for end in (writer, there):
            if end:
                end.close()


def keep_timestamps_on() -> socket.socket:
    """Hold a socket that asks for time stamps, as every ping and every tcpdump does.

    The kernel writes that wish into its own running code, with the first such socket and with the last.
    QEMU before 8.1 may run the half-written code of another emulated processor ("Oops: int3", a panic
    within the hour in these labs; Red Hat bug 2216496). With one that stays, nothing is rewritten.
    """
    holder = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    holder.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMP, 1)
    return holder


async def main() -> None:
    """Listen until the machine ends."""
    holder = keep_timestamps_on()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=f"{TLS}/ca.pem")
    context.load_cert_chain(f"{TLS}/server-cert.pem", f"{TLS}/server-key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    server = await asyncio.start_server(serve, "0.0.0.0", PORT, ssl=context)
    async with server:
        await server.serve_forever()
    holder.close()


asyncio.run(main())
