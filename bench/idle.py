"""Measures labs that are left alone: what they cost at rest and paused, and how soon they are back.

bench/idle.py [PART …] [--rounds N] writes bench/results/idle-<date>-qemu-<version>.json, each part as
soon as it is measured. The QEMU is the first one in PATH; another one makes a saved state of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from labkit import benchmark, files, swarm
from labkit.engines.vm import accel, machine, qmp
from labkit.engines.vm.machine import Machine
from labkit.progress import Progress
from labkit.transport import silence
from tests import BIN

RESULTS = Path(__file__).parent / "results"
LAB = "bench-idle"
NEVER = {"LABKIT_PAUSE_AFTER": "0", "LABKIT_HIBERNATE_AFTER": "0"}
REST_S = 30.0
QEMUS_OWN_MB = 1024


@contextlib.contextmanager
def up(*labs: str, **environment: str) -> Iterator[list[Machine]]:
    """Have labs; they rest as the environment says."""
    before = dict(os.environ)
    os.environ.update({**NEVER, **environment})
    try:
        for lab in labs:
            swarm.down(lab)
            swarm.up(lab, engine="vm", progress=Progress()).lab.close()
        yield [found(lab) for lab in labs]
    finally:
        os.environ.clear()
        os.environ.update(before)
        for lab in labs:
            swarm.down(lab)


def found(lab: str) -> Machine:
    """Return a lab's machine."""
    running = machine.find(lab)
    assert running
    return running


def spent(machines: list[Machine]) -> float:
    """Return the seconds of processor that machines and their proxies have taken."""
    pids = [pid for running in machines for pid in (running.pid, running.proxy)]
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def own_mb(running: Machine) -> float:
    """Return the memory in MB that a machine and its proxy have written to: no other lab can share it.

    What they only read of the snapshot is in the page cache, once for all labs.
    """
    kilobytes = 0
    for pid in (running.pid, running.proxy):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in ("Private_Dirty", "Swap"):
                kilobytes += int(value.split()[0])
    return kilobytes * 1024 / 1e6


def processor(machines: list[Machine]) -> float:
    """Return what machines take of a core, in percent, while nobody asks them anything."""
    began, before = time.monotonic(), spent(machines)
    time.sleep(REST_S)
    return round(100 * (spent(machines) - before) / (time.monotonic() - began), 1)


def run(lab: str, *names: str) -> subprocess.Popen[bytes]:
    """Start executing labs' notebooks with their solutions."""
    report = str(RESULTS.parent.parent / "build" / "bench" / lab)
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        [BIN, "run", *names, "--lab", lab, "--report", report], stdout=quiet, stderr=quiet
    )


def work(rounds: int) -> dict[str, Any]:
    """Lab 03 on a lab of its own: seconds, processor, memory before and after.

    Where labkit limits the code that QEMU keeps translated, in turns with QEMU's own measure.
    """
    rows = []
    limits = [accel.TRANSLATED_MB, QEMUS_OWN_MB] if accel.is_steady() else [QEMUS_OWN_MB]
    for limit in limits * rounds:
        with patch.object(accel, "TRANSLATED_MB", limit), up(LAB) as (running,):
            first, before, began = own_mb(running), spent([running]), time.monotonic()
            code = run(LAB, "03").wait()
            rows.append(
                {
                    "translated_mb": limit,
                    "code": code,
                    "seconds": round(time.monotonic() - began, 1),
                    "processor_s": round(spent([running]) - before, 1),
                    "own_mb_before": round(first),
                    "own_mb_after": round(own_mb(running)),
                }
            )
            print(rows[-1], flush=True)
    return {"rows": rows}


def rest(rounds: int) -> dict[str, Any]:
    """A lab at rest, with and without a service, and paused; and how soon a paused one is proved."""
    running_pct, with_service, paused, woken, direct = [], [], [], [], []
    for _ in range(rounds):
        with up(LAB) as machines:
            running_pct.append(processor(machines))
            with contextlib.closing(swarm.get(LAB)) as lab:
                lab.service("hello", publish="8080:3000", replicas=2)
                lab.wait_for_answers("hello")
            with_service.append(processor(machines))
    silence.SECONDS = 0.5  # until this process hangs up, in place of a minute
    with up(LAB, LABKIT_PAUSE_AFTER="1") as machines, contextlib.closing(swarm.get(LAB)) as lab:
        for _ in range(10):
            direct.append(_proved(lab))
            swarm.wait_for("the machine to be paused", _paused, seconds=60)
            woken.append(_proved(lab))
        swarm.wait_for("the machine to be paused", _paused, seconds=60)
        paused += [processor(machines) for _ in range(rounds)]
    return {
        "at_rest_pct": running_pct,
        "at_rest_with_a_service_pct": with_service,
        "paused_pct": paused,
        "proved_s": direct,
        "woken_and_proved_s": woken,
    }


def _paused() -> tuple[bool, str]:
    return not qmp.runs(machine.lab_directory(LAB)), "it runs"


def _proved(lab: swarm.Lab) -> float:
    """Return the seconds until every node has answered, and the manager has called each ready."""
    began = time.monotonic()
    asked = lab.run_all([(node.place, ["true"]) for node in lab.nodes.values()])
    states = [row["Status"]["State"] for row in lab.manager.docker.api.nodes()]
    assert all(capture.ok for capture in asked)
    assert states == ["ready"] * len(lab.nodes), states
    return round(time.monotonic() - began, 3)


def hibernate(rounds: int) -> dict[str, Any]:
    """A lab that is hibernated after lab 00: its file, and how soon it is proved again."""
    sizes, back = [], []
    with up(LAB, LABKIT_PAUSE_AFTER="1", LABKIT_HIBERNATE_AFTER="2"):
        run(LAB, "00").wait()
        for _ in range(rounds):
            swarm.wait_for("the machine to be hibernated", _is_hibernated, seconds=120)
            sizes.append(round(found(LAB).hibernated.stat().st_blocks * 512 / 1e6))
            began = time.monotonic()
            with contextlib.closing(swarm.get(LAB)) as lab:
                _proved(lab)
            back.append(round(time.monotonic() - began, 2))
    return {"file_mb": sizes, "back_and_proved_s": back}


def _is_hibernated() -> tuple[bool, str]:
    there = machine.qemus_in(machine.lab_directory(LAB))
    return not there and found(LAB).hibernated.exists(), f"QEMU {there}"


def many(rounds: int) -> dict[str, Any]:
    """One, four and eight labs at once: at rest, at work (lab 00 in each), paused, after work."""
    rows = []
    for count in (1, 4, 8):
        names = [f"{LAB}-{number}" for number in range(count)]
        with up(*names) as machines:
            at_rest = processor(machines)
            before, began = spent(machines), time.monotonic()
            codes = [started.wait() for started in [run(name, "00") for name in names]]
            seconds = time.monotonic() - began
            row = {
                "labs": count,
                "codes": codes,
                "at_rest_pct": at_rest,
                "lab_00_s": round(seconds, 1),
                "lab_00_processor_pct": round(100 * (spent(machines) - before) / seconds, 1),
                "own_mb_after": [round(own_mb(running)) for running in machines],
                "machine_mb_used": round(psutil.virtual_memory().used / 1e6),
            }
            for running in machines:
                qmp.pause(Path(running.directory))
            rows.append({**row, "paused_pct": processor(machines)})
            print(rows[-1], flush=True)
    return {"rows": rows}


PARTS = {"work": work, "rest": rest, "hibernate": hibernate, "many": many}


def main() -> None:
    """Measure what was asked for, and keep what an earlier run of today has measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    now = datetime.now(UTC).date().isoformat()
    release = accel.qemu_release() or ("unknown",)
    target = RESULTS / f"idle-{now}-qemu-{'.'.join(map(str, release))}.json"
    record = json.loads(target.read_text()) if target.exists() else {}
    for part in asked.parts:
        result = PARTS[part](asked.rounds)
        record |= {"date": now, "machine": benchmark.machine(), part: result}
        files.write_json(target, record)
        for name, values in result.items():
            if name != "rows":
                print(f"{part}, {name}: median {statistics.median(values)}, {values}", flush=True)


if __name__ == "__main__":
    main()
