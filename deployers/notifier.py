"""Hands certrail's events over to people: to a webhook of Slack, or of Teams.

EventBridge puts them into a queue; this function posts one at a time. A webhook that is busy or
down gets its message later, up to the queue's number of tries. One that refuses it needs a person:
the function fails, its alarm rings, and the message stays in the queue, then in its dead letters.

The webhook's URL lets anybody write into the channel: it is read from its secret each time, and
stands in no environment, log or error.
"""

from __future__ import annotations

import json
import logging
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.message import Message
from functools import cache
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from certrail import credentials
from certrail import log as logs
from certrail.aws import Aws
from certrail.bundle import short
from certrail.errors import NotTold
from certrail.http import retry_after
from certrail.messages import hold_back
from certrail.secret import Secret

log = logging.getLogger(__name__)

# Seconds; of both, a message is one small answer.
TIMEOUT = 10
# After a failed try, twice as long after each; the queue decides how many there are.
FIRST_WAIT = timedelta(minutes=1)
LONGEST_WAIT = timedelta(hours=1)
# Answers that a later try may better (RFC 9110, 15.5 and 15.6; RFC 6585, 4).
PASSING = {408, 425, 429}
# What a webhook says of its refusal is a few words.
LONGEST_ANSWER = 300

Event = Mapping[str, Any]


def handle(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Lambda entry point: the one message of its queue, an event as EventBridge delivers it."""
    logs.to_lambda()
    (message,) = event["Records"]
    told: Event = json.loads(message["body"])
    aws = _aws()
    url = credentials.fetch(aws, os.environ["CERTRAIL_WEBHOOK_SECRET"])
    shape = SHAPES[os.environ["CERTRAIL_WEBHOOK_SHAPE"]]
    try:
        post(url, shape(told), datetime.now(UTC))
    except NotTold as error:
        if not error.retryable:
            raise
        wait = until_next(int(message["attributes"]["ApproximateReceiveCount"]), error.wait)
        log.warning("%s, again in %s", error, wait)
        hold_back(aws, message, wait)
        return {"batchItemFailures": [{"itemIdentifier": message["messageId"]}]}
    log.info("told: %s", told["detail-type"], extra={"pipeline": told["detail"].get("pipeline")})
    return {"batchItemFailures": []}


@cache
def _aws() -> Aws:
    return Aws()


def until_next(tries: int, asked: timedelta | None) -> timedelta:
    """How long to leave a webhook alone. tries: how many there were. asked: in `Retry-After`."""
    wait = FIRST_WAIT * (1 << min(tries - 1, 10))
    return min(max(wait, asked or wait), LONGEST_WAIT)


# Posting


def post(url: Secret, body: Mapping[str, Any], now: datetime) -> None:
    """Raises NotTold where the webhook did not take it."""
    request = urllib.request.Request(  # noqa: S310 (the scheme is looked at)
        _checked(url),
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "User-Agent": "certrail"},
    )
    try:
        with _opener().open(request, timeout=TIMEOUT):
            return
    except urllib.error.HTTPError as answer:
        with answer:
            said = _without(url, answer.read(100 * LONGEST_ANSWER).decode(errors="replace"))
        raise _refused(answer.code, answer.headers, said, now) from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise NotTold(
            f"no answer ({_without(url, str(reason) or type(reason).__name__)})",
            next="Compare the host in the secret with the webhook's"
            if isinstance(reason, ssl.SSLCertVerificationError)
            else "It is tried again by itself",
            retryable=not isinstance(reason, ssl.SSLCertVerificationError),
        ) from None


def _checked(url: Secret) -> str:
    """The URL, where it is one. urllib would quote a wrong one in its errors."""
    text = url.reveal()
    try:
        parts = urlsplit(text)
        fits = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits or not text.isascii() or not text.isprintable() or " " in text:
        raise NotTold(
            "what the secret holds is no URL that begins with https://",
            next="Store the webhook's URL, and nothing else, as the secret's text",
        )
    return text


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A message goes where the secret says and nowhere else."""

    def redirect_request(self, *_: object) -> None:
        return None


def _opener() -> urllib.request.OpenerDirector:
    # The roots are the system's, or those of SSL_CERT_FILE.
    secure = urllib.request.HTTPSHandler(context=ssl.create_default_context())
    return urllib.request.build_opener(secure, _NoRedirects)


def _refused(status: int, headers: Message, said: str, now: datetime) -> NotTold:
    what = f"the webhook answered {status}" + (f": {said}" if said else "")
    if status in PASSING or status >= 500:
        at = retry_after(headers.get("Retry-After"), now)
        wait = max(at - now, timedelta()) if at else None
        return NotTold(what, next="It is tried again by itself", retryable=True, wait=wait)
    if status in range(300, 400):
        return NotTold(what, next="It has moved: store its new URL in the secret")
    return NotTold(
        what, next="Make a new webhook, store its URL in the secret, and redrive the dead letters"
    )


def _without(url: Secret, text: str) -> str:
    """The text on one line, without what is secret of the URL, should it quote that."""
    parts = urlsplit(url.reveal())
    for secret in (url.reveal(), parts.path, parts.query):
        if len(secret) > 1:
            text = text.replace(secret, "…")
    return " ".join(text.split())[:LONGEST_ANSWER]


# What is posted


def slack(event: Event) -> dict[str, Any]:
    """An incoming webhook's message: `text` for notifications, and where no blocks are known.

    docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
    docs.slack.dev/reference/block-kit
    """
    title, summary, facts = _words(event)
    return {
        "text": _escaped(f"{title}: {summary}"),
        "blocks": [
            {"type": "header", "text": _plain(title)},
            {"type": "section", "text": _plain(summary)},
            {"type": "context", "elements": [_plain(facts)]},
        ],
    }


def _plain(text: str) -> dict[str, Any]:
    """Without formatting: addresses and errors have characters in them that Slack would read."""
    return {"type": "plain_text", "text": _escaped(text), "emoji": False}


def _escaped(text: str) -> str:
    # These three, and no others (docs.slack.dev/messaging/formatting-message-text).
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def teams(event: Event) -> dict[str, Any]:
    """An Adaptive Card, as a Teams workflow for webhook requests posts it.

    learn.microsoft.com/connectors/teams
    adaptivecards.io/explorer/RichTextBlock.html
    """
    title, summary, facts = _words(event)
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [
            _run(title, weight="Bolder", size="Medium"),
            _run(summary),
            _run(facts, isSubtle=True, size="Small"),
        ],
        "msteams": {"width": "Full"},
    }
    adaptive = "application/vnd.microsoft.card.adaptive"
    return {
        "type": "message",
        "attachments": [{"contentType": adaptive, "contentUrl": None, "content": card}],
    }


def _run(text: str, **looks: object) -> dict[str, Any]:
    """Text that is not read as Markdown, as a TextBlock's would be."""
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text, **looks}]}


SHAPES: Mapping[str, Callable[[Event], dict[str, Any]]] = {"slack": slack, "teams": teams}


def _words(event: Event) -> tuple[str, str, str]:
    """Title, sentence, and the facts in one line, none of them empty."""
    title, detail = event["detail-type"], event["detail"]
    facts = [event["time"], f"account {event['account']}", event["region"]]
    if "generation" in detail:
        facts.append(f"generation {detail['generation']}")
    if detail.get("to"):
        before = short(detail["from"]) if detail.get("from") else "none"
        facts.append(f"{before} → {short(detail['to'])}")
    if detail.get("by"):
        facts.append(f"by {detail['by']}")
    return title, detail.get("summary") or title, " · ".join(facts)
