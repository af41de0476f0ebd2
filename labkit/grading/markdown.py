"""Make a stranger's Markdown harmless for a page that lets HTML through, as nbgrader's formgrader does.

The page shows what the learner wrote: `a < b` as `a < b`, bold text bold, formulas as formulas. No HTML
of the learner's is left, a link leads to http or https or is text, and no picture is loaded.

Where Markdown ends code and where it ends a formula differs from program to program. So nothing here
relies on it: outside code every `<` and `&` becomes an entity, and code is written as HTML of our own
in which every character with a meaning is one.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator

_FENCE = re.compile(r"([ \t]{0,12})(`{3,}|~{3,})([^`\n]*)")
_INDENT = ("    ", "\t")  # what makes code of a line that follows an empty one
_ITEM = re.compile(r"(?:[-*+]|\d{1,9}[.)])\s")
_SPECIAL = re.compile(r"\\+|`+|\$\$?|!(?=\[)|\]\(|\]:|[<&]")
_WEB_LINK = re.compile(r"\]\(https?://[A-Za-z0-9\-._~:/?#@!$&'*+,;=%]+\)")
_MATH = re.compile(r"\$(?=\S)[^$\n]*[^\s$\\]\$")
# What lets a formula link, load, or style: MathJax's own commands.
_COMMAND = re.compile(
    r"(?:href|url|mmlToken|style|class|cssId|require|unicode|html\w*|includegraphics|data)(?![A-Za-z])"
)
_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_DOLLAR = "<span>&#36;</span>"  # in an element of its own, so that it begins no formula


def harmless(source: str) -> str:
    """Return Markdown that shows the same text and does nothing."""
    text = _UNSEEN.sub("\ufffd", source.replace("\r\n", "\n"))
    parts = (
        _code_block(part) if is_code else "".join(_inline(part)) for is_code, part in _blocks(text)
    )
    return "\n".join(parts)


def _blocks(text: str) -> Iterator[tuple[bool, str]]:
    """Split a text into blocks of code, with their first fence, and what lies between them.

    Code that is only indented gets an empty line for a fence.
    """
    plain: list[str] = []
    code: list[str] = []
    fence, in_list = "", False
    for line in text.split("\n"):
        if code and fence:
            if (found := line.strip()).startswith(fence) and set(found) == {fence[0]}:
                yield True, "\n".join(code)
                code = []
            else:
                code.append(line)
            continue
        is_indented = line.startswith(_INDENT) and not in_list and not "".join(plain[-1:]).strip()
        if code and not is_indented:
            yield True, "\n".join(code)
            code = []
        opened = _FENCE.fullmatch(line)
        if plain and (opened or is_indented):
            yield False, "\n".join(plain)
            plain = []
        if is_indented:
            fence, code = "", code or [""]
            code.append(re.sub("^(?: {4}|\t)", "", line))
        elif opened:
            fence, code = opened[2], [line]
        else:
            plain.append(line)
        if line[:1].strip():
            in_list = bool(_ITEM.match(line))
    if code or plain:
        yield bool(code), "\n".join(code or plain)


def _code_block(part: str) -> str:
    first, *lines = part.split("\n")
    indent = first[: len(first) - len(first.lstrip())]
    shown = [line.removeprefix(indent) for line in lines]
    # On one line: an empty one would end the HTML block in some places.
    return f"{indent}<pre><code>{'&#10;'.join(map(_entities, shown))}</code></pre>\n"


def _entities(text: str) -> str:
    """Write every character that could mean anything to Markdown, HTML or MathJax as an entity."""
    return _PUNCTUATION.sub(lambda found: f"&#{ord(found[0])};", text)


def _inline(text: str) -> Iterator[str]:
    """Yield the text with what is not harmless in it replaced."""
    ends: dict[int, list[int]] = {}  # where runs of so many backticks begin
    for run in re.finditer("`+", text):
        ends.setdefault(len(run[0]), []).append(run.start())
    at = 0
    while found := _SPECIAL.search(text, at):
        yield text[at : found.start()]
        word, at = found[0], found.end()
        if word[0] == "\\":
            shown, at = _backslashes(text, word, at)
        elif word[0] == "`":
            shown, at = _code_span(text, word, at, ends.get(len(word), []))
        elif word[0] == "$":
            shown, at = _formula(text, word, at)
        elif word == "](" and (link := _WEB_LINK.match(text, found.start())):
            shown, at = link[0], link.end()
        else:
            shown = {"](": "]\\(", "]:": "]\\:", "!": "&#33;", "<": "&lt;", "&": "&amp;"}[word]
        yield shown
    yield text[at:]


def _backslashes(text: str, run: str, at: int) -> tuple[str, int]:
    """Return what stands for backslashes, and for the character that the last one escapes."""
    if _COMMAND.match(text, at):
        return "\\ ", at
    following = text[at : at + 1]
    if len(run) % 2 == 0 or not _PUNCTUATION.match(following):
        return run, at
    special = {"<": "&lt;", "&": "&amp;", "$": _DOLLAR, "`": "&#96;"}
    return run[:-1] + special.get(following, f"\\{following}"), at + 1


def _code_span(text: str, run: str, at: int, ends: list[int]) -> tuple[str, int]:
    """Return what stands for a span of code; where none ends, for the backticks alone."""
    later = bisect_right(ends, at - 1)
    end = ends[later] if later < len(ends) else -1
    if end < 0 or "\n\n" in text[at:end]:
        return "&#96;" * len(run), at
    code = text[at:end].replace("\n", " ")
    if code.startswith(" ") and code.endswith(" ") and code.strip():
        code = code[1:-1]
    return f"<code>{_entities(code)}</code>", end + len(run)


def _formula(text: str, dollars: str, at: int) -> tuple[str, int]:
    """Return what stands for a formula; where none ends, for the dollars alone."""
    start = at - len(dollars)
    if dollars == "$$":
        end = text.find("$$", at) + 2
        if end < at + 2:
            return _DOLLAR * 2, at
    else:
        found = _MATH.match(text, start)
        if not found:
            return _DOLLAR, at
        end = found.end()
    formula = text[start:end].replace("<", "\\lt ").replace(">", "\\gt ")
    formula = re.sub(rf"\\+(?={_COMMAND.pattern})", r"\\ ", formula)
    formula = re.sub(r"&(?=[#A-Za-z])", "& ", formula)
    return re.sub(r"\](?=[(:])|!(?=\[)", r"\g<0> ", formula), end
