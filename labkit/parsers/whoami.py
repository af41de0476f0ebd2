"""The answers of the labs' own app to /whoami: which container answered, and whom it saw asking."""

from __future__ import annotations

import json
from collections.abc import Iterator

from labkit.parsers._table import SURROGATE, ParseError, lines
from labkit.schema import Column, Row, table

WHOAMI_COLUMNS = (
    Column("container", "str", "the container that answered, by its host name"),
    Column("server_node", "str", "the node it runs on; `node` is where the command ran"),
    Column("addresses", "str", "its IPv4 addresses, joined with commas"),
    Column("client", "str", "whose address the server saw"),
)


@table(*WHOAMI_COLUMNS)
def whoami(text: str) -> Iterator[Row]:
    """Read answers of the app's /whoami, one JSON line each: one row per answer.

    Example::

        $ curl -s http://hello-a:3000/whoami
        {"container": "1cceb1c3daed", "node": "node3", "addresses": ["10.0.0.6", "172.18.0.3", \
"10.0.1.3"], "client": "10.0.1.5"}
    """
    for number, line in lines(text):
        found = read_answer(line)
        if found is None:
            raise ParseError(number, line, "the JSON of /whoami: container, addresses, client")
        yield found


def read_answer(line: str) -> Row | None:
    """Read one answer of /whoami; None when it is something else."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):  # any server may have sent it
        return None
    match found:
        case {"container": str(container), "addresses": [*addresses], "client": str(client)}:
            node = found.get("node")
        case _:
            return None
    if not all(isinstance(address, str) for address in addresses):
        return None
    answer = {
        "container": container,
        "server_node": node if isinstance(node, str) else None,
        "addresses": ",".join(addresses),
        "client": client,
    }
    # JSON can spell half of a surrogate pair.
    return None if any(SURROGATE.search(value or "") for value in answer.values()) else answer
