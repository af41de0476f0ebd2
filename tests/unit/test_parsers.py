"""Parsers: small examples of every form, and whatever real nodes printed (tests/captures).

A file of tests/captures holds `$ ` and the argv as a JSON list, then what the command printed. Its
sibling .json holds the records that are expected. After a change that is meant, write them anew
with LABKIT_WRITE_GOLDENS=1 and read the difference by eye.
"""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from labkit import parsers
from labkit.parsers import dispatch
from labkit.engines import debian as bootstrap
from labkit.errors import UsageError
from labkit.parsers import CURL_FORMAT, ParseError, parse

if TYPE_CHECKING:
    import pandas as pd

CAPTURES = Path(__file__).parents[1] / "captures"
CAPTURED = sorted(CAPTURES.glob("*/*.txt"))
PARSERS = {name: value for name, value in vars(parsers).items() if hasattr(value, "__wrapped__")}


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as plain JSON values, absent ones as None."""
    found = json.loads(table.to_json(orient="records"))
    assert isinstance(found, list)
    return found


# --- captured output -----------------------------------------------------------------------------


@pytest.mark.parametrize("docker", bootstrap.releases())
def test_every_tool_was_captured_on_every_version(docker: str) -> None:
    tools = {path.stem.partition("--")[0] for path in CAPTURED if path.parent.name == docker}
    assert tools >= {path.stem.partition("--")[0] for path in CAPTURED}
    assert len(tools) > 10


def test_every_table_has_the_text_that_it_comes_of() -> None:
    alone = [path for path in CAPTURES.glob("*/*.json") if not path.with_suffix(".txt").exists()]
    assert not alone


@pytest.mark.parametrize("path", CAPTURED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_captured_output_gives_the_expected_records(path: Path) -> None:
    first, _, text = path.read_text().partition("\n")
    table = parse(json.loads(first.removeprefix("$ ")), text)
    golden = path.with_suffix(".json")
    if os.environ.get("LABKIT_WRITE_GOLDENS"):
        lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in records(table))
        golden.write_text(f"[\n{lines}\n]\n")
    assert records(table) == json.loads(golden.read_text())


# --- small examples ------------------------------------------------------------------------------

IP_ADDR = """\
1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN group default qlen 1000
    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00
    inet 127.0.0.1/8 scope host lo
       valid_lft forever preferred_lft forever
12: eth0@if13: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1450 qdisc noqueue state UP group default
    link/ether 02:42:0a:00:01:05 brd ff:ff:ff:ff:ff:ff link-netnsid 0
    inet 10.0.1.5/24 brd 10.0.1.255 scope global eth0
       valid_lft forever preferred_lft forever
    inet 10.0.1.2/32 scope global eth0
       valid_lft forever preferred_lft forever
"""
IP_LINK = """\
3: vxlan0@if3: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1450 qdisc noqueue master br0 state UNKNOWN
    link/ether 46:66:95:88:b3:dc brd ff:ff:ff:ff:ff:ff link-netnsid 0 promiscuity 1  allmulti 1
    vxlan id 4097 srcport 0 0 dstport 4789 proxy l2miss l3miss ttl auto ageing 300 udpcsum
    bridge_slave state forwarding priority 32 cost 100 hairpin off guard off
    RX:  bytes packets errors dropped  missed   mcast
           252       4      0       0       0       3
    TX:  bytes packets errors dropped carrier collsns
           414       5      0       8       0       0
"""
IP_LINK_JSON = json.dumps(
    [
        {},
        {
            "ifindex": 3,
            "link_index": 3,
            "ifname": "vxlan0",
            "flags": ["BROADCAST", "MULTICAST", "UP", "LOWER_UP"],
            "mtu": 1450,
            "master": "br0",
            "operstate": "UNKNOWN",
            "link_type": "ether",
            "address": "46:66:95:88:b3:dc",
            "link_netnsid": 0,
            "linkinfo": {"info_kind": "vxlan", "info_data": {"id": 4097}},
            "stats64": {
                "rx": {"bytes": 252, "packets": 4, "errors": 0, "dropped": 0, "multicast": 3},
                "tx": {"bytes": 414, "packets": 5, "errors": 0, "dropped": 8, "collisions": 0},
            },
        },
    ]
)
VXLAN0 = {
    "index": 3,
    "interface": "vxlan0",
    "peer": "if3",
    "flags": "BROADCAST,MULTICAST,UP,LOWER_UP",
    "mtu": 1450,
    "state": "UNKNOWN",
    "master": "br0",
    "link_type": "ether",
    "mac": "46:66:95:88:b3:dc",
    "link_netnsid": 0,
    "kind": "vxlan",
    "vni": 4097,
    "rx_bytes": 252,
    "rx_packets": 4,
    "rx_errors": 0,
    "rx_dropped": 0,
    "tx_bytes": 414,
    "tx_packets": 5,
    "tx_errors": 0,
    "tx_dropped": 8,
}
IPTABLES = """\
Chain INPUT (policy ACCEPT 12 packets, 3456 bytes)
 pkts bytes target     prot opt in     out     source               destination
  12K  300M ACCEPT     6    --  *      *       0.0.0.0/0            10.0.0.7             \
tcp dpt:3000 ctstate NEW,ESTABLISHED
    0     0 DROP       132  --  *      *       0.0.0.0/0            10.0.0.7
    7   420            all  --  !lo    *       0.0.0.0/0            0.0.0.0/0

Chain OUTPUT (policy ACCEPT 0 packets, 0 bytes)
 pkts bytes target     prot opt in     out     source               destination

Chain DOCKER-INGRESS (2 references)
 pkts bytes target     prot opt in     out     source               destination
    1    60 DNAT       tcp  --  *      *       0.0.0.0/0            0.0.0.0/0            \
tcp dpt:5000 to:172.18.0.2:5000
"""
IPTABLES_SAVE = """\
# Generated by iptables-save v1.8.9 (nf_tables) on Sun Nov 22 14:52:42 2026
*nat
:OUTPUT ACCEPT [4:240]
:DOCKER-INGRESS - [0:0]
[5:300] -A OUTPUT -m addrtype --dst-type LOCAL -j DOCKER-INGRESS
[1:60] -A DOCKER-INGRESS -p tcp -m tcp --dport 5000 -j DNAT --to-destination 172.18.0.2:5000
[0:0] -A DOCKER-INGRESS ! -s 10.0.0.0/24 -d 10.0.0.7/32 -m comment --comment "a -j b" -j RETURN
COMMIT
*mangle
:INPUT ACCEPT [0:0]
[0:0] -A INPUT -p tcp -m tcp --dport 80:90
COMMIT
"""
IPVS = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  10.0.0.5:80 rr persistent 300
  -> 10.0.0.7:8080                Masq    1      2          1
FWM  256 rr
  -> 10.0.0.7:0                   Masq    1      0          4
  -> 10.0.0.8:0                   Masq    0      0          3
FWM  257 rr
"""
IPVS_STATS = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
  -> RemoteAddress:Port
FWM  256                                 4       24       16     1608      12K
  -> 10.0.0.7:0                          3       12        8      804      898
FWM  257                                 9       54       36     3618     4041
"""
IPVS_CONNECTIONS = """\
IPVS connection entries
pro expire state       source             virtual            destination
TCP 14:57  ESTABLISHED 10.0.0.2:43210     10.0.0.5:5000      10.0.0.7:5000
UDP 04:05  UDP         10.0.0.2:5353      10.0.0.5:53        10.0.0.8:53
"""
NSLOOKUP = """\
;; communications error to 127.0.0.11#53: timed out
Server:\t\t127.0.0.11
Address:\t127.0.0.11#53

Non-authoritative answer:
Name:\ttasks.hello-a
Address: 10.0.1.5
Name:\ttasks.hello-a
Address: 10.0.1.6
** server can't find tasks.hello-a: SERVFAIL

"""
DIG = """\

; <<>> DiG 9.18.24-1-Debian <<>> hello-a
;; global options: +cmd
;; Got answer:
;; ->>HEADER<<- opcode: QUERY, status: NOERROR, id: 1234
;; flags: qr rd ra; QUERY: 1, ANSWER: 2, AUTHORITY: 0, ADDITIONAL: 1

;; OPT PSEUDOSECTION:
; EDNS: version: 0, flags:; udp: 1232
;; QUESTION SECTION:
;hello-a.\t\t\tIN\tA

;; ANSWER SECTION:
hello-a.\t\t600\tIN\tA\t10.0.1.2
hello-a.\t\t600\tIN\tA\t10.0.1.3

;; Query time: 4 msec
;; SERVER: 127.0.0.11#53(127.0.0.11) (UDP)
;; WHEN: Sun Nov 22 14:52:42 UTC 2026
;; MSG SIZE  rcvd: 48

"""
DIG_NXDOMAIN = """\
;; Got answer:
;; ->>HEADER<<- opcode: QUERY, status: NXDOMAIN, id: 1234
;; QUESTION SECTION:
;nobody.\t\t\tIN\tA

;; AUTHORITY SECTION:
.\t\t\t86400\tIN\tSOA\ta.root-servers.net. nstld.verisign-grs.com. 1 2 3 4 5
"""
WHOAMI = json.dumps(
    {
        "container": "c1",
        "node": "node2",
        "addresses": ["10.0.0.7", "10.0.1.5"],
        "client": "10.0.0.2",
    }
)
CURL_OK = (
    "\n[curl exit=0 http=200 lookup_s=0.000030 connect_s=0.000155 total_s=0.006676"
    " remote=10.0.1.6:3000 local=10.0.1.5:44510 connects=1 size=3 error=]\n"
)
CURL_TIMED_OUT = (
    "\n[curl exit=28 http=000 lookup_s=0.000025 connect_s=0.000000 total_s=1.001716"
    " remote=:0 local=:0 connects=0 size=0 error=Connection timed out after 1001 ms]\n"
)
PING = """\
PING hello-a (10.0.1.6) 56(84) bytes of data.
64 bytes from hello-a.1.abc.my-overlay (10.0.1.6): icmp_seq=1 ttl=64 time=0.061 ms
From 10.0.1.5 icmp_seq=2 Destination Host Unreachable

--- hello-a ping statistics ---
2 packets transmitted, 1 received, +1 errors, 50% packet loss, time 1031ms
rtt min/avg/max/mdev = 0.061/0.074/0.089/0.011 ms, pipe 2
"""
PING_DEAD = """\
PING 10.0.1.9 (10.0.1.9) 56(84) bytes of data.

--- 10.0.1.9 ping statistics ---
3 packets transmitted, 0 received, 100% packet loss, time 2040ms

"""
TCPDUMP = """\
22:13:20.000000 eth0  Out IP 10.0.0.7.43210 > 10.0.0.8.3000: Flags [S], seq 1, win 64860, length 0
22:13:22.010000 eth0  B   ARP, Request who-has 10.0.0.8 tell 10.0.0.7, length 28
22:13:23.015000 eth0  In  ARP, Reply 10.0.0.8 is-at 02:42:0a:00:00:08, length 28
22:13:28.040000 lo    In  IP 10.0.1.5.40000 > 127.0.0.11.53: 4660+ A? hello-a. (25)
22:13:30.030000 eth0  Out IP6 fe80::1.5000 > fe80::2.6000: UDP, length 3
22:13:36.080000 eth1  Out IP 172.20.0.2.45678 > 172.20.0.3.4789: VXLAN, flags [I] (0x08), vni 4097
IP 10.0.1.5.43210 > 10.0.1.6.3000: Flags [P.], seq 0:33, ack 1, win 64860, length 33: HTTP: GET /
22:13:52.160000 eth1  Out IP 172.20.0.2 > 172.20.0.3: ESP(spi=0x12345678,seq=0x1), length 100
"""
TCPDUMP_E = """\
1700000016.500000 02:42:ac:14:00:02 > 02:42:ac:14:00:03, ethertype IPv4 (0x0800), length 148: \
172.20.0.2.45678 > 172.20.0.3.4789: VXLAN, flags [I] (0x08), vni 4097
02:42:0a:00:01:05 > ff:ff:ff:ff:ff:ff, ethertype ARP (0x0806), length 42: \
Request who-has 10.0.1.6 tell 10.0.1.5, length 28
2 packets captured
"""
CONNTRACK = """\
tcp      6 431999 ESTABLISHED src=10.0.0.2 dst=10.0.0.7 sport=43210 dport=5000 src=10.0.0.7 \
dst=10.0.0.2 sport=3000 dport=43210 [ASSURED] mark=256 use=1
udp      17 29 src=10.0.1.5 dst=127.0.0.11 sport=55355 dport=53 [UNREPLIED] src=127.0.0.11 \
dst=10.0.1.5 sport=40000 dport=55355 mark=0 use=1
icmp     1 29 src=10.0.0.7 dst=10.0.0.8 type=8 code=0 id=1 src=10.0.0.8 dst=10.0.0.7 type=0 \
code=0 id=1 mark=0 use=1
conntrack v1.4.7 (conntrack-tools): 3 flow entries have been shown.
"""
SS = """\
Netid State  Recv-Q Send-Q Local Address:Port  Peer Address:PortProcess
udp   UNCONN 0      0         127.0.0.11:43210      0.0.0.0:*    \
users:(("dockerd",pid=123,fd=40))
tcp   LISTEN 0      4096               *:7946             *:*
"""

EXAMPLES: list[tuple[str, str, list[dict[str, Any]]]] = [
    (
        "ip addr",
        IP_ADDR,
        [
            {"index": 1, "interface": "lo", "address": "127.0.0.1", "prefix_length": 8},
            {
                "index": 12,
                "interface": "eth0",
                "peer": "if13",
                "mtu": 1450,
                "state": "UP",
                "mac": "02:42:0a:00:01:05",
                "link_netnsid": 0,
                "family": "inet",
                "address": "10.0.1.5",
                "prefix_length": 24,
                "scope": "global",
            },
            {"interface": "eth0", "address": "10.0.1.2", "prefix_length": 32},
        ],
    ),
    (
        "ip -br a",
        "lo               UNKNOWN        127.0.0.1/8 ::1/128 \n"
        "veth1@if4        UP             \n"
        "eth0@if13        UP             10.0.1.5/24 10.0.1.2/32 \n",
        [
            {"interface": "lo", "family": "inet", "address": "127.0.0.1"},
            {"interface": "lo", "family": "inet6", "address": "::1", "prefix_length": 128},
            {"interface": "veth1", "peer": "if4", "state": "UP", "address": None},
            {"interface": "eth0", "address": "10.0.1.5"},
            {"interface": "eth0", "address": "10.0.1.2"},
        ],
    ),
    (
        "ip -o -4 addr",
        "1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever preferred_lft forever\n"
        "5: eth0    inet 10.0.1.5/24 brd 10.0.1.255 scope global eth0\\       valid_lft forever\n",
        [
            {"index": 1, "interface": "lo", "address": "127.0.0.1", "scope": "host"},
            {"index": 5, "interface": "eth0", "address": "10.0.1.5", "prefix_length": 24},
        ],
    ),
    ("ip -s -d link show", IP_LINK, [VXLAN0]),
    ("ip -j -s -d link", IP_LINK_JSON, [VXLAN0]),
    (
        "ip -br link",
        "vxlan0           UNKNOWN        46:66:95:88:b3:dc <BROADCAST,MULTICAST,UP,LOWER_UP> \n",
        [{"interface": "vxlan0", "mac": "46:66:95:88:b3:dc", "state": "UNKNOWN", "mtu": None}],
    ),
    (
        "ip neigh",
        "10.0.1.6 dev eth0 lladdr 02:42:0a:00:01:06 REACHABLE \n"
        "10.0.1.9 dev eth0  ref 1 used 1/61/1probes 4 INCOMPLETE \n"
        "10.0.1.7 dev vxlan0 lladdr 02:42:0a:00:01:07 extern_learn PERMANENT \n",
        [
            {"address": "10.0.1.6", "interface": "eth0", "state": "REACHABLE", "flags": None},
            {"address": "10.0.1.9", "mac": None, "state": "INCOMPLETE"},
            {"interface": "vxlan0", "mac": "02:42:0a:00:01:07", "flags": "extern_learn"},
        ],
    ),
    (
        "ip neigh show dev vxlan0",
        "10.0.1.6 lladdr 02:42:0a:00:01:06 PERMANENT \n",
        [{"address": "10.0.1.6", "interface": "vxlan0", "state": "PERMANENT"}],
    ),
    (
        "ip -j neigh show dev vxlan0",
        '[{"dst":"10.0.1.6","lladdr":"02:42:0a:00:01:06","router":null,"state":["PERMANENT"]}]',
        [{"address": "10.0.1.6", "interface": "vxlan0", "state": "PERMANENT", "flags": "router"}],
    ),
    (
        "ip route",
        "default via 172.18.0.1 dev eth1 \n"
        "10.0.1.0/24 dev eth0 proto kernel scope link src 10.0.1.5 linkdown \n"
        "blackhole 10.9.0.0/16 metric 5 \n",
        [
            {"type": "unicast", "destination": "default", "gateway": "172.18.0.1"},
            {"destination": "10.0.1.0/24", "source": "10.0.1.5", "flags": "linkdown"},
            {"type": "blackhole", "destination": "10.9.0.0/16", "interface": None, "metric": 5},
        ],
    ),
    (
        "ip route get 10.0.1.6",
        "10.0.1.6 dev eth0 src 10.0.1.5 uid 0 \n    cache \n",
        [{"destination": "10.0.1.6", "interface": "eth0", "source": "10.0.1.5"}],
    ),
    (
        "ip -j route",
        '[{"dst":"default","gateway":"172.18.0.1","dev":"eth1","flags":[]},'
        '{"type":"blackhole","dst":"10.9.0.0/16","flags":["linkdown"]}]',
        [
            {"type": "unicast", "gateway": "172.18.0.1", "interface": "eth1", "flags": None},
            {"type": "blackhole", "interface": None, "flags": "linkdown"},
        ],
    ),
    (
        "bridge fdb",
        "02:42:0a:00:01:06 dev vxlan0 dst 172.20.0.3 link-netnsid 0 self permanent\n"
        "26:61:69:86:ec:7f dev veth1 used 1/0 master br0 \n"
        "52:3b:6a:6e:2a:1f dev veth1 vlan 1 master br0 permanent\n",
        [
            {"interface": "vxlan0", "vtep": "172.20.0.3", "state": "permanent", "flags": "self"},
            {"mac": "26:61:69:86:ec:7f", "master": "br0", "state": None, "flags": None},
            {"vlan": 1, "master": "br0", "state": "permanent"},
        ],
    ),
    (
        "bridge -j fdb show dev vxlan0",
        '[{"mac":"02:42:0a:00:01:06","dst":"172.20.0.3","flags":["self"],"state":"permanent"},'
        '{"mac":"26:61:69:86:ec:7f","flags":[],"master":"br0","state":""}]',
        [
            {"interface": "vxlan0", "vtep": "172.20.0.3", "state": "permanent", "flags": "self"},
            {"interface": "vxlan0", "master": "br0", "state": None, "flags": None},
        ],
    ),
    (
        "iptables -t nat -nvL",
        IPTABLES,
        [
            {
                "table": "nat",
                "chain": "INPUT",
                "policy": "ACCEPT",
                "num": 1,
                "packets": 12_000,
                "bytes": 300_000_000,
                "target": "ACCEPT",
                "protocol": "tcp",
                "in_interface": "*",
                "source": "0.0.0.0/0",
                "destination": "10.0.0.7",
                "match_text": "tcp dpt:3000 ctstate NEW,ESTABLISHED",
            },
            {"num": 2, "target": "DROP", "protocol": "sctp", "match_text": None},
            {"num": 3, "packets": 7, "target": None, "protocol": "all", "in_interface": "!lo"},
            {"chain": "DOCKER-INGRESS", "policy": None, "num": 1, "target": "DNAT"},
        ],
    ),
    (
        "iptables -nL INPUT --line-numbers",
        "Chain INPUT (policy DROP)\n"
        "num  target     prot opt source               destination         \n"
        "1    DROP       17   --  0.0.0.0/0            10.0.0.7            \n",
        [{"policy": "DROP", "packets": None, "protocol": "udp", "in_interface": None, "num": 1}],
    ),
    (
        "iptables-save -c",
        IPTABLES_SAVE,
        [
            {"table": "nat", "chain": "OUTPUT", "policy": "ACCEPT", "packets": 5, "bytes": 300},
            {
                "chain": "DOCKER-INGRESS",
                "policy": None,
                "num": 1,
                "packets": 1,
                "target": "DNAT",
                "target_options": "--to-destination 172.18.0.2:5000",
                "protocol": "tcp",
                "dport": 5000,
                "sport": None,
            },
            {"num": 2, "source": "!10.0.0.0/24", "destination": "10.0.0.7", "target": "RETURN"},
            {"table": "mangle", "policy": "ACCEPT", "num": 1, "dport": None, "target": None},
        ],
    ),
    (
        "iptables-legacy -v -S INPUT",
        "-P INPUT ACCEPT -c 0 0\n-N DOCKER-X\n"
        "-A INPUT -d 10.0.0.7/32 -p tcp -m tcp --dport 3000 -c 12 345 -j ACCEPT\n",
        [
            {
                "table": "filter",
                "policy": "ACCEPT",
                "packets": 12,
                "bytes": 345,
                "destination": "10.0.0.7",
                "rule": "-A INPUT -d 10.0.0.7/32 -p tcp -m tcp --dport 3000 -j ACCEPT",
            }
        ],
    ),
    (
        "ipvsadm -ln",
        IPVS,
        [
            {
                "protocol": "TCP",
                "service_address": "10.0.0.5",
                "service_port": 80,
                "fwmark": None,
                "flags": "persistent 300",
                "destination": "10.0.0.7",
                "destination_port": 8080,
                "active_connections": 2,
            },
            {"protocol": "FWM", "fwmark": 256, "service_address": None, "inactive_connections": 4},
            {"fwmark": 256, "scheduler": "rr", "destination": "10.0.0.8", "weight": 0},
            {"fwmark": 257, "destination": None, "weight": None},
        ],
    ),
    (
        "ipvsadm -ln --stats",
        IPVS_STATS,
        [
            {
                "fwmark": 256,
                "destination": "10.0.0.7",
                "destination_port": None,
                "connections": 3,
                "out_bytes": 898,
                "service_connections": 4,
                "service_out_bytes": 12_000,
            },
            {"fwmark": 257, "destination": None, "connections": None, "service_connections": 9},
        ],
    ),
    (
        "ipvsadm -lnc",
        IPVS_CONNECTIONS,
        [
            {
                "protocol": "TCP",
                "expires_s": 897,
                "state": "ESTABLISHED",
                "source": "10.0.0.2",
                "source_port": 43210,
                "virtual": "10.0.0.5",
                "virtual_port": 5000,
                "destination": "10.0.0.7",
                "destination_port": 5000,
            },
            {"protocol": "UDP", "expires_s": 245, "state": "UDP"},
        ],
    ),
    (
        "nslookup tasks.hello-a",
        NSLOOKUP,
        [
            {"server": "127.0.0.11", "server_port": 53, "type": "A", "answer": "10.0.1.5"},
            {"name": "tasks.hello-a", "answer": "10.0.1.6", "status": "NOERROR"},
            {"name": "tasks.hello-a", "answer": None, "status": "SERVFAIL"},
        ],
    ),
    (
        "nslookup nobody",
        ";; connection timed out; no servers could be reached\n\n",
        [{"server": None, "answer": None, "status": "TIMEOUT"}],
    ),
    (
        "nslookup 10.0.1.5",
        "5.1.0.10.in-addr.arpa\tname = hello-a.1.abc.my-overlay.\n\n",
        [{"type": "PTR", "answer": "hello-a.1.abc.my-overlay."}],
    ),
    (
        "dig hello-a",
        DIG,
        [
            {
                "question": "hello-a.",
                "question_type": "A",
                "status": "NOERROR",
                "ttl_s": 600,
                "type": "A",
                "answer": "10.0.1.2",
                "server": "127.0.0.11",
                "server_port": 53,
                "query_time_ms": 4,
            },
            {"answer": "10.0.1.3", "query_time_ms": 4},
        ],
    ),
    ("dig nobody", DIG_NXDOMAIN, [{"question": "nobody.", "status": "NXDOMAIN", "answer": None}]),
    (
        "dig +short hello-a",
        "10.0.1.2\nfe80::1\nhello-a.1.abc.my-overlay.\n",
        [{"type": "A", "status": None}, {"type": "AAAA"}, {"type": None}],
    ),
    (
        "dig hello-a",
        "; <<>> DiG 9.18 <<>> hello-a\n;; global options: +cmd\n"
        ";; communications error to 127.0.0.11#53: timed out\n;; no servers could be reached\n",
        [{"status": "TIMEOUT", "answer": None}],
    ),
    (
        "curl -s -w FORMAT URL URL",
        f"HI\n{CURL_OK}{WHOAMI}\n{CURL_OK}{CURL_TIMED_OUT}",
        [
            {
                "exit_code": 0,
                "exit_meaning": "ok",
                "http_code": 200,
                "time_connect_s": 0.000155,
                "time_total_s": 0.006676,
                "remote_ip": "10.0.1.6",
                "remote_port": 3000,
                "local_ip": "10.0.1.5",
                "local_port": 44510,
                "body": "HI",
                "error": None,
                "container": None,
            },
            {
                "body": WHOAMI,
                "container": "c1",
                "server_node": "node2",
                "addresses": "10.0.0.7,10.0.1.5",
                "client": "10.0.0.2",
            },
            {
                "exit_code": 28,
                "exit_meaning": "timed out",
                "http_code": None,
                "time_connect_s": None,
                "remote_ip": None,
                "remote_port": None,
                "error": "Connection timed out after 1001 ms",
                "body": "",
            },
        ],
    ),
    (
        "curl -si URL",
        f"HTTP/1.1 200 OK\nContent-Type: application/json\n\n{WHOAMI}\n",
        [{"http_code": 200, "exit_code": None, "container": "c1"}],
    ),
    (
        "ping -c2 hello-a",
        PING,
        [
            {
                "target": "hello-a",
                "address": "10.0.1.6",
                "transmitted": 2,
                "received": 1,
                "duplicates": 0,
                "errors": 1,
                "loss_pct": 50.0,
                "duration_ms": 1031,
                "rtt_min_ms": 0.061,
                "rtt_avg_ms": 0.074,
                "rtt_max_ms": 0.089,
                "rtt_mdev_ms": 0.011,
            }
        ],
    ),
    ("ping 10.0.1.9", PING_DEAD, [{"received": 0, "loss_pct": 100.0, "rtt_avg_ms": None}]),
    ("ping 10.0.1.9", PING_DEAD.splitlines()[0], [{"address": "10.0.1.9", "transmitted": None}]),
    (
        "tcpdump -ni any",
        TCPDUMP,
        [
            {
                "time": "22:13:20.000000",
                "time_s": 80_000.0,
                "interface": "eth0",
                "direction": "Out",
                "protocol": "TCP",
                "source": "10.0.0.7",
                "source_port": 43210,
                "destination": "10.0.0.8",
                "destination_port": 3000,
                "tcp_flags": "S",
                "length_bytes": 0,
                "vni": None,
            },
            {"protocol": "ARP", "source": "10.0.0.7", "destination": "10.0.0.8"},
            {"protocol": "ARP", "source": "10.0.0.8", "destination": None, "direction": "In"},
            {"protocol": "UDP", "destination_port": 53, "length_bytes": 25},
            {"protocol": "UDP", "source": "fe80::1", "source_port": 5000},
            {
                "protocol": "VXLAN",
                "source": "172.20.0.2",
                "destination_port": 4789,
                "vni": 4097,
                "inner_protocol": "TCP",
                "inner_source": "10.0.1.5",
                "inner_source_port": 43210,
                "inner_destination": "10.0.1.6",
                "inner_destination_port": 3000,
                "inner_tcp_flags": "P.",
                "inner_length_bytes": 33,
            },
            {"protocol": "ESP", "length_bytes": 100, "source_port": None, "vni": None},
        ],
    ),
    (
        "tcpdump -ntte",
        TCPDUMP_E,
        [
            {
                "time_s": 1_700_000_016.5,
                "source_mac": "02:42:ac:14:00:02",
                "frame_bytes": 148,
                "vni": 4097,
                "inner_destination_mac": "ff:ff:ff:ff:ff:ff",
                "inner_protocol": "ARP",
                "inner_destination": "10.0.1.6",
                "inner_frame_bytes": 42,
            }
        ],
    ),
    (
        "conntrack -L",
        CONNTRACK,
        [
            {
                "protocol": "tcp",
                "timeout_s": 431_999,
                "state": "ESTABLISHED",
                "destination": "10.0.0.7",
                "destination_port": 5000,
                "reply_source": "10.0.0.7",
                "reply_source_port": 3000,
                "assured": True,
                "unreplied": False,
                "mark": 256,
            },
            {"protocol": "udp", "state": None, "unreplied": True, "reply_source_port": 40000},
            {"protocol": "icmp", "source_port": None, "reply_destination": "10.0.0.7"},
        ],
    ),
    (
        "ss -lunpt",
        SS,
        [
            {
                "netid": "udp",
                "state": "UNCONN",
                "local_address": "127.0.0.11",
                "local_port": 43210,
                "peer_port": None,
                "process": "dockerd",
                "pid": 123,
            },
            {"netid": "tcp", "send_queue": 4096, "local_address": "*", "process": None},
        ],
    ),
    (
        "ss -tn state time-wait",
        "Recv-Q Send-Q Local Address:Port Peer Address:Port Process\n"
        "0      0          127.0.0.1:8123    [::1]:37250       \n",
        [{"netid": "tcp", "state": None, "peer_address": "::1", "peer_port": 37250}],
    ),
]


@pytest.mark.parametrize(
    ("command", "text", "expected"), EXAMPLES, ids=[example[0] for example in EXAMPLES]
)
def test_example_gives_the_expected_rows(
    command: str, text: str, expected: list[dict[str, Any]]
) -> None:
    found = records(parse(shlex.split(command), text))
    shown = [{name: row[name] for name in wanted} for row, wanted in zip(found, expected, strict=True)]
    assert shown == expected


def test_every_tool_has_an_example() -> None:
    assert {tool.split()[0] for tool in dispatch.TOOLS} <= {
        command.split()[0] for command, _, _ in EXAMPLES
    }


def test_ping_replies_are_single_rows() -> None:
    reply, error = records(parsers.ping_replies(PING))
    assert reply == {
        "sequence": 1,
        "address": "10.0.1.6",
        "ttl": 64,
        "rtt_ms": 0.061,
        "error": None,
    }
    assert (error["sequence"], error["address"]) == (2, "10.0.1.5")
    assert error["error"] == "Destination Host Unreachable"


def test_whoami_reads_many_lines() -> None:
    assert [row["server_node"] for row in records(parsers.whoami(f"{WHOAMI}\n{WHOAMI}\n"))] == [
        "node2",
        "node2",
    ]


# --- the rules -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PARSERS)
def test_empty_text_gives_an_empty_table_with_its_columns(name: str) -> None:
    table = PARSERS[name]("")
    assert len(table) == 0
    assert {column: str(dtype) for column, dtype in table.dtypes.items()} == parsers.columns(
        PARSERS[name]
    )
    assert not {"node", "place", "trial"} & set(table.columns)


@pytest.mark.parametrize(("command", "text"), [example[:2] for example in EXAMPLES])
def test_a_filled_table_has_the_same_dtypes_as_an_empty_one(command: str, text: str) -> None:
    argv = shlex.split(command)
    assert parse(argv, text).dtypes.equals(parse(argv, "").dtypes)


@pytest.mark.parametrize("name", PARSERS.keys() - {"curl"})
def test_a_garbled_line_is_named(name: str) -> None:
    with pytest.raises(ParseError, match=r"line 2: expected .*, found '\? what is this'") as caught:
        PARSERS[name]("\n? what is this\n")
    assert caught.value.number == 2
    assert caught.value.line == "? what is this"


@pytest.mark.parametrize(
    ("command", "text", "message"),
    [
        ("ip -j neigh", '[{"dst": ', "line 1: expected the JSON of"),
        ("ip neigh", "10.0.1.6 dev eth0 lladdr", "a value after 'lladdr'"),
        ("ip neigh", "10.0.1.6 dev eth0 SLEEPY", "no word 'SLEEPY'"),
        ("ip addr", "    inet 127.0.0.1/8 scope host lo", "before it"),
        ("iptables -nvL", "Chain INPUT (policy ACCEPT)\n pkts bytes\n", "line 2: .*column heads"),
        ("iptables -nvL", IPTABLES + "    1    60 DNAT\n", "line 13: expected a rule"),
        ("ipvsadm -ln", "  -> 10.0.0.7:0   Masq    1      0          0", "a service before"),
        ("dig hello-a", DIG + "10.0.1.2\n", "expected a record"),
        ("tcpdump -n", "22:13:20.000000 IP (tos 0x0, ttl 64)\n    10.0.0.7.1 > 10.0.0.8.2:", "-v"),
        ("tcpdump", "22:13:20.000000 IP hello-a.43210 > b.http: Flags [S]", "numeric addresses"),
        ("ss -t", "ESTAB 0 0 10.0.1.5:http 10.0.1.6:3000", "ss -n"),
    ],
)
def test_a_line_that_is_half_right_is_refused(command: str, text: str, message: str) -> None:
    with pytest.raises(ParseError, match=message):
        parse(shlex.split(command), text)


# --- from a command to its parser ----------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "timeout 3 ip neigh",
        "timeout -s KILL 3 nsenter --net=/run/docker/netns/ingress_sbox -- /usr/sbin/ip neigh",
        "nsenter -t 12 -n ip neighbour show",
        "docker exec -i -e A=b hello-a.1 ip n",
        "ip netns exec blue ip neigh",
        "ip -n blue -4 neigh",
    ],
)
def test_wrappers_are_seen_through(command: str) -> None:
    table = parse(shlex.split(command), "10.0.1.6 dev eth0 lladdr 02:42:0a:00:01:06 STALE\n")
    assert list(table["state"]) == ["STALE"]


@pytest.mark.parametrize(
    "command", ["ls -l", "ip rule", "ip", "bridge link", "iptables -F", "timeout 3", "conntrack -E"]
)
def test_a_tool_without_a_parser_is_named_with_those_that_have_one(command: str) -> None:
    with pytest.raises(UsageError, match=r"no parser for .*bridge fdb.*ipvsadm.*tcpdump"):
        parse(shlex.split(command), "")


def test_a_silent_failure_of_curl_is_a_row() -> None:
    argv = ["curl", "-s", "-m3", "http://10.0.0.8:3000"]
    (row,) = records(parse(argv, "", code=28))
    assert (row["exit_code"], row["exit_meaning"], row["http_code"]) == (28, "timed out", None)
    (row,) = records(parse(argv, "", "curl: (7) Failed to connect to 10.0.0.8\n"))
    assert (row["exit_code"], row["error"]) == (7, "Failed to connect to 10.0.0.8")


def test_curl_prints_what_the_parser_reads() -> None:
    # The examples above hold what curl made of this format; here only that they fit together.
    printed = CURL_FORMAT.replace(r"\n", "\n")
    for number, line in enumerate((CURL_OK, CURL_TIMED_OUT)):
        names = [part.partition("=")[0] for part in printed.split() if "=" in part]
        assert names == [part.partition("=")[0] for part in line.split() if "=" in part], number
