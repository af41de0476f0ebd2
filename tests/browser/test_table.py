"""A long table in JupyterLab: sorted, filtered, and plain again where its kernel is gone."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Locator, Page, expect

from tests.jupyter import Heard, faults_for_everybody, run_all, wait_for_kernel

NAME = "table.ipynb"
SOURCE = """\
import pandas as pd
from labkit import panel
rows = range(24)
df = pd.DataFrame({
    "task": [f"hello.{row % 3}" for row in rows],
    "bytes": pd.array([row * 37 % 101 if row else None for row in rows], dtype="Int64"),
})
panel.table(df)"""
SORTING = "[data-labkit-table] .dt-container"


def open_notebook(page: Page, url: str, folder: Path) -> None:
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = new_notebook(cells=[new_code_cell(SOURCE)], metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / NAME)
    page.goto(url.replace("/lab?", f"/lab/workspaces/table/tree/{NAME}?"), timeout=120_000)
    page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=120_000)
    wait_for_kernel(page, url)
    run_all(page)
    page.locator(SORTING).wait_for(timeout=60_000)


def column(page: Page, number: int) -> Locator:
    """A column's cells; to be awaited with `expect`, as the table draws some moments after a key."""
    return page.locator(f"{SORTING} tbody td:nth-child({number})")


def test_a_long_table_is_sorted_and_filtered(page: Page, jupyter: tuple[str, Path]) -> None:
    url, folder = jupyter
    heard = Heard(page)
    open_notebook(page, url, folder)
    table = page.locator(SORTING)
    expect(column(page, 2)).to_have_count(24)
    table.get_by_label("Search").fill("hello.1")
    expect(column(page, 2)).to_have_text(["hello.1"] * 8)
    table.get_by_label("Search").fill("")
    head = table.get_by_role("button", name="bytes: Activate to sort")
    head.focus()
    page.keyboard.press("Enter")
    ascending = sorted(row * 37 % 101 for row in range(1, 24))
    expect(column(page, 3)).to_have_text(["<NA>", *map(str, ascending)])
    assert not [found for found in faults_for_everybody(page, SORTING) if "minor" not in found[:5]]
    assert heard.strangers(url) == []


def test_without_its_kernel_it_is_the_plain_table(page: Page, jupyter: tuple[str, Path]) -> None:
    url, folder = jupyter
    open_notebook(page, url, folder)
    page.keyboard.press("Control+s")
    for _ in range(60):
        saved = nbformat.read(folder / NAME, as_version=4)
        if saved.cells[0].get("outputs"):
            break
        page.wait_for_timeout(500)
    (output,) = saved.cells[0].outputs
    assert set(output.data) == {"text/html", "text/plain"}
    assert (folder / NAME).stat().st_size < 20_000
    server, _, token = url.partition("/lab?")
    for session in page.request.get(f"{server}/api/sessions?{token}").json():
        page.request.delete(f"{server}/api/sessions/{session['id']}?{token}")
    page.reload()
    page.locator(".jp-OutputArea table.dataframe tbody tr").nth(23).wait_for(timeout=60_000)
    assert page.locator(SORTING).count() == 0
    assert page.get_by_text("model not found").count() == 0
    wait_for_kernel(page, url)  # the new one: Jupyter hangs where one is ended that is just starting
