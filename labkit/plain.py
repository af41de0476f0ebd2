"""Answers and measurements as plain values: how they are compared, read as numbers, and shown."""

from __future__ import annotations

import math
import re
from numbers import Real
from typing import Any


def same(value: object, other: object) -> bool:
    """Compare plain values; text without regard to case and outer space."""
    left, right = plain(value), plain(other)
    if isinstance(left, str) and isinstance(right, str):
        return left.strip().casefold() == right.strip().casefold()
    if type(left) is list and type(right) is list and len(left) == len(right):
        return all(map(same, left, right))
    return bool(left == right)


def is_text_of_number(value: object, other: object) -> bool:
    """Whether a value is a number written as text where the other one is a number; also in lists."""
    if isinstance(value, list) and isinstance(other, list):
        return any(map(is_text_of_number, value, other))
    if not isinstance(value, str) or number(other) is None:
        return False
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False


def plain(value: Any) -> Any:
    """Return Python's own values for those of numpy and pandas: scalars, arrays, columns, and lists."""
    if type(value) is list:
        return [plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value


def number(value: object) -> float | None:
    """Return a finite number as a float, None for anything else."""
    found = plain(value)
    if isinstance(found, bool) or not isinstance(found, Real) or not math.isfinite(found):
        return None
    return float(found)


def show(value: object) -> str:
    """Return a value as one line of at most 120 characters."""
    text = " ".join(repr(plain(value)).split())
    return text if len(text) <= 120 else f"{text[:117]}..."


def begin(name: str) -> str:
    """Begin a sentence with what something is called; a variable's name stays as it is, as code."""
    return f"`{name}`" if re.fullmatch(r"\w*_\w*", name) else name[:1].upper() + name[1:]
