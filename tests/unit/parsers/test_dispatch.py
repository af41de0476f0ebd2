"""From a command to its parser: through wrappers, by the words of the tool, or to none at all."""

from __future__ import annotations

import shlex

import pytest

from labkit.engines import versions
from labkit.errors import UsageError
from labkit.parsers import parse
from labkit.parsers.dispatch import TOOLS
from tests.unit.parsers.helpers import CAPTURED, read_capture


@pytest.mark.parametrize(
    "command",
    [
        "timeout 3 ip neigh",
        "timeout -s KILL 3 nsenter --net=/run/docker/netns/ingress_sbox -- /usr/sbin/ip neigh",
        "nsenter -t 12 -n ip neighbour show",
        "docker exec -i -e A=b hello-a.1 ip n",
        "ip netns exec blue ip neigh",
        "ip -n blue -4 neigh",
        "sudo -u root stdbuf -o L ip neigh",
    ],
)
def test_wrappers_are_seen_through(command: str) -> None:
    table = parse(shlex.split(command), "10.0.1.6 dev eth0 lladdr 02:42:0a:00:01:06 STALE\n")
    assert list(table["state"]) == ["STALE"]


@pytest.mark.parametrize(
    "command",
    ["ls -l", "ip rule", "ip", "bridge link", "iptables -F", "timeout 3", "conntrack -E", ""],
)
def test_a_tool_without_a_parser_is_named_with_those_that_have_one(command: str) -> None:
    with pytest.raises(UsageError, match=r"no parser for .*bridge fdb.*ipvsadm.*tcpdump"):
        parse(shlex.split(command), "")


@pytest.mark.parametrize("docker", versions.shipped())
def test_every_tool_was_captured_on_every_version(docker: str) -> None:
    here = [path for path in CAPTURED if path.parent.name == docker]
    assert {tool.split()[0] for tool in TOOLS} == {read_capture(path)[0][0] for path in here}
