"""The file of machines of one's own: what is read from it, and what a mistake in it gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from labkit import swarm
from labkit.engines.hosts import endpoint, inventory
from labkit.engines.hosts.inventory import Host
from labkit.errors import HostsError, UnknownNameError, UsageError
from labkit.progress import Progress

GOOD = """\
hosts:
  - name: beta
    context: beta
  - name: alpha
    docker: ssh://me@alpha.example:2222
    address: 192.0.2.11
    role: manager
  - {name: gamma, docker: "tcp://192.0.2.13:2376", tls: certificates}
  - {name: delta, docker: unix:///run/docker.sock}
"""


def read(text: str, tmp_path: Path) -> inventory.Inventory:
    file = tmp_path / "hosts.yaml"
    file.write_text(text)
    return inventory.read(file)


def test_managers_come_first_and_certificates_lie_beside_the_file(tmp_path: Path) -> None:
    found = read(GOOD, tmp_path)
    assert [host.name for host in found.hosts] == ["alpha", "beta", "gamma", "delta"]
    assert found.hosts[0] == Host(
        "alpha", True, docker="ssh://me@alpha.example:2222", address="192.0.2.11"
    )
    assert found.hosts[2].tls == str(tmp_path / "certificates")
    assert found.pool is None
    assert read(GOOD + "pool: 172.28.0.0/14\n", tmp_path).pool == "172.28.0.0/14"


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "problem"),
    [
        ("    context: beta\n", "    contekst: beta\n", 3, "hosts[0].contekst", "is not known here"),
        ("    context: beta\n", "", 2, "hosts[0].docker", "neither is there"),
        (
            "    context: beta",
            "    context: beta\n    docker: unix:///s",
            4,
            "docker",
            "both are there",
        ),
        ("name: alpha", "name: beta", 4, "hosts[1].name", "is 'beta' again"),
        ("name: alpha", "name: al pha", 4, "hosts[1].name", "expected the name of a machine"),
        ("role: manager", "role: worker", 2, "hosts", "has no manager"),
        ("role: manager", "role: boss", 7, "hosts[1].role", "expected manager or worker"),
        ("address: 192.0.2.11", "address: alpha", 6, "hosts[1].address", "expected an IPv4 address"),
        (", tls: certificates", "", 8, "hosts[2].docker", "is root on the machine"),
        (":2376", "", 8, "hosts[2].docker", "names no port"),
        ("tcp://192.0.2.13:2376", "http://192.0.2.13", 8, "hosts[2].docker", "expected ssh://"),
        ("unix:///run", "unix://run", 9, "hosts[3].docker", "expected ssh://"),
        ("unix:///run/docker.sock", "ssh://-oProxyCommand=x", 9, "hosts[3].docker", "expected ssh://"),
        ("unix:///run/docker.sock", "ssh://-x@host", 9, "hosts[3].docker", "expected ssh://"),
        ("unix:///run/docker.sock", "ssh://host/a", 9, "hosts[3].docker", "expected ssh://"),
        ("docker: unix:///run/docker.sock", "context: -x", 9, "hosts[3].context", "docker context"),
        ("docker: unix:///run/docker.sock", "context: beta", 9, "hosts[3].context", "of beta again"),
        (
            "docker: unix:///run/docker.sock",
            "context: x, tls: y",
            9,
            "hosts[3].tls",
            "is for `docker: tcp",
        ),
    ],
)
def test_a_mistake_is_told_with_its_line(
    old: str, new: str, line: int, key: str, problem: str, tmp_path: Path
) -> None:
    assert old in GOOD
    with pytest.raises(HostsError) as caught:
        read(GOOD.replace(old, new), tmp_path)
    told = caught.value.args[0]
    assert f"hosts.yaml, line {line}, key " in told
    assert key in told
    assert problem in told
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the file is empty"),
        ("hosts: []\n", "must be a list of machines"),
        ("hosts: alpha\n", "must be a list of machines"),
        ("machines: []\n", "is not known here"),
        (GOOD + "pool: 10.0.0.0/33\n", "is no IPv4 network"),
        (GOOD + "pool: 10.0.0.0/24\n", "too small"),
        (
            "hosts:\n" + "".join(f"  - {{name: n{i}, context: c{i}}}\n" for i in range(21)),
            "20 are the most",
        ),
    ],
)
def test_a_file_that_cannot_be(text: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(HostsError, match=problem):
        read(text, tmp_path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(HostsError, match="cannot be read: No such file"):
        inventory.read(tmp_path / "none.yaml")


def test_the_ways_to_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alpha, _, gamma, delta = read(GOOD, tmp_path).hosts
    assert endpoint.of(delta).environment() == {"DOCKER_HOST": "unix:///run/docker.sock"}
    assert endpoint.of(gamma).environment() == {
        "DOCKER_HOST": "tcp://192.0.2.13:2376",
        "DOCKER_TLS_VERIFY": "1",
        "DOCKER_CERT_PATH": str(tmp_path / "certificates"),
    }
    argv = endpoint.of(alpha).ssh("docker", "system", "dial-stdio")
    assert argv[0] == "ssh"
    assert argv[argv.index("-l") + 1 :] == [
        "me",
        "-p",
        "2222",
        "--",
        "alpha.example",
        "docker",
        "system",
        "dial-stdio",
    ]
    assert "BatchMode=yes" in argv


def test_a_context_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UnknownNameError, match="no docker context is called 'beta'"):
        endpoint.of(Host("beta", False, context="beta"))


@pytest.mark.parametrize("asked", [{"nodes": 5}, {"managers": 2}, {"compose": Path("swarm.yaml")}])
def test_what_the_file_says_is_not_asked_for_beside_it(asked: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="what machines of your own are, their file says"):
        swarm.up("hosts-file", hosts=tmp_path / "hosts.yaml", progress=Progress(), **asked)
