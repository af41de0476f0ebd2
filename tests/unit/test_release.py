"""Releases: nothing of the solution, the same bytes each time, bad markup refused by line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbgrader.nbgraderformat import MetadataValidator

from labkit.authoring import markup, release
from labkit.errors import UnknownNameError
from labkit.nbgrader_cells import check_of

LAB = """\
# Reach a container

One claim.

```{code-cell}
seen = 40 + 2
```

```{code-cell}
:tags: [answer:cause]

# What stops it?
### BEGIN SOLUTION
import math
_scratch = "not for the learner"
cause, count = "fire" + "wall", int(math.sqrt(4))
for hop in range(count):
    last: int = hop
def explain(what):
    inner = what
    return inner
### END SOLUTION
cause
```

```{code-cell}
:tags: [check:cause, points:2]

\"\"\"The cause is what the counter says.\"\"\"
assert cause is not ...
### BEGIN HIDDEN TESTS
assert seen == 42  # secret
### END HIDDEN TESTS
```

```{code-cell}
:tags: [remove-cell, test]

assert seen == 42  # guards the prose
```

+++ {"tags": ["answer:why", "points:1.5"]}

Why is that?

<!-- BEGIN SOLUTION -->
Because of the DROP rule.
<!-- END SOLUTION -->

+++

The end.
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source" / "03_reach_a_container.md"
    path.parent.mkdir()
    path.write_text(LAB)
    return path


def built(path: Path) -> nbformat.NotebookNode:
    notebook = nbformat.reads(release.build(path), as_version=4)
    nbformat.validate(notebook)
    return notebook


def cell(notebook: nbformat.NotebookNode, cell_id: str) -> nbformat.NotebookNode:
    return next(c for c in notebook.cells if c.id == cell_id)


def test_answer_becomes_one_stub_per_name(source: Path) -> None:
    assert cell(built(source), "03-answer-cause").source == (
        "# What stops it?\ncause = ...\ncount = ...\nhop = ...\nlast = ...\nexplain = ...\ncause"
    )


def test_solution_without_a_name_leaves_a_comment(source: Path) -> None:
    begin, _, rest = LAB.partition("import math")
    source.write_text(begin + "print(1)\n### END SOLUTION" + rest.partition("END SOLUTION")[2])
    assert cell(built(source), "03-answer-cause").source == (
        "# What stops it?\n# Your code here\ncause"
    )


def test_markdown_answer_is_marked_by_hand(source: Path) -> None:
    answer = cell(built(source), "03-answer-why")
    assert answer.source == "Why is that?\n\n*Write your answer here.*"
    marks = answer.metadata.nbgrader
    assert (marks.grade, marks.solution, marks.points) == (True, True, 1.5)


def test_check_is_locked_and_lets_run_all_go_on(source: Path) -> None:
    check = cell(built(source), "03-check-cause")
    assert check.source == ('"""The cause is what the counter says."""\nassert cause is not ...')
    assert check.metadata.tags == ["raises-exception"]
    assert (check.metadata.deletable, check.metadata.editable) == (False, False)
    marks = dict(check.metadata.nbgrader)
    assert marks.pop("checksum")
    assert marks == {
        "cell_type": "code",
        "grade": True,
        "grade_id": "check-cause",
        "locked": True,
        "points": 2,
        "schema_version": 3,
        "solution": False,
        "task": False,
    }


def test_nothing_of_the_solution_is_in_any_byte(source: Path) -> None:
    text = release.build(source)
    lines = [
        line.strip()
        for c in release.read_source(source).cells
        for line in markup.solution(c).splitlines()
    ]
    assert len(lines) == 9
    assert [line for line in lines if line in text] == []
    for word in ("SOLUTION", "HIDDEN", "secret", "guards", "scratch", "DROP", "jupytext"):
        assert word not in text


def test_release_is_clean(source: Path) -> None:
    notebook = built(source)
    MetadataValidator().validate_nb(notebook)
    assert [c.id for c in notebook.cells] == [
        "03-00",
        "03-01",
        "03-answer-cause",
        "03-check-cause",
        "03-answer-why",
        "03-06",
    ]
    assert all(c.outputs == [] and c.execution_count is None for c in notebook.cells if "outputs" in c)
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }


def test_source_keeps_everything(source: Path) -> None:
    notebook = release.read_source(source)
    MetadataValidator().validate_nb(notebook)
    assert len(notebook.cells) == 7
    assert "BEGIN SOLUTION" in cell(notebook, "03-answer-cause").source
    assert "secret" in cell(notebook, "03-check-cause").source
    assert [check_of(c) for c in notebook.cells if check_of(c)] == ["cause"]
    assert release.title(notebook) == "Reach a container"


def test_building_twice_gives_the_same_bytes(source: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from labkit.authoring import release;"
        "sys.stdout.buffer.write(release.build(Path(sys.argv[1])).encode())"
    )
    done = subprocess.run(  # in another process sets have another order
        [sys.executable, "-c", program, str(source)],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        check=True,
    )
    assert release.build(source) == release.build(source) == done.stdout.decode()


def test_release_writes_all_or_nothing_and_stale_sees_it(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "release"
    target = out / "03_reach_a_container.ipynb"
    assert release.stale(source.parent, out) == [target]
    assert release.release(source.parent, out) == [target]
    assert target.read_text() == release.build(source)
    assert release.stale(source.parent, out) == []
    orphan = out / "99_gone_away.ipynb"
    orphan.write_text("{}")
    assert release.stale(source.parent, out) == [orphan]
    source.write_text(LAB.replace("One claim.", "Two claims."))
    assert release.stale(source.parent, out) == [target, orphan]

    (source.parent / "04_join_an_overlay.md").write_text("no title\n")
    before = target.read_text()
    with pytest.raises(markup.MarkupError):
        release.release(source.parent, out)
    assert target.read_text() == before
    assert sorted(path.name for path in out.iterdir()) == [target.name, orphan.name]


CHECK = "```{code-cell}\n:tags: [check:a, points:1]\n1\n```\n"
ANSWER = "```{code-cell}\n:tags: [answer:a]\n### BEGIN SOLUTION\na = 1\n### END SOLUTION\n```\n"


@pytest.mark.parametrize(
    ("body", "line", "problem"),
    [
        (ANSWER.replace("### END SOLUTION\n", "") + CHECK, 4, "without its END"),
        (ANSWER.replace("### BEGIN SOLUTION\n", "") + CHECK, 5, "without its BEGIN"),
        (ANSWER.replace("a = 1", "### BEGIN SOLUTION") + CHECK, 5, "inside another"),
        (ANSWER.replace("a = 1", "a = (") + CHECK, 5, "not plain Python"),
        (ANSWER.replace("a = 1", "a = 1\n%time") + CHECK, 6, "not plain Python"),
        (ANSWER.replace(":tags: [answer:a]\n", "") + CHECK, 3, "only for a cell tagged answer:ID"),
        ("### BEGIN SOLUTION\nx\n### END SOLUTION\n", 2, "only for a cell tagged answer:ID"),
        (CHECK.replace("\n1\n", "\n### BEGIN HIDDEN TESTS\n") + ANSWER, 4, "without its END"),
        (ANSWER.replace("SOLUTION", "HIDDEN TESTS") + CHECK, 4, "tagged check:ID"),
        (
            ANSWER.replace("### BEGIN SOLUTION\na = 1\n### END SOLUTION", "a = 1") + CHECK,
            3,
            "one BEGIN SOLUTION",
        ),
        (ANSWER + CHECK + CHECK, 13, "check:a is already that of the cell in line 8"),
        (ANSWER + ANSWER + CHECK, 9, "answer:a is already that of the cell in line 2"),
        (ANSWER + CHECK.replace(", points:1", ""), 9, "a check needs points"),
        (ANSWER + CHECK.replace("points:1", "points:0"), 9, "a check needs points"),
        (ANSWER, 3, "answer:a has no check"),
        (CHECK + ANSWER, 3, "check:a stands above answer:a"),
        (
            ANSWER + CHECK.replace("\n1\n", "\na = 2\n"),
            3,
            "answer:a sets a, which another cell sets too",
        ),
        (ANSWER + CHECK.replace("points:1", "points:1, points:2"), 9, "given twice"),
        (ANSWER.replace("BEGIN", "begin") + CHECK, 4, "is no marker; write BEGIN SOLUTION"),
        (ANSWER.replace("END SOLUTION", "END_SOLUTION") + CHECK, 6, "write END SOLUTION"),
        (ANSWER + CHECK.replace("\n1\n", "\n# Begin hidden test\n"), 10, "write BEGIN HIDDEN TESTS"),
        ("Do not write BEGINSOLUTION.\n", 2, "is no marker"),
        (ANSWER.replace("answer:a", "answer:a, points:1") + CHECK, 3, "points belong to a check"),
        ('+++ {"tags": ["answer:a"]}\nWhy?\n', 2, "an answer in Markdown needs points"),
        ('+++ {"tags": ["check:a", "points:1"]}\nWhy?\n', 2, "not a code cell"),
        (CHECK.replace("check:a", "chek:a"), 3, "unknown tag 'chek:a'"),
        (CHECK.replace("check:a", "check:A-b"), 3, "unknown tag 'check:A-b'"),
        (CHECK.replace("points:1", "points:many"), 3, "unknown tag 'points:many'"),
        (CHECK.replace("check:a", "solution"), 3, "unknown tag 'solution'"),
        (CHECK.replace("check:a, points:1", "remove-cell"), 3, "a hidden guard has both tags"),
        (CHECK.replace("points:1", "points:1, test, remove-cell"), 3, "one answer, one check or"),
        (CHECK.replace(":tags: [check:a, points:1]", ":tags: check"), 3, "a list of words"),
        (CHECK.replace("points:1", "points: 1"), 3, "a list of words"),
        ('+++ {"tags": "answer:a"}\nWhy?\n', 2, "a list of words"),
        (CHECK.replace(":tags:", ":nbgrader: {}\n:tags:"), 3, "tags only"),
        (CHECK.replace("1]", "1"), 2, "could not be read"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_bad_markup_names_file_and_line(tmp_path: Path, body: str, line: int, problem: str) -> None:
    path = tmp_path / "01_build_a_swarm.md"
    path.write_text(f"# Build a swarm\n{body}")
    with pytest.raises(markup.MarkupError) as caught:
        release.build(path)
    assert str(caught.value).startswith(f"{path}, line {line}: ")
    assert problem in str(caught.value)
    assert caught.value.exit_code == 2


def test_lab_needs_a_title_and_a_name(tmp_path: Path) -> None:
    untitled = tmp_path / "01_build_a_swarm.md"
    untitled.write_text("## Second level\n")
    with pytest.raises(markup.MarkupError, match="line 1: the lab has no title"):
        release.build(untitled)
    with pytest.raises(markup.MarkupError, match="NN_verb_noun"):
        release.build(tmp_path / "swarm.md")


def test_find_labs(tmp_path: Path) -> None:
    for name in ("01_build_a_swarm", "03_reach_a_container", "10_break_and_fix", "README"):
        (tmp_path / f"{name}.md").touch()

    def found(*names: str) -> list[str]:
        return [path.stem for path in release.find_labs(tmp_path, names)]

    assert found() == ["01_build_a_swarm", "03_reach_a_container", "10_break_and_fix"]
    assert found("03") == found("3") == found("reach_a_container") == ["03_reach_a_container"]
    assert found("10_break_and_fix", "1", "10") == ["01_build_a_swarm", "10_break_and_fix"]
    with pytest.raises(UnknownNameError, match=r"'reach'.*01_build_a_swarm"):
        found("03", "reach")


def test_nbgraders_source_has_solutions_and_tests_but_nothing_that_only_the_kit_uses(
    source: Path,
) -> None:
    notebook = release.nbgrader_source(source)
    MetadataValidator().validate_nb(notebook)
    text = nbformat.writes(notebook)
    assert "fire" in text
    assert "secret" in text
    assert "guards" not in text
    assert "labkit" not in text


def test_what_is_graded_has_hidden_tests_and_no_solution(source: Path) -> None:
    text = nbformat.writes(release.gradable(source))
    assert "secret" in text
    assert "fire" not in text
    check = cell(release.gradable(source), "03-check-cause").source
    seen = cell(built(source), "03-check-cause").source
    assert markup.without_hidden_tests(check) == seen
    assert markup.hidden_lines(check) == ["assert seen == 42  # secret"]
    assert markup.docstring(check) == "The cause is what the counter says."
