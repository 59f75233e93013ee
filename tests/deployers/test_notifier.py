"""What a webhook gets, and what becomes of what it does not take."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrail.errors import AwsError, NotTold
from certrail.secret import Secret
from certrail.telling import plain
from deployers import notifier
from deployers.notifier import FIRST_WAIT, LONGEST_WAIT, SHAPES, post, slack, teams, until_next
from sandbox.queues import queue
from tests.certrail.bundles import NOW
from tests.deployers.cloud import REGION, Cloud
from tests.webhook import PATH, Answer, Webhook, webhook

QUEUE = f"arn:aws:sqs:{REGION}:123456789012:told"
EVENT = {
    "id": "1",
    "detail-type": "Target Failed",
    "source": "certrail",
    "account": "123456789012",
    "region": REGION,
    "time": "2026-12-01T03:00:00Z",
    "detail": {
        "bucket": "certrail",
        "pipeline": "shop",
        "summary": "shop: cloudfront/E1 failed: <a> & *b*",
        "target": "cloudfront/E1",
        "generation": 7,
        "from": "1a2b3c4d5e6f7a8b",
        "to": "ab12cd34ef56ab78",
        "by": "CloudfrontDeployer",
    },
}
FACTS = (
    "2026-12-01T03:00:00Z · account 123456789012 · eu-central-1 · generation 7 · "
    "1a2b3c4d5e6f → ab12cd34ef56 · by CloudfrontDeployer"
)


@pytest.fixture
def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    with webhook(tmp_path) as hook:
        monkeypatch.setenv("SSL_CERT_FILE", str(hook.ca))
        yield hook


class Notified:
    """The function with its queue and the webhook's secret."""

    def __init__(self, cloud: Cloud, hook: Webhook) -> None:
        self.cloud = cloud
        self.hook = hook
        self.sqs = cloud.client("sqs")
        attributes = {"VisibilityTimeout": "180"}
        self.url = self.sqs.create_queue(QueueName="told", Attributes=attributes)["QueueUrl"]

    def keep(self, url: str) -> str:
        return str(
            self.cloud.client("secretsmanager").create_secret(Name="webhook", SecretString=url)[
                "ARN"
            ]
        )

    def tell(self, event: Any = EVENT) -> None:
        self.sqs.send_message(QueueUrl=self.url, MessageBody=json.dumps(event))

    def run(self) -> dict[str, Any]:
        """One invocation for the next message."""
        (message,) = self.sqs.receive_message(
            QueueUrl=self.url, MessageSystemAttributeNames=["All"]
        )["Messages"]
        record = {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": message["Attributes"],
            "eventSourceARN": QUEUE,
        }
        return notifier.handle({"Records": [record]}, None)

    def hidden(self) -> float:
        """For how many seconds the message in flight will not be received again."""
        (message,) = queue(QUEUE).pending_messages
        return message.visible_at / 1000 - time.time()


@pytest.fixture
def function(
    cloud: Cloud, hook: Webhook, monkeypatch: pytest.MonkeyPatch, lambda_logs: None
) -> Notified:
    notifier._aws.cache_clear()
    made = Notified(cloud, hook)
    monkeypatch.setenv("CERTRAIL_WEBHOOK_SECRET", made.keep(f"{hook.url}\n"))
    monkeypatch.setenv("CERTRAIL_WEBHOOK_SHAPE", "slack")
    return made


# The function


@pytest.mark.parametrize("shape", SHAPES)
def test_a_message_is_posted(
    function: Notified, monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    monkeypatch.setenv("CERTRAIL_WEBHOOK_SHAPE", shape)
    function.tell()
    assert function.run() == {"batchItemFailures": []}
    ((path, headers, body, _),) = function.hook.taken
    assert path == PATH
    assert headers["Content-Type"] == "application/json"
    assert body == SHAPES[shape](EVENT)


def test_the_url_may_be_a_parameter(
    function: Notified, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.client("ssm").put_parameter(
        Name="/certrail/webhook", Value=function.hook.url, Type="SecureString"
    )
    arn = f"arn:aws:ssm:{REGION}:123456789012:parameter/certrail/webhook"
    monkeypatch.setenv("CERTRAIL_WEBHOOK_SECRET", arn)
    function.tell()
    function.run()
    assert len(function.hook.messages) == 1


@pytest.mark.parametrize("after", ["90", None])
def test_a_busy_webhook_is_left_alone_for_as_long_as_it_asks(
    function: Notified, after: str | None
) -> None:
    function.hook.answers = [Answer(429, "", {"Retry-After": after} if after else {}), Answer(200)]
    function.tell()
    (failed,) = function.run()["batchItemFailures"]
    assert failed["itemIdentifier"]
    assert function.hidden() == pytest.approx(90 if after else 60, abs=5)
    assert function.hook.messages == []


def test_a_webhook_that_is_down_is_asked_again_later_and_later(function: Notified) -> None:
    function.hook.answers = [Answer(503, "out of order"), Answer(500), Answer(502), Answer(200)]
    function.tell()
    for minutes in (1, 2, 4):
        assert function.run()["batchItemFailures"]
        assert function.hidden() == pytest.approx(60 * minutes, abs=5)
        (message,) = queue(QUEUE).pending_messages
        message.visible_at = 0
    assert function.run() == {"batchItemFailures": []}
    assert len(function.hook.messages) == 1


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Answer(404, "no_service"), "webhook: the webhook answered 404: no_service. Make a new"),
        (
            Answer(403, f"{'x' * 290} {PATH}?"),
            f"webhook: the webhook answered 403: {'x' * 290} …?. Make a new",
        ),
        (Answer(400, ""), "webhook: the webhook answered 400. Make a new webhook"),
        (
            Answer(302, "", {"Location": "https://localhost:1/elsewhere"}),
            "webhook: the webhook answered 302. It has moved",
        ),
        (Answer(307, "", {"Location": PATH}), "webhook: the webhook answered 307. It has moved"),
    ],
)
def test_a_refusal_needs_a_person_and_names_no_url(
    function: Notified, capsys: pytest.CaptureFixture[str], answer: Answer, says: str
) -> None:
    function.hook.answers = [answer]
    function.tell()
    with pytest.raises(NotTold) as refused:
        function.run()
    assert str(refused.value).startswith(says)
    # It comes back, and then lies in the dead letters.
    assert function.hidden() == pytest.approx(180, abs=5)
    assert len(function.hook.taken) == 1, "no redirect is followed"
    said = str(refused.value) + capsys.readouterr().out
    assert "the-secret-part" not in said


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://localhost/the-secret-part",
        "file:///the-secret-part",
        '{"url": "https://localhost/the-secret-part"}',
        "https:///the-secret-part",
        "https://localhost:port/the-secret-part",
        "https://[/the-secret-part",
        "https://localhost/the-secret-part\nX: y",
        "https://localhost/the-secret-part-ä",
        "https://localhost/the-secret part",
    ],
)
def test_what_is_no_url_is_not_quoted(text: str) -> None:
    with pytest.raises(NotTold, match="no URL that begins with https://") as refused:
        post(Secret(text), {}, NOW)
    assert not refused.value.retryable
    assert "secret-part" not in str(refused.value)


def test_a_secret_that_is_not_there_is_named(
    function: Notified, monkeypatch: pytest.MonkeyPatch
) -> None:
    arn = f"arn:aws:secretsmanager:{REGION}:123456789012:secret:gone-AbCdEf"
    monkeypatch.setenv("CERTRAIL_WEBHOOK_SECRET", arn)
    function.tell()
    with pytest.raises(AwsError, match="gone-AbCdEf"):
        function.run()


# The connection


def test_a_server_that_does_not_answer_is_asked_again(hook: Webhook) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(NotTold, match="no answer") as caught:
        post(Secret(f"https://localhost:{port}{PATH}"), {}, NOW)
    assert caught.value.retryable


def test_a_server_of_another_ca_gets_nothing(
    hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(NotTold, match="certificate verify failed") as caught:
        post(Secret(hook.url), {}, NOW)
    assert not caught.value.retryable
    assert hook.taken == []


def test_a_server_of_another_name_gets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with webhook(tmp_path, "hooks.example.com") as other:
        monkeypatch.setenv("SSL_CERT_FILE", str(other.ca))
        with pytest.raises(NotTold, match="Hostname mismatch"):
            post(Secret(other.url), {}, NOW)
        assert other.taken == []


@pytest.mark.parametrize("by_date", [False, True])
def test_a_pause_may_be_asked_for_by_seconds_or_by_date(hook: Webhook, by_date: bool) -> None:
    at = NOW + timedelta(minutes=5)
    header = format_datetime(at, usegmt=True) if by_date else "300"
    hook.answers = [Answer(429, "", {"Retry-After": header})]
    with pytest.raises(NotTold) as caught:
        post(Secret(hook.url), {}, NOW)
    assert caught.value.wait == timedelta(minutes=5)


@given(
    tries=st.integers(1, 1000),
    asked=st.none() | st.timedeltas(timedelta(), timedelta(days=365)),
)
def test_a_wait_is_what_is_asked_and_never_too_long(tries: int, asked: timedelta | None) -> None:
    wait = until_next(tries, asked)
    assert FIRST_WAIT <= wait <= LONGEST_WAIT
    if asked is not None:
        assert wait >= min(asked, LONGEST_WAIT)
    assert until_next(tries + 1, asked) >= wait


# What is posted


def test_slack_reads_nothing_into_the_text() -> None:
    body = slack(EVENT)
    header, section, context = body["blocks"]
    escaped = "shop: cloudfront/E1 failed: &lt;a&gt; &amp; *b*"
    assert body["text"] == f"Target Failed: {escaped}"
    assert header == {
        "type": "header",
        "text": {"type": "plain_text", "text": "Target Failed", "emoji": False},
    }
    assert section["text"] == {"type": "plain_text", "text": escaped, "emoji": False}
    assert context["elements"][0]["text"] == FACTS


def test_teams_gets_an_adaptive_card() -> None:
    body = teams(EVENT)
    (attachment,) = body["attachments"]
    assert body["type"] == "message"
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    card = attachment["content"]
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    texts = [block["inlines"][0]["text"] for block in card["body"]]
    assert texts == ["Target Failed", "shop: cloudfront/E1 failed: <a> & *b*", FACTS]
    # A TextBlock would read `*b*` as Markdown.
    assert {block["type"] for block in card["body"]} == {"RichTextBlock"}


@given(summary=st.text(max_size=2000) | st.text("&<>", min_size=500, max_size=2000))
def test_what_is_told_fits_the_webhook(summary: str) -> None:
    """Slack takes 3,000 characters a text, Teams 28 KB a message."""
    event = {**EVENT, "detail": {"pipeline": "shop", "summary": plain(summary)}}
    for block in slack(event)["blocks"]:
        for text in block.get("elements", [block.get("text")]):
            assert 1 <= len(text["text"]) <= 3000
    assert len(json.dumps(teams(event))) < 28_000
