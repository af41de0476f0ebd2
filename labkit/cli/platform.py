"""Commands for a learning platform that speaks LTI 1.3: make a key for it, and send marks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from labkit.cli.options import Json, print_json

app = typer.Typer(help="A learning platform, by LTI 1.3: send it marks.", no_args_is_help=True)


@app.command()
def key(
    file: Annotated[
        Path, typer.Argument(metavar="KEYFILE", help="The file to write, lti-key.pem say.")
    ],
    as_json: Json = False,
) -> None:
    """Make a pair of keys, and print the public one as Moodle and as Canvas want it."""
    from labkit.grading import lti

    public, web_key = lti.make_key(file)
    if as_json:
        print_json({"key": str(file), "public_key": str(public), "jwk": web_key})
        return
    print(f"private key: {file} (for you alone); public key: {public}")
    print(public.read_text().strip())
    print(json.dumps(web_key))


@app.command()
def send(
    grades: Annotated[Path, typer.Argument(metavar="GRADES", help="The CSV file of `labkit grade`.")],
    to: Annotated[
        Path, typer.Option(metavar="FILE", help="The platform, as docs/instructors.md tells.")
    ],
    unread: Annotated[
        bool, typer.Option("--unread", help="Also those with answers in words that nobody has read.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Send the marks to a course: a column for each lab, a score for each learner.

    Exit code 1 where the platform refused one.
    """
    from dataclasses import asdict

    from labkit.grading import lti, platforms

    sent = lti.send(lti.read(to), platforms.read_marks(grades), unread=unread)
    if as_json:
        print_json(asdict(sent))
    else:
        for sentence in sent.left_out:
            print(f"left out: {sentence}")
        for sentence in sent.refused:
            print(f"refused: {sentence}")
        new = f"; new columns: {', '.join(sent.columns)}" if sent.columns else ""
        print(f"scores sent: {sent.scores}{new}")
    if sent.refused:
        raise typer.Exit(1)
