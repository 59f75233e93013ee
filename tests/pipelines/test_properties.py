"""Whatever is done to a good file, it loads or says where it is wrong."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from certrail.errors import PipelinesInvalid
from certrail.pipelines import Opaque, Pipelines, load
from certrail.pipelines.domains import normalise
from deployers.kinds.all import AnyTarget
from tests.pipelines.kinds import File
from tests.pipelines.test_domains import NAMES
from tests.pipelines.test_load import FULL, MUCH
from tests.pipelines.test_sample import TEXT as SAMPLE

WORDS = st.sampled_from(
    [
        *("issuers", "pipelines", "domains", "targets", "type", "name", "<<", "vault", "edge"),
        *("eu-central-1", "*.example.com", "rsa-2048", "one", "", "0x_", "=", "2024-01-01"),
        *("zones", "provider", "zone", "zone_id", "key_type", "renew_before", "profile", "20d"),
        *("ca", "directory", "external_account", "limits", "root", "validation", "issuer", "le"),
        *("letsencrypt", "zerossl", "aws-acm", "tlsserver", "route53", "rfc2136", "lexicon"),
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(WORDS | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def loads_or_says_where(text: str, *models: type[Pipelines[Any]]) -> None:
    lines = max(1, len(text.splitlines()))
    for model in models:
        try:
            load(text, "pipelines.yaml", model)
        except PipelinesInvalid as invalid:
            faults = invalid.faults
        else:
            continue
        assert faults
        for fault in faults:
            assert 1 <= fault.line <= lines, fault
            assert fault.what, fault
            assert "\n" not in str(fault), fault
            for jargon in ("Input", "Value error", "valid ", "pydantic", "NoneType", "str"):
                # Unless the file says it itself: hypothesis knows what words stand in the code.
                assert jargon in text or jargon not in fault.what.replace("`", " ").split(), fault


@st.composite
def edited_text(draw: st.DrawFn, text: str) -> str:
    """A good file after a few slips of the fingers."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        until = min(len(text), at + draw(st.integers(0, 12)))
        slip = draw(st.text(max_size=4) | st.sampled_from([":", "- ", "*", "&a ", "!", "{", "\n"]))
        text = text[:at] + slip + text[until:]
    return text


@st.composite
def edited_data(draw: st.DrawFn, text: str) -> str:
    """A good file with values replaced, removed and added anywhere in it."""
    data = yaml.safe_load(text)
    for _ in range(draw(st.integers(1, 4))):
        place: Any = data
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw(st.sampled_from(keys)) if keys else None
            deeper = key is not None and isinstance(place[key], dict | list)
            if not deeper or draw(st.integers(0, 3)) == 0:
                break
            place = place[key]
        what = draw(st.sampled_from(["replace", "remove", "add"]))
        if isinstance(place, dict) and what == "add":
            place[draw(WORDS | st.text(max_size=5))] = draw(VALUES)
        elif isinstance(place, list) and what == "add":
            place.append(draw(VALUES))
        elif key is not None and what == "remove":
            del place[key]
        elif key is not None:
            place[key] = draw(VALUES)
    return yaml.safe_dump(data, allow_unicode=True, sort_keys=False)


@settings(deadline=None)
@given(edited_text(FULL) | edited_text(MUCH))
def test_a_slip_of_the_fingers(text: str) -> None:
    loads_or_says_where(text, File, Pipelines[Opaque])


@settings(deadline=None)
@given(edited_data(FULL) | edited_data(MUCH))
def test_a_change_of_what_it_says(text: str) -> None:
    loads_or_says_where(text, File, Pipelines[Opaque])


@settings(deadline=None)
@given(edited_text(SAMPLE) | edited_data(SAMPLE))
def test_a_change_of_the_sample(text: str) -> None:
    loads_or_says_where(text, Pipelines[AnyTarget])


@settings(deadline=None)
@given(st.text())
def test_any_text(text: str) -> None:
    loads_or_says_where(text, File)


@settings(deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=5, unique=True))
def test_domains_keep_their_order(names: list[str]) -> None:
    text = yaml.safe_dump(
        {
            "issuers": {"one": {"directory": "https://one.example/dir"}},
            "pipelines": [{"name": "a", "domains": names}],
        }
    )
    try:
        domains = load(text, "pipelines.yaml", File).pipelines[0].domains
    except PipelinesInvalid as invalid:
        reasons = {fault.what for fault in invalid.faults}
    else:
        reasons = set()
        assert domains == tuple(names)
        assert domains == tuple(map(normalise, domains))
    assert all("is covered by" in reason for reason in reasons)
