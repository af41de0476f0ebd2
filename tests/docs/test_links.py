"""Links in README and docs lead somewhere, on the site and in the repository."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.docs.markdown import DOCS, PAGES, ROOT, anchors_of, links_of

IDS = [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links_of(page):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            # Without network only its form can be looked at.
            assert parts.scheme == "https", f"{link} is not https"
            assert "." in parts.netloc, f"{link} names no host"
            continue
        target = (page.parent / parts.path).resolve() if parts.path else page
        if (
            target.is_relative_to(DOCS / "labs") and not target.exists()
        ):  # written when the site is built
            target = ROOT / "labs" / "source" / target.name
        assert target.exists(), f"{link} leads nowhere"
        if parts.fragment and target.suffix == ".md":
            assert parts.fragment in anchors_of(target), (
                f"{target.name} has no heading {parts.fragment}"
            )
