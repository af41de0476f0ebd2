"""Marks sent by LTI 1.3: to a platform on loopback that checks what a real one checks."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
import yaml

from labkit.errors import UsageError
from labkit.grading import lti
from labkit.grading.lti import PlatformError, PlatformFileError
from labkit.grading.platforms import Mark
from tests import BIN
from tests.grading.lti_platform import LearningPlatform, serving

LAB, OTHER = "03_reach_a_container", "04_join_an_overlay"
MEMBERS = [
    {"user_id": "u-ada", "email": "Ada@example.org", "roles": ["Learner"], "status": "Active"},
    {"user_id": "u-alan", "email": "alan@example.org", "roles": ["Learner"]},
    {"user_id": "u-gone", "email": "eve@example.org", "roles": ["Learner"], "status": "Inactive"},
    {"user_id": "u-1", "email": "joe@example.org", "roles": ["Learner"]},
    {"user_id": "u-2", "email": "joe@example.net", "roles": ["Learner"]},
]


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[LearningPlatform]:
    public, _ = lti.make_key(tmp_path / "lti-key.pem")
    with serving(LearningPlatform(public.read_text(), members=MEMBERS)) as running:
        yield running


def named(platform: LearningPlatform, folder: Path, **other: str) -> Path:
    file = folder / "platform.yaml"
    row = {
        "client_id": platform.client_id,
        "token_url": f"{platform.url}/token",
        "line_items": f"{platform.url}/items",
        "members": f"{platform.url}/members",
        "key": "lti-key.pem",
    }
    file.write_text(yaml.safe_dump(row | other))
    return file


def test_each_lab_gets_a_column_and_each_learner_a_score(
    platform: LearningPlatform, tmp_path: Path
) -> None:
    file = lti.read(named(platform, tmp_path))
    marks = [
        Mark("ada", LAB, 25.5, 31, 0),
        Mark("Alan@example.org", LAB, 3, 31, 0),
        Mark("ada", OTHER, 9, 10, 2),
        Mark("eve", LAB, 1, 31, 0),
        Mark("joe", LAB, 1, 31, 0),
    ]
    sent = lti.send(file, marks)
    assert (sent.scores, sent.columns, sent.refused) == (2, (LAB,), ())
    assert sent.left_out == (
        "ada 04: 2 answers are still to be read",
        "eve 03: no such learner in the course",
        "joe 03: no such learner in the course",
    )
    assert [(row["label"], row["scoreMaximum"], row["resourceId"]) for row in platform.items] == [
        ("03 reach a container", 31, LAB)
    ]
    first, second = platform.scores["0"]
    assert (first["userId"], first["scoreGiven"], first["scoreMaximum"]) == ("u-ada", 25.5, 31)
    assert (first["activityProgress"], first["gradingProgress"]) == ("Completed", "FullyGraded")
    assert second["userId"] == "u-alan"

    again = lti.send(file, marks, unread=True)
    assert (again.scores, again.columns) == (3, (OTHER,))
    assert len(platform.items) == 2
    assert platform.scores["1"][0]["gradingProgress"] == "PendingManual"


def test_a_score_that_is_refused_keeps_no_other_back(
    platform: LearningPlatform, tmp_path: Path
) -> None:
    platform.locked.add("u-ada")
    grades = tmp_path / "grades.csv"
    grades.write_text(
        f"student,lab,points,max,to_mark_by_hand\nada,{LAB},25.5,31,0\nalan,{LAB},3,31,0\n"
    )
    argv = [BIN, "platform", "send", grades, "--to", named(platform, tmp_path), "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert told["scores"] == 1
    (refused,) = told["refused"]
    assert refused.startswith("ada 03: POST")
    assert "403 Forbidden" in refused
    assert [row["userId"] for row in platform.scores["0"]] == ["u-alan"]


def test_who_is_not_known_gets_no_token(platform: LearningPlatform, tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="invalid_client"):
        lti.send(lti.read(named(platform, tmp_path, client_id="1001")), [])
    lti.make_key(tmp_path / "other.pem")
    with pytest.raises(PlatformError, match="Signature verification failed"):
        lti.send(lti.read(named(platform, tmp_path, key="other.pem")), [])
    with pytest.raises(UsageError, match="there is no key"):
        lti.send(lti.read(named(platform, tmp_path, key="none.pem")), [])
    (tmp_path / "other.pem").chmod(0o644)
    with pytest.raises(UsageError, match="is open to others"):
        lti.send(lti.read(named(platform, tmp_path, key="other.pem")), [])


def test_a_platform_that_does_not_answer_is_named(platform: LearningPlatform, tmp_path: Path) -> None:
    gone = named(platform, tmp_path, token_url="http://127.0.0.1:9/token")
    with pytest.raises(PlatformError, match=r"127\.0\.0\.1:9 does not answer"):
        lti.send(lti.read(gone), [])
    wrong = named(platform, tmp_path, members=f"{platform.url}/nobody")
    with pytest.raises(PlatformError, match="404 Not Found"):
        lti.send(lti.read(wrong), [])


def test_a_token_goes_to_no_address_without_https(platform: LearningPlatform, tmp_path: Path) -> None:
    platform.items.append({"resourceId": LAB, "id": "http://moodle.example.org/items/0/lineitem"})
    sent = lti.send(lti.read(named(platform, tmp_path)), [Mark("ada", LAB, 1, 31, 0)])
    (refused,) = sent.refused
    assert "expected https" in refused


def test_two_marks_of_one_learner_in_one_lab_are_refused(
    platform: LearningPlatform, tmp_path: Path
) -> None:
    twice = [Mark("ada", LAB, 1, 31, 0), Mark("ada", LAB, 2, 31, 0)]
    with pytest.raises(UsageError, match="ada 03 has two marks"):
        lti.send(lti.read(named(platform, tmp_path)), twice)
    assert not platform.seen


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("token_url", "http://moodle.example.org/token", "expected https"),
        ("members", "file:///etc/passwd", "expected https"),
        ("learner", "name", "expected one of lis_person_sourcedid, email, user_id"),
        ("secret", "x", "is not known here"),
    ],
)
def test_a_wrong_file_is_told_with_its_line(key: str, value: str, told: str, tmp_path: Path) -> None:
    file = named(LearningPlatform(""), tmp_path, **{"token_url": "https://a/t", key: value})
    text = file.read_text().replace("line_items: /items", "line_items: https://a/i")
    file.write_text(text.replace("members: /members", "members: https://a/m"))
    with pytest.raises(PlatformFileError, match=rf"platform\.yaml, line \d, key '\.?{key}': .*{told}"):
        lti.read(file)


def test_the_public_key_is_printed_as_platforms_want_it(tmp_path: Path) -> None:
    key = tmp_path / "lti-key.pem"
    done = subprocess.run([BIN, "platform", "key", key], capture_output=True, text=True, check=True)
    *_, web_key = done.stdout.splitlines()
    public = jwt.PyJWK.from_json(web_key)
    signed = jwt.encode({"a": 1}, key.read_text(), "RS256", headers={"kid": public.key_id})
    assert jwt.decode(signed, public, ["RS256"]) == {"a": 1}
    assert "-----BEGIN PUBLIC KEY-----" in done.stdout
    assert key.stat().st_mode & 0o777 == 0o600
    assert "PRIVATE" not in done.stdout
