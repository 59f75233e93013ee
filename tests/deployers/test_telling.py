"""What is told of attempts and rollouts: what is news, once, in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrail.bundle import short
from certrail.errors import AwsError
from certrail.records import Check, Record, Rollout, State
from certrail.store import Rollback, record_key
from certrail.target import Deployed, Target
from certrail.telling import LONGEST_SUMMARY, plain
from deployers import telling
from deployers.deploy import LEASE, Attempt, drift
from deployers.held import Behind
from deployers.kinds.acm import Acm
from deployers.kinds.cloudfront import Cloudfront
from deployers.kinds.secretsmanager import Secretsmanager
from deployers.reached import Reached
from deployers.selections.cloudfront import CloudfrontSelection
from deployers.telling import Telling
from sandbox.events import fill
from tests.certrail.bundles import NOW
from tests.deployers.cloud import PIPELINE, REGION, Cloud

IMPORT = Acm(region=REGION)
SECRET = Secretsmanager(name="tls/shop/bundle", region=REGION)
DAY = timedelta(days=1)


class People:
    """What certrail told in this cloud."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.seen = 0

    def telling(self, now: datetime = NOW) -> Telling:
        return Telling(self.cloud.aws, self.cloud.store.bucket, now, "Deployer")

    def heard(self) -> list[tuple[str, dict[str, Any]]]:
        """Detail type and detail of each event since the last look."""
        puts = [call for call in self.cloud.calls if call.action == "events:PutEvents"]
        new, self.seen = puts[self.seen :], len(puts)
        entries = [entry for put in new for entry in (put.params or {})["Entries"]]
        assert all(entry["Source"] == "certrail" for entry in entries)
        return [(entry["DetailType"], json.loads(entry["Detail"])) for entry in entries]

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.heard()]

    def deploy(self, target: Target, now: datetime = NOW, *, added: bool = False) -> None:
        """An attempt as a deployer makes it; its failure is on the record."""

        def tell(attempt: Attempt) -> None:
            self.telling(now).attempt(attempt, added=added)

        try:
            self.cloud.deploy(target, now=now, by="Deployer", tell=tell)
        except AwsError:
            assert self.cloud.recorded(target).state is State.FAILED

    def refuse(self, operation: str, message: str, times: int = 1) -> None:
        for _ in range(times):
            self.cloud.refuse(operation, "AccessDeniedException", message, 403)


@pytest.fixture
def people(cloud: Cloud) -> People:
    return People(cloud)


# News


def test_renewals_and_checks_are_no_news(cloud: Cloud, people: People) -> None:
    for _ in range(2):
        cloud.publish()
        for day in range(3):
            people.deploy(SECRET, NOW + day * DAY)
    assert cloud.recorded(SECRET).generation == 2
    assert people.heard() == []


def test_a_failure_is_told_once_and_so_is_its_end(cloud: Cloud, people: People) -> None:
    current = cloud.publish()
    for day in range(3):
        people.refuse("CreateSecret", f"Request {uuid4()} is not for you")
        people.deploy(SECRET, NOW + day * DAY)
    ((kind, detail),) = people.heard()
    assert kind == "Target Failed"
    assert detail["summary"].startswith(
        f"shop: {SECRET.address} failed: secretsmanager:CreateSecret: Request "
    )
    assert detail["summary"].endswith(
        "Allow secretsmanager:CreateSecret in the policy of the role that made the call"
    )
    assert (detail["from"], detail["to"]) == (None, current.fingerprint)
    assert (detail["attempts"], detail["nextAttempt"]) == (1, None)
    for day in (3, 4):
        people.deploy(SECRET, NOW + day * DAY)
    ((kind, detail),) = people.heard()
    assert kind == "Target Recovered"
    assert (detail["from"], detail["to"]) == (None, current.fingerprint)
    assert detail["at"] == (NOW + 3 * DAY).isoformat()


def test_another_reason_and_another_certificate_are_news(cloud: Cloud, people: People) -> None:
    cloud.publish()
    for message in ("no", "no", "neither", "no"):
        people.refuse("CreateSecret", message)
        people.deploy(SECRET)
    assert people.kinds() == ["Target Failed"] * 3
    cloud.publish()
    people.refuse("CreateSecret", "no")
    people.deploy(SECRET)
    assert people.kinds() == ["Target Failed"]


FAILS = "listener/a: clients do not get ab12: "
OTHER = "serves cd34, not ab12"


@pytest.mark.parametrize(
    ("before", "after", "is_news"),
    [
        (None, "no", True),
        ("no", "no", False),
        ("no", "neither", True),
        # Addresses, machines and requests come and go.
        (f"{FAILS}198.18.0.4:443, a: {OTHER}", f"{FAILS}198.18.0.9:443, a: {OTHER}", False),
        (f"{FAILS}[2001:db8::4]:443, a: {OTHER}", f"{FAILS}198.18.0.9:443, a: {OTHER}", False),
        (
            f"{FAILS}198.18.0.4:443, a: {OTHER}; 198.18.0.5:443, a: {OTHER}; and 2 more",
            f"{FAILS}198.18.0.4:443, a: {OTHER}; 198.18.0.5:443, a: {OTHER}; and 9 more",
            False,
        ),
        (
            f"{FAILS}198.18.0.4:443, a: {OTHER}",
            f"{FAILS}1.1.1.1:443, a: {OTHER}; and 9 more",
            False,
        ),
        ("i-0abcdef1234567890: no space", "i-0123456789abcdef0: no space", False),
        ("i-0abcdef1234567890: no space", "i-0abcdef1234567890: no nginx", True),
        # One of two is well again, and one more is not.
        ("a: no; b: no", "a: no", False),
        ("a: no", "b: no; a: no", True),
        (f"{FAILS}198.18.0.4:443, a: {OTHER}", f"{FAILS}198.18.0.4:443, b: {OTHER}", True),
    ],
)
def test_what_is_another_reason(before: str | None, after: str, is_news: bool) -> None:
    assert telling.news(before, after) is is_news


class Died(BaseException):
    pass


def die() -> None:
    raise Died


def test_a_recovery_is_one_even_if_an_attempt_died_in_between(cloud: Cloud, people: People) -> None:
    cloud.publish()
    people.refuse("CreateSecret", "no")
    people.deploy(SECRET)
    # As when the function is killed: not even the failure is written.
    cloud.before("CreateSecret", lambda: cloud.before("PutObject", die))
    with pytest.raises(Died):
        people.deploy(SECRET, NOW + DAY)
    assert people.kinds() == ["Target Failed"]
    people.deploy(SECRET, NOW + DAY + LEASE)
    assert people.kinds() == ["Target Recovered"]


def test_a_repair_is_told_once_with_what_was_there(cloud: Cloud, people: People) -> None:
    current = cloud.publish()
    people.deploy(SECRET)
    version = cloud.client("secretsmanager").put_secret_value(
        SecretId=SECRET.name, SecretString="by hand"
    )["VersionId"]
    for day in (1, 2):
        people.deploy(SECRET, NOW + day * DAY)
    ((kind, detail),) = people.heard()
    assert kind == "Target Repaired"
    assert detail == {
        "bucket": cloud.store.bucket,
        "pipeline": PIPELINE,
        "summary": f"shop: {SECRET.address} was repaired: somebody had written version {version}, "
        f"and {short(current.fingerprint)} was put back",
        "target": SECRET.address,
        "kind": "secretsmanager",
        "generation": 1,
        "from": current.fingerprint,
        "to": current.fingerprint,
        "by": "Deployer",
        "at": (NOW + DAY).isoformat(),
        "found": f"somebody had written version {version}",
    }


def test_a_repair_that_died_is_told_by_who_follows_it_up(cloud: Cloud, people: People) -> None:
    cloud.publish()
    people.deploy(IMPORT)
    held = cloud.recorded(IMPORT).held
    assert held
    cloud.client("acm").delete_certificate(CertificateArn=held.resource)
    cloud.before("ImportCertificate", lambda: cloud.before("PutObject", die))
    with pytest.raises(Died):
        people.deploy(IMPORT, NOW + DAY)
    assert people.heard() == []
    people.deploy(IMPORT, NOW + DAY + LEASE)
    ((kind, detail),) = people.heard()
    assert (kind, detail["found"]) == ("Target Repaired", "nothing was there any more")


def test_a_repair_that_failed_is_a_failure_that_recovers(cloud: Cloud, people: People) -> None:
    cloud.publish()
    people.deploy(SECRET)
    cloud.client("secretsmanager").put_secret_value(SecretId=SECRET.name, SecretString="by hand")
    people.refuse("PutSecretValue", "no")
    people.deploy(SECRET, NOW + DAY)
    people.deploy(SECRET, NOW + 2 * DAY)
    (failed, _), (recovered, detail) = people.heard()
    assert (failed, recovered) == ("Target Failed", "Target Recovered")
    assert detail["found"].startswith("somebody had written version ")


def test_what_could_not_be_compared_is_no_repair(cloud: Cloud, people: People) -> None:
    cloud.publish()
    people.deploy(SECRET)
    people.refuse("DescribeSecret", "not now")
    people.deploy(SECRET, NOW + DAY)
    assert cloud.recorded(SECRET).repaired is None
    assert people.heard() == []


@pytest.mark.parametrize(("added", "kinds"), [(True, ["Target Added"]), (False, [])])
def test_a_first_deployment_is_news_where_all_others_were_done(
    cloud: Cloud, people: People, added: bool, kinds: list[str]
) -> None:
    cloud.publish()
    people.deploy(SECRET, added=added)
    people.deploy(SECRET, NOW + DAY, added=added)
    assert people.kinds() == kinds


def test_a_target_that_was_not_served_is_left_to_the_looks(cloud: Cloud, people: People) -> None:
    """What was deployed again may be what clients do not get again."""
    cloud.publish()
    people.deploy(SECRET)
    record = cloud.recorded(SECRET)
    check = Check(until=NOW, next=None, saw="another", failed=True)
    before = replace(
        record, state=State.FAILED, error="clients get another", missed=True, check=check
    )
    people.telling().attempt(Attempt(before, replace(record, missed=True)))
    assert people.heard() == []


def test_where_nobody_looks_any_more_deployed_is_well(cloud: Cloud, people: People) -> None:
    cloud.publish()
    people.deploy(SECRET)
    key = record_key(PIPELINE, SECRET.address)
    seen = cloud.store.read(key, Record)
    assert seen
    check = Check(until=NOW, next=None, saw="another", failed=True)
    missed = replace(seen.value, state=State.FAILED, error="another", missed=True, check=check)
    cloud.store.write(key, missed, Record, seen.etag)
    cloud.publish()
    for day in (1, 2):
        people.deploy(SECRET, NOW + day * DAY)
    assert people.kinds() == ["Target Recovered"]


def test_a_bus_that_takes_nothing_changes_no_outcome(
    cloud: Cloud, people: People, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.publish()
    people.deploy(SECRET)
    cloud.client("secretsmanager").put_secret_value(SecretId=SECRET.name, SecretString="by hand")
    cloud.refuse("PutEvents", "AccessDeniedException", "not you", 403)
    people.deploy(SECRET, NOW + DAY)
    assert cloud.recorded(SECRET).repaired
    (line,) = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert line["EventsNotSent"] == 1
    assert "Allow events:PutEvents" in line["why"]


# How AWS may differ


ARN, OTHER_ARN = "arn:aws:acm:eu-central-1:123456789012:certificate/1", "arn:…/2"
RECORD = Record(
    pipeline=PIPELINE,
    address=IMPORT.address,
    kind="acm",
    state=State.DEPLOYED,
    generation=1,
    fingerprint="aa" * 32,
    spec="",
    at=NOW,
    held=Deployed("aa" * 32, ARN, NOW, "v1"),
    by="Deployer",
)


@pytest.mark.parametrize(
    ("there", "says"),
    [
        (Deployed("aa" * 32, ARN, None, "v1"), None),
        (None, "nothing was there any more"),
        (Deployed("", OTHER_ARN), f"{OTHER_ARN} was in its place"),
        (Deployed("aa" * 32, OTHER_ARN), f"{OTHER_ARN} was in its place"),
        (Deployed("", ARN, None, "v2"), "somebody had written version v2"),
        (Deployed("bb" * 32, ARN, None, "v1"), "bbbbbbbbbbbb was in its place"),
        (Deployed("", ARN, None, "v1"), "somebody had changed it"),
    ],
)
def test_how_aws_may_differ(there: Deployed | None, says: str | None) -> None:
    assert drift(RECORD, there) == says


# How it is said


ROLLOUT = Rollout(
    pipeline=PIPELINE,
    generation=7,
    fingerprint="ab12" * 16,
    at=NOW,
    began_at=NOW,
    failed="E1 rings",
)
WHY = Rollback(of="cd34" * 16, generation=6, reason="E1 rings", by="Watcher", at=NOW)
SELECTION = CloudfrontSelection(covers=True)
EDGE = Cloudfront(distribution="E1")
LATE = Behind(RECORD, "aa" * 32, NOW, others=2, soon=NOW)
TOLD: dict[str, tuple[Callable[[Telling], None], str]] = {
    telling.TARGET_LOST: (
        lambda t: t.lost("shop", EDGE, str(SELECTION), "has the tag certrail:ignore"),
        "shop: cloudfront/E1 is no target any more: it has the tag certrail:ignore. Nothing there "
        "is touched, so its certificate is not renewed and expires there. To have it renewed, name "
        "it in pipelines.yaml, or let it be found again by cloudfront `covers`",
    ),
    telling.TARGET_RECOVERED: (
        lambda t: t.recovered(replace(RECORD, state=State.SERVED)),
        "shop: acm/eu-central-1 has recovered, and serves aaaaaaaaaaaa",
    ),
    telling.NOT_SERVED: (
        lambda t: t.check_failed(
            replace(RECORD, error=f'{RECORD.address}: clients get "another". Look\nthere')
        ),
        "shop: acm/eu-central-1 is not served: clients get 'another'. Look; there",
    ),
    telling.TARGET_AT_RISK: (
        lambda t: t.at_risk(ROLLOUT, LATE, f"{RECORD.address}: no"),
        "shop: acm/eu-central-1 still holds aaaaaaaaaaaa, which ends "
        f"{NOW:%Y-%m-%d %H:%M} UTC, and not ab12ab12ab12 (2 more targets hold an earlier one, "
        "too): no",
    ),
    telling.WAITING: (
        lambda t: t.waits(replace(ROLLOUT, waits_for="E1 must be quiet first"), "canary"),
        "shop: wave `canary` does not get ab12ab12ab12 yet: E1 must be quiet first",
    ),
    telling.WAVE_PASSED: (
        lambda t: t.wave_passed(ROLLOUT, "canary", Reached(("listener/a",), (), ())),
        "shop: wave `canary` has passed: ab12ab12ab12 is served at its target, and its alarms are "
        "quiet",
    ),
    telling.SERVED: (
        lambda t: t.done(ROLLOUT, "cd34" * 16, Reached(("listener/a", "listener/b"), (), ())),
        "shop: ab12ab12ab12 (in place of cd34cd34cd34) is served at all 2 targets",
    ),
    telling.DEPLOYED: (
        lambda t: t.done(ROLLOUT, "cd34" * 16, Reached((), ("secretsmanager/a",), ())),
        "shop: ab12ab12ab12 (in place of cd34cd34cd34) is deployed at its target, which nobody "
        "looks at",
    ),
    telling.STOPPED: (
        lambda t: t.rollout_failed(ROLLOUT),
        "shop: the rollout of ab12ab12ab12 goes no further: E1 rings",
    ),
    telling.ROLLED_BACK: (
        lambda t: t.rolled_back(ROLLOUT, WHY),
        "shop: rolled back from cd34cd34cd34 to ab12ab12ab12: E1 rings",
    ),
}


@pytest.mark.parametrize("kind", TOLD)
def test_what_is_told_and_how(people: People, kind: str) -> None:
    tell, summary = TOLD[kind]
    tell(people.telling())
    ((told, detail),) = people.heard()
    assert (told, detail["summary"]) == (kind, summary)
    common = {"bucket", "pipeline", "summary", "generation", "from", "to", "by", "at"}
    assert common <= detail.keys()
    assert detail["by"] == ("Watcher" if kind == telling.ROLLED_BACK else "Deployer")


FLEETS = ("fleet/a", "fleet/b", "fleet/c", "fleet/d")
BUT = "but for a few machines, which may fail"


@pytest.mark.parametrize(
    ("served", "deployed", "tolerated", "says"),
    [
        (1, 0, 0, "served at its target"),
        (3, 1, 0, "served at 3 targets, deployed at 1 that nobody looks at"),
        (1, 2, 0, "served at 1 target, deployed at 2 that nobody looks at"),
        (0, 3, 0, "deployed at all 3 targets, which nobody looks at"),
        (0, 0, 1, f"served at fleet/a {BUT}"),
        (2, 0, 1, f"served at 2 targets, at fleet/a {BUT}"),
        (0, 1, 4, f"served at fleet/a, fleet/b, fleet/c and 1 more {BUT}, deployed at 1 that "),
    ],
)
def test_of_how_many_targets_what_is_known(
    people: People, served: int, deployed: int, tolerated: int, says: str
) -> None:
    there = Reached(("a",) * served, ("b",) * deployed, FLEETS[:tolerated])
    people.telling().done(ROLLOUT, None, there)
    ((kind, detail),) = people.heard()
    assert kind == ("Certificate Served" if served or tolerated else "Certificate Deployed")
    assert detail["summary"].startswith(f"shop: ab12ab12ab12 is {says}")
    assert detail["from"] is None
    assert detail["targets"] == served + deployed + tolerated
    assert (detail["served"], detail["deployed"]) == (served, deployed)
    assert detail["tolerated"] == list(FLEETS[:tolerated])


@given(st.text() | st.text('"\\\n\r<>{}&', max_size=50))
def test_a_summary_goes_through_any_template(text: str) -> None:
    said = plain(text)
    assert json.loads(fill('"<summary>"', {"summary": said})) == said
    assert len(said) <= LONGEST_SUMMARY
    assert len(said.splitlines()) <= 1
    assert plain(said) == said
