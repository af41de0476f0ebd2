"""`ipvsadm`: the load balancer in the kernel, its services, their destinations, its connections."""

from __future__ import annotations

from collections.abc import Iterator

from labkit.parsers._table import (
    NUMBER,
    ParseError,
    Patterns,
    Where,
    classify,
    counter,
    endpoint,
    grammar,
)
from labkit.schema import Column, Row, table

_ADDRESS = r"\S+"  # a name is refused with the flag to use, in `endpoint`
_SERVICE = rf"((?P<protocol>TCP|UDP|SCTP) +(?P<service>{_ADDRESS})|FWM +(?P<fwmark>{NUMBER}))( IPv6)?"
_NOISE = r"IP Virtual Server version .*|Prot LocalAddress:Port .*|  -> RemoteAddress:Port.*"
_LIST = grammar(
    noise=_NOISE,
    service=rf"{_SERVICE} +(?P<scheduler>[a-z]\w*)( +(?P<flags>.+))?",
    destination=(
        rf" +-> +(?P<destination>{_ADDRESS}) +(?P<forward>[A-Z]\w+) +(?P<weight>{NUMBER})"
        rf" +(?P<active_connections>{NUMBER}) +(?P<inactive_connections>{NUMBER})"
    ),
)
_TRAFFIC = ("connections", "in_packets", "out_packets", "in_bytes", "out_bytes")
_TRAFFIC_FIELDS = "".join(rf" +(?P<{name}>{NUMBER}[KMGT]?)" for name in _TRAFFIC)
_STATS = grammar(
    noise=_NOISE,
    service=_SERVICE + _TRAFFIC_FIELDS,
    destination=rf" +-> +(?P<destination>{_ADDRESS}){_TRAFFIC_FIELDS}",
)
_CONNECTIONS = grammar(
    noise=r"IPVS connection entries|pro expire state .*",
    connection=(
        r"(?P<protocol>[A-Z]+) +(?P<minutes>[0-9]{1,9}):(?P<seconds>[0-9]{2}) +(?P<state>\S+)"
        rf" +(?P<source>{_ADDRESS}) +(?P<virtual>{_ADDRESS}) +(?P<destination>{_ADDRESS})( .*)?"
    ),
)

_SERVICE_COLUMNS = (
    Column("protocol", "str", "TCP, UDP, or FWM: by firewall mark"),
    Column("service_address", "str", "the virtual address; absent for FWM"),
    Column("service_port", "int", "absent for FWM"),
    Column("fwmark", "int", "the mark, for FWM"),
)
_DESTINATION_COLUMNS = (
    Column("destination", "str", "absent: the service has no destination"),
    Column("destination_port", "int", "absent: the port is left as it is"),
)


@table(
    *_SERVICE_COLUMNS,
    Column("scheduler", "str", "rr, wrr, …"),
    Column("flags", "str", "`persistent 300`"),
    *_DESTINATION_COLUMNS,
    Column("forward", "str", "Masq, Route, Tunnel, Local"),
    Column("weight", "int", "0: no new connections"),
    Column("active_connections", "int", "established ones"),
    Column("inactive_connections", "int", "those that begin or end"),
)
def ipvsadm(text: str) -> Iterator[Row]:
    """Read `ipvsadm -ln`: one row per destination, and one for a service that has none.

    Example::

        $ ipvsadm -ln
        IP Virtual Server version 1.2.1 (size=4096)
        Prot LocalAddress:Port Scheduler Flags
          -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
        FWM  257 rr
          -> 10.0.1.3:0                   Masq    1      1          3
          -> 10.0.1.4:0                   Masq    1      1          4
    """
    for service, destination in _pairs(text, _LIST, "a line of `ipvsadm -ln`"):
        yield service | destination


@table(
    *_SERVICE_COLUMNS,
    *_DESTINATION_COLUMNS,
    Column("connections", "int", "this destination's, since it was added"),
    Column("in_packets", "int", "this destination's"),
    Column("out_packets", "int", "this destination's"),
    Column("in_bytes", "int", "this destination's"),
    Column("out_bytes", "int", "this destination's"),
    Column("service_connections", "int", "the whole service's"),
    Column("service_in_packets", "int", "the whole service's"),
    Column("service_out_packets", "int", "the whole service's"),
    Column("service_in_bytes", "int", "the whole service's"),
    Column("service_out_bytes", "int", "the whole service's"),
)
def ipvsadm_stats(text: str) -> Iterator[Row]:
    """Read `ipvsadm -ln --stats`: one row per destination, and one for a service that has none.

    A service's own figures outlive the destinations that they came from.

    Example::

        $ ipvsadm -ln --stats
        IP Virtual Server version 1.2.1 (size=4096)
        Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
          -> RemoteAddress:Port
        FWM  257                                10       98       98     6042   514581
          -> 10.0.1.3:0                          5       44       46     2676   259975
          -> 10.0.1.4:0                          5       54       52     3366   254606
    """
    for service, destination in _pairs(text, _STATS, "a line of `ipvsadm -ln --stats`"):
        figures = {f"service_{name}": service[name] for name in _TRAFFIC}
        figures |= {name: destination.get(name) for name in _TRAFFIC}
        names = (column.name for column in (*_SERVICE_COLUMNS, *_DESTINATION_COLUMNS))
        yield {name: (service | destination).get(name) for name in names} | figures


@table(
    Column("protocol", "str", "TCP, UDP"),
    Column("expires_s", "int", "seconds until the entry goes, if nothing more comes"),
    Column("state", "str", "ESTABLISHED, FIN_WAIT, SYN_RECV, UDP, …"),
    Column("source", "str", "the client"),
    Column("source_port", "int", "the client's port"),
    Column("virtual", "str", "the address that the client asked for"),
    Column("virtual_port", "int", "the port that the client asked for"),
    Column("destination", "str", "the task that was chosen"),
    Column("destination_port", "int", "the port there"),
)
def ipvsadm_connections(text: str) -> Iterator[Row]:
    """Read `ipvsadm -lnc`: one row per connection.

    Example::

        $ ipvsadm -lnc
        IPVS connection entries
        pro expire state       source             virtual            destination
        TCP 01:13  TIME_WAIT   10.0.1.3:59382     10.0.1.2:3000      10.0.1.4:3000
        TCP 14:58  ESTABLISHED 10.0.1.3:48898     10.0.1.2:3000      10.0.1.3:3000
    """
    for kind, found, where in classify(text, _CONNECTIONS, "a line of `ipvsadm -lnc`"):
        if kind == "connection":
            expires_s = int(found.pop("minutes")) * 60 + int(found.pop("seconds"))
            ports: Row = {}
            for name in ("source", "virtual", "destination"):
                found[name], ports[f"{name}_port"] = endpoint(found[name], where, "ipvsadm -lnc")
            yield {"expires_s": expires_s} | found | ports


def _pairs(text: str, patterns: Patterns, expected: str) -> Iterator[tuple[Row, Row]]:
    """Yield each service with each of its destinations, or with an empty row when it has none."""
    service: Row | None = None
    alone = False
    for kind, found, where in classify(text, patterns, expected):
        if kind == "service":
            if service and alone:
                yield service, {}
            service, alone = _service(_counted(found, where), where), True
        elif kind == "destination":
            if service is None:
                raise ParseError(*where, "a service before its destinations")
            address, port = endpoint(found["destination"], where, "ipvsadm -ln")
            yield service, _counted(found, where) | {"destination": address, "destination_port": port}
            alone = False
    if service and alone:
        yield service, {}


def _counted(found: Row, where: Where) -> Row:
    """Return a line of the statistics with its counters as numbers, any other line as it is."""
    for name in _TRAFFIC:
        if name in found:
            text, found[name] = found[name], counter(found[name])
            if found[name] is None:
                raise ParseError(*where, f"a counter of 64 bits, not {text}")
    return found


def _service(found: Row, where: Where) -> Row:
    """Split a service's address from its port; one that goes by a firewall mark has neither."""
    service = found.pop("service")
    address, port = endpoint(service, where, "ipvsadm -ln") if service else (None, None)
    protocol = found["protocol"] or "FWM"
    return found | {"protocol": protocol, "service_address": address, "service_port": port}
