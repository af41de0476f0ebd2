"""Files of Docker versions: what is read from them, what a mistake gets, and what apt is told."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest

from labkit import doctor, engines, paths
from labkit.engines import debian, images, versions
from labkit.engines.base import SwarmSpec, key_of
from labkit.engines.repository import Repository, RepositoryRefused, public_keys
from labkit.engines.vm import image
from labkit.errors import BuildError, UnknownNameError, VersionsError
from labkit.progress import Progress
from labkit.swarm import lifecycle

PACKETS = b"\x98\x33\x04" + bytes(range(90))  # begins as a public key does; apt looks at the rest
ARMOURED = (
    "-----BEGIN PGP PUBLIC KEY BLOCK-----\nComment: made in a test\n\n"
    + base64.encodebytes(PACKETS).decode()
    + "=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n"
)
ROW = """\
29.8:
  suite: trixie
  packages: [docker-ce, "docker-ce-cli=5:29.8.0-1~debian.13~trixie", containerd.io]
  repository:
    address: https://EXAMPLE/linux/debian
    suite: trixie
    components: [stable]
    key: engine.asc
"""
DEBIAN_ONLY = "30.1: {suite: sid, packages: [docker.io, docker-cli]}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A versions file of a user, with its key beside it."""
    (tmp_path / "engine.asc").write_text(ARMOURED)
    (tmp_path / "versions.yaml").write_text(ROW + DEBIAN_ONLY)
    return tmp_path / "versions.yaml"


@pytest.fixture
def named(file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same file, named by the variable."""
    monkeypatch.setenv(versions.VARIABLE, str(file))
    return file


def test_the_kits_own_images_have_the_keys_of_before() -> None:
    """A row without a repository adds nothing to its key: what was built is not built again."""
    app, node = paths.COMPOSE / "app", paths.COMPOSE / "node"
    for docker, row in versions.shipped().items():
        parts = [row.suite, *row.packages]
        parts += [*debian.listed(node / "packages"), *debian.listed(app / "packages")]
        content = [
            node / n for n in ("entrypoint", "seed", "agent.py", "containerd.toml", "daemon.json")
        ]
        assert debian.node_key(docker) == key_of(debian._RECIPE, *parts, *content, app / "server.py")
        assert set(images.config(docker)) == {"Entrypoint", "Volumes", "Labels"}


def test_a_row_names_a_repository_beside_debian(file: Path) -> None:
    found = versions.read(file)
    assert found["30.1"] == versions.Release("30.1", "sid", ("docker.io", "docker-cli"))
    packages = ("docker-ce", "docker-ce-cli=5:29.8.0-1~debian.13~trixie", "containerd.io")
    assert found["29.8"] == versions.Release(
        "29.8",
        "trixie",
        packages,
        Repository("https://EXAMPLE/linux/debian", "trixie", ("stable",), PACKETS, packages),
    )


def test_the_key_may_stand_in_the_row(file: Path) -> None:
    inside = "".join(f"      {line}\n" for line in ARMOURED.splitlines())
    beside = versions.read(file)
    file.write_text(ROW.replace("engine.asc", f"|\n{inside}") + DEBIAN_ONLY)
    assert versions.read(file) == beside


@pytest.mark.parametrize(
    "address",
    ["http://EXAMPLE", "https://EXAMPLE:8080/debian/", "file:/srv/apt", "file:///srv/apt", "copy:/srv"],
)
def test_addresses_that_apt_knows_are_taken(file: Path, address: str) -> None:
    file.write_text(ROW.replace("https://EXAMPLE/linux/debian", address))
    assert versions.read(file)["29.8"].repository


@pytest.mark.parametrize(
    ("old", "new", "key", "problem"),
    [
        ("29.8:", "nightly:", "nightly", "expected a version in numbers and dots"),
        ("  suite: trixie\n  pack", "  pack", "29.8.suite", "is missing"),
        ("  suite: trixie\n  pack", "  suite: --help\n  pack", "29.8.suite", "a release of Debian"),
        ("  packages:", "  package:", "29.8.package", "is not known here; known: packages, rep"),
        ("packages: [", "packages: []\n  x: [", "29.8.x", "is not known here"),
        ("docker-ce,", "docker-ce-,", "29.8.packages", "has 'docker-ce-', expected a name"),
        ("docker-ce,", "{a: b},", "29.8.packages", "expected a name"),
        ("docker-ce,", '"a,b",', "29.8.packages", "expected a name"),
        ("  repository:", "  repository: x\n  more:", "29.8.repository", "expected a mapping"),
        ("    key: engine.asc\n", "", "29.8.repository.key", "is missing"),
        ("key: engine.asc", "key:", "29.8.repository.key", "which cannot be read"),
        (
            "key: engine.asc",
            "key: no.asc",
            "29.8.repository.key",
            "no.asc, which cannot be read: No such",
        ),
        (
            "key: engine.asc",
            "key: versions.yaml",
            "29.8.repository.key",
            "holds no OpenPGP key, expected",
        ),
        ("key: engine.asc", "trusted: yes", "29.8.repository.trusted", "is not known here"),
        ("components: [stable]", "components: []", "components", "is an empty list"),
        ("components: [stable]", "components: stable", "components", "expected a list"),
        ("components: [stable]", 'components: ["a b"]', "components", "expected a name"),
        ("    suite: trixie", "    suite: ./", "29.8.repository.suite", "the name of a suite"),
        ("https://EXAMPLE", "ftp://EXAMPLE", "29.8.repository.address", "expected http://HOST"),
        ("https://EXAMPLE/linux", "https:///linux", "29.8.repository.address", "expected http://HOST"),
        ("https://EXAMPLE/linux/debian", "file:srv", "29.8.repository.address", "expected http://HOST"),
        (
            "https://EXAMPLE/linux/debian",
            '"https://EXAMPLE\\nTrusted: yes"',
            "29.8.repository.address",
            "expected http://HOST",
        ),
        (
            "    suite: trixie",
            "    suite: trixie\n    suite: sid",
            "29.8.repository.suite",
            "is there twice",
        ),
        ("29.8:", "26.1:", "26.1", "the kit has that version already"),
        ("[stable]", "[stable", "", "is not YAML"),
    ],
)
def test_a_mistake_is_told_with_file_line_and_key(
    named: Path, old: str, new: str, key: str, problem: str
) -> None:
    assert old in ROW
    named.write_text(ROW.replace(old, new, 1))
    with pytest.raises(VersionsError, match=re.escape(problem)) as caught:
        versions.releases()
    assert re.match(rf"{re.escape(str(named))}, line \d+, key '.*{re.escape(key)}'", str(caught.value))
    assert "docs/versions.md" in caught.value.hint
    assert caught.value.exit_code == 2


def test_no_packages_are_a_mistake(file: Path) -> None:
    file.write_text("29.8: {suite: trixie, packages: []}\n")
    with pytest.raises(VersionsError, match="empty list, expected at least one name"):
        versions.read(file)


def test_no_file_an_empty_one_and_one_of_bytes_are_told_apart(file: Path) -> None:
    with pytest.raises(VersionsError, match="cannot be read: No such file"):
        versions.read(file.with_name("no.yaml"))
    for content, problem in ((b"", "the file is empty"), (b"\xff\xfe\x00", "is not YAML")):
        file.write_bytes(content)
        with pytest.raises(VersionsError, match=problem):
            versions.read(file)


def test_a_password_is_refused_and_not_repeated(file: Path) -> None:
    file.write_text(ROW.replace("https://", "https://me:s3cret@"))
    with pytest.raises(VersionsError, match="holds a user name or password") as caught:
        versions.read(file)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "holds no OpenPGP key"),
        (b"\x95\x01\x04", "holds a private key"),
        (b"\xc5\x01\x04", "holds a private key"),
        (ARMOURED.replace("PUBLIC", "PRIVATE").encode(), "holds a PGP PRIVATE KEY BLOCK"),
        (ARMOURED.partition("-----END")[0].encode(), "holds a PGP block without an end"),
        (ARMOURED.replace("mDME", "m?ME").encode(), "is damaged"),
    ],
)
def test_what_is_no_public_key_is_refused(content: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        public_keys(content)


def test_keys_in_several_blocks_or_as_bytes_are_read() -> None:
    assert public_keys(PACKETS) == PACKETS
    assert public_keys(f"{ARMOURED}\n{ARMOURED}".replace("\n", "\r\n").encode()) == PACKETS * 2


# --- a file of one's own --------------------------------------------------------------------------


def test_ones_own_versions_come_after_the_kits(named: Path) -> None:
    assert list(versions.releases()) == ["20.10", "26.1", "28.5", "29.8", "30.1"]
    with pytest.raises(UnknownNameError, match=r"20\.10, 26\.1, 28\.5, 29\.8, 30\.1") as caught:
        versions.release("29.0")
    assert versions.VARIABLE in caught.value.hint


def test_without_the_variable_there_are_the_kits_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(versions.VARIABLE, "")
    assert versions.releases() == versions.shipped()


def test_doctor_lists_the_versions_and_tells_of_a_mistake(named: Path) -> None:
    detail = doctor._versions().detail
    assert detail == "20.10, 26.1, 28.5; of the file that LABKIT_VERSIONS names: 29.8, 30.1"
    named.write_text(ROW.replace("key: engine.asc", "key: no.asc"))
    check = doctor._versions()
    assert not check.ok
    assert "no.asc" in check.detail
    assert str(named) in check.remedy


def test_an_image_of_a_repository_has_a_key_of_its_own(named: Path) -> None:
    keys = [debian.node_key("29.8")]
    for old, new in (
        ("EXAMPLE/linux", "EXAMPLE/other"),
        ("    suite: trixie", "    suite: sid"),
        ("[stable]", "[test]"),
    ):
        named.write_text(ROW.replace(old, new))
        keys.append(debian.node_key("29.8"))
    named.write_text(ROW)
    (named.parent / "engine.asc").write_bytes(PACKETS + b"another")
    keys.append(debian.node_key("29.8"))
    assert len(set(keys)) == len(keys)
    (named.parent / "engine.asc").write_bytes(PACKETS)  # the same key, not armoured
    assert debian.node_key("29.8") == keys[0]


def test_a_lab_is_not_removed_for_a_version_that_nobody_knows_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable is not set in this shell, say: `labkit reset` must leave the lab as it is."""
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path))
    monkeypatch.delenv(versions.VARIABLE, raising=False)
    removed: list[str] = []
    monkeypatch.setattr(engines, "kind_of", lambda _: "vm")
    monkeypatch.setattr(engines, "spec_of", lambda _: SwarmSpec.of("29.8", 3, 1))
    monkeypatch.setattr(engines, "remove", removed.append)
    with pytest.raises(UnknownNameError, match=r"29\.8"):
        lifecycle.reset("monday", progress=Progress())
    assert not removed


# --- what becomes of it ---------------------------------------------------------------------------


def test_apt_gets_the_key_with_the_repository_and_prefers_debian(file: Path) -> None:
    repository = versions.read(file)["29.8"].repository
    assert repository
    lines = repository.sources().splitlines()
    assert lines[:6] == [
        "Types: deb",
        "URIs: https://EXAMPLE/linux/debian",
        "Suites: trixie",
        "Components: stable",
        "Signed-By:",
        " -----BEGIN PGP PUBLIC KEY BLOCK-----",
    ]
    assert public_keys("\n".join(x.strip(" .") for x in lines[5:]).encode()) == PACKETS
    engine, rest = repository.preferences().split("\n\n")
    assert engine.splitlines() == [
        "Package: docker-ce docker-ce-cli containerd.io",
        "Pin: release o=Debian",
        "Pin-Priority: -1",
    ]
    assert rest.splitlines() == ["Package: *", "Pin: release o=Debian", "Pin-Priority: 900"]


def test_a_folder_is_copied_from(file: Path) -> None:
    file.write_text(ROW.replace("https://EXAMPLE/linux/debian", "file:///srv/apt"))
    repository = versions.read(file)["29.8"].repository
    assert repository
    assert "URIs: copy:///srv/apt\n" in repository.sources()


def test_only_distrust_in_this_repository_is_told_as_such(file: Path) -> None:
    repository = versions.read(file)["29.8"].repository
    assert repository
    other = "E: The repository 'https://OTHER/debian trixie InRelease' is not signed."
    assert repository.refusal([other, "E: Unable to locate package docker-ce"]) is None
    ours = "E: Failed to fetch https://EXAMPLE/linux/debian/pool/x.deb  Hash Sum mismatch"
    refused = repository.refusal([other, ours, "E: mmdebstrap failed to run"])
    assert isinstance(refused, RepositoryRefused)
    assert ours in str(refused)
    assert other not in str(refused)


def test_a_node_is_made_with_the_repository(
    named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path))
    asked: dict[str, Any] = {}
    monkeypatch.setattr(debian, "app_tar", lambda _: tmp_path / "app.tar")
    monkeypatch.setattr(debian, "make_tar", lambda target, **more: asked.update(more) or target)
    debian.node_tar("29.8", Progress())
    assert asked["repository"] is not None
    assert asked["suite"] == "trixie"
    assert "docker-ce" in asked["packages"]
    debian.node_tar("26.1", Progress())
    assert asked["repository"] is None
    assert images.config("29.8")["Env"] == ["DOCKER_MIN_API_VERSION=1.41"]
    assert image.nodes_directory("29.8").name.startswith("nodes-29.8-")


def test_the_dockerfile_does_for_debians_versions_alone(
    named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path))
    monkeypatch.setattr(debian, "SEARCH_PATH", "/nowhere")
    monkeypatch.setattr(images, "present", lambda *_: False)
    client: Any = None
    with pytest.raises(BuildError, match="needs mmdebstrap") as caught:
        images.ensure(client, "29.8", Progress())
    assert "install" in caught.value.hint


def test_the_example_of_the_page_is_read(file: Path) -> None:
    page = (paths.REPOSITORY / "docs" / "versions.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    file.write_text(example)
    (found,) = versions.read(file).values()
    assert found.docker.startswith("29.")
    assert found.repository
