"""Names proved by records that somebody set once (dns-persist-01)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from certrail.errors import AcmeRefused, CertrailError, DeadlinePassed, IssueError
from certrail.pipelines.model import Validation
from certrail.pipelines.resolved import Pipeline
from certrail.store import account_key
from issuer import lease
from issuer.account import Accounts
from issuer.dns.persist import record_for
from sandbox.pebble import Pebble
from sandbox.server import Server
from tests.issuer.conftest import ISSUER, World, within
from tests.issuer.proxy import Answer
from tests.issuer.situations import asking, document, issuer_of, proxied

# What Pebble calls itself.
CA = "pebble.letsencrypt.org"


def persistent(world: World, *domains: str) -> Pipeline[object]:
    return asking(world.pipeline(*domains), validation=Validation.DNS_PERSIST_01)


def account(world: World) -> str:
    """Its URI, which is known before the first certificate is."""
    issuer = issuer_of(world, validation=Validation.DNS_PERSIST_01)
    return Accounts(world.store, world.aws).connect(issuer, within(30)).account


def by_hand(world: World, name: str, *values: str) -> None:
    """Set a record as a person does, in the console."""
    route53 = world.aws.route53()
    zones = route53.list_hosted_zones_by_name(DNSName=world.zone)["HostedZones"]
    route53.change_resource_record_sets(
        HostedZoneId=zones[0]["Id"],
        ChangeBatch={
            "Changes": [
                {
                    "Action": "UPSERT",
                    "ResourceRecordSet": {
                        "Name": name,
                        "Type": "TXT",
                        "TTL": 60,
                        "ResourceRecords": [{"Value": f'"{value}"'} for value in values],
                    },
                }
            ]
        },
    )


def asked_of_route53(server: Server, since: int) -> list[str]:
    return [call.action for call in server.calls.since(since) if call.service == "route53"]


def failure(world: World, pipeline: Pipeline[object]) -> CertrailError:
    with pytest.raises(CertrailError) as caught:
        world.issue(pipeline)
    return caught.value


def test_without_a_record_the_error_is_the_record(world: World, server: Server) -> None:
    mark = server.calls.mark()
    error = failure(world, persistent(world))
    uri = document(world.store, account_key(ISSUER))["uri"]
    assert isinstance(error, IssueError)
    assert error.retryable
    assert f"refused to validate {world.zone}" in error.what
    value = f"{CA}; accounturi={uri}"
    assert error.next == (f'Set this TXT record: _validation-persist.{world.zone} TXT "{value}"')
    assert asked_of_route53(server, mark) == []
    # With what the error says, and nothing else, the next run succeeds.
    by_hand(world, f"_validation-persist.{world.zone}", value)
    assert world.issue(persistent(world)) is not None


def test_the_record_is_all_that_is_needed(world: World, server: Server) -> None:
    record = record_for(world.zone, CA, account(world))
    by_hand(world, record.name, record.value)
    mark = server.calls.mark()
    first = world.issue(persistent(world))
    second = world.issue(persistent(world), asked=1)
    assert first is not None
    assert second is not None
    assert asked_of_route53(server, mark) == []
    assert world.texts() == [f"{record.name}."]


def test_records_of_others_beside_it(world: World) -> None:
    record = record_for(world.zone, CA, account(world))
    by_hand(world, record.name, "other-ca.example; accounturi=https://x/1", record.value)
    assert world.issue(persistent(world)) is not None


def test_a_wildcard_needs_its_policy(world: World) -> None:
    wildcard = persistent(world, f"*.{world.zone}")
    plain = record_for(world.zone, CA, account(world))
    by_hand(world, plain.name, plain.value)
    error = failure(world, wildcard)
    record = record_for(f"*.{world.zone}", CA, account(world))
    assert record.name == plain.name
    assert record.value == f"{plain.value}; policy=wildcard"
    assert str(record) in error.next
    by_hand(world, record.name, record.value)
    assert world.issue(wildcard) is not None


def test_a_name_and_its_wildcard_have_one_record(world: World) -> None:
    both = persistent(world, world.zone, f"*.{world.zone}")
    record = record_for(f"*.{world.zone}", CA, account(world))
    assert failure(world, both).next == f"Set this TXT record: {record}"
    by_hand(world, record.name, record.value)
    assert world.issue(both) is not None


def test_only_the_records_that_are_wrong_are_told(world: World) -> None:
    names = [f"n{number}.{world.zone}" for number in range(4)]
    records = [record_for(name, CA, account(world)) for name in names]
    for record in (records[0], records[2]):
        by_hand(world, record.name, record.value)
    by_hand(world, records[3].name, f"{records[3].value}1")
    error = failure(world, persistent(world, *names))
    assert error.next == f"Set these TXT records: {records[1]}; {records[3]}"
    assert "n0." not in str(error)
    assert error.retryable


def test_the_end_of_the_time_is_not_a_missing_record(world: World) -> None:
    record = record_for(world.zone, CA, account(world))
    by_hand(world, record.name, record.value)
    started = within(60)
    moments = iter([started.now()] * 12)
    late = replace(started, now=lambda: next(moments, started.deadline))
    with pytest.raises(DeadlinePassed):
        world.issue(persistent(world), clock=late)
    progress = lease.read(world.store, "shop")
    assert progress is not None
    assert "_validation-persist" not in str(progress.error)
    assert world.issue(persistent(world)) is not None


def test_a_change_of_method_leaves_nothing_behind(world: World, server: Server) -> None:
    record = record_for(world.zone, CA, account(world))
    by_hand(world, record.name, record.value)
    assert world.issue(persistent(world)) is not None
    assert world.issue(asked=1) is not None
    assert world.texts() == [f"{record.name}."]


@pytest.mark.parametrize("validation", list(Validation))
def test_a_later_draft(
    world: World,
    ca: Pebble,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    validation: Validation,
) -> None:
    """The challenge has other fields than ours: that must not get in the way of dns-01."""
    with proxied(world, ca, tmp_path, monkeypatch) as (there, proxy):
        forward = proxy.forward

        def newer(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
            answer = forward(method, path, headers, body)
            renamed = answer.body.replace(b"issuer-domain-names", b"issuerDomainNames")
            return replace(answer, body=renamed)

        monkeypatch.setattr(proxy, "forward", newer)
        pipeline = asking(there.pipeline(), validation=validation)
        if validation is Validation.DNS_01:
            assert there.issue(pipeline) is not None
        else:
            with pytest.raises(AcmeRefused, match="refused to validate"):
                there.issue(pipeline)


@pytest.mark.parametrize("domain", ["shop.example.com", "*.example.com"])
def test_a_record_fits_into_one_string(domain: str) -> None:
    """255 characters (RFC 1035, 3.3.14), so that it can be pasted into any form."""
    uri = "https://acme-v02.api.letsencrypt.org/acme/acct/1234567890"
    assert len(record_for(domain, "letsencrypt.org", uri).value) < 255
