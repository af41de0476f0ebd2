"""The page about a class: who is where, what is missed most, and nothing of a learner's runs in it."""

from __future__ import annotations

import re
from html import unescape

from labkit.grading import overview
from labkit.grading.results import refused_row
from labkit.grading.submissions import Submission
from tests.reports import klass, question, row
from tests.unit.test_report import Tags

HOSTILE = '<img src=x onerror="alert(1)"><script>alert(2)</script>'


def seen(html: str) -> list[str]:
    """The rows of the tables of a page, as text."""
    rows = re.findall(r"<tr>.*?</tr>", html, re.DOTALL)
    return [" ".join(unescape(re.sub(r"<[^>]+>", " ", one)).split()) for one in rows]


def part(html: str, heading: str) -> str:
    """What stands under a heading of the second level."""
    return next(one for one in html.split("<h2>") if one.startswith(heading))


def test_who_is_where() -> None:
    lines = seen(part(overview.page(klass()), "Who is where"))
    assert lines[0] == "Learner All labs 03 reach a container 04 join an overlay"
    assert lines[1] == "ada 2 of 4 2 of 4 1 of 1 checks 1 to read no submission"
    assert lines[2] == "bob 4 of 6 2 of 4 1 of 2 checks 2 of 2 1 of 1 checks"
    assert lines[3] == "cy 2 of 4 2 of 4 1 of 2 checks 3 findings no submission"
    assert "not handed in" in lines[4]
    assert "0 of 2 checks stopped" in lines[5]
    assert lines[6] == "Handed in 4 of 5 mean 1.5 points 1 of 1 mean 2.0 points"


def test_the_check_that_is_missed_most_comes_first() -> None:
    html = overview.page(klass())
    # Who handed nothing in has missed no check, and an answer in words is no check.
    for heading in ("Missed most", "03 reach a container"):
        lines = seen(part(html, heading))
        at = [
            next(n for n, line in enumerate(lines) if f" {name} " in f" {line}")
            for name in ("who", "arp")
        ]
        assert at == sorted(at)
        assert "3 of 4 1 1 1 1 2 1" in lines[at[0]]
        assert "1 of 3 2 1 0 0 0 0" in lines[at[1]]
        assert not [line for line in lines if " why " in line]
    assert "Say <code>who</code>." in html
    assert "join" not in " ".join(seen(part(html, "Missed most")))


def test_predictions_are_summed() -> None:
    lines = seen(part(overview.page(klass()), "03 reach a container"))
    assert "who the code 2 1 of 2 7 (1)" in lines


def test_what_wants_a_look() -> None:
    html = part(overview.page(klass()), "What wants a person's look")
    lines, text = seen(html), seen(f"<tr>{html}</tr>")[0]
    assert [line.split()[0] for line in lines[1:]] == ["cy", "eve"]
    assert "1 to read : answers in words, in nbgrader's formgrader: 03 reach a container 1." in text
    for words in ("who: A line was taken out.", "like bob: evidence: the session", "signature: broken"):
        assert words in lines[1]
    assert "stopped : it took too long" in lines[2]


def test_it_says_whose_it_is() -> None:
    assert "For instructors alone" in overview.page(klass())


def test_nothing_of_a_learners_runs_in_it() -> None:
    prediction = {"question": HOSTILE, "name": HOSTILE, "predicted": HOSTILE, "measured": "1"}
    finding = {"question": HOSTILE, "sentence": f"`{HOSTILE}`"}
    refused = Submission(HOSTILE, HOSTILE, "03_x", refused=HOSTILE, path=None)  # type: ignore[arg-type]
    html = overview.page(
        [
            row(
                HOSTILE,
                status="stopped",
                problem=HOSTILE,
                questions=[question(HOSTILE, asked=HOSTILE, status="fail")],
                predictions=[prediction],
                findings=[finding] * 5,
                alike=[{"with": HOSTILE, "shared": [HOSTILE]}],
                evidence=HOSTILE,
            ),
            refused_row(refused, 4.0),
        ]
    )
    tags = Tags(html)
    assert not tags.all("script", "img")
    assert not [values for _, values in tags.found if any(name.startswith("on") for name in values)]
    assert tags.urls == []
    assert tags.policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert html.count("&lt;script&gt;") > 10


def test_a_class_that_missed_nothing() -> None:
    html = overview.page([row("ada", questions=[question("who", points=2.0)])])
    assert "nobody who handed in missed a check" in html
    assert "no submission has a finding" in html


def test_every_header_says_what_it_heads() -> None:
    tags = Tags(overview.page(klass()))
    assert all(values.get("scope") in ("col", "row") for values in tags.all("th"))
