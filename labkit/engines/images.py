"""Puts the node image on an engine, whichever engine it is.

The image is named `labkit/node:<Docker version>` and carries the key of what it was made from as a
label, so an old one is seen and replaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from labkit import paths
from labkit.engines import debian, versions
from labkit.errors import BuildError
from labkit.progress import Progress, Step
from labkit.transport.base import API_VERSION

if TYPE_CHECKING:
    from docker import DockerClient

KEY_LABEL = "labkit.key"
_CHUNK = 1 << 20


def name(docker: str) -> str:
    """Return the node image's name."""
    return f"labkit/node:{docker}"


def config(docker: str) -> dict[str, object]:
    """Return the image's configuration, as the Dockerfile has it."""
    return {
        "Entrypoint": ["/usr/local/bin/labkit-node"],
        "Volumes": {"/var/lib/docker": {}},
        "Labels": {KEY_LABEL: debian.node_key(docker)},
        **({"Env": environment} if (environment := _environment(docker)) else {}),
    }


def _environment(docker: str) -> list[str]:
    """Return what the image adds to its nodes' environment: NAME=VALUE.

    The daemons of 29.0 to 29.2 refuse the API that is spoken with every daemon unless this names it;
    older and newer ones take it anyhow. Debian's versions need nothing, and their images stay as they
    are.
    """
    return [f"DOCKER_MIN_API_VERSION={API_VERSION}"] if versions.release(docker).repository else []


def present(client: DockerClient, docker: str) -> bool:
    """Whether the engine has the node image, made from what the repository holds now."""
    from docker.errors import ImageNotFound

    try:
        labels = client.images.get(name(docker)).labels
    except ImageNotFound:
        return False
    return labels.get(KEY_LABEL) == debian.node_key(docker)


def import_tar(client: DockerClient, docker: str, tar: Path, step: Step) -> None:
    """Make the node image from a root file system."""
    size = tar.stat().st_size

    def chunks() -> Iterator[bytes]:
        with tar.open("rb") as file:
            while chunk := file.read(_CHUNK):
                step.fraction(file.tell() / size)
                yield chunk

    changes = [
        'ENTRYPOINT ["/usr/local/bin/labkit-node"]',
        *(f"ENV {assignment}" for assignment in _environment(docker)),
        "VOLUME /var/lib/docker",
        f"LABEL {KEY_LABEL}={debian.node_key(docker)}",
    ]
    put(client, name(docker), chunks(), changes)


def put(client: DockerClient, image: str, chunks: Iterator[bytes], changes: list[str]) -> None:
    """Make an image of the bytes of a tar and the lines of a Dockerfile; raises BuildError."""
    repository, tag = image.split(":")
    answer = client.api.import_image_from_data(
        chunks,
        repository=repository,
        tag=tag,
        changes=changes,
    )
    if "error" in answer:
        raise BuildError(f"the engine refused the image {image}: {answer.strip()}")


def can_make(docker: str) -> bool:
    """Whether this machine has a node's root file system, or can make it without a registry."""
    return debian.node_tar_path(docker).exists() or "mmdebstrap" not in debian.missing_packages()


def build(client: DockerClient, docker: str) -> None:
    """Make the node image from its Dockerfile, for engines that reach a registry."""
    wanted = versions.release(docker)
    client.images.build(
        path=str(paths.COMPOSE),
        dockerfile="node/Dockerfile",
        tag=name(docker),
        buildargs={"SUITE": wanted.suite, "DOCKER_PACKAGES": " ".join(wanted.packages)},
        labels={KEY_LABEL: debian.node_key(docker)},
        rm=True,
        forcerm=True,
    )


def ensure(client: DockerClient, docker: str, progress: Progress) -> None:
    """Make sure that the engine has the node image.

    From Debian packages where this machine can bootstrap them (no registry is asked), else from the
    Dockerfile. Raises BuildError.
    """
    if present(client, docker):
        return
    if can_make(docker):
        tar = debian.node_tar_path(docker)
        with debian.build_lock():
            debian.node_tar(docker, progress)
        with progress.stage(f"node image with Docker {docker} into the engine") as step:
            import_tar(client, docker, tar, step)
        return
    if versions.release(docker).repository:
        raise BuildError(
            f"the node image with Docker {docker} comes from an apt repository of its own, which needs "
            "mmdebstrap, and that is not here; the Dockerfile knows Debian's versions only",
            hint=debian.install_command(["mmdebstrap"]),
        )
    from docker.errors import APIError
    from docker.errors import BuildError as DockerfileError

    with progress.stage(f"node image with Docker {docker} from its Dockerfile"):
        try:
            build(client, docker)
        except (DockerfileError, APIError) as problem:
            raise BuildError(
                f"the node image could not be built from compose/node/Dockerfile: {problem}",
                hint="the engine must reach a registry for that; without one: "
                + debian.install_command(["mmdebstrap"]),
            ) from problem
