"""The swarm beside the notebook, in a real browser: what happens is seen, what is clicked happens."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from labkit import swarm
from labkit.engines import checkpoints, find
from labkit.nbgrader_cells import Role, question_of, role_of
from tests import BIN
from tests.conftest import Command
from tests.jupyter import (
    Heard,
    complaints,
    every_look,
    faults_for_everybody,
    keep_picture,
    run_all,
    run_to_the_end,
    serving,
    wait_for_kernel,
)

pytestmark = pytest.mark.live

LAB = "page-tests"
SOON = 120_000  # ms in which a swarm on a busy machine does what it was asked to
FIRST, SECOND = "00_read_this_first.ipynb", "02_follow_a_request.ipynb"


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """`labkit lab` with a swarm of its own: JupyterLab's URL with the token, and its directory."""
    base = tmp_path_factory.mktemp("page")
    env = {
        **os.environ,
        "JUPYTERLAB_WORKSPACES_DIR": str(base / "workspaces"),
        "JUPYTERLAB_SETTINGS_DIR": str(base / "settings"),
    }
    argv = [BIN, "lab", base / "labs", "--no-browser", "--engine", "vm", "--lab", LAB]
    swarm.down(LAB)
    try:
        with serving(argv, log=base / "jupyter.log", env=env, cwd=base) as url:
            yield url, base
    finally:
        swarm.down(LAB)


@pytest.fixture(scope="module")
def page(browser: Browser, jupyter: tuple[str, Path]) -> Iterator[Page]:
    """A page that is open all the time, as a learner's; nothing that it says may be a complaint."""
    url, base = jupyter
    page = browser.new_page(viewport={"width": 1366, "height": 1000})
    page.set_default_timeout(SOON)
    heard = Heard(page)
    page.goto(url, timeout=120_000)
    page.locator("#labkit-swarm .labkit-node").nth(2).wait_for(timeout=120_000)
    yield page
    keep_picture(page, "page")
    page.close()
    assert not heard.strangers(url)
    assert not heard.complaints
    assert not complaints(base / "jupyter.log")


@pytest.fixture
def panel(page: Page) -> Locator:
    """The swarm beside the notebook, and somebody who looks at it."""
    for x in (0, 1):  # it asks nothing while nobody has moved for minutes, and Run All takes minutes
        page.mouse.move(x, 1)
    return page.locator("#labkit-swarm")


@pytest.fixture(scope="module")
def own(jupyter: tuple[str, Path]) -> Iterator[swarm.Lab]:
    """The same swarm, as another process sees it, with a service of two tasks.

    A node tells of itself more often than in emulation, so that its loss is noticed sooner.
    """
    lab = swarm.get(LAB)
    lab.manager.run("docker swarm update --dispatcher-heartbeat 12s").check()
    lab.service("web", replicas=2, publish="8080:3000")
    yield lab
    lab.close()


def fold(panel: Locator, name: str) -> Locator:
    """Unfold a node, or a task that runs and is to go on; returns what belongs to it."""
    told = re.compile(rf"{re.escape(name)} (running$|.*, (ready|down),)")
    summary = panel.page.locator("summary", has_text=told)
    made = panel.locator("details").filter(has=summary)
    if made.get_attribute("open") is None:
        made.locator("summary").click()
    return made


def test_from_the_first_visit_to_the_first_command(page: Page, jupyter: tuple[str, Path]) -> None:
    url, base = jupyter
    page.get_by_role("button", name="Begin with 00").click()
    page.get_by_role("tab", name=FIRST).wait_for(timeout=SOON)
    wait_for_kernel(page, url)
    answer = page.locator(".jp-Notebook .jp-Cell", has_text=re.compile(r"typed = \.\.\.")).first
    answer.scroll_into_view_if_needed()
    answer.locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.type('typed = a.run("ip addr")')
    run_all(page)

    saved = base / "labs" / FIRST

    def check() -> dict[str, object]:
        cells = json.loads(saved.read_text())["cells"]
        return next(c for c in cells if role_of(c) is Role.CHECK and question_of(c) == "typed")

    for _ in range(180):
        page.keyboard.press("Control+s")
        page.wait_for_timeout(1000)
        if check()["execution_count"]:
            break
    assert check()["execution_count"]
    assert not [out for out in check()["outputs"] if out["output_type"] == "error"]  # type: ignore[attr-defined]
    page.get_by_role("tab", name="Labs").click()
    row = page.locator(".labkit-lab", has_text="Read this first")
    expect(row).to_contain_text(re.compile(r"[1-9] of 7 checks passed"), timeout=SOON)


def test_progress_and_hints_beside_the_lab(page: Page, jupyter: tuple[str, Path]) -> None:
    _, base = jupyter
    page.get_by_role("tab", name=FIRST).click()
    page.get_by_role("tab", name="Progress").click()
    panel = page.locator("#labkit-progress")
    expect(panel.get_by_role("button", name="typed: pass")).to_be_visible(timeout=SOON)
    expect(panel).to_contain_text(re.compile(r"[1-9] of 7 checks passed"))
    panel.get_by_role("button", name="Hint for own").click()
    expect(panel).to_contain_text("Hint 1:", timeout=SOON)
    evidence = (base / "labs" / FIRST).with_suffix(".evidence.jsonl")
    hints = [line for line in evidence.read_text().splitlines() if '"hint"' in line]
    assert len(hints) == 1
    assert '"own"' in hints[0]
    panel.get_by_role("button", name="Can this be handed in?").click()
    expect(panel).to_contain_text("evidence", timeout=SOON)
    panel.get_by_role("button", name=re.compile("^compare:")).click()
    expect(page.locator(".jp-Notebook .jp-Cell.jp-mod-active")).to_contain_text("checks.")
    for look in every_look(page):
        assert not faults_for_everybody(page, "#labkit-progress")
        keep_picture(page, f"progress-{look}")
    page.get_by_role("tab", name="Swarm").click()


def test_run_all_of_a_second_lab(browser: Browser, jupyter: tuple[str, Path]) -> None:
    url, base = jupyter
    page = browser.new_page(viewport={"width": 1366, "height": 768})
    heard = Heard(page)
    own_page = f"/lab/workspaces/second/tree/{SECOND}?"
    page.goto(url.replace("/lab?", own_page), timeout=SOON)
    page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=SOON)
    wait_for_kernel(page, url)
    run_to_the_end(page, base / "labs" / SECOND, seconds=600)
    for look in every_look(page):
        keep_picture(page, f"second-lab-{look}")
    page.close()
    assert not heard.strangers(url)
    assert not heard.complaints


def test_scaled_by_clicks_seen_here_and_there(
    page: Page, panel: Locator, own: swarm.Lab, labkit: Command
) -> None:
    expect(panel).to_contain_text("web 2 of 2 run", timeout=SOON)
    panel.get_by_role("button", name="Scale up web to 3").click()
    panel.get_by_role("button", name="Scale up web to 4").click()
    page.reload()
    panel.get_by_role("button", name="Scale up web to 5").click(timeout=SOON)
    expect(panel).to_contain_text("web 5 of 5 run", timeout=2 * SOON)
    listed = own.manager.run("docker service ls").check().text
    assert re.search(r"web .* 5/5", listed)
    assert len(own.tasks("web")) == 5
    expect(panel.locator(".labkit-command").first).to_contain_text(
        "node1 $ docker service scale --detach web=5"
    )


def test_a_task_that_is_killed_is_seen_dying_and_replaced(panel: Locator, own: swarm.Lab) -> None:
    before = own.task("web.1")
    fold(panel, "web.1").get_by_role("button", name="Kill it: web.1").click()
    dead = panel.locator(".labkit-ended", has_text="web.1").first
    expect(dead).to_contain_text("failed", timeout=SOON)
    expect(panel).to_contain_text("web 5 of 5 run", timeout=2 * SOON)
    assert own.task("web.1").container != before.container


@pytest.mark.usefixtures("own")
def test_a_click_can_be_put_into_the_notebook(page: Page, panel: Locator) -> None:
    panel.get_by_role("button", name="Scale down web to 4").click()
    expect(panel.locator(".labkit-command").first).to_contain_text("web=4", timeout=SOON)
    panel.get_by_role("button", name="Put into the notebook").first.click()
    cell = page.locator(".jp-Notebook .jp-Cell.jp-mod-active")
    expect(cell).to_contain_text('lab.manager.run("docker service scale --detach web=4")')


def test_a_request_is_seen_going_its_way(page: Page, panel: Locator, own: swarm.Lab) -> None:
    panel.get_by_label("The node that a request to web comes to").select_option("node2")
    panel.get_by_role("button", name="Follow a request to web").click()
    steps = panel.get_by_role("list", name="The way of the request").get_by_role("listitem")
    expect(steps).to_have_count(3, timeout=SOON)
    expect(steps.nth(1)).to_contain_text("node2/ingress_sbox, counted by MARK")
    answered = re.search(r"web\.\d+", steps.nth(2).inner_text())
    assert answered
    node = panel.locator(".labkit-node", has_text=f"{own.task(answered[0]).node.name} ")
    expect(node.locator(".labkit-here")).to_contain_text("3")
    expect(panel.locator(".labkit-command").first).to_contain_text("node2 $ curl http://127.0.0.1:8080")
    for look in every_look(page):
        keep_picture(page, f"way-{look}")


def test_balancers_go_with_the_tasks(page: Page, panel: Locator, own: swarm.Lab) -> None:
    panel.get_by_role("button", name="Balancers of web").click()
    places = panel.get_by_role("list", name="Balancers").get_by_role("listitem")
    expect(places).to_have_count(3, timeout=SOON)
    expect(places.first).to_contain_text(f"{own.task('web.4').addresses['ingress']} (web.4)")
    before = {task.name for task in own.tasks("web")}
    panel.get_by_role("button", name="Scale down web to 3").click()
    # Swarm takes one where most of them run, and that need not be the last one.
    (gone,) = before - {task.name for task in own.wait_for_tasks("web", 3)}
    expect(places.first).not_to_contain_text(f"({gone})", timeout=SOON)
    panel.get_by_role("button", name="Close the answer on web").click()
    panel.get_by_role("button", name="Scale up web to 4").click()
    expect(panel).to_contain_text("web 4 of 4 run", timeout=SOON)


def test_the_swarm_in_a_cell_goes_with_it_while_the_kernel_is_busy(
    page: Page, own: swarm.Lab, jupyter: tuple[str, Path]
) -> None:
    run_cell(page, "from labkit import panel\npanel.swarm(lab)")
    shown = page.locator(".jp-Notebook .jp-OutputArea-output .labkit-look")
    expect(shown).to_contain_text("web 4 of 4 run", timeout=SOON)
    run_cell(page, "import time\ntime.sleep(90)")
    own.manager.run("docker service scale --detach web=3").check()
    expect(shown).to_contain_text("web 3 of 3 run", timeout=SOON)
    assert page.locator(".jp-InputPrompt", has_text="[*]").count()
    shown.scroll_into_view_if_needed()
    for look in every_look(page):
        keep_picture(page, f"cell-{look}")
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_role("menuitem", name="Interrupt Kernel").click()
    own.manager.run("docker service scale --detach web=4").check()
    expect(shown).to_contain_text("web 4 of 4 run", timeout=SOON)


def run_cell(page: Page, text: str) -> None:
    """Put a cell below the one that is chosen, and run it."""
    page.locator(".jp-Notebook .jp-Cell.jp-mod-active .jp-InputPrompt").click()
    page.keyboard.press("b")
    page.keyboard.press("Enter")
    page.keyboard.insert_text(text)
    page.keyboard.press("Shift+Enter")


@pytest.mark.usefixtures("own")
def test_a_node_that_is_lost_and_comes_back(panel: Locator) -> None:
    fold(panel, "node3").get_by_role("button", name="Cut it off: node3").click()
    expect(panel).to_contain_text("node3 worker, down", timeout=2 * SOON)
    fold(panel, "node3").get_by_role("button", name="Connect it again: node3").click()
    expect(panel).to_contain_text("node3 worker, ready", timeout=2 * SOON)


def test_a_terminal_is_where_it_says(page: Page, panel: Locator, own: swarm.Lab) -> None:
    node = own.node("node2")
    fold(panel, "node2").get_by_role("button", name="Terminal in ingress_sbox: node2").click()
    page.locator(".jp-Terminal .xterm").wait_for(timeout=SOON)
    inside = "readlink /proc/self/ns/net"
    expected = node.netns("ingress_sbox").run(inside).text
    assert expected != node.run(inside).text
    seen = ""
    for _ in range(20):  # what is typed before the shell has begun may be lost
        page.locator(".jp-Terminal .xterm").click()
        page.keyboard.type(f"{inside} > /run/typed\n")
        page.wait_for_timeout(1000)
        if seen := node.run(["cat", "/run/typed"]).text:
            break
    assert seen == expected
    put = panel.get_by_role("button", name="Put what was typed into the notebook")
    put.click()
    cell = page.locator(".jp-Notebook .jp-Cell.jp-mod-active")
    typed = f'run(["bash", "-c", "{inside} > /run/typed"])'
    expect(cell).to_contain_text(f'lab.node("node2").netns("ingress_sbox").{typed}', timeout=SOON)
    for _ in range(8):  # as many commands as are listed; the shell stays beside them
        panel.get_by_role("button", name="Balancers of web").click()
    expect(panel.locator(".labkit-command")).to_have_count(9, timeout=SOON)
    expect(put).to_be_visible()
    page.reload()
    expect(put).to_be_visible(timeout=SOON)


@pytest.mark.usefixtures("own")
def test_everybody_can_use_the_panel(page: Page, panel: Locator) -> None:
    expect(panel).to_contain_text("web 4 of 4 run", timeout=SOON)
    for name in ("node1", "node2", "web.2"):
        fold(panel, name)
    panel.get_by_role("button", name="Balancers of web").click()
    expect(panel.get_by_role("list", name="Balancers")).to_be_visible(timeout=SOON)
    for look in every_look(page):
        assert not faults_for_everybody(page, "#labkit-swarm")
        keep_picture(page, f"swarm-{look}")
    page.get_by_role("tab", name="Labs").click()
    assert not faults_for_everybody(page, "#labkit-start", "#labkit-swarm")
    panel.get_by_role("button", name="Close the answer on web").click()


def test_a_name_is_typed_while_the_swarm_changes(page: Page, panel: Locator, own: swarm.Lab) -> None:
    name = panel.get_by_role("textbox", name="Name of the checkpoint")
    name.fill("mine")
    name.press("Home")
    for tasks, typed, value in ((5, "it-is-", "it-is-mine"), (4, "all-", "it-is-all-mine")):
        own.manager.run(f"docker service scale --detach web={tasks}").check()
        expect(panel).to_contain_text(f"web {tasks} of {tasks} run", timeout=SOON)
        expect(name).to_be_focused()
        page.keyboard.type(typed)
        expect(name).to_have_value(value)


def test_what_cannot_be_is_told(panel: Locator) -> None:
    panel.get_by_role("textbox", name="Name of the checkpoint").fill("no name")
    panel.get_by_role("button", name="Save").click()
    problem = panel.locator(".labkit-card .labkit-problem")
    expect(problem).to_contain_text("'no name'", timeout=SOON)


def test_a_checkpoint_is_gone_back_to(page: Page, panel: Locator, own: swarm.Lab) -> None:
    panel.get_by_role("textbox", name="Name of the checkpoint").fill("mine")
    panel.get_by_role("button", name="Save").click()
    back = panel.get_by_role("button", name="Go back to mine")
    back.wait_for(timeout=2 * SOON)
    own.manager.run("docker service rm web").check()
    expect(panel).to_contain_text("None yet", timeout=SOON)
    back.click()
    page.get_by_role("dialog").get_by_role("button", name="Go back").click()
    expect(panel).to_contain_text("web 4 of 4 run", timeout=2 * SOON)
    checkpoints(LAB).remove("mine")  # it would outlive the lab


def test_an_engine_that_is_killed_and_brought_up_again(page: Page, panel: Locator) -> None:
    connection = find(LAB)
    assert connection
    assert connection.pid
    psutil.Process(connection.pid).kill()
    expect(panel).to_contain_text("Your swarm does not answer", timeout=SOON)
    expect(panel.locator(".labkit-node")).to_have_count(0)
    reset = panel.get_by_role("button", name="Reset the swarm")
    reset.click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(panel).to_contain_text("Your swarm does not answer")
    reset.click()
    page.get_by_role("dialog").get_by_role("button", name="Reset").click()
    expect(panel.locator(".labkit-node")).to_have_count(3, timeout=2 * SOON)
    expect(panel).to_contain_text("Your swarm is up")
