"""What QEMU is told of its accelerator."""

from __future__ import annotations

import pytest

from labkit.engines.vm import accel
from labkit.engines.vm.accel import Verdict


@pytest.mark.parametrize(
    ("line", "release"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)", (7, 2)),
        ("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1)", (10, 0)),
        ("QEMU emulator, of one's own", None),
    ],
)
def test_a_release_is_read_as_numbers(
    line: str, release: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accel, "qemu_version", lambda: line)
    assert accel.qemu_release() == release


@pytest.mark.parametrize(
    ("kind", "release", "less"),
    [
        ("tcg", (7, 2), False),  # it drops code that another processor runs just now
        ("tcg", (8, 1), True),
        ("tcg", (10, 0), True),
        ("tcg", None, True),
        ("kvm", (10, 0), False),  # nothing is translated
    ],
)
def test_a_lab_keeps_less_translated_code_where_that_is_safe(
    kind: str, release: tuple[int, int] | None, less: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accel, "qemu_release", lambda: release)
    verdict = Verdict(kind, "so it is")
    words = verdict.options_of_a_lab
    assert ("tb-size" in words[1]) is less
    # A state fits where the rest is the same, so what is saved says nothing of it.
    assert [words[0], words[1].partition(",tb-size")[0], *words[2:]] == verdict.options
