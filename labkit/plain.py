"""Answers and measurements as plain values: how they are compared, read as numbers, and shown."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any


def same(value: object, other: object) -> bool:
    """Compare plain values; text without regard to case and outer space."""
    left, right = plain(value), plain(other)
    if isinstance(left, str) and isinstance(right, str):
        return left.strip().casefold() == right.strip().casefold()
    return bool(left == right)


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
