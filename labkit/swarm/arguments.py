"""What services and networks are made of, looked at before anything is made."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from itertools import pairwise

from labkit.capture import argv_of, words
from labkit.errors import UsageError

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_PORT_FORM = "publish='5000:3000', or a list of such words"


def name_of(kind: str, name: object) -> str:
    """Return a name; raises UsageError where it can be no service's or network's."""
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    raise UsageError(
        f"{name!r} cannot be the name of a {kind}: letters, digits, hyphens, underscores and dots, "
        "beginning with a letter or digit",
        hint="take a name as hello-a",
    )


def names_of(kind: str, names: Sequence[object]) -> tuple[str, ...]:
    """Return names; raises UsageError where there is none, or one that cannot be."""
    if not names:
        raise UsageError(f"the name of a {kind} is wanted, and none was given")
    return tuple(name_of(kind, name) for name in names)


def count_of(parameter: str, value: object) -> int:
    """Return a whole number from 0 on; raises UsageError for anything else."""
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if number < 0:
        raise UsageError(
            f"{parameter} is {value!r}, of the type {type(value).__name__}; it takes a whole number, "
            "0 or more",
            hint=f"for example {parameter}=2",
        )
    return number


def is_global(options: Sequence[str]) -> bool:
    """Whether the options of `docker service create` ask for one task on each node."""
    return "--mode=global" in options or ("--mode", "global") in pairwise(options)


def create_service(
    name: object,
    *,
    replicas: object,
    publish: object,
    networks: object,
    options: object,
    image: object,
    command: object,
) -> tuple[list[str], list[str]]:
    """Return the words of `docker service create` up to the image, and those from it on.

    Raises UsageError for an argument that is not what its parameter takes, which it names.
    """
    argv = ["docker", "service", "create", "--name", name_of("service", name)]
    further = words("options", options)
    count = str(count_of("replicas", replicas))
    argv += [] if is_global(further) else ["--replicas", count]
    for port in words("publish", publish, form=_PORT_FORM):
        argv += ["--publish", port]
    for network in words("networks", networks):
        argv += ["--network", network]
    argv += further
    if not isinstance(image, str) or not image or image.startswith("-"):
        raise UsageError(f"image is {image!r}; it takes the name of an image", hint="image='node-test'")
    if isinstance(command, str) and command.strip():
        return argv, [image, *argv_of(command)]
    return argv, [image, *words("command", command)]


def update_words(options: Sequence[object]) -> list[str]:
    """Return the options of `docker service update`; raises UsageError for what is no option."""
    if len(options) == 1:  # one line of words, or a list of them
        return words("options", options[0])
    return words("options", options)
