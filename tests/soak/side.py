"""Side by side: three labs that come and go at once, and two processes that want the same lab."""

from __future__ import annotations

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor

from tests.soak.home import Done, Home
from tests.soak.results import Part

LABS = ("soak-one", "soak-two", "soak-three")
LAB = "soak-both"


def run(home: Home, rounds: int, seed: int, more: bool) -> None:
    """Run both, as many rounds of each as asked for."""
    pairs = [("up", "up"), ("down", "down"), ("reset", "reset"), ("up", "down"), ("reset", "down")]
    part = Part("side", rounds * (1 + len(pairs)), seed, more)
    dice = random.Random(seed + part.count)
    while part.count < part.asked:
        began = time.monotonic()
        with ThreadPoolExecutor(len(LABS)) as pool:
            found = list(pool.map(lambda lab: _come_and_go(home, lab, dice.random()), LABS))
        seconds = round(time.monotonic() - began, 1)
        part.tried("three labs, up, asked, run, down", "; ".join(filter(None, found)), seconds=seconds)
        for pair in pairs:
            part.tried(f"two processes, {pair[0]} and {pair[1]}", _at_once(home, pair, dice.random()))
    if problem := home.take_all_down():
        part.tried("what is left", problem)


def _come_and_go(home: Home, lab: str, pause: float) -> str:
    """Have a lab, ask it, run a notebook on it, and take it down; the others do the same meanwhile."""
    time.sleep(3 * pause)  # so that they are never at the same step
    if problem := home.prove(lab):
        return f"{lab}: {problem}"
    done = home.run("run", "01", "--lab", lab, "--report", str(home.work / lab), "--json")
    if done.code:
        return f"{lab}: run ended with {done.code}: {(done.err or done.out).strip()[-400:]}"
    checks = json.loads(done.out)
    if checks["failed"]:
        return f"{lab}: {checks['failed']} checks failed"
    down = home.run("down", "--lab", lab)
    return f"{lab}: down: {down.err}" if down.code else ""


def _at_once(home: Home, pair: tuple[str, str], pause: float) -> str:
    """Run two commands on one lab at the same time; each ends as if it had come before or after."""
    problem = home.prove(LAB) if pair[0] != "up" else home.run("down", "--lab", LAB).err
    if problem:
        return f"before it: {problem}"

    def one(verb: str, wait: float) -> Done:
        time.sleep(wait)
        return home.run(verb, *(("--engine", "vm") if verb == "up" else ()), "--lab", LAB)

    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(one, pair, (0.0, 2 * pause)))
    said = [done.err for done in ended if done.code]
    # Whoever comes second finds a lab that is up, or none to reset.
    wrong = [text for text in said if "is up already" not in text and "no running lab" not in text]
    if wrong or len(said) > 1:
        return f"both: {said}"
    return home.prove(LAB)
