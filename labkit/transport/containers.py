"""Runs a command in a container as `docker exec` does, at the price of a fork.

`docker exec` itself costs seconds under emulation, and leaves the command running when its caller ends.
So the node's agent enters the container's namespaces with nsenter, and takes on what `docker exec`
would give: environment, working directory, user, groups, capabilities and cgroup. Before that, the
process is compared with the container: a number may be another process's by now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

# As sh -c CHECK NAME PID CONTAINER COMMAND…: runs the command if the process is of the container.
_CHECK = """\
grep -qs "$2" "/proc/$1/cgroup" || { echo "labkit: no process of $2" >&2; exit 125; }
"""
NOT_OF = 125
"""The exit code where the process is not of the container; `not_of` is what stderr says then."""
# cgroup v2 has one line, `0::PATH`; v1 has one for each controller.
_JOIN = """\
while IFS=: read -r _ names path; do
    echo $$ >"/sys/fs/cgroup/${names#name=}$path/cgroup.procs" || :
done <"/proc/$1/cgroup" 2>/dev/null
"""
_RUN = 'shift 2; exec "$@"\n'
_LOOK = """\
grep CapBnd: "/proc/$1/status"
test -x "/proc/$1/root/usr/bin/setpriv" && echo yes || echo no
cat "/proc/$1/root/etc/passwd" 2>/dev/null || :
echo
echo ==
cat "/proc/$1/root/etc/group" 2>/dev/null || :
"""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Identity(NamedTuple):
    """Whom a command runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def not_of(container: str) -> str:
    """Return what stands on stderr where a process is not of the container."""
    return f"labkit: no process of {container}\n"


def _of_container(script: str, pid: int, container: str, argv: Sequence[str] = ()) -> list[str]:
    return ["sh", "-c", _CHECK + script, "labkit", str(pid), container, *argv]


def looking(pid: int, container: str) -> list[str]:
    """Return the command that reads what `entering` needs to know of a container."""
    return _of_container(_LOOK, pid, container)


def beside(pid: int, container: str, argv: Sequence[str]) -> list[str]:
    """Return the command that runs another one in a container's network namespace only."""
    enter = ["nsenter", f"--net=/proc/{pid}/ns/net", "--", *argv]
    return _of_container(_RUN, pid, container, enter)


def entering(pid: int, row: Mapping[str, Any], seen: str, argv: Sequence[str]) -> list[str]:
    """Return the command that runs another one in a container, as `docker exec` would.

    `row` is what `docker inspect` tells of the container, `seen` what the command of `looking` printed.
    """
    config: Mapping[str, Any] = row["Config"]
    head, setpriv, *lines = seen.splitlines()
    if setpriv == "no":
        # Nothing in there can lay power down after nsenter; the real one can, and is slow.
        return _of_container(_RUN, pid, row["Id"], ["docker", "exec", row["Id"], *argv])
    border = lines.index("==")
    who = identity(config.get("User") or "", lines[:border], lines[border + 1 :])
    first = {"PATH": _PATH, "HOSTNAME": str(config.get("Hostname") or "")}
    given = dict(entry.partition("=")[::2] for entry in config.get("Env") or ())
    environment = {"HOME": who.home, **first, **given}
    directory = config.get("WorkingDir") or "/"
    held = int(head.split()[1], 16)
    # nsenter keeps the node's own power; the container's processes have less, and a learner must see
    # what they see.
    kept = ",".join(f"+cap_{number}" for number in range(64) if held >> number & 1)
    groups = ["--groups", ",".join(map(str, who.groups))] if who.groups else ["--clear-groups"]
    command = ["env", "-i", "--", *(f"{name}={value}" for name, value in environment.items())]
    # The whole path: env looks programs up in the container's environment.
    command += ["/usr/bin/nsenter", "--target", str(pid), "--all"]
    command += [f"--wd=/proc/{pid}/root{directory}", "--", "setpriv", "--reuid", str(who.uid)]
    command += ["--regid", str(who.gid), *groups, "--inh-caps=-all"]
    command += ["--bounding-set=" + ",".join(["-all", *filter(None, [kept])]), "--", *argv]
    return _of_container(_JOIN + _RUN, pid, row["Id"], command)


def identity(user: str, passwd: Sequence[str], group: Sequence[str]) -> Identity:
    """Find whom a container's `User` means, by its own passwd and group: NAME or UID, and :GROUP.

    As moby's user.GetExecUser: a number that no line has is taken as it is, groups of a user count only
    where no group is named.
    """
    name, _, wanted = user.partition(":")
    name = name or "0"
    accounts = [fields for line in passwd if len(fields := line.split(":")) > 5]
    teams = [fields for line in group if len(fields := line.split(":")) > 3]
    account = next((a for a in accounts if name in (a[0], a[2])), None)
    uid = int(account[2]) if account else int(name) if name.isdigit() else 0
    gid, groups = int(account[3]) if account else 0, []
    if wanted:
        team = next((t for t in teams if wanted in (t[0], t[2])), None)
        gid = int(team[2]) if team else int(wanted) if wanted.isdigit() else 0
    elif account:
        groups = [int(t[2]) for t in teams if account[0] in t[3].split(",")]
    return Identity(uid, gid, tuple(groups), account[5] if account else "/")
