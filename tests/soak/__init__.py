"""The soak: what labkit promises under kills, lost engines, company and repetition, tried many times.

`python -m tests.soak` runs it (`make soak`), one module per kind. It works in a home of its own and
touches no lab of the user. Each part's result is in `results.json` as soon as something was tried, so a
soak that is interrupted keeps what it has seen; `docs/reliability.md` is written from that file.
"""
