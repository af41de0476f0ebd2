"""When something was handed in, and how late that is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from labkit.errors import UnknownNameError, UsageError
from labkit.grading import lateness
from labkit.grading.lateness import Due

LABS = ["03_reach_a_container", "04_join_an_overlay"]
THEN = datetime(2026, 12, 1, 23, 59, tzinfo=UTC)


def test_dates_are_for_all_labs_or_for_one() -> None:
    found = lateness.read(["2026-12-01T23:59Z", "03=2026-12-02T00:00+01:00"], LABS)
    assert found == {"": THEN, "03_reach_a_container": datetime(2026, 12, 1, 23, tzinfo=UTC)}
    due = Due(found)
    assert due.date("03_reach_a_container") == datetime(2026, 12, 1, 23, tzinfo=UTC)
    assert due.date("04_join_an_overlay") == THEN
    assert lateness.read(["04_join_an_overlay=2026-12-01T23:59Z"], LABS) == {LABS[1]: THEN}


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine is in Berlin, where summer time ends on 25 October 2026 at 03:00."""
    with monkeypatch.context() as there:
        there.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("due", "came", "days"),
    [
        ("2026-10-24T23:59", "2026-10-25T22:59+00:00", 1),  # at 23:59, after 25 hours
        ("2026-10-24T23:59", "2026-10-25T23:00+00:00", 2),
        ("2026-10-24T23:59+02:00", "2026-10-25T22:59+00:00", 2),  # a day of 24 hours, as it says
        ("2026-10-24T23:59", "2026-10-24T21:59+00:00", 0),
        ("2026-10-24T23:59", "2026-10-24T22:00+00:00", 1),
        ("2026-03-28T23:59", "2026-03-29T21:59+00:00", 1),  # after 23 hours, as summer time begins
        ("2026-03-28T23:59", "2026-03-29T22:00+00:00", 2),
    ],
)
def test_days_end_at_the_time_on_the_wall(due: str, came: str, days: int) -> None:
    dates = lateness.read([due], LABS)
    assert Due(dates).days_late("03", datetime.fromisoformat(came)) == days


@pytest.mark.usefixtures("berlin")
def test_a_date_without_a_zone_is_this_machines() -> None:
    due = lateness.read(["2026-12-01"], LABS)[""]
    assert due.astimezone(UTC) == datetime(2026, 11, 30, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    "word", ["tomorrow", "03=", "03=soon", "", "=2026-12-01", "0001-01-01T00:00+01:00"]
)
def test_what_is_no_date_is_told(word: str) -> None:
    with pytest.raises(UsageError, match=r"is no date|no lab is called ''"):
        lateness.read([word], LABS)


def test_an_unknown_lab_is_told() -> None:
    with pytest.raises(UnknownNameError, match="no lab is called '99'"):
        lateness.read(["99=2026-12-01"], LABS)


@pytest.mark.parametrize(
    ("after", "days"),
    [
        (timedelta(days=-3), 0),
        (timedelta(), 0),
        (timedelta(microseconds=1), 1),
        (timedelta(days=1), 1),
        (timedelta(days=1, seconds=1), 2),
    ],
)
def test_each_day_that_has_begun_counts(after: timedelta, days: int) -> None:
    assert Due({"": THEN}).days_late("03", THEN + after) == days
    assert Due().days_late("03", THEN + after) == 0
    assert Due({"": THEN}).days_late("03", None) == 0


def test_no_more_is_lost_than_there_is() -> None:
    due = Due({"": THEN}, 30)
    assert [due.lost(10, days) for days in range(5)] == [0, 3, 6, 9, 10]
    assert Due({"": THEN}).lost(10, 99) == 0


def test_only_what_was_collected_says_when(tmp_path: Path) -> None:
    for folder in ("submitted/ada/03", "ada", "in/ada/03"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / lateness.TIMESTAMP).write_text("2026-12-01 23:59:00.0 UTC\n")
    assert lateness.handed_in(tmp_path / "submitted/ada/03/03.ipynb") == THEN
    assert lateness.handed_in(tmp_path / "ada/03.ipynb") is None
    assert lateness.handed_in(tmp_path / "in/ada/03/03.ipynb") is None
    too_large = (
        "99999999999999999999-01-01",
        "2026-12-01 10:00:00 " + "9" * 99,
        "9" * 150 + "M" + "9" * 9,
    )
    for text in ("", "yesterday", "\udcff", "0001-01-01", "9999-12-31 23:59:00 UTC", *too_large):
        odd = tmp_path / "submitted/ada/03" / lateness.TIMESTAMP
        odd.write_bytes(text.encode(errors="surrogateescape"))
        assert lateness.handed_in(tmp_path / "submitted/ada/03/03.ipynb") is None
