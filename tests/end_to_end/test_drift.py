"""What the daily run finds is repaired, recorded and told once: to the topic, and to the webhook.

The stack has both; what the topic tells is read from a queue that is subscribed to it, what the
webhook takes at an HTTPS server.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from certrail.records import Record, Rollout, State
from certrail.store import rollout_key
from certrail.target import Deployed
from cli.plan import TargetPlan, plan
from sandbox import Sandbox, resources
from tests.end_to_end.conftest import TEMPLATE, World
from tests.webhook import Answer, Webhook, webhook

# As docs/operations.md says that a topic's policy is to be.
OPERATIONS = (TEMPLATE.parent / "docs/operations.md").read_text(encoding="utf-8")
POLICY = OPERATIONS.partition("### A topic")[2].partition("```json\n")[2].partition("```")[0]
TOPIC_IN_DOCS = "arn:aws:sns:eu-central-1:111111111111:people"


@dataclass
class People:
    """Who is told. heard: what the topic said to them. hook: the webhook."""

    hook: Webhook
    sqs: Any
    queue: str

    def heard(self, world: World, about: str = "") -> list[str]:
        """The sentences about this pipeline since the last look, from the topic; what the webhook
        took says the same. about: a target, or all of the pipeline."""
        sentences = []
        while messages := self.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get(
            "Messages", []
        ):
            for message in messages:
                sentences.append(json.loads(json.loads(message["Body"])["Message"]))
                self.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
        ours = [each for each in sentences if each.startswith(f"{world.name}: ")]
        posted = [body["blocks"][1]["text"]["text"] for body in self.hook.messages]
        self.hook.taken.clear()
        assert sorted(each for each in posted if each.startswith(f"{world.name}: ")) == sorted(ours)
        return [each for each in ours if about in each]


@pytest.fixture(scope="module")
def people(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    """The template with a topic and a webhook to tell."""
    with ExitStack() as open_:
        hook = open_.enter_context(webhook(tmp_path_factory.mktemp("webhook")))
        sandbox.reset()
        session, endpoint = sandbox.session(), sandbox.endpoint
        sns: Any = session.client("sns", endpoint_url=endpoint)
        sqs: Any = session.client("sqs", endpoint_url=endpoint)
        secrets: Any = session.client("secretsmanager", endpoint_url=endpoint)
        topic = sns.create_topic(Name="people")["TopicArn"]
        sns.set_topic_attributes(
            TopicArn=topic,
            AttributeName="Policy",
            AttributeValue=POLICY.replace(TOPIC_IN_DOCS, topic),
        )
        queue = sqs.create_queue(QueueName="people")["QueueUrl"]
        sns.subscribe(
            TopicArn=topic, Protocol="sqs", Endpoint="arn:aws:sqs:eu-central-1:123456789012:people"
        )
        secret = secrets.create_secret(Name="certrail/webhook", SecretString=hook.url)["ARN"]
        stack = sandbox.deploy(TEMPLATE, {"NotifyTopicArn": topic, "WebhookSecretArn": secret})
        trust_webhook(session.client("lambda", endpoint_url=endpoint), stack.functions, hook.ca)
        yield People(hook, sqs, queue)
        sandbox.reset()


def trust_webhook(functions: Any, names: Mapping[str, str], ca: Path) -> None:
    """What an operator does whose webhook has a certificate of a CA of their own."""
    name = names["Notifier"]
    environment = functions.get_function_configuration(FunctionName=name)["Environment"]
    environment["Variables"]["SSL_CERT_FILE"] = str(ca)
    functions.update_function_configuration(FunctionName=name, Environment=environment)


@pytest.fixture(scope="module")
def deployed(sandbox: Sandbox, people: People) -> Sandbox:
    return sandbox


@pytest.fixture
def quiet(world: World, people: People) -> World:
    """One target of each kind, deployed, and what was told of that heard."""
    text = world.everything()
    world.furnish(text)
    world.push(text)
    assert set(world.held().values()) == {world.current.fingerprint}
    people.heard(world)
    return world


def a_day(world: World) -> None:
    """All that the clocks start in a day, twice: once is what is told, not once a run."""
    for schedule in ("RouterDaily", "RouterHourly", "IssuerHourly", "RouterDaily"):
        world.sandbox.functions.fire_schedule(schedule)
        world.settle()


def planned(world: World) -> dict[str, TargetPlan]:
    """What `certrail plan` says waits, by address."""
    (pipeline,) = plan(world.workspace, None, datetime.now(UTC))
    return {target.address: target for target in pipeline.targets if target.waits}


def held(record: Record) -> Deployed:
    assert record.held
    return record.held


def test_a_day_with_nothing_to_do_tells_nothing(quiet: World, people: People) -> None:
    assert planned(quiet) == {}
    before = {address: quiet.record(address) for address in quiet.held()}
    a_day(quiet)
    assert people.heard(quiet) == []
    assert {address: quiet.record(address) for address in before} == before


def test_a_secret_overwritten(quiet: World, people: People) -> None:
    address = f"secretsmanager/eu-central-1/{quiet.secret}"
    version = quiet.client("secretsmanager").put_secret_value(
        SecretId=quiet.secret, SecretString="by hand"
    )["VersionId"]
    ((where, shown),) = planned(quiet).items()
    assert (where, shown.action) == (address, "repair")
    assert shown.reason == f"somebody had written version {version}"

    began = datetime.now(UTC)
    a_day(quiet)
    assert planned(quiet) == {}
    value = quiet.client("secretsmanager").get_secret_value(SecretId=quiet.secret)
    assert json.loads(value["SecretString"])["fingerprint"] == quiet.current.fingerprint
    record = quiet.record(address)
    assert record.repaired == f"somebody had written version {version}"
    assert record.by == quiet.sandbox.stack.functions["SecretsmanagerDeployer"]
    assert record.at > began
    assert (record.before, record.fingerprint) == (quiet.current.fingerprint,) * 2
    assert people.heard(quiet) == [
        f"{quiet.name}: {address} was repaired: somebody had written version {version}, and "
        f"{quiet.current.fingerprint[:12]} was put back"
    ]


def test_a_listener_whose_default_was_changed(quiet: World, people: People) -> None:
    address = f"listener/app/{quiet.name}/{quiet.listener.partition(f'{quiet.name}/')[2]}"
    other = resources.imported_certificate([quiet.domain], region="eu-central-1")
    quiet.client("elbv2").modify_listener(
        ListenerArn=quiet.listener, Certificates=[{"CertificateArn": other}]
    )
    ((where, shown),) = planned(quiet).items()
    assert (where, shown.action) == (address, "repair")
    assert shown.reason == f"{other} was in its place"

    a_day(quiet)
    assert planned(quiet) == {}
    assert quiet.record(address).repaired == f"{other} was in its place"
    (told,) = people.heard(quiet)
    assert told.startswith(f"{quiet.name}: {address} was repaired: {other} was in its place")


def test_a_listener_whose_list_lost_ours(world: World, people: People) -> None:
    text = world.text(f"- {{type: listener, listener: '{world.listener}'}}")
    world.furnish(text)
    world.push(text)
    people.heard(world)
    (address,) = [each for each in world.held() if each.startswith("listener/")]
    ours = held(world.record(address)).resource
    world.client("elbv2").remove_listener_certificates(
        ListenerArn=world.listener, Certificates=[{"CertificateArn": ours}]
    )
    ((where, shown),) = planned(world).items()
    assert (where, shown.action, shown.reason) == (
        address,
        "repair",
        "nothing was there any more",
    )

    a_day(world)
    assert planned(world) == {}
    assert held(world.record(address)).resource == ours
    (told,) = people.heard(world)
    assert told.startswith(f"{world.name}: {address} was repaired: nothing was there any more")


def test_an_import_deleted(world: World, people: People) -> None:
    text = world.text("- {type: acm}")
    world.furnish(text)
    world.push(text)
    people.heard(world)
    gone = held(world.record("acm/eu-central-1")).resource
    world.client("acm").delete_certificate(CertificateArn=gone)
    ((where, shown),) = planned(world).items()
    assert (where, shown.action) == ("acm/eu-central-1", "repair")

    a_day(world)
    assert planned(world) == {}
    assert held(world.record("acm/eu-central-1")).resource != gone
    (told,) = people.heard(world)
    assert told == (
        f"{world.name}: acm/eu-central-1 was repaired: nothing was there any more, and "
        f"{world.current.fingerprint[:12]} was put back"
    )


def test_a_target_added(world: World, people: People) -> None:
    text = world.text("- {type: acm}")
    world.furnish(text)
    world.push(text)
    rolled_out(world)
    people.heard(world)
    address = f"secretsmanager/eu-central-1/{world.secret}"
    more = world.text(f"- {{type: acm}}\n- {{type: secretsmanager, name: {world.secret}}}")
    world.workspace.file.write_text(more)
    ((where, shown),) = planned(world).items()
    assert (where, shown.action) == (address, "create")

    # The router did not hear of the push: the day's run finds it.
    world.sandbox.events.disturb(hold=True)
    world.push(more)
    assert address in planned(world)
    world.sandbox.events.held.clear()
    world.sandbox.events.calm()
    a_day(world)
    assert planned(world) == {}
    record = world.record(address)
    assert (record.state, record.before) == (State.DEPLOYED, None)
    assert people.heard(world, address) == [
        f"{world.name}: {address} was added, and now holds {world.current.fingerprint[:12]}"
    ]


def rolled_out(world: World) -> None:
    """Every target has what is current."""
    now, current, key = datetime.now(UTC), world.current, rollout_key(world.name)
    there = world.store.read(key, Rollout)
    done = Rollout(
        pipeline=world.name,
        generation=current.generation,
        fingerprint=current.fingerprint,
        at=now,
        began_at=now,
        passed=1,
        served_at=now,
        done_at=now,
    )
    world.store.write(key, done, Rollout, there.etag if there else None)
    world.settle()


def test_a_failed_deployment(quiet: World, people: People) -> None:
    """Told when it fails first, not when it fails again, and when it is well again."""
    address = f"secretsmanager/eu-central-1/{quiet.secret}"
    server = quiet.sandbox.server
    first = quiet.current.fingerprint
    with server.refuse("secretsmanager:PutSecretValue", "AccessDeniedException", "Not you."):
        quiet.renew()
        quiet.settle()
        second = quiet.current.fingerprint
        told = people.heard(quiet, address)
        assert told == [
            f"{quiet.name}: {address} failed: secretsmanager:PutSecretValue: Not you.. Allow "
            "secretsmanager:PutSecretValue in the policy of the role that made the call"
        ]
        a_day(quiet)
        assert people.heard(quiet, address) == []
        record = quiet.record(address)
        assert record.attempts > 1
        assert (held(record).fingerprint, record.fingerprint) == (first, second)
        assert planned(quiet)[address].action == "failed"
    with server.refuse("secretsmanager:PutSecretValue", "AccessDeniedException", "Nor you."):
        a_day(quiet)
        (told_again,) = people.heard(quiet, address)
        assert "Nor you." in told_again
    a_day(quiet)
    assert planned(quiet) == {}
    record = quiet.record(address)
    assert (record.error, record.before, record.fingerprint) == (None, first, second)
    assert people.heard(quiet, address) == [
        f"{quiet.name}: {address} has recovered, and holds {second[:12]}"
    ]


def test_every_event_three_times_is_told_once(quiet: World, people: People) -> None:
    """The bucket's events, that is: what wakes the functions."""
    quiet.sandbox.events.disturb(duplicate=3, hold=lambda delivery: False)
    quiet.client("secretsmanager").put_secret_value(SecretId=quiet.secret, SecretString="by hand")
    for _ in range(3):
        quiet.sandbox.functions.fire_schedule("RouterDaily")
    quiet.settle()
    quiet.sandbox.events.calm()
    # EventBridge hands over three times what it was told once.
    told = people.heard(quiet)
    assert len(told) == 3
    assert len(set(told)) == 1


def test_a_webhook_that_is_down_is_told_later(quiet: World, people: People) -> None:
    people.hook.answers = [Answer(503), Answer(429, "", {"Retry-After": "1"}), Answer(200)]
    quiet.client("secretsmanager").put_secret_value(SecretId=quiet.secret, SecretString="by hand")
    a_day(quiet)
    assert [status for *_, status in people.hook.taken] == [503, 429, 200]
    assert len(people.heard(quiet)) == 1


def test_no_log_has_the_webhooks_url(quiet: World, people: People) -> None:
    people.hook.answers = [Answer(404, f"no such hook: {people.hook.url}"), Answer(200)]
    quiet.client("secretsmanager").put_secret_value(SecretId=quiet.secret, SecretString="by hand")
    a_day(quiet)
    failure = quiet.sandbox.functions.failures[-1]
    assert failure.function == quiet.sandbox.stack.functions["Notifier"]
    assert "the webhook answered 404: no such hook: …" in failure.message
    assert len(people.heard(quiet)) == 1, "it came back from the queue"
    lines = quiet.sandbox.functions.logs("Notifier")
    assert any("404" in line for line in lines)
    assert not any("the-secret-part" in line for line in lines)
