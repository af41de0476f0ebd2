"""Handing in, collecting and giving back, through nbgrader's exchange in a folder."""

from __future__ import annotations

import errno
import getpass
import os
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from labkit import engines, files, paths, swarm
from labkit.classroom import hub
from labkit.classroom.hub import Class
from labkit.errors import UnknownNameError, UsageError
from labkit.evidence import signing
from labkit.evidence.files import beside
from labkit.grading import exchange
from labkit.grading.exchange import Exchange
from labkit.page import handing
from labkit.progress import Progress
from tests.grading.course import write_evidence

LAB = "03_reach_a_container"
ME = getpass.getuser()


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Class:
    """A class's folder, without a saved state; handing in leaves its traces in a home of its own."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "home"))
    monkeypatch.setattr(engines, "share", lambda *_: None)
    monkeypatch.setattr(hub, "_closed", lambda _: None)
    monkeypatch.setattr(hub, "_path", lambda _: str(tmp_path))
    proxy = tmp_path / "configurable-http-proxy"
    files.write_text(proxy, "", mode=0o755)
    proxy.chmod(0o755)
    wanted = Class(tmp_path / "class", ["ada", "bob"], ["teacher"], course="networks")
    assert hub.write(wanted, Progress()) == ["teacher", "ada", "bob"]
    monkeypatch.setenv(exchange.VARIABLE, str(wanted.exchange))
    return wanted


@pytest.fixture
def course(made: Class) -> Path:
    """The instructor's folder, with one lab open."""
    course = made.directory / "course"
    exchange.open_lab(course, paths.RELEASE / f"{LAB}.ipynb")
    return course


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A learner's folder with a notebook and its evidence."""
    folder = tmp_path / "labs"
    files.write_text(folder / f"{LAB}.ipynb", (paths.RELEASE / f"{LAB}.ipynb").read_text())
    write_evidence(beside(folder / f"{LAB}.ipynb"), ME)
    return folder


def here(made: Class) -> Exchange:
    found = exchange.of_learner()
    assert found == exchange.of_course(made.directory / "course")
    return found


def collected(course: Path) -> list[exchange.Collected]:
    return exchange.collect(course, course / hub.KEY)


def test_a_lab_goes_to_the_instructor_and_its_page_comes_back(
    made: Class, course: Path, folder: Path
) -> None:
    there = here(made)
    assert there.open_labs() == [LAB]
    assert exchange.fetch(there, folder) == []
    exchange.hand_in(there, folder / f"{LAB}.ipynb")
    (one,) = collected(course)
    assert (one.learner, one.lab) == (ME, LAB)
    assert abs(one.handed_in - datetime.now(UTC).replace(tzinfo=None)) < timedelta(minutes=1)
    taken = course / "submitted" / ME / LAB
    assert one.folder == taken
    for name in (f"{LAB}.ipynb", f"{LAB}.evidence.jsonl"):
        assert (taken / name).read_bytes() == (folder / name).read_bytes()
    assert collected(course) == []  # nothing newer

    with pytest.raises(UsageError, match="has no pages to give back"):
        exchange.give_back(course)
    page = course / "feedback" / ME / LAB / f"{LAB}.html"
    files.write_text(page, "<p>17 of 18</p>")
    assert exchange.give_back(course) == [page]
    (fetched,) = exchange.fetch(there, folder)
    assert fetched == folder / "feedback" / f"{LAB}.html"
    assert fetched.read_text() == "<p>17 of 18</p>"


@pytest.fixture
def closed() -> Iterator[None]:
    """The umask of everything that a hub starts."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.usefixtures("closed")
def test_a_page_that_is_given_back_can_be_read_and_not_listed(
    made: Class, course: Path, folder: Path
) -> None:
    there = here(made)
    exchange.hand_in(there, folder / f"{LAB}.ipynb")
    collected(course)
    files.write_text(course / "feedback" / ME / LAB / f"{LAB}.html", "<p>17 of 18</p>")
    exchange.give_back(course)
    (page,) = (made.exchange / "feedback").iterdir()
    assert (mode(page), mode(page.parent)) == (0o644, 0o711)
    for way in (made.exchange / "outbound" / LAB).rglob("*"):
        assert mode(way) == 0o644
    page.unlink()
    page.mkdir()
    with pytest.raises(UsageError, match=f"the exchange refuses: .*{page.name}"):
        exchange.fetch(there, folder)


@pytest.mark.parametrize("secret", [None, b"", b"\n", b"\xff\xfe"])
def test_who_spoils_their_secret_spoils_no_other_page(
    secret: bytes | None,
    made: Class,
    course: Path,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    exchange.hand_in(here(made), folder / f"{LAB}.ipynb")
    collected(course)
    shutil.copytree(course / "submitted" / ME, course / "submitted" / "bob")
    spoilt = course / "submitted" / "bob" / LAB / "submission_secret.txt"
    spoilt.unlink()
    if secret is not None:
        spoilt.write_bytes(secret)
    for learner in (ME, "bob"):
        files.write_text(course / "feedback" / learner / LAB / f"{LAB}.html", learner)
    assert exchange.give_back(course) == [course / "feedback" / ME / LAB / f"{LAB}.html"]
    assert f"bob {LAB} is not given back: its submission_secret.txt is missing" in caplog.text
    (fetched,) = exchange.fetch(here(made), folder)
    assert fetched.read_text() == ME


def test_the_last_one_counts(made: Class, course: Path, folder: Path) -> None:
    for text in ("first", "second"):
        files.write_text(beside(folder / f"{LAB}.ipynb"), text)
        exchange.hand_in(here(made), folder / f"{LAB}.ipynb")
        time.sleep(0.01)
    (one,) = collected(course)
    assert (one.folder / f"{LAB}.evidence.jsonl").read_text() == "second"
    files.write_text(beside(folder / f"{LAB}.ipynb"), "third")
    exchange.hand_in(here(made), folder / f"{LAB}.ipynb")
    (one,) = collected(course)
    assert (one.folder / f"{LAB}.evidence.jsonl").read_text() == "third"


def handed_in(made: Class, name: str) -> Path:
    """A folder that somebody made in the exchange by hand."""
    target = made.exchange / "inbound" / name
    target.mkdir()
    (target / f"{LAB}.ipynb").write_text("{}")
    return target


def named(who: str, when: datetime) -> str:
    return f"{who}+{LAB}+{when:%Y-%m-%d %H:%M:%S.%f} UTC+abc"


def now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def test_who_handed_in_is_whose_the_folder_is(made: Class, course: Path) -> None:
    handed_in(made, named("bob", now()))
    (one,) = collected(course)
    assert one.learner == ME
    assert one.remark == (
        f"it was handed in by {ME}, under the name of bob; it has no plain file "
        f"{LAB}.evidence.jsonl, submission_secret.txt"
    )
    assert not (course / "submitted" / "bob").exists()


def test_a_name_of_yesterday_does_not_make_it_so(made: Class, course: Path) -> None:
    handed_in(made, named(ME, now() - timedelta(days=1)))
    (one,) = collected(course)
    assert now() - one.handed_in < timedelta(minutes=1)
    assert "it was changed at" in one.remark


@pytest.mark.parametrize("kind", ["link", "pipe", "large"])
def test_only_plain_files_of_a_submission_are_taken(
    kind: str, made: Class, course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = handed_in(made, named(ME, now()))
    odd = target / f"{LAB}.evidence.jsonl"
    secret = tmp_path / "secret"
    secret.write_text("the instructor's own")
    match kind:
        case "link":
            odd.symlink_to(secret)
        case "pipe":
            os.mkfifo(odd)
        case "large":
            odd.write_text("much")
            monkeypatch.setattr(exchange, "_MOST_BYTES", 3)
    (target / "more.txt").write_text("not of a submission")
    (one,) = collected(course)
    assert {path.name for path in one.folder.iterdir()} == {"timestamp.txt", f"{LAB}.ipynb"}
    assert odd.name in one.remark


def test_what_is_no_submission_is_passed_over(made: Class, course: Path, tmp_path: Path) -> None:
    inbound = made.exchange / "inbound"
    (inbound / "odd").mkdir()
    (inbound / named(ME, now())).symlink_to(tmp_path)
    (inbound / f"{ME}+{LAB}+yesterday+abc").mkdir()
    (inbound / f"{ME}+99_no_lab+2026-11-30 00:00:00.0 UTC+abc").mkdir()
    assert collected(course) == []


def signature(course: Path) -> Path:
    return course / "submitted" / ME / LAB / f"{LAB}.evidence.sig"


@pytest.mark.parametrize("step", [(Path, "write_text"), (signing, "sign")])
def test_a_submission_is_collected_when_it_is_whole_and_signed(
    step: tuple[object, str], made: Class, course: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while it is taken: it is taken again."""
    exchange.hand_in(here(made), folder / f"{LAB}.ipynb")

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*step, stopped)
        with pytest.raises(KeyboardInterrupt):
            collected(course)
    assert not signature(course).parent.exists()
    (one,) = collected(course)
    assert (one.folder, one.remark) == (signature(course).parent, "")
    assert signature(course).exists()
    signature(course).unlink()  # collected in another way, by nbgrader say
    assert len(collected(course)) == 1
    assert signature(course).exists()


@pytest.mark.parametrize("written", [(Path, "write_bytes"), (os, "replace")])
def test_a_full_disk_takes_nothing_of_what_was_collected(
    written: tuple[object, str],
    made: Class,
    course: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exchange.hand_in(here(made), folder / f"{LAB}.ipynb")
    collected(course)
    before = {path.name: path.read_bytes() for path in signature(course).parent.iterdir()}
    exchange.hand_in(here(made), folder / f"{LAB}.ipynb")

    def no_room(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*written, no_room)
        with pytest.raises(UsageError, match=r"cannot be written: .*No space left"):
            collected(course)
    assert {path.name: path.read_bytes() for path in signature(course).parent.iterdir()} == before
    (one,) = collected(course)
    assert one.remark == ""


def test_one_submission_does_not_stop_the_others(
    made: Class,
    course: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One is gone when its turn comes; others have names that nobody hands in under."""
    other = "04_join_an_overlay"
    exchange.open_lab(course, paths.RELEASE / f"{other}.ipynb")
    gone = made.exchange / "inbound" / named(ME, now()).replace(LAB, other)
    gone.mkdir()
    is_new = exchange._is_new

    def removed(course: Path, found: exchange.Collected) -> bool:
        shutil.rmtree(gone, ignore_errors=True)
        return is_new(course, found)

    monkeypatch.setattr(exchange, "_is_new", removed)
    for odd in ("99999999999999999999-01-01 0:0 UTC", "\x1b[2J\n", "\udcff"):
        (made.exchange / "inbound" / f"{ME}+{LAB}+{odd}+abc").mkdir()
    exchange.hand_in(here(made), folder / f"{LAB}.ipynb")
    (one,) = collected(course)
    assert one.lab == LAB
    assert len(caplog.messages) == 4
    assert other in caplog.messages[-1]
    assert "was not taken" in caplog.messages[-1]
    assert all(message.isprintable() for message in caplog.messages)


def test_a_learners_text_in_a_remark_is_shown_and_does_nothing(made: Class, course: Path) -> None:
    handed_in(made, named("\x1b[2J\n\udcff", now()))
    (one,) = collected(course)
    assert r"under the name of \x1b[2J\n\xff" in one.remark
    assert one.remark.isprintable()


def test_evidence_is_signed_as_received_from_its_owner(
    made: Class, course: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed: list[tuple[str, str]] = []

    def sign(path: Path, _: object, *, lab: str, learner: str) -> Path:
        signed.append((lab, learner))
        return path

    monkeypatch.setattr(signing, "sign", sign)
    exchange.hand_in(here(made), folder / f"{LAB}.ipynb")
    (one,) = collected(course)
    assert signed == [(LAB, ME)]
    assert one.remark == ""


def test_what_cannot_be_handed_in_is_told(
    made: Class, course: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = here(made)
    with pytest.raises(UsageError, match="is not there"):
        exchange.hand_in(there, folder / "missing.ipynb")
    (folder / "04_join_an_overlay.ipynb").write_text("{}")
    with pytest.raises(UnknownNameError, match="no open lab is called '04_join_an_overlay'"):
        exchange.hand_in(there, folder / "04_join_an_overlay.ipynb")
    made.exchange.parent.rename(made.directory / "gone")
    with pytest.raises(UnknownNameError, match="there are: none"):
        exchange.hand_in(there, folder / f"{LAB}.ipynb")
    with pytest.raises(UsageError, match=r"nbgrader_config\.py names no exchange"):
        exchange.open_lab(folder, paths.RELEASE / f"{LAB}.ipynb")
    assert not (folder / "release").exists()
    monkeypatch.delenv(exchange.VARIABLE)
    assert exchange.of_learner() is None


# --- on the page ----------------------------------------------------------------------------------


def test_the_page_hands_in_and_says_what_will_not_be_graded(
    made: Class, course: Path, folder: Path
) -> None:
    assert handing.look() == handing.Class("networks", [f"{LAB}.ipynb"])
    beside(folder / f"{LAB}.ipynb").write_text("")
    done = handing.do(folder, {"do": "hand in", "path": f"{LAB}.ipynb"})
    assert done.told[0].startswith("Handed in at ")
    assert any("evidence" in sentence for sentence in done.told[1:])
    assert handing.do(folder, {"do": "fetch"}) == handing.Done(["Nothing was given back yet."])
    assert len(collected(course)) == 1


def test_the_page_hands_in_the_copy_that_is_shown(made: Class, course: Path, folder: Path) -> None:
    mine = folder / "mine" / f"{LAB}.ipynb"
    mine.parent.mkdir()
    mine.write_bytes((folder / f"{LAB}.ipynb").read_bytes() + b"\n")
    handing.do(folder, {"do": "hand in", "path": f"mine/{LAB}.ipynb"})
    (taken,) = collected(course)
    assert (taken.folder / f"{LAB}.ipynb").read_bytes() == mine.read_bytes()
    with pytest.raises(UsageError, match="is not in the folder of the labs"):
        handing.do(mine.parent, {"do": "hand in", "path": f"../{LAB}.ipynb"})


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"do": "steal"}, "no action is called 'steal'; there are: hand in, fetch"),
        ({"do": "hand in", "path": "mine/x.ipynb"}, "no lab is called 'x.ipynb'"),
        ({"do": "hand in"}, "no lab is called ''"),
    ],
)
def test_the_page_is_told_what_it_cannot_have(
    asked: dict[str, str], told: str, made: Class, folder: Path
) -> None:
    with pytest.raises(UnknownNameError, match=told):
        handing.do(folder, asked)


def test_elsewhere_there_is_no_class(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(exchange.VARIABLE, raising=False)
    assert handing.look() == handing.Class()
    with pytest.raises(UsageError, match="not the server of a class"):
        handing.do(tmp_path, {"do": "fetch"})


# --- the folder of a class ------------------------------------------------------------------------


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_a_class_has_what_its_people_may_read_and_no_more(made: Class) -> None:
    there = made.directory
    assert mode(there / "logins.txt") == 0o600
    assert mode(there / "hub") == mode(there / "course") == 0o700
    assert mode(there / "exchange") == 0o1777
    assert mode(made.exchange) == mode(made.exchange / "outbound") == 0o755
    assert mode(made.exchange / "inbound") == 0o2733
    lines = (there / "logins.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in lines] == ["teacher", "ada", "bob"]
    assert len({line.split(":")[1] for line in lines}) == 3
    assert all(line.count(":") == 6 for line in lines)


@pytest.mark.parametrize("spawner", hub.SPAWNERS)
def test_the_hub_reads_its_configuration(
    spawner: str, made: Class, monkeypatch: pytest.MonkeyPatch
) -> None:
    from traitlets.config.loader import PyFileConfigLoader

    monkeypatch.setenv("NODE_PATH", "/mine")
    wanted = Class(made.directory.with_name("two"), ["ada"], ["teacher"], spawner=spawner, memory="2G")
    hub.write(wanted, Progress())
    found = PyFileConfigLoader(hub.FORMS[0], path=str(wanted.directory)).load_config()
    assert found.Authenticator.allowed_users == {"ada", "teacher"}
    assert found.JupyterHub.bind_url == "http://127.0.0.1:8000"
    assert found.Spawner.environment["LABKIT_SHARED"] == str(wanted.state)
    assert found.SystemdSpawner.get("mem_limit") == ("2G" if spawner == "systemd" else None)
    if spawner == "systemd":
        assert found.SystemdSpawner.unit_extra_properties["TimeoutStopSec"] == "15min"
    assert os.environ["NODE_PATH"] == "/mine"


def test_learners_come_from_a_roster(tmp_path: Path) -> None:
    roster = tmp_path / "class.csv"
    roster.write_text("name;student\nAda;ada\n;\nBob;bob\n")
    assert hub.logins(["eve"], roster) == ["eve", "ada", "bob"]
    roster.write_text("name\nAda\n")
    with pytest.raises(UsageError, match="has no column student"):
        hub.logins([], roster)
    with pytest.raises(UsageError, match="a class has learners"):
        hub.logins([], None)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"instructors": []}, "a class has an instructor"),
        ({"instructors": ["ada"]}, "'ada' is there twice"),
        ({"learners": ["ada", "bob", "ada"]}, "'ada' is there twice"),
        ({"learners": ["Ada"]}, "'Ada' cannot be a login"),
        ({"instructors": ["a; reboot"]}, "'a; reboot' cannot be a login"),
        ({"learners": ["daemon"]}, "'daemon' is an account of the system's own"),
        ({"course": "../x"}, "cannot be a course's name"),
        ({"directory": Path("/srv/a class")}, "stands in commands and units"),
        ({"spawner": "cloud"}, "no spawner is called 'cloud'"),
        ({}, "holds .* already, and a class is never written over"),
    ],
)
def test_what_cannot_be_a_class_is_told(change: dict[str, object], told: str, made: Class) -> None:
    fields = {"directory": made.directory, "learners": ["ada"], "instructors": ["teacher"]}
    with pytest.raises(UsageError, match=told):
        hub.write(Class(**{**fields, **change}), Progress())  # type: ignore[arg-type]


def test_learners_must_be_able_to_run_the_kit(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    tmp_path.chmod(0o755)
    (closed / "python").touch(mode=0o755)
    assert hub._closed(closed / "python") in (closed, *tmp_path.parents)


def test_a_state_is_made_where_none_is_kept(made: Class, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Up:
        lab = type("lab", (), {"close": staticmethod(lambda: asked.append("close"))})

    def share(_: Path, __: object, make: object, ___: Progress) -> None:
        assert callable(make)
        make("vm")

    monkeypatch.setattr(engines, "share", share)
    monkeypatch.setattr(swarm, "up", lambda lab, **_: asked.append(f"up {lab}") or Up)
    monkeypatch.setattr(swarm, "down", lambda lab: asked.append(f"down {lab}"))
    hub.write(Class(made.directory.with_name("two"), ["ada"], ["teacher"]), Progress())
    assert asked == ["up class", "close", "down class"]
