"""The tables of labs 07 and 14, as far as they are made without a swarm."""

from __future__ import annotations

from datetime import UTC, datetime

import pandas as pd
import pytest

from labkit.capture import Capture
from labkit.errors import UsageError
from labkit.experiments import asking, balance
from labkit.plots import balance as drawn

CONNECTIONS = """\
IPVS connection entries
pro expire state       source             virtual            destination
TCP 00:07  ESTABLISHED 10.100.3.9:51234   10.100.3.2:0       10.100.3.5:0
"""


def test_a_connection_is_found_by_the_port_that_it_comes_from() -> None:
    look = Capture(
        argv=("ipvsadm", "-l", "-n", "-c"),
        place="node1/lb_net",
        node="node1",
        code=0,
        stdout=CONNECTIONS,
        stderr="",
        started=datetime.now(UTC),
        seconds=0.1,
        docker="26.1",
    )
    assert balance._entry(look, 51234) == {"state": "ESTABLISHED", "expires_s": 7}
    assert balance._entry(look, 40000) == {"state": None, "expires_s": None}


def test_a_task_that_answered_nothing_is_drawn_too() -> None:
    rows = [("hello.10", 10, True), ("hello.2", 10, True), (None, None, False)]
    df = pd.DataFrame(rows, columns=["task", "replicas", "reached"]).astype({"task": "str"})
    assert drawn._tasks_of(df) == [f"hello.{slot}" for slot in range(1, 11)]


def test_a_url_without_an_address_is_refused_before_it_is_asked() -> None:
    for url in ("http://nan:3000", "http://<NA>:3000", "http://None:3000", "http://"):
        with pytest.raises(UsageError, match="has no address to ask"):
            asking.curl(url, 1.0)
    assert asking.curl("http://10.0.0.2:3000", 1.0)[-1] == "http://10.0.0.2:3000"
