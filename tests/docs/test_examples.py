"""Every example of pipelines.yaml in the documentation loads, as it stands, with the real kinds."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from certrail.pipelines import Pipelines, load
from deployers.kinds.all import AnyTarget

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^( *)```ya?ml\n(.*?)^ *```", re.DOTALL | re.MULTILINE)

# What an example that is only a list of targets leaves out.
AROUND = """\
issuers: {letsencrypt: {directory: "https://acme-v02.api.letsencrypt.org/directory"}}
accounts: {edge: {role_arn: "arn:aws:iam::222222222222:role/certrail"}}
defaults: {region: eu-central-1}
pipelines:
  - name: example
    domains: [shop.example.com]
    targets:
"""


def examples() -> dict[str, str]:
    """YAML blocks by `page:line`."""
    found = {}
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found[f"{page.relative_to(ROOT)}:{line}"] = textwrap.dedent(match[2])
    return found


EXAMPLES = examples()


def test_there_are_examples() -> None:
    assert any(place.startswith("README.md") for place in EXAMPLES)
    assert any(place.startswith("docs/pipelines.md") for place in EXAMPLES)


@pytest.mark.parametrize("place", EXAMPLES)
def test_an_example_loads(place: str) -> None:
    text = EXAMPLES[place]
    if re.search(r"^pipelines:", text, re.MULTILINE):
        assert load(text, place, Pipelines[AnyTarget]).pipelines
    elif re.search(r"^- (\{ *)?type:", text, re.MULTILINE):
        pipelines = load(AROUND + textwrap.indent(text, "      "), place, Pipelines[AnyTarget])
        assert pipelines.pipelines[0].targets or pipelines.pipelines[0].selections
    else:
        assert yaml.safe_load(text) is not None


@pytest.mark.parametrize(
    ("number", "prints"), [(0, "Counter("), (1, "3 addresses,")], ids=["sandbox", "visitor"]
)
def test_a_python_example_of_the_sandbox_runs(number: int, prints: str) -> None:
    """In a process of its own, which a sandbox needs."""
    page = (ROOT / "docs/sandbox.md").read_text(encoding="utf-8")
    code = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(code) == 2
    done = subprocess.run(
        [sys.executable, "-c", code[number]], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert prints in done.stdout
