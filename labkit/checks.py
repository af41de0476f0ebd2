"""Checks for the labs' check cells: each compares an answer or a claim with what was measured.

A check has four outcomes, each one sentence:

    pass            prints the sentence and returns None
    fail            raises `CheckFailed`: where, what was answered or expected, what was found
    unanswered      raises `Unanswered`: the answer is still `...`
    could not run   raises `CouldNotRun`: nothing was measured, or a probe gave no result that counts

All but pass raise, because nbgrader gives full marks to a check cell that merely shows something.
What was measured is named after an answer, in a notebook not before the third different one; until then
a message says where to look (`labkit.tries`). Text compares without regard to case.

In every check `name` is what the sentence calls the value, and `node` the node that it belongs to. A
*probe* is a command that asks for an answer over the network: a `Capture`, a row of a table, or a
mapping. Its fields are `argv`, `place`, `node`, `code`, `stderr`, `timed_out`; only `code` is needed.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from labkit import outcomes, tries
from labkit.errors import CheckFailed, CouldNotRun, Unanswered
from labkit.plain import begin, is_text_of_number, number, plain, same, show
from labkit.words import Words

if TYPE_CHECKING:
    import pandas as pd

    from labkit.capture import Capture

outcomes.listen()  # for `labkit.score()`: every check cell loads this module before it ends

# The exit codes with which each tool reports that it asked and nothing answered (their manual pages).
# Any other code but 0 is about the tool or the name, and proves nothing about the network.
_NO_ANSWER = {
    "curl": (7, 28, 52, 56),  # refused, timed out, empty reply, connection reset
    "ping": (1,),
    "arping": (1,),
    "nc": (1,),
}
# Of a command that did not run to its end: `timeout`, `docker exec` and the shell set these codes.
_WHY_NOT_RUN = {
    None: "it has no exit code",
    124: "it was cut off before it gave its verdict",
    125: "Docker could not start it",
    126: "the tool could not be started",
    127: "the tool is not installed there",
}


def answered(value: object, *, name: str = "the answer") -> None:
    """Pass when the learner has put something in the place of `...`; else raise `Unanswered`."""
    _require_answer(value, name)
    print(f"{begin(name)} is given: {show(value)}.")


def one_of(value: object, choices: Iterable[object], *, name: str = "the answer") -> None:
    """Pass when the answer is one of the choices, the right one or not: for a prediction.

    Raises `CheckFailed` for another answer, `Unanswered` without one.
    """
    _require_answer(value, name)
    options = list(choices)
    if not any(same(value, option) for option in options):
        listed = f"one of {', '.join(map(show, options))}"
        if isinstance(choices, range):
            listed = f"a whole number from {choices.start} to {choices.stop - 1}"
        raise CheckFailed(f"{begin(name)} should be {listed}; found {show(value)}.")
    print(f"{name} is one of the choices: {show(value)}.")


def predicted(prediction: object, measured: object, *, name: str) -> None:
    """Show a prediction beside what was measured; right or wrong, it never fails.

    `name` says what was predicted. Who made no prediction is told what was measured: it is never
    `Unanswered`. Raises `CouldNotRun` where nothing was measured (None, NaN).
    """
    _require_evidence(measured, name, "")
    if prediction is ...:
        print(f"You made no prediction for {name}. Measured: {show(measured)}.")
        return
    tries.predicted(name, show(prediction), show(measured))
    if same(prediction, measured):
        print(f"You predicted {show(prediction)} for {name}, and so it was measured.")
    else:
        print(f"You predicted {show(prediction)} for {name}. Measured: {show(measured)}.")


def equals(value: object, measured: object, *, name: str = "the answer", node: str = "") -> None:
    """Pass when the answer is what was measured: plain values, lists, sets, numpy's and pandas' values.

    Raises `CheckFailed` where they differ, `Unanswered` without an answer, `CouldNotRun` where nothing
    was measured (None, NaN).
    """
    _require_answer(value, name)
    _require_evidence(measured, name, node)
    if is_text_of_number(value, measured):
        told = f"{begin(name)}: {show(value)} is text. Write a number, without quotation marks."
        raise CheckFailed(told)
    if not same(value, measured):
        told = f"{begin(name)}{_on(node)}: you said {show(value)}, measured {show(measured)}."
        raise CheckFailed(tries.missed(f"{name}{_on(node)}", show(value), told))
    print(f"{begin(name)}{_on(node)}: {show(measured)}, as you said.")


def close(
    value: object,
    measured: object,
    *,
    rel: float | None = None,
    abs: float | None = None,
    name: str = "the answer",
    unit: str = "",
    node: str = "",
) -> None:
    """Pass when the answer is as near to the measured number as ``rel`` or ``abs`` allows.

    ``rel`` is a part of the measured number (0.1: ten per cent), ``abs`` has the unit of both, ``unit``
    is only shown. Raises ValueError unless one of ``rel`` and ``abs`` is given; `CheckFailed` where the
    answer is further off or no number, `Unanswered` without one, `CouldNotRun` without a measurement.
    """
    if (rel is None) == (abs is None):
        raise ValueError("close() takes either rel= or abs=")
    _require_answer(value, name)
    _require_evidence(measured, name, node)
    given, seen = number(value), number(measured)
    if seen is None:
        raise CouldNotRun(f"{begin(name)}{_on(node)}: measured {show(measured)}, not a number.")
    if given is None:
        raise CheckFailed(f"{begin(name)} should be a number; found {show(value)}.")
    unit = f" {unit}" if unit else ""
    allowed = math.fabs(rel * seen) if rel is not None else float(abs or 0)
    if math.fabs(given - seen) > allowed:
        near = f"{rel:.0%}" if rel is not None else f"{abs:g}{unit}"
        told = (
            f"{begin(name)}{_on(node)}: you said {given:g}{unit}, measured {seen:g}{unit}, "
            f"which is further off than {near}."
        )
        raise CheckFailed(tries.missed(f"{name}{_on(node)}", f"{given:g}{unit}", told))
    print(f"{begin(name)}{_on(node)}: you said {given:g}{unit}, measured {seen:g}{unit}.")


def true(condition: object, sentence: str, *, found: object = None, node: str = "") -> None:
    """Pass when the condition holds; the sentence says in full what is true then.

    ``found`` is shown where the condition does not hold. Raises `CheckFailed` there, `Unanswered` for
    `...`, `CouldNotRun` where nothing was measured (None, NaN).
    """
    _require_answer(condition, "the answer")
    _require_evidence(condition, "the condition", node)
    if not condition:
        seen = "" if found is None else f" Found: {show(found)}."
        raise CheckFailed(f"This is not so{_on(node)}: {sentence.rstrip('.')}.{seen}")
    print(f"{sentence.rstrip('.')}.")


def reached(probe: Capture | Mapping[str, Any] | pd.DataFrame | Any, *, name: str = "") -> None:
    """Pass when the probe, or each probe of a table, was answered: its exit code is 0.

    Raises `CheckFailed` for the first one without an answer, `CouldNotRun` where there is no probe or
    one that proves nothing (see `not_reached`), `Unanswered` for `...`.
    """
    probes = _probes(probe, name)
    for one in probes:
        if _verdict(one, name) != 0:
            raise CheckFailed(f"Expected an answer to {_describe(one, name)}, but none came.")
    print(f"{begin(_describe_all(probes, name))} answered.")


def not_reached(probe: Capture | Mapping[str, Any] | pd.DataFrame | Any, *, name: str = "") -> None:
    """Pass when the probe, or each probe of a table, ran and was not answered.

    Only the tool's own report counts: a probe that was not started, was killed, or could not even
    resolve the name proves nothing, and the check then raises `CouldNotRun`, as it does where there is
    no probe. Raises `CheckFailed` for the first one that was answered, `Unanswered` for `...`.
    """
    probes = _probes(probe, name)
    for one in probes:
        if _verdict(one, name) == 0:
            raise CheckFailed(f"Expected no answer to {_describe(one, name)}, but there was one.")
    print(f"{begin(_describe_all(probes, name))} not answered.")


def rises(
    before: object, after: object, *, name: str = "the counter", by: float = 1, node: str = ""
) -> None:
    """Pass when a counter rose by at least ``by``, in the counter's own unit.

    Raises `CheckFailed` where it rose less, `CouldNotRun` where it fell (it was reset, which proves
    nothing) or is no number, `Unanswered` for `...`.
    """
    for value in (before, after):
        _require_answer(value, name)
        _require_evidence(value, name, node)
    first, last = number(before), number(after)
    if first is None or last is None:
        raise CouldNotRun(
            f"{begin(name)}{_on(node)} is no number: {show(before)} before, {show(after)} after."
        )
    if last < first:
        raise CouldNotRun(
            f"{begin(name)}{_on(node)} fell from {first:g} to {last:g}, so it was reset in between; "
            "run the experiment again."
        )
    if last - first < by:
        raise CheckFailed(
            f"Expected {name}{_on(node)} to rise by {by:g} or more; "
            f"found {first:g} before and {last:g} after."
        )
    print(f"{begin(name)}{_on(node)} rose from {first:g} to {last:g}.")


def contains(whole: Any, part: object, *, name: str = "the output", node: str = "") -> None:
    """Pass when a Capture's output, a text or a collection (a column, say) has ``part`` in it.

    In a text ``part`` may stand anywhere, in a collection it is one whole item. Raises `CheckFailed`
    where it is not there, `CouldNotRun` where ``whole`` is empty, was not measured, or is a Capture
    that did not run to its end, `Unanswered` for `...`.
    """
    for value in (whole, part):
        _require_answer(value, name)
    if hasattr(whole, "code") and hasattr(whole, "stdout"):
        node = node or str(whole.node)
        if whole.timed_out or whole.code in _WHY_NOT_RUN:
            raise _not_run(whole, name)
        whole = whole.stdout
    _require_evidence(whole, name, node)
    whole = plain(whole)
    if isinstance(whole, str):
        found = str(part).casefold() in whole.casefold()
    else:
        whole = list(whole) if isinstance(whole, Iterable) else [whole]
        found = any(same(part, item) for item in whole)
    if not whole:
        raise CouldNotRun(f"{begin(name)}{_on(node)} is empty, so there is nothing to look in.")
    if not found:
        raise CheckFailed(f"Expected {name}{_on(node)} to contain {show(part)}; found {show(whole)}.")
    print(f"{begin(name)}{_on(node)} contains {show(part)}.")


def ran(
    capture: Any,
    tool: str,
    *,
    words: Collection[str] = (),
    place: str | Collection[str] = (),
    shows: str | Collection[str] = (),
    code: int | Collection[int] = 0,
    name: str = "your command",
) -> None:
    """Pass when a command that the learner wrote ran the tool, in the place, and showed what it should.

    Of a list of commands each has to. ``tool`` are words of the command in this order, others may stand
    between: `ip neigh` is there in `ip -s neigh show`, and in `sh -c "ip neigh | sort"`. ``words`` are
    more of them, in any order, and those of `--name=VALUE` or `ADDRESS:PORT` count. ``place`` and
    ``code`` are the capture's, or one of several; without a tool or a place any will do. ``shows`` are
    parts of its output, addresses whole. Raises `CheckFailed`; `CouldNotRun` for a command that did not
    run to its end; `Unanswered` for `...`.
    """
    _require_answer(capture, name)
    if isinstance(capture, list) and capture:
        for one in capture:
            ran(one, tool, words=words, place=place, shows=shows, code=code, name=name)
        return
    if not hasattr(capture, "argv") or not hasattr(capture, "stdout"):
        raise CheckFailed(f"{begin(name)} should be what `.run(…)` returns; found {show(capture)}.")
    shown = f"`{' '.join(_argv(capture))}` on {capture.place}"
    places = [place] if isinstance(place, str) else list(place)
    typed = Words.of(_argv(capture))
    if not typed.hold(tool.split(), words) or (places and capture.place not in places):
        where = f" with {', '.join(words)}" * bool(words) + f" on {' or '.join(places)}" * bool(places)
        told = f"{begin(name)}: you ran {shown}; what is asked for is `{tool}`{where}."
        raise CheckFailed(tries.missed(name, shown, told, wrong="is another command, or another place"))
    good = {code} if isinstance(code, int) else {*code}
    if capture.timed_out or capture.code in _WHY_NOT_RUN.keys() - good:
        raise _not_run(capture, name)
    if capture.code not in good:
        ended = f"ended with code {capture.code}"
        said = (capture.stderr or capture.stdout).strip().splitlines()
        told = f"{begin(name)}: {shown} {ended} and said: {said[-1] if said else 'nothing'}"
        raise CheckFailed(tries.missed(name, shown, told, wrong=ended))
    for part in [shows] if isinstance(shows, str) else shows:
        if not _shows(capture.stdout, part):
            told = f"{begin(name)}: {shown} did not show {part}."
            raise CheckFailed(tries.missed(name, shown, told, wrong="does not show what is asked for"))
    print(f"{begin(name)}: you ran {shown}.")


def _shows(text: str, part: str) -> bool:
    """Whether a part is in a text; `10.0.0.2` is not in `10.0.0.21`."""
    if re.fullmatch(r"[\d.]+", part):
        return re.search(rf"(?<![\d.]){re.escape(part)}(?!\d)", text) is not None
    return part in text


def compared(probe: Any, other: Any, *, names: tuple[str, str] = ("`probe`", "`compare`")) -> None:
    """Pass when two commands that the learner wrote are of one tool, and something differs.

    What differs is told and not judged; their exit codes may be any that the tool gives. Raises
    `CheckFailed` for what is no Capture, for two tools, and for the same command in the same place;
    `CouldNotRun` for one that did not run to its end; `Unanswered` for `...`.
    """
    for name, capture in zip(names, (probe, other), strict=True):
        code = getattr(capture, "code", 0)
        ran(capture, "", code=() if code in _WHY_NOT_RUN else code, name=name)
    tools = [Words.of(_argv(capture)).tool for capture in (probe, other)]
    both = " and ".join(names)
    if tools[0] != tools[1]:
        raise CheckFailed(f"{both} should be of one tool; found {' and '.join(tools)}.")
    differ = {"place": probe.place != other.place, "words": _argv(probe) != _argv(other)}
    if not any(differ.values()):
        raise CheckFailed(f"{both} are the same command in the same place.")
    print(f"{both} differ in their {' and their '.join(what for what in differ if differ[what])}.")


def table(
    df: Any, *, columns: Collection[str] = (), min_rows: int = 1, name: str = "the table"
) -> None:
    """Pass when a table has the columns, and at least the rows, that the next checks need.

    Raises `CouldNotRun` where it has not, or is no table; `Unanswered` for `...`.
    """
    _require_answer(df, name)
    if not hasattr(df, "columns"):
        raise CouldNotRun(f"Expected {name} to be a table; found {show(df)}.")
    missing = [column for column in columns if column not in df.columns]
    if missing:
        have = ", ".join(str(column) for column in df.columns) or "none"
        raise CouldNotRun(f"{begin(name)} has no column {', '.join(missing)}; it has: {have}.")
    rows = len(df.index)
    if rows < min_rows:
        raise CouldNotRun(
            f"{begin(name)} should have {min_rows} rows or more; found {rows}. "
            "Run the cells above that fill it."
        )
    print(f"{begin(name)}: {rows} rows.")


def _require_answer(value: object, name: str) -> None:
    """Raise `Unanswered` for `...`, also as an item of a list, a tuple or a dict."""
    items: Iterable[object] = ()
    if isinstance(value, Mapping):
        items = value.values()
    elif isinstance(value, list | tuple | set):
        items = value
    if value is ... or any(item is ... for item in items):
        raise Unanswered(f"{begin(name)} is not answered yet: put your answer where `...` stands.")


def _require_evidence(measured: Any, name: str, node: str) -> None:
    """Raise `CouldNotRun` where nothing was measured: None, NaN or the like."""
    import pandas as pd

    if pd.api.types.is_scalar(measured) and pd.isna(measured):
        raise CouldNotRun(
            f"Nothing was measured for {name}{_on(node)}; run the cells above that measure it."
        )


def _probes(probe: Any, name: str) -> list[Any]:
    """Return one probe, or the rows of a table of them, as a list that is not empty."""
    _require_answer(probe, name or "the probe")
    if probe is None:
        raise CouldNotRun(f"There is no probe{f' for {name}' if name else ''} to judge.")
    if not hasattr(probe, "itertuples"):
        return [probe]
    if not len(probe):
        raise CouldNotRun(f"The table of probes{f' for {name}' if name else ''} is empty.")
    return list(probe.itertuples(index=False))


def _verdict(probe: Any, name: str) -> int:
    """Return 0 for an answered probe, 1 for one without an answer; raise `CouldNotRun` for others."""
    code = _code(probe)
    if code == 0:
        return 0
    argv = _argv(probe)
    tool = next((t for t in map(os.path.basename, argv) if t in _NO_ANSWER), "curl")
    if not _field(probe, "timed_out") and code in _NO_ANSWER[tool]:
        return 1
    raise _not_run(probe, name)


def _not_run(probe: Any, name: str) -> CouldNotRun:
    """Return the error that says why a probe proves nothing."""
    code = _code(probe)
    why = _WHY_NOT_RUN.get(code, f"it ended with code {code}, which says nothing about the network")
    if _field(probe, "timed_out"):
        why = "it was still running when its time was up"
    elif code is not None and code > 128:
        why = f"it was killed by signal {code - 128}"
    stderr = str(_field(probe, "stderr") or "").strip().splitlines()
    quote = f' It said: "{stderr[-1]}"' if stderr else ""
    return CouldNotRun(f"{begin(_describe(probe, name))} proves nothing: {why}.{quote}")


def _code(probe: Any) -> int | None:
    """Return a probe's exit code; a table holds a missing one as NaN."""
    return None if (code := number(_field(probe, "code"))) is None else int(code)


def _argv(probe: Any) -> list[str]:
    """Return a probe's command as words; a table holds it as one text."""
    argv = _field(probe, "argv") or ()
    return argv.split() if isinstance(argv, str) else [str(word) for word in argv]


def _describe(probe: Any, name: str) -> str:
    """Name a probe: the given name, or else its command, and its place."""
    what = name or (f"`{' '.join(_argv(probe))}`" if _argv(probe) else "the probe")
    place, node = (str(_field(probe, key) or "") for key in ("place", "node"))
    if node not in place:  # the place on a node itself has the node's name
        place = f"{place} on {node}" if place else node
    return f"{what} from {place}" if place else what


def _describe_all(probes: list[Any], name: str) -> str:
    """Name one probe, or say how many there were, with the verb of the sentence."""
    if len(probes) == 1:
        return f"{_describe(probes[0], name)} was"
    return f"the {len(probes)} probes{f' for {name}' if name else ''} were"


def _field(probe: Any, key: str) -> Any:
    """Read a field of a Capture, of a table's row or of a mapping; None where it is not there."""
    return probe.get(key) if isinstance(probe, Mapping) else getattr(probe, key, None)


def _on(node: str) -> str:
    return f" on {node}" if node else ""
