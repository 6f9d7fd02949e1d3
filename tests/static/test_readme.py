"""The README says what a newcomer must know before the first download."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """What stands under the heading, in one line."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", README, re.MULTILINE | re.DOTALL)
    return " ".join(found[1].split()) if found else ""


@pytest.mark.parametrize(
    ("title", "said"),
    [
        ("You need", "or newer"),
        ("You need", "European Union, the United Kingdom and South Korea"),
        ("You need", "in fp8"),
        ("You get", "Fewer steps"),
        ("You get", "Cheaper steps"),
        ("Weights", "European Union, the United Kingdom and South Korea"),
        ("Weights", "fp8_scaled.safetensors"),
        ("Quick start", "DisCa 1 Quickstart without downloads"),
    ],
)
def test_a_newcomer_is_told_before_the_first_download(title, said):
    assert said in section(title)


def test_every_link_within_the_page_leads_to_a_heading():
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", README, flags=re.DOTALL), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors
