"""Keys and tokens: who may read them, and where they never stand; and what listens beyond loopback."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from labkit import logs, paths
from labkit.capture import Capture
from labkit.engines.vm import certificates
from labkit.errors import LabkitError, redact

SECRETS = {
    "join token": ("SWMTKN-1-0abc-1def", "SWMTKN-…"),
    "unlock key": ("SWMKEY-1-7c37Cc8654o6p38HnroywCi19pllOnGtbdZEgtKxZu8", "SWMKEY-…"),
    "private key": (
        "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIQ==\n-----END EC PRIVATE KEY-----",
        "-----BEGIN EC PRIVATE KEY-----…",
    ),
    "private key that is cut off": (
        "-----BEGIN PRIVATE KEY-----\nMHcCAQEEIQ==\nAoGBAK",
        "-----BEGIN PRIVATE KEY-----…",
    ),
}


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_stands_in_no_error_log_capture_or_evidence(kind: str) -> None:
    secret, mark = SECRETS[kind]
    told = f"before {secret}"
    shown = [str(LabkitError(told, hint=told)), _logged(told), *_captured(told)]
    for text in shown:
        assert mark in text
        assert secret not in text
        assert "MHcCAQEEIQ" not in text


def _logged(text: str) -> str:
    """What -vv shows of a text in a message and in a traceback."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs._Redacted(logs._FORMAT))
    try:
        raise ValueError(text)
    except ValueError:
        record = logging.LogRecord(
            *("labkit.engines", logging.DEBUG, __file__, 1, "asking %s", (text,)),
            exc_info=sys.exc_info(),
        )
    handler.handle(record)
    return stream.getvalue()


def _captured(text: str) -> list[str]:
    """What a capture shows, and what of it goes into evidence and reports."""
    now = datetime.now(UTC)
    one = Capture(("cat", text), "node1", "node1", 0, text, text, now, 0.1, "28.5")
    return [str(one), one._repr_html_(), json.dumps(one.to_json(), ensure_ascii=False)]


def test_what_is_no_secret_stays_and_a_long_text_takes_no_time() -> None:
    certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"
    assert redact(certificate) == certificate
    began = time.monotonic()
    redact("-----BEGIN PRIVATE KEY" * 50_000 + "SWMTKN-1-" * 50_000)
    assert time.monotonic() - began < 1


def test_keys_of_the_embedded_machine_are_their_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        certificates.make(tmp_path)
    finally:
        os.umask(before)
    modes = {
        str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode)
        for path in tmp_path.rglob("*.pem")
    }
    assert {name for name in modes if "key" in name} == {"key.pem", "server/server-key.pem"}
    assert set(modes.values()) == {0o600}
    texts = "".join(path.read_text() for path in tmp_path.rglob("*.pem"))
    assert texts.count("PRIVATE KEY-----") == 4  # the CA's own is not written


def test_nothing_of_the_kit_listens_beyond_loopback_on_this_machine() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "labkit", "compose", "tools", "Makefile"],
        cwd=paths.REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    texts = {name: (paths.REPOSITORY / name).read_text(errors="ignore") for name in tracked}
    everywhere = {
        name for name, text in texts.items() if re.search(r"[\"']0\.0\.0\.0[\"':]|\"::\"", text)
    }
    # On the nodes, in their tasks, and in the embedded machine behind QEMU's forwards.
    assert everywhere == {
        "labkit/swarm/membership.py",
        "labkit/programs/proxy.py",
        "compose/app/server.py",
        "compose/machine/relay.py",
    }
    forwards = re.findall(r"hostfwd=\w+:([\d.]*):", "".join(texts.values()))
    assert forwards
    assert set(forwards) == {"127.0.0.1"}
    assert not re.search(r"^\s*ports:", texts["compose/swarm.yaml"], re.MULTILINE)
