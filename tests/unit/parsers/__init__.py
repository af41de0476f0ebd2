"""The parsers: one file of tests per file of `labkit/parsers`, and what holds for every one of them."""

import pytest

pytest.register_assert_rewrite("tests.unit.parsers.helpers")
