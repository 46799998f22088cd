"""Every relative link of every page leads somewhere, its anchor included."""

import re

import pytest
from tests.docs.pages import name_of, pages, prose

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(path):
    """The headings' names as GitHub makes them."""
    found = []
    for heading in re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE):
        word = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.append(word if word not in found else f"{word}-{found.count(word)}")
    return found


@pytest.mark.parametrize("path", pages(), ids=name_of)
def test_relative_links_resolve(path):
    broken = []
    for link in _LINK.findall(prose(path)):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        place, _, anchor = link.partition("#")
        target = (path.parent / place).resolve() if place else path
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("path", pages(), ids=name_of)
def test_pages_name_no_place_of_the_machine_that_they_were_written_on(path):
    assert not re.findall(r"(?<![\w/.])/(?:work|home|root)/|\.\./shared", path.read_text(encoding="utf-8"))
