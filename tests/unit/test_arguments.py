"""What services and networks are made of is refused before anything is made."""

from __future__ import annotations

from typing import Any

import pytest

from labkit.capture import words
from labkit.errors import UsageError
from labkit.swarm import arguments
from tests.unit.fakes import Toy

PLAIN: dict[str, Any] = {
    "replicas": 1,
    "publish": None,
    "networks": (),
    "options": (),
    "image": "node-test",
    "command": (),
}


def made(**given: Any) -> list[str]:
    argv, rest = arguments.create_service("a", **{**PLAIN, **given})
    return [*argv, *rest][7:]


@pytest.mark.parametrize(
    ("given", "argv"),
    [
        ({"networks": "net"}, ["--network", "net", "node-test"]),
        ({"networks": ["n1", "n2"]}, ["--network", "n1", "--network", "n2", "node-test"]),
        ({"options": "--endpoint-mode dnsrr"}, ["--endpoint-mode", "dnsrr", "node-test"]),
        ({"command": "sleep 1000"}, ["node-test", "sleep", "1000"]),
        ({"command": ["sh", "-c", "a b"]}, ["node-test", "sh", "-c", "a b"]),
        ({"publish": "5000:3000"}, ["--publish", "5000:3000", "node-test"]),
        (
            {"publish": ["5001:3000", "5002:3000"]},
            ["--publish", "5001:3000", "--publish", "5002:3000", "node-test"],
        ),
    ],
)
def test_words_are_a_list_or_one_line(given: dict[str, Any], argv: list[str]) -> None:
    assert made(**given) == argv


@pytest.mark.parametrize("options", ["--mode global", ["--mode=global"]])
def test_a_global_service_has_no_number_of_replicas(options: object) -> None:
    argv, _ = arguments.create_service("a", **{**PLAIN, "options": options})
    assert "--replicas" not in argv


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"publish": 5000}, "publish takes words, and 5000 is of the type int"),
        ({"networks": [1]}, "networks takes words"),
        ({"options": {"--env": 1}.values()}, "options takes words"),
        ({"command": 7}, "command takes words"),
        ({"command": "cat | head"}, "there is no shell here"),
        ({"replicas": "2"}, "replicas is '2', of the type str"),
        ({"replicas": True}, "replicas is True"),
        ({"replicas": -1}, "replicas is -1"),
        ({"replicas": 1.5}, "replicas is 1.5"),
        ({"image": None}, "image is None"),
        ({"image": "--mount"}, "image is '--mount'"),
    ],
)
def test_other_arguments_are_refused_by_their_name(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        made(**given)
    assert said in str(caught.value)
    assert "Next step" in str(caught.value)


@pytest.mark.parametrize("name", ["", "-x", "a b", None, 3, "../x", "a;b"])
def test_a_name_that_cannot_be_is_refused(name: Any) -> None:
    with pytest.raises(UsageError):
        arguments.name_of("service", name)


def test_nothing_is_made_of_a_bad_argument() -> None:
    toy = Toy()
    for bad in ({"replicas": "2"}, {"publish": 5000}):
        with pytest.raises(UsageError):
            toy.lab.service("a", **bad)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        toy.lab.remove_service()
    assert toy.nodes["node1"].commands == []
    assert toy.nodes["node1"].requests == []


def test_options_of_an_update_are_words_or_one_line() -> None:
    assert arguments.update_words(("--image x",)) == ["--image", "x"]
    assert arguments.update_words(("--env-add", "A=b c")) == ["--env-add", "A=b c"]
    assert arguments.update_words((["--image", "x"],)) == ["--image", "x"]
    with pytest.raises(UsageError, match="options takes words"):
        arguments.update_words(("--replicas", 2))


def test_an_unclosed_quote_names_the_parameter() -> None:
    with pytest.raises(UsageError, match="options is"):
        words("options", "--env 'x")
