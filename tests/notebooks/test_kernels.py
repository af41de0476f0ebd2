"""A kernel of the labs' JupyterLab, on a computer that others have accounts on, too."""

from __future__ import annotations

import stat
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import zmq
from jupyter_client.manager import KernelManager
from traitlets.config.loader import KVArgParseConfigLoader

from labkit.page import jupyterlab


def reply(client: Any, asked: str) -> dict[str, Any]:
    """Return the content of the answer to one request."""
    while True:
        message = client.get_shell_msg(timeout=60)
        if message["parent_header"].get("msg_id") == asked:
            content: dict[str, Any] = message["content"]
            return content


def heard(process: int, client: Any) -> list[bytes]:
    """Return what a stranger hears on every port of a kernel that prints something."""
    listening = [
        c.laddr.port for c in psutil.Process(process).net_connections("tcp") if c.status == "LISTEN"
    ]
    ear = zmq.Context.instance().socket(zmq.SUB)
    ear.linger = 0
    ear.subscribe(b"")
    for port in listening:
        ear.connect(f"tcp://127.0.0.1:{port}")
    try:
        time.sleep(0.5)  # a subscriber hears what is said after it has come
        assert reply(client, client.execute("print('my answer')"))["status"] == "ok"
        return ear.recv_multipart() if ear.poll(1000) else []
    finally:
        ear.close()


def test_nobody_else_hears_what_a_kernel_runs_and_prints(tmp_path: Path) -> None:
    """The HMAC key of a kernel guards what is sent to it, and not who subscribes to its output."""
    config = KVArgParseConfigLoader(jupyterlab.options(tmp_path)).load_config()
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        manager = KernelManager(config=config, connection_file=f"{short}/kernel-x.json")
        manager.start_kernel(extra_arguments=["--IPKernelApp.log_level=ERROR"])
        client = manager.client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=60)
            assert manager.provisioner
            assert heard(manager.provisioner.pid, client) == []
            sockets = [path for path in Path(short).iterdir() if stat.S_ISSOCK(path.stat().st_mode)]
            assert len(sockets) == 5
            asked = client.execute("import time; time.sleep(60)")
            time.sleep(0.5)
            manager.interrupt_kernel()
            assert reply(client, asked)["ename"] == "KeyboardInterrupt"
            manager.restart_kernel()
            client.wait_for_ready(timeout=60)
            assert heard(manager.provisioner.pid, client) == []
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
        assert list(Path(short).iterdir()) == []
