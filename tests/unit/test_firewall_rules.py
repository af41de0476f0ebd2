"""Which packets the rules of iptables stop, as a diagnosis walks them."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit.diagnosis.packets import Packet, Rules

CAPTURES = Path(__file__).parents[1] / "captures"
VXLAN, FULL = Packet("udp", 4789), Packet("udp", 4789, length=1450)


def rules(*lines: str, policy: str = "ACCEPT") -> Rules:
    own = sorted({line.split()[1] for line in lines} - {"INPUT"})
    chains = [f":INPUT {policy} [0:0]", *(f":{chain} - [0:0]" for chain in own)]
    # The rules of another table must not count.
    other = ["*nat", ":INPUT DROP [0:0]", "-A INPUT -j DROP", "COMMIT"]
    return Rules("\n".join([*other, "*filter", *chains, *lines, "COMMIT"]), "filter")


STOP = "-A INPUT -p udp -m udp --dport 4789 -j DROP"


@pytest.mark.parametrize(
    ("lines", "packet", "by"),
    [
        ([], VXLAN, None),
        ([STOP], VXLAN, STOP),
        ([STOP], Packet("udp", 7946), None),
        ([STOP], Packet("esp"), None),
        (["-A INPUT -p udp -m udp --dport 4789 -j ACCEPT", STOP], VXLAN, None),
        ([STOP.replace("--dport", "! --dport")], VXLAN, None),
        ([STOP.replace("--dport", "! --dport")], Packet("udp", 53), "--dport"),
        (["-A INPUT -p udp -m multiport --dports 53,4000:5000 -j REJECT"], VXLAN, "multiport"),
        (["-A INPUT -s 10.1.0.0/16 -j DROP"], VXLAN, None),  # from where is not known
        (["-A INPUT -s 10.1.0.0/16 -j DROP"], Packet("esp", source="10.1.2.3"), "-s"),
        (["-A INPUT ! -s 10.1.0.0/16 -j DROP"], Packet("esp", source="10.1.2.3"), None),
        (["-A INPUT -i lo -j DROP"], VXLAN, None),
        (["-A INPUT ! -i lo -j DROP"], VXLAN, "lo"),
        (["-A INPUT -i eth+ -j DROP"], Packet("esp", comes_by="eth1"), "eth+"),
        (["-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j DROP"], VXLAN, None),
        (["-A INPUT -m conntrack --ctstate INVALID,NEW -j DROP"], VXLAN, "NEW"),
        (["-A INPUT -m u32 --u32 0x0=0x1 -j DROP"], VXLAN, None),  # asks for something unknown
        (["-A INPUT -p udp -m length --length 1400:65535 -j DROP"], VXLAN, None),
        (["-A INPUT -p udp -m length --length 1400:65535 -j DROP"], FULL, "length"),
        (['-A INPUT -m comment --comment "a -j ACCEPT of ours" -j DROP'], VXLAN, "ours"),
        (["-A INPUT -j LOG", "-A INPUT -j MINE", "-A MINE -p udp -j DROP"], VXLAN, "MINE"),
        (["-A INPUT -j MINE", "-A MINE -p udp -j RETURN", "-A MINE -j DROP"], VXLAN, None),
        (["-A INPUT -j MINE", "-A MINE -j INPUT", STOP], VXLAN, STOP),  # round in a circle
        (["-A INPUT -g MINE", "-A MINE -p tcp -j DROP", STOP], VXLAN, None),  # it does not come back
        (["-A INPUT -m comment --comment -j -j DROP"], VXLAN, "--comment"),
        # Behind a rule that may let the packet through nothing is certain.
        (["-A INPUT -m set --match-set peers src -j ACCEPT", STOP], VXLAN, None),
        (["-A INPUT -p tcp -m set --match-set peers src -j ACCEPT", STOP], VXLAN, STOP),
        (["-A INPUT -m tcp --tcp-flags SYN,ACK SYN --dport 80 -j ACCEPT", STOP], VXLAN, STOP),
        (["-A INPUT -s 192.168.0.0/16 -j RETURN", STOP], VXLAN, None),
        (["-A INPUT -m policy --dir in --pol ipsec -j MINE", "-A MINE -j RETURN", STOP], VXLAN, None),
        (["-A INPUT -j MINE", "-A MINE -m mark --mark 0x1 -j ACCEPT", STOP], VXLAN, None),
        (["-A INPUT -m conntrack --ctorigdstport 8080 -j ACCEPT", STOP], VXLAN, None),
        (["-A INPUT -m conntrack ! --ctstate DNAT -j DROP"], VXLAN, None),
        (["-A INPUT -m conntrack --ctstate UNTRACKED -j ACCEPT", STOP], VXLAN, None),
        (
            ["-A INPUT -s 10.0.0.1/255.0.0.255 -j ACCEPT", STOP],
            Packet("udp", 4789, source="10.1.1.1"),
            None,
        ),
        (["-A INPUT -i eth0 -o docker_gwbridge -j ACCEPT", STOP], VXLAN, None),
        (["-A INPUT -j NFQUEUE --queue-num 0", STOP], VXLAN, None),
        (["-A INPUT -m limit --limit 3/min -j LOG", STOP], VXLAN, STOP),
        (["-A INPUT -m set --match-set bad src -j DROP", STOP], VXLAN, STOP),
        ([STOP, "-A INPUT -m set --match-set peers src -j ACCEPT"], VXLAN, STOP),
    ],
)
def test_a_packet_meets_the_rules_in_their_order(
    lines: list[str], packet: Packet, by: str | None
) -> None:
    found = rules(*lines).stops(packet, "INPUT")
    assert found is None if by is None else found is not None and by in found


def test_where_no_rule_decides_the_policy_does() -> None:
    assert rules(policy="DROP").stops(VXLAN, "INPUT") == "-P INPUT DROP"
    for match in ("-p udp -m udp --dport 4789", "-m set --match-set peers src"):
        assert rules(f"-A INPUT {match} -j ACCEPT", policy="DROP").stops(VXLAN, "INPUT") is None


@pytest.mark.parametrize("version", ["20.10", "26.1", "28.5"])
def test_what_docker_itself_sets_up_stops_nothing(version: str) -> None:
    for name in ("node", "node-encrypted", "sandbox"):
        text = (CAPTURES / version / f"iptables-save--{name}.txt").read_text()
        saved = Rules(text.partition("\n")[2], "filter")
        for packet in (VXLAN, FULL, Packet("tcp", 7946), Packet("esp"), Packet("tcp", 3000)):
            assert saved.stops(packet, "INPUT") is None
            assert saved.stops(packet, "DOCKER-USER") is None
