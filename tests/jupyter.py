"""Starts a command that becomes JupyterLab, and finds the address that it prints."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serving(
    argv: Sequence[str | Path], *, log: Path, env: Mapping[str, str], cwd: Path, seconds: float = 120
) -> Iterator[str]:
    """Run a command until the body has ended; gives the address with its token.

    What the command prints goes to `log`. Fails where it ends, or prints no address in time.
    """
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=out, env=env, cwd=cwd)
    try:
        deadline = time.monotonic() + seconds
        found = None
        while not found and time.monotonic() < deadline:
            assert process.poll() is None, log.read_text()
            found = re.search(r"http://127\.0\.0\.1:\d+/lab\?token=\w+", log.read_text())
            time.sleep(0.2)
        assert found, log.read_text()
        yield found[0]
    finally:
        process.terminate()
        process.wait(30)
