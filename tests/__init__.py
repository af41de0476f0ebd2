"""The tests, on the `labkit` of the interpreter that runs them."""

import sys
from pathlib import Path

BIN = Path(sys.executable).with_name("labkit")
