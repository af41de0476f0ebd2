"""Every parser against very many outputs that no tool printed: what `make soak` runs.

    .venv/bin/python tests/fuzz_parsers.py --outputs 200000

Half of the outputs are captured ones after a few changes (`tests/unit/parsers/generated.py`). The other
half comes from atheris, which is libFuzzer for Python: it watches which lines of `labkit/parsers` run,
and goes on from the outputs that reached new ones. Both halves run side by side. Then each parser reads
long outputs of a megabyte.

Each output must give a table or a ParseError that names the line, and take less than a second of the
processor's time. The last line on stdout is one JSON object:

    outputs     how many were read: changed + guided + long
    changed, guided, long
                how many were made in each way; guided is 0 where atheris is not installed
    tables, refused, failed
                how they ended
    slowest_s   processor time of the slowest one, in seconds; slowest: its parser
    failures    each problem once, at most 20 of them: parser, problem, text as Python spells it
    seed, python, seconds
                what is needed to run it again, and how long it took

The exit code is 1 when there are failures.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

if not __package__:  # run as a file, whose folder is then the first to import from
    sys.path[0] = str(Path(__file__).parents[1])

_SHOWN = 2_000  # characters of an output in the result
_MEGABYTE = 1_000_000


@dataclass
class Result:
    """What came of a number of outputs."""

    tables: int = 0
    refused: int = 0
    failed: int = 0
    slowest_s: float = 0.0
    slowest: str = ""
    failures: list[dict[str, str]] = field(default_factory=list)

    def read(self, name: str, text: str) -> None:
        """Read one output with the parser of a name, and note how it ended."""
        from tests.unit.parsers.generated import check

        began = time.thread_time()
        try:
            if check(name, text) == "table":
                self.tables += 1
            else:
                self.refused += 1
        except AssertionError as problem:
            self._fail(name, text, str(problem))
        if (seconds := time.thread_time() - began) > self.slowest_s:
            self.slowest_s, self.slowest = round(seconds, 3), name

    def _fail(self, name: str, text: str, problem: str) -> None:
        self.failed += 1
        known = [failure["problem"] for failure in self.failures]
        if problem not in known and len(known) < 20:
            self.failures.append({"parser": name, "problem": problem, "text": ascii(text[:_SHOWN])})
            print(f"{name}: {problem}", file=sys.stderr)

    def add(self, other: Result) -> None:
        """Add what came of other outputs."""
        self.tables += other.tables
        self.refused += other.refused
        self.failed += other.failed
        self.failures = [*self.failures, *other.failures][:20]
        if other.slowest_s > self.slowest_s:
            self.slowest_s, self.slowest = other.slowest_s, other.slowest


def changed_outputs(count: int, seed: int) -> Result:
    """Read outputs that are captured ones after a few changes, the parsers in turn."""
    from tests.unit.parsers.generated import changed
    from tests.unit.parsers.test_every_parser import PARSERS

    result = Result()
    names = list(PARSERS)
    draw = random.Random(seed)
    for number in range(count):
        name = names[number % len(names)]
        result.read(name, changed(name, draw.randrange))
    return result


@contextmanager
def guided_outputs(count: int, seed: int) -> Iterator[Callable[[], Result]]:
    """Let atheris make outputs, in a process of its own, since libFuzzer ends its process.

    What is yielded waits for it and returns what came of them; it raises SystemExit where that failed.
    """
    with tempfile.TemporaryDirectory(prefix="labkit-fuzz-") as folder:
        words = [sys.executable, __file__, "--outputs", str(count), "--seed", str(seed)]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        log = Path(folder) / "log"
        with (
            log.open("w") as err,
            subprocess.Popen(
                [*words, "--guided-into", folder], env=env, stdout=err, stderr=err
            ) as process,
        ):

            def result() -> Result:
                code = process.wait()
                into = Path(folder) / "result.json"
                if not into.exists():
                    raise SystemExit(f"the fuzzer ended with code {code}:\n{log.read_text()[-2_000:]}")
                return Result(**json.loads(into.read_text()))

            try:
                yield result
            finally:
                process.kill()  # it may still run when the other half failed


def _fuzz(count: int, seed: int, folder: Path) -> None:
    """Be the process of `guided_outputs`: read outputs, write result.json, and end."""
    import atheris

    with atheris.instrument_imports(include=["labkit.parsers"]):
        import labkit.parsers  # noqa: F401
    from tests.unit.parsers.generated import seeds, words
    from tests.unit.parsers.test_every_parser import PARSERS

    names = list(PARSERS)
    corpus = folder / "corpus"
    corpus.mkdir()
    # The first byte chooses the parser, so that libFuzzer may try the output of one tool on another.
    for at, name in enumerate(names):
        for number, text in enumerate(seeds(name)):
            data = bytes([at]) + text.encode(errors="surrogatepass")
            (corpus / f"{name}-{number}").write_bytes(data)
    dictionary = folder / "words"
    dictionary.write_text("\n".join(_dictionary(word for name in names for word in words(name))))
    result = Result()
    done = 0

    def one(data: bytes) -> None:
        nonlocal done
        if data:
            # Bytes that are no UTF-8 become halves of characters.
            result.read(names[data[0] % len(names)], data[1:].decode(errors="surrogateescape"))
            done += 1
        if done == count:
            (folder / "result.json").write_text(json.dumps(asdict(result)))
            os._exit(0)

    options = [f"-seed={seed}", "-max_len=4096", "-verbosity=0", f"-dict={dictionary}"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()


def _dictionary(words: Iterable[str]) -> Iterable[str]:
    """Yield words as libFuzzer's dictionary spells them."""
    for word in dict.fromkeys(words):
        if 1 < len(word) <= 32:
            spelled = "".join(f"\\x{byte:02X}" for byte in word.encode(errors="surrogatepass"))
            yield f'"{spelled}"'


def long_outputs() -> Result:
    """Read outputs of a megabyte, some of them one line of it."""
    from tests.unit.parsers import generated
    from tests.unit.parsers.test_every_parser import PARSERS

    result = Result()
    for name in PARSERS:
        for text in generated.long_outputs(name, _MEGABYTE):
            result.read(name, text)
    return result


def main() -> int:
    """Read as many outputs as the command says, and print the result."""
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("--outputs", type=int, default=200_000, help="how many, besides the long ones")
    words.add_argument("--seed", type=int, default=1, help="of the changes and of the fuzzer")
    words.add_argument("--guided-into", type=Path, help=argparse.SUPPRESS)
    asked = words.parse_args()
    if asked.guided_into:
        _fuzz(asked.outputs, asked.seed, asked.guided_into)
    began = time.monotonic()
    guided = asked.outputs // 2 if importlib.util.find_spec("atheris") else 0
    counts = {"changed": asked.outputs - guided, "guided": guided}
    if guided:
        with guided_outputs(guided, asked.seed) as its_result:
            total = changed_outputs(counts["changed"], asked.seed)
            total.add(its_result())
    else:
        print("atheris is not installed: no output is guided by what it reaches", file=sys.stderr)
        total = changed_outputs(counts["changed"], asked.seed)
    long = long_outputs()
    counts["long"] = long.tables + long.refused + long.failed
    total.add(long)
    seconds = {"seed": asked.seed, "python": platform.python_version()}
    row = {"outputs": sum(counts.values())} | counts | asdict(total) | seconds
    print(json.dumps(row | {"seconds": round(time.monotonic() - began, 1)}))
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
