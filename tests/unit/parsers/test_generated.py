"""Every parser on outputs that no tool printed: a table or a ParseError that names the line, soon.

`tests/fuzz_parsers.py` does the same with many more, and with a fuzzer that looks for new paths.
"""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labkit.parsers import ParseError
from tests.unit.parsers.generated import changed, check, choices, long_outputs
from tests.unit.parsers.test_every_parser import PARSERS


def outputs(name: str) -> st.SearchStrategy[str]:
    """Return outputs of a parser's tool after a few changes, and now and then any text at all."""
    # Bytes, which hypothesis draws and shrinks much faster than one number after the other.
    drawn = st.binary(max_size=160).map(lambda data: changed(name, choices(data)))
    return st.one_of(drawn, drawn, drawn, drawn, st.text(st.characters(), max_size=80))


@pytest.mark.parametrize("name", PARSERS)
@settings(
    max_examples=100,
    deadline=None,  # `check` has a limit of its own, in the processor's time
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_a_generated_output_gives_a_table_or_names_its_line(name: str, data: st.DataObject) -> None:
    check(name, data.draw(outputs(name), label="output"))


@pytest.mark.parametrize("name", PARSERS)
def test_a_megabyte_is_read_in_less_than_a_second(name: str) -> None:
    assert check(name, next(long_outputs(name, 1_000_000))) == "table"


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (ValueError("x"), "ValueError"),
        (ParseError(3, "a", "b"), "there is no line 3"),
        (ParseError(1, "b", "b"), "line 1 is 'a', not 'b'"),
    ],
)
def test_the_check_sees_what_it_is_for(
    monkeypatch: pytest.MonkeyPatch, problem: Exception, message: str
) -> None:
    def fail(text: str) -> None:
        raise problem

    monkeypatch.setitem(PARSERS, "ss", fail)
    with pytest.raises(AssertionError, match=message):
        check("ss", "a\n")


def test_the_check_sees_what_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    def dawdle(text: str) -> None:
        ends = time.thread_time() + 1.1
        while time.thread_time() < ends:
            pass
        raise ParseError(1, "a", "b")

    monkeypatch.setitem(PARSERS, "ss", dawdle)
    with pytest.raises(AssertionError, match=r"1\.1 s for 2 characters"):
        check("ss", "a\n")
