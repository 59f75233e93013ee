"""The sample in the project's root: what the demo runs, and what people start from."""

from __future__ import annotations

from pathlib import Path

from certrail.keys import KeyType
from certrail.pipelines import Opaque, Pipelines, load
from deployers.kinds.all import KINDS, AnyTarget
from deployers.kinds.listener import Listener

SAMPLE = Path(__file__).parents[2] / "pipelines.yaml"
TEXT = SAMPLE.read_text(encoding="utf-8")


def test_the_sample_uses_every_kind() -> None:
    # A fleet wants instances, which the demo has none of.
    before, fleet = TEXT.split("      # - type: fleet\n")
    there = f"{before}      - type: fleet\n" + fleet.replace("      #   ", "        ")
    pipelines = load(there, SAMPLE.name, Pipelines[AnyTarget]).pipelines
    targets = [target for pipeline in pipelines for target in pipeline.targets]
    assert {target.type for target in targets} == set(KINDS)
    listeners = [target for target in targets if isinstance(target, Listener)]
    assert {target.default for target in listeners} == {True, False}
    assert {target.listener.split("/")[1] for target in listeners} == {"app", "net"}
    assert any(getattr(target, "shape", None) for target in targets)


def test_the_sample_has_what_people_ask_for_first() -> None:
    pipelines = load(TEXT, SAMPLE.name, Pipelines[AnyTarget]).pipelines
    domains = {pipeline.domains for pipeline in pipelines}
    assert ("example.org", "*.example.org") in domains
    assert {pipeline.key_type for pipeline in pipelines} == {KeyType.ECDSA_P256, KeyType.RSA_2048}


def test_the_issuer_reads_it_without_kinds() -> None:
    pipelines = load(TEXT, SAMPLE.name, Pipelines[Opaque])
    named = {issuer.name for pipeline in pipelines.pipelines for issuer in pipeline.issuers}
    assert named == {"sandbox"}
    assert set(pipelines.issuers) == {"sandbox", "letsencrypt-staging", "letsencrypt"}


def test_editors_find_its_schema() -> None:
    pointer = "# yaml-language-server: $schema="
    first = TEXT.splitlines()[0]
    assert first.startswith(pointer)
    assert (SAMPLE.parent / first.removeprefix(pointer)).is_file()
