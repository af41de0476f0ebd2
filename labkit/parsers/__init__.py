"""What the network tools print, as tables: pure functions from text to DataFrame.

The rules, for every parser here:

- Its columns are declared with `labkit.schema.table`: names, types, meanings. The table and the
  docstring both follow from them; a row with an undeclared key is an error.
- Types: ``str`` (NaN when absent), ``int`` ("Int64", <NA> when absent), ``float`` ("float64", NaN
  when absent), ``bool`` ("boolean"). Nothing is nested; lists are joined with a comma.
- Columns are flat lower snake case, with the unit in the name (``rtt_ms``) unless it is a count.
- Empty text gives an empty table, with all its columns.
- A line that is not understood raises `ParseError` with its number; known noise (headers,
  footers, warnings) is passed over. Nothing is guessed and no line is dropped in silence. What
  follows a known beginning must be known as well, and where a number or an address is read, a name
  is refused: the hint says with which flag the tool prints numbers.
- A last line without its line end was cut when its command was stopped, and raises `ParseError`.
- The JSON of `ip -j` and `bridge -j` is read as strictly as the text.
- Text is hostile: whatever it is, there is a table or a `ParseError`, in time that is linear.
- No parser has a column ``node``, ``place`` or ``trial``: those say where and when a command ran.

`parse` finds the parser that fits a command. To add a tool NAME: write ``labkit/parsers/NAME.py`` with
its columns, an example of real output and its grammar; name it here and in `dispatch.TOOLS`; capture
output of it into ``tests/captures/<docker version>/NAME--*.txt``; test it in
``tests/unit/parsers/test_NAME.py``.
"""

from labkit.parsers._table import ParseError, columns
from labkit.parsers.bridge_fdb import bridge_fdb
from labkit.parsers.conntrack import conntrack
from labkit.parsers.curl import CURL_FORMAT, curl
from labkit.parsers.dig import dig
from labkit.parsers.dispatch import parse
from labkit.parsers.ip_addr import ip_addr
from labkit.parsers.ip_link import ip_link
from labkit.parsers.ip_neigh import ip_neigh
from labkit.parsers.ip_route import ip_route
from labkit.parsers.iptables import iptables_list, iptables_rules
from labkit.parsers.ipvsadm import ipvsadm, ipvsadm_connections, ipvsadm_stats
from labkit.parsers.nslookup import nslookup
from labkit.parsers.ping import ping, ping_replies
from labkit.parsers.ss import ss
from labkit.parsers.tcpdump import tcpdump
from labkit.parsers.whoami import whoami

__all__ = [
    "CURL_FORMAT",
    "ParseError",
    "bridge_fdb",
    "columns",
    "conntrack",
    "curl",
    "dig",
    "ip_addr",
    "ip_link",
    "ip_neigh",
    "ip_route",
    "iptables_list",
    "iptables_rules",
    "ipvsadm",
    "ipvsadm_connections",
    "ipvsadm_stats",
    "nslookup",
    "parse",
    "ping",
    "ping_replies",
    "ss",
    "tcpdump",
    "whoami",
]
