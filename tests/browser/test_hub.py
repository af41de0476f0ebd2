"""A class on one server: a swarm for each who logs in, handing in, and marks that come back."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests import hub as hubs
from tests.hub import Hub, home
from tests.jupyter import Heard, every_look, keep_picture, run_to_the_end, wait_for_kernel

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="accounts are root's to make"),
]

ADA, BOB, GRACE = "lk-test-ada", "lk-test-bob", "lk-test-grace"
LAB = "00_read_this_first"
SOON = 180_000


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with hubs.running([ADA, BOB], GRACE) as running:
        yield running


@pytest.fixture(scope="module")
def ada(hub: Hub, browser: Browser) -> Iterator[Page]:
    """Ada's page; nothing that it says may be a complaint."""
    page = hub.arrive(browser, ADA)
    heard = Heard(page)
    yield page
    page.context.close()
    assert not heard.complaints


@pytest.fixture(scope="module")
def bob(hub: Hub, browser: Browser) -> Iterator[Page]:
    page = hub.arrive(browser, BOB)
    yield page
    page.context.close()


def test_each_has_a_swarm_of_their_own(hub: Hub, ada: Page, bob: Page) -> None:
    for page in (ada, bob):
        page.locator("#labkit-start").get_by_role("button", name="Start the swarm").click()
    for page in (ada, bob):
        expect(page.locator("#labkit-swarm .labkit-node")).to_have_count(3, timeout=SOON)
    for login in (ADA, BOB):
        found = json.loads(hub.run(login, ["labkit", "status", "--json"]).stdout)
        assert [node["state"] for node in found["nodes"]] == ["ready"] * 3
    # The state that both came from is not theirs, and neither has made another.
    assert not [*home(ADA).glob(".cache/labkit/states/*"), *home(ADA).glob(".cache/labkit/machine-*")]


def test_a_lab_is_run_and_handed_in(hub: Hub, ada: Page) -> None:
    url = f"{hub.url}/user/{ADA}/lab?"
    hub.teaches(GRACE, "class", "open", "00")
    ada.get_by_role("button", name="Begin with 00").click()
    ada.get_by_role("tab", name=f"{LAB}.ipynb").wait_for()
    wait_for_kernel(ada, url)
    run_to_the_end(ada, home(ADA) / "labkit-labs" / f"{LAB}.ipynb")
    ada.get_by_role("tab", name="Progress").click()
    panel = ada.locator("#labkit-progress")
    panel.get_by_role("button", name="Hand it in").click()
    expect(panel).to_contain_text("Handed in at", timeout=SOON)
    for look in every_look(ada):
        keep_picture(ada, f"handed-in-{look}")


def test_nobody_reaches_anothers_lab(hub: Hub, ada: Page, bob: Page) -> None:
    """By files, by the exchange, by the ports of the lab with its very keys, and by the pages."""
    assert hub.open_to(BOB, ADA, LAB) == []
    answer = bob.request.get(f"{hub.url}/user/{ADA}/api/contents")
    assert answer.status in (401, 403, 404)
    assert LAB not in answer.text()
    assert bob.request.get(f"{hub.url}/user/{BOB}/api/contents").ok


def test_marks_come_back_to_whom_they_belong(hub: Hub, ada: Page, bob: Page) -> None:
    (taken,) = json.loads(hub.teaches(GRACE, "class", "collect", "--json"))
    assert (taken["learner"], taken["lab"], taken["remark"]) == (ADA, LAB, "")
    marks = json.loads(hub.teaches(GRACE, "grade", ".", "--public-key", "signing-key.pub", "--json"))
    (row,) = marks
    assert (row["student"], row["problem"], row["evidence"]) == (ADA, "", "signed")
    assert 0 <= row["points"] < row["max"]
    hub.teaches(GRACE, "feedback", ".")
    assert "given back: 1" in hub.teaches(GRACE, "class", "return")
    for page in (ada, bob):
        page.get_by_role("tab", name="Labs").click()
        page.get_by_role("button", name="Fetch what was marked").click()
    expect(bob.get_by_text("Nothing was given back yet.")).to_be_visible(timeout=SOON)
    ada.get_by_role("region", name="Given back").get_by_role(
        "button", name="00 read this first"
    ).click()
    ada.get_by_role("tab", name=f"{LAB}.html").wait_for()
    for look in every_look(ada):
        keep_picture(ada, f"given-back-{look}")
    assert ADA in (home(ADA) / "labkit-labs" / "feedback" / f"{LAB}.html").read_text()
