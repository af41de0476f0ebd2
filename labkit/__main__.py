"""Lets `python -m labkit` be the command."""

from __future__ import annotations

from labkit.cli import main

if __name__ == "__main__":
    main()
