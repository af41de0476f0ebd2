"""What was begun comes to its end, also where Ctrl-C is pressed."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from labkit.engines.ending import to_the_end


def test_what_was_begun_has_ended_before_ctrl_c_goes_on() -> None:
    done: list[str] = []
    begun = threading.Event()

    def work() -> None:
        begun.set()
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)  # pressed once more, while it is waited for
        time.sleep(0.2)
        done.append("made")

    def interrupted() -> None:
        with to_the_end(1) as pool:
            pool.submit(work)
            pool.submit(done.append, "what waited")
            begun.wait()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done == ["made"]
