"""What a learner can choose from in a prediction, read from its text, or from the check of it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

_WORD = re.compile(r"`\"([^`\"]+)\"`")
_A_NUMBER = "a number"


def choices_of(prediction: str, checks: Sequence[str]) -> list[str]:
    """Return the choices of a prediction, each once and in order; none where the words are free.

    They are the words in quotation marks that its text names, such as `"yes"`. Where it names none,
    they are those of `checks.one_of` in the first of the checks' sources that has any.
    """
    if named := _WORD.findall(prediction):
        return list(dict.fromkeys(named))
    found = (list(dict.fromkeys(_in_check(source))) for source in checks)
    return next(filter(None, found), [])


def _in_check(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "checks.one_of":
            given = node.args[1]
            if isinstance(given, ast.Call) and ast.unparse(given.func) == "range":
                yield _A_NUMBER
            elif isinstance(given, ast.List) and all(isinstance(e, ast.Constant) for e in given.elts):
                yield from (str(ast.literal_eval(element)) for element in given.elts)
