"""Looks at the machine that it runs on, from a container with its network; prints one JSON object.

The words after it: the machine's address, or `-` where nobody has told it; then the kernel modules to
look for. What is tried for a module is tried in a network namespace of its own; nothing of it stays.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

_ESP = "ip xfrm state add src 127.0.0.1 dst 127.0.0.2 proto esp spi 1 mode transport"
TRIES = {
    "ip_vs": ["ipvsadm", "-ln"],
    "vxlan": ["ip", "link", "add", "labkit-try", "type", "vxlan", "id", "1", "dstport", "4789"],
    "bridge": ["ip", "link", "add", "labkit-try", "type", "bridge"],
    "veth": ["ip", "link", "add", "labkit-try", "type", "veth"],
    "nf_nat": ["iptables", "-t", "nat", "-S"],
    "xt_ipvs": ["iptables", "-A", "OUTPUT", "-m", "ipvs", "--ipvs"],
    "esp4": [*_ESP.split(), "aead", "rfc4106(gcm(aes))", "0x" + "01" * 20, "128"],
}
HOST = "/proc/1/root"


def run(*argv: str) -> tuple[int, str, str]:
    """Run a command; returns its code, output and last words."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as problem:
        return 127, "", str(problem)
    return done.returncode, done.stdout, (done.stderr.strip().splitlines() or [""])[-1]


def listed(kind: str) -> set[str]:
    """Return the modules that a file of the kernel's own lists: built in, or there to be loaded."""
    try:
        with open(f"{HOST}/lib/modules/{platform.release()}/modules.{kind}") as file:
            names = [os.path.basename(line.split(":")[0].strip()) for line in file]
    except OSError:
        return set()
    return {name.split(".ko")[0].replace("-", "_") for name in names}


def module(name: str, builtin: set[str], there: set[str]) -> tuple[bool, str]:
    """Return whether a module is at hand, and how that was seen."""
    how = "loaded" if os.path.exists(f"/sys/module/{name}") else ""
    how = how or ("built in" if name in builtin else "")
    if name not in TRIES:
        at_hand = "not loaded yet, and can be" if name in there else ""
        seen = how or at_hand or "neither loaded, built in, nor there to load"
        return bool(how or at_hand), seen
    code, _, said = run("unshare", "--net", "--", *TRIES[name])
    return not code, (how or "it works when it is tried") if not code else said


def main() -> None:
    """Look, and print what was seen."""
    told, *modules = sys.argv[1:]
    routes = json.loads(run("ip", "-j", "-4", "route", "show", "table", "main")[1] or "[]")
    links = json.loads(run("ip", "-j", "-4", "address", "show")[1] or "[]")
    default: dict[str, str] = next((row for row in routes if row.get("dst") == "default"), {})
    own = {info["local"]: (link["ifname"], link["mtu"]) for link in links for info in link["addr_info"]}
    on_uplink = [address for address, (name, _) in own.items() if name == default.get("dev")]
    # Where there is no way out, the first one that is not a bridge: those may be Docker's.
    bridges = {name for name, _ in own.values() if os.path.isdir(f"/sys/class/net/{name}/bridge")}
    outside = [address for address, (name, _) in own.items() if name not in {"lo", *bridges}]
    address = told if told != "-" else (default.get("prefsrc") or (on_uplink + outside + [""])[0])
    interface, mtu = own.get(address, ("", 0))
    builtin, there = listed("builtin"), listed("dep")
    print(
        json.dumps(
            {
                "address": address,
                "interface": interface,
                "mtu": mtu,
                "networks": [
                    [row.get("dev", ""), row["dst"]] for row in routes if row.get("dst") != "default"
                ],
                "modules": {name: module(name, builtin, there) for name in modules},
                "socket": os.path.exists("/run/docker.sock"),
                "kernel": platform.release(),
            }
        )
    )


if __name__ == "__main__":
    main()
