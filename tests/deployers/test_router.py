"""The router: events are hints, the bucket is the truth."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random

import pytest

from certrail.errors import AwsError, CertrailError, PipelinesInvalid, StateError
from certrail.records import Rollout, State
from certrail.store import CONFIG_KEY, Current, current_key, record_key, rollout_key
from deployers import router
from deployers.kinds.acm import Acm
from deployers.kinds.all import KINDS
from deployers.kinds.cloudfront import Cloudfront
from deployers.kinds.secretsmanager import Secretsmanager
from sandbox import resources
from tests.certrail.bundles import NOW, make_bundle
from tests.deployers.cloud import DOMAINS, REGION, Cloud
from tests.deployers.queues import PIPELINES, Queues, batch, event, route

SHOP, MAIL = current_key("shop"), current_key("mail")
SECRET = Secretsmanager(name="tls/shop/bundle", region=REGION)
MAIL_SECRET = Secretsmanager(name="tls/mail/bundle", region=REGION)
EDGE = Cloudfront(distribution="E2QWRUHEXAMPLE")


@pytest.fixture
def queues(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, lambda_logs: None) -> Queues:
    made = Queues(cloud)
    monkeypatch.setenv("CERTRAIL_BUCKET", cloud.store.bucket)
    monkeypatch.setenv("CERTRAIL_QUEUES", json.dumps(made.urls))
    monkeypatch.setenv("CERTRAIL_WATCH_QUEUE", made.looks)
    return made


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("certificates/shop/current.json", {"shop"}),
        ("certificates/_wildcard.example.com/current.json", {"_wildcard.example.com"}),
        ("certificates/%5Fwildcard.example.com/current.json", {"_wildcard.example.com"}),
        ("deployments/shop/secretsmanager/eu-central-1/tls/a+b.json", {"shop"}),
        ("config/pipelines.yaml", None),
        ("certificates/shop/00ff/cert.pem", set()),
        ("orders/shop.json", set()),
        ("deployments", set()),
    ],
)
def test_what_an_event_is_about(key: str, names: set[str] | None) -> None:
    assert router.pipelines_of(json.dumps(event(key))) == names


@pytest.mark.parametrize(
    "body", ['{"Event": "s3:TestEvent"}', "hello", "[]", "null", '{"detail": null}']
)
def test_what_is_no_event_is_put_aside(queues: Queues, body: str) -> None:
    answer = router.handle({"Records": [{"messageId": "1", "body": body}]}, None)
    assert answer == {"batchItemFailures": []}
    assert queues.jobs() == []


def test_one_event_makes_a_job_for_each_target_that_is_ready(cloud: Cloud, queues: Queues) -> None:
    cloud.publish()
    cloud.publish(pipeline="mail", domains=["mail.example.com"])
    assert route(SHOP) == {"batchItemFailures": []}
    assert queues.jobs() == [
        "shop: acm/eu-central-1",
        "shop: acm/us-east-1",
        "shop: secretsmanager/eu-central-1/tls/shop/bundle",
    ]


def test_a_burst_makes_each_job_once(cloud: Cloud, queues: Queues) -> None:
    cloud.publish()
    for _ in range(3):
        route(*[SHOP] * 20)
    assert len(queues.jobs()) == 3


def test_a_job_is_whole(cloud: Cloud, queues: Queues) -> None:
    text = PIPELINES.replace("{type: acm}", "{type: acm, account: edge}")
    cloud.store.put_pipelines_text(text)
    cloud.publish()
    route(SHOP)
    bodies = {message["Body"]: message for message in queues.take("acm")}
    (message,) = [bodies[body] for body in bodies if "edge" in body]
    assert json.loads(message["Body"]) == {
        "pipeline": "shop",
        "target": {"type": "acm", "account": "edge", "region": "eu-central-1"},
        "account": {"role_arn": "arn:aws:iam::222222222222:role/certrail", "external_id": "abc"},
        "generation": 1,
        "rotation": "in-place",
        "added": False,
    }
    assert message["Attributes"]["MessageGroupId"] == "acm/edge:eu-central-1"


def test_a_long_group_is_hashed(cloud: Cloud, queues: Queues) -> None:
    name = "tls/" + "x" * 500
    cloud.store.put_pipelines_text(PIPELINES.replace("tls/mail/bundle", name))
    cloud.publish(pipeline="mail", domains=["mail.example.com"])
    route(MAIL)
    (message,) = queues.take("secretsmanager")
    assert len(message["Attributes"]["MessageGroupId"]) == 64


def test_a_pushed_file_is_about_every_pipeline(cloud: Cloud, queues: Queues) -> None:
    cloud.publish()
    cloud.publish(pipeline="mail", domains=["mail.example.com"])
    route("orders/shop.json", CONFIG_KEY)
    assert len(queues.jobs()) == 4


def test_a_schedule_looks_at_everything(cloud: Cloud, queues: Queues) -> None:
    cloud.publish()
    cloud.settle(SECRET)
    assert router.handle({}, None) == {}
    assert queues.jobs() == ["shop: acm/eu-central-1", "shop: acm/us-east-1"]
    assert router.handle({"reconcile": True}, None) == {}
    assert "shop: secretsmanager/eu-central-1/tls/shop/bundle" in queues.jobs()


def test_before_the_first_push_there_is_nothing_to_do(cloud: Cloud, queues: Queues) -> None:
    cloud.client("s3").delete_object(Bucket=cloud.store.bucket, Key=CONFIG_KEY)
    assert router.handle({"reconcile": True}, None) == {}
    cloud.publish()
    with pytest.raises(StateError, match="nothing in it is renewed"):
        router.handle({}, None)


def test_a_removed_pipeline_is_left_alone(cloud: Cloud, queues: Queues) -> None:
    cloud.publish(pipeline="gone")
    assert route(current_key("gone"), record_key("gone", "acm/eu-central-1")) == {
        "batchItemFailures": []
    }
    assert queues.jobs() == []


# Failures


def test_an_unreadable_record_stops_only_its_target(cloud: Cloud, queues: Queues) -> None:
    cloud.publish()
    cloud.publish(pipeline="mail", domains=["mail.example.com"])
    key = record_key("shop", SECRET.address)
    cloud.client("s3").put_object(Bucket=cloud.store.bucket, Key=key, Body=b"{")
    assert route(SHOP, MAIL) == {"batchItemFailures": [{"itemIdentifier": "0"}]}
    assert queues.jobs() == [
        "mail: secretsmanager/eu-central-1/tls/mail/bundle",
        "shop: acm/eu-central-1",
        "shop: acm/us-east-1",
    ]
    with pytest.raises(StateError, match="not a valid document"):
        router.handle({}, None)


def test_an_unreadable_pipeline_stops_no_other(cloud: Cloud, queues: Queues) -> None:
    cloud.publish(pipeline="mail", domains=["mail.example.com"])
    cloud.client("s3").put_object(Bucket=cloud.store.bucket, Key=SHOP, Body=b"{}")
    assert route(SHOP, MAIL) == {"batchItemFailures": [{"itemIdentifier": "0"}]}
    assert queues.jobs() == ["mail: secretsmanager/eu-central-1/tls/mail/bundle"]


def test_a_pointer_that_was_set_back_is_told(cloud: Cloud, queues: Queues) -> None:
    first = cloud.publish()
    cloud.publish()
    cloud.settle(SECRET)
    cloud.client("s3").delete_object(Bucket=cloud.store.bucket, Key=SHOP)
    cloud.store.write(SHOP, first, Current, None)
    cloud.publish(pipeline="mail", domains=["mail.example.com"])
    with pytest.raises(StateError, match="generation 1 is current, and targets have 2 already"):
        router.handle({}, None)
    assert queues.jobs() == [
        "mail: secretsmanager/eu-central-1/tls/mail/bundle",
        "shop: acm/eu-central-1",
        "shop: acm/us-east-1",
    ]


def test_a_wrong_file_is_raised(cloud: Cloud, queues: Queues) -> None:
    cloud.store.put_pipelines_text("pipelines: 1")
    with pytest.raises(PipelinesInvalid):
        route(SHOP)


def test_a_queue_that_refuses_brings_the_events_back(cloud: Cloud, queues: Queues) -> None:
    cloud.publish()
    cloud.refuse("SendMessageBatch", "AccessDeniedException", status=403)
    assert route(SHOP) == {"batchItemFailures": [{"itemIdentifier": "0"}]}
    assert route(SHOP) == {"batchItemFailures": []}
    assert len(queues.jobs()) == 3


def test_what_a_queue_did_not_take_is_told(cloud: Cloud, queues: Queues) -> None:
    cloud.publish(pipeline="mail", domains=["mail.example.com"])
    failed = {"Id": "0", "SenderFault": False, "Code": "InternalError", "Message": "Oh."}
    cloud.answer("SendMessageBatch", {"Successful": [], "Failed": [failed]})
    failures = router.route(
        cloud.store, queues.urls, queues.looks, cloud.aws, None, NOW, reconcile=False
    )
    assert list(failures) == ["mail"]
    assert isinstance(failures["mail"], AwsError)
    assert failures["mail"].retryable


def test_more_targets_than_fit_a_batch(cloud: Cloud, queues: Queues) -> None:
    many = "\n".join(
        f"      - {{type: secretsmanager, name: tls/shop/{number}}}" for number in range(23)
    )
    text = PIPELINES.replace("      - {type: acm}", f"      - {{type: acm}}\n{many}")
    cloud.store.put_pipelines_text(text)
    cloud.publish()
    route(SHOP)
    # One of them to the watcher.
    assert len(cloud.server.calls.of("sqs:SendMessageBatch")) == 5
    count = cloud.client("sqs").get_queue_attributes(
        QueueUrl=queues.urls["secretsmanager"], AttributeNames=["ApproximateNumberOfMessages"]
    )
    assert count["Attributes"]["ApproximateNumberOfMessages"] == "24"


# How long what targets hold still lasts


def held(capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[float, float]]:
    """What was counted last, by pipeline: the days that are left, and the hours too long."""
    lines = [json.loads(each) for each in capsys.readouterr().out.splitlines() if "Held" in each]
    assert all(line["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [[]] for line in lines)
    return {line["Pipeline"]: (line["HeldDaysLeft"], line["HoursHeldTooLong"]) for line in lines}


def test_the_hourly_run_counts_what_targets_still_hold(
    cloud: Cloud, queues: Queues, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever keeps the next one from them: here nobody takes the jobs."""

    def count(days: int) -> dict[str, tuple[float, float]]:
        now = NOW + timedelta(days=days)
        router.route(cloud.store, queues.urls, queues.looks, cloud.aws, None, now, reconcile=False)
        return held(capsys)

    old = cloud.publish(bundle=make_bundle(DOMAINS, days=30))
    cloud.publish(pipeline="mail", domains=["mail.example.com"])
    assert count(0) == {}
    cloud.settle(SECRET)
    cloud.settle(MAIL_SECRET, pipeline="mail")
    # What is current is the issuer's to renew, and to ring for.
    counted = count(27)
    left = (old.facts.not_after - NOW) / timedelta(days=1)
    assert counted["shop"] == pytest.approx((left - 27, 0))
    assert counted["mail"][1] == 0
    cloud.publish()
    assert count(22)["shop"] == pytest.approx((left - 22, 0))
    assert count(24)["shop"] == pytest.approx((left - 24, (31 - left) * 24))
    assert count(31)["shop"][0] < 0
    # An event is about one pipeline, and is no hour.
    route(SHOP)
    assert held(capsys) == {}
    cloud.settle(SECRET)
    assert count(24)["shop"][1] == 0


def test_what_soon_ends_is_looked_at_until_it_is_told(cloud: Cloud, queues: Queues) -> None:
    """Nothing else wakes the watcher where a deployment fails."""
    cloud.publish(pipeline="mail", bundle=make_bundle(["mail.example.com"], days=30))
    cloud.settle(MAIL_SECRET, pipeline="mail")
    new = cloud.publish(pipeline="mail", domains=["mail.example.com"])
    cloud.refuse("PutSecretValue", "AccessDeniedException", status=403)
    cloud.settle(MAIL_SECRET, pipeline="mail")
    waits = Rollout("mail", 2, new.fingerprint, NOW, began_at=NOW)
    cloud.store.write(rollout_key("mail"), waits, Rollout, None)

    def asked(days: int) -> bool:
        mark = cloud.server.calls.mark()
        now = NOW + timedelta(days=days)
        router.route(cloud.store, queues.urls, queues.looks, cloud.aws, None, now, reconcile=False)
        return "mail" in delays(cloud, mark)

    assert (asked(1), asked(25)) == (False, True)
    seen = cloud.store.read(rollout_key("mail"), Rollout)
    assert seen
    cloud.store.write(rollout_key("mail"), replace(waits, warned_at=NOW), Rollout, seen.etag)
    assert not asked(25)


# Looks at what clients get


def looks(cloud: Cloud, queues: Queues) -> list[str]:
    """The pipelines that the watcher has messages for, each once; those with a delay not yet."""
    taken = cloud.client("sqs").receive_message(QueueUrl=queues.looks, MaxNumberOfMessages=10)
    return sorted({json.loads(each["Body"])["pipeline"] for each in taken.get("Messages", [])})


def delays(cloud: Cloud, mark: int) -> dict[str, int]:
    """In seconds, of the messages that were sent since, by pipeline."""
    return {
        json.loads(entry["MessageBody"])["pipeline"]: entry["DelaySeconds"]
        for call in cloud.server.calls.of("sqs:SendMessageBatch", since=mark)
        for entry in (call.params or {})["Entries"]
        if "DelaySeconds" in entry
    }


def test_a_new_certificate_is_looked_at(cloud: Cloud, queues: Queues) -> None:
    cloud.publish()
    cloud.publish(pipeline="mail", domains=["mail.example.com"])
    route(SHOP)
    assert looks(cloud, queues) == ["shop"]


def test_before_the_first_certificate_there_is_nothing_to_look_at(
    cloud: Cloud, queues: Queues
) -> None:
    router.handle({}, None)
    assert looks(cloud, queues) == []


@pytest.mark.parametrize(
    ("ahead", "after_event", "hourly"),
    [
        (-timedelta(hours=3), 0, 0),
        (timedelta(seconds=30), 30, 30),
        (timedelta(minutes=15), 900, 900),
        # Whoever looks at it within the hour writes down when, and that is an event.
        (timedelta(minutes=40), None, 900),
        (timedelta(hours=2), None, None),
    ],
)
def test_a_look_comes_when_it_is_due(
    cloud: Cloud,
    queues: Queues,
    ahead: timedelta,
    after_event: int | None,
    hourly: int | None,
) -> None:
    current = cloud.publish(pipeline="mail", domains=["mail.example.com"])
    waits = Rollout(
        "mail", 1, current.fingerprint, NOW, began_at=NOW, served_at=NOW, next=NOW + ahead
    )
    # It bakes, and its one target is deployed.
    cloud.store.put_pipelines_text(
        PIPELINES.replace("- name: mail", "- name: mail\n    waves: [{name: all, bake: 9h}]")
    )
    cloud.settle(MAIL_SECRET, pipeline="mail")
    cloud.store.write(rollout_key("mail"), waits, Rollout, None)
    for names, expected in (({"mail"}, after_event), (None, hourly)):
        mark = cloud.server.calls.mark()
        router.route(cloud.store, queues.urls, queues.looks, cloud.aws, names, NOW, reconcile=False)
        assert delays(cloud, mark).get("mail") == expected


def test_a_queue_that_does_not_take_it_brings_the_events_back(cloud: Cloud, queues: Queues) -> None:
    cloud.publish(pipeline="mail", domains=["mail.example.com"])
    cloud.settle(MAIL_SECRET, pipeline="mail")
    cloud.refuse("SendMessageBatch", "AccessDeniedException", status=403)
    assert route(MAIL) == {"batchItemFailures": [{"itemIdentifier": "0"}]}
    assert route(MAIL) == {"batchItemFailures": []}
    assert looks(cloud, queues) == ["mail"]


# Router and deployers together


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_to_the_events_the_newest_generation_wins(
    cloud: Cloud, queues: Queues, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Events doubled, late, lost and in any order, between three generations."""
    random = Random(seed)  # noqa: S311
    resources.distribution(
        EDGE.distribution, DOMAINS, session=cloud.session, endpoint=cloud.endpoint
    )
    keys = [
        SHOP,
        *(record_key("shop", each) for each in ("acm/us-east-1", EDGE.address, SECRET.address)),
    ]
    for _ in range(3):
        newest = cloud.publish()
        for _ in range(random.randrange(4)):
            route(*random.choices(keys, k=random.randrange(1, 6)))
            if random.random() < 0.7:
                queues.work(monkeypatch)
    # The hourly schedule, until nothing is left.
    while queues.work(monkeypatch) or any(step.ready for step in cloud.plan(EDGE, SECRET)):
        router.handle({}, None)
    for target in (Acm(region="us-east-1"), Acm(region=REGION), EDGE, SECRET):
        record = cloud.recorded(target)
        assert (record.state, record.generation) == (State.DEPLOYED, newest.generation)
        there = cloud.observe(target)
        assert there is not None
        assert there.fingerprint == newest.fingerprint


def test_records_wake_the_router_and_then_it_is_quiet(
    cloud: Cloud, queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Driven by the bucket's events alone, from the first publication until nothing moves."""
    resources.distribution(
        EDGE.distribution, DOMAINS, session=cloud.session, endpoint=cloud.endpoint
    )
    cloud.publish()
    mark, rounds = 0, 0
    while True:
        puts = cloud.server.calls.of("s3:PutObject", since=mark)
        mark = cloud.server.calls.mark()
        keys = [str((call.params or {})["Key"]) for call in puts]
        if not keys:
            break
        route(*keys)
        queues.work(monkeypatch)
        rounds += 1
        assert rounds < 10
    assert cloud.recorded(EDGE).state is State.DEPLOYED
    assert queues.jobs() == []


def test_a_failure_that_may_pass_gets_a_new_job_when_it_is_time(
    cloud: Cloud, queues: Queues, quick: None
) -> None:
    cloud.publish(pipeline="mail", domains=["mail.example.com"])
    for _ in range(5):
        cloud.refuse("CreateSecret", "InternalServiceError", status=500)
    with pytest.raises(AwsError):
        cloud.deploy(MAIL_SECRET, pipeline="mail")

    def route_at(now: datetime) -> dict[str, CertrailError]:
        return router.route(
            cloud.store, queues.urls, queues.looks, cloud.aws, None, now, reconcile=False
        )

    assert route_at(NOW) == {}
    assert queues.jobs() == []
    assert route_at(NOW + timedelta(minutes=1)) == {}
    assert len(queues.jobs()) == 1


def test_there_is_a_queue_for_every_kind(queues: Queues) -> None:
    assert queues.urls.keys() == KINDS.keys()
    assert batch(SHOP)["Records"][0]["messageId"] == "0"
