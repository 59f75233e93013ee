"""One run of the issuer in a process of its own, which ends itself in the middle.

    python -m tests.issuer.one_run BUCKET ZONE DIRECTORY LATER KILLED_AT

LATER: seconds that the run's clock is ahead. KILLED_AT: the step after which the process kills
itself, as a function's end or the machine's would: the other side has done what it was asked, and
nobody heard the answer. 0 for never: then the number of steps is printed.

A step is a request to the CA, or a call of AWS.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import requests

from certrail.aws import Aws
from certrail.keys import KeyType
from certrail.nameservers import parse_servers
from certrail.pipelines.authorities import AUTHORITIES
from certrail.pipelines.resolved import Issuer, Pipeline
from certrail.store import Current, Store
from issuer.account import Accounts
from issuer.clock import Clock
from issuer.dns.challenges import Dns
from issuer.issue import issue


class Steps:
    """Counts the answers, and ends the process at the one it was told."""

    def __init__(self, killed_at: int) -> None:
        self.killed_at = killed_at
        self.taken: list[str] = []

    def take(self, name: str) -> None:
        self.taken.append(name)
        if len(self.taken) == self.killed_at:
            sys.stdout.write(f"{name}\n")
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)


class Nobody:
    """A teller without an audience."""

    def issued(self, current: Current) -> None:
        pass

    def replaces_refused(self, pipeline: str, why: str) -> None:
        pass


def main() -> None:
    bucket, zone, directory, later, killed_at = sys.argv[1:]
    steps = Steps(int(killed_at))
    session = boto3.Session()
    session.events.register(
        "response-received",
        lambda event_name, **_: steps.take(event_name.removeprefix("response-received.")),
    )
    send = requests.Session.send

    def counted(self: requests.Session, request: Any, **how: Any) -> requests.Response:
        answer = send(self, request, **how)
        steps.take(f"{request.method} {request.path_url.split('/')[1]}")
        return answer

    requests.Session.send = counted  # type: ignore[method-assign]
    aws = Aws(session)
    store = Store(bucket, aws)
    ahead = timedelta(seconds=float(later))

    def now() -> datetime:
        return datetime.now(UTC) + ahead

    issue(
        Pipeline(
            name="shop",
            entry="shop",
            domains=(zone, f"*.{zone}"),
            # As at a CA that counts, whose ledger is kept, too.
            issuers=(Issuer("test-ca", directory, limits=AUTHORITIES["letsencrypt"].limits),),
            key_type=KeyType.ECDSA_P256,
            targets=(),
        ),
        store,
        Dns(aws, nameservers=parse_servers(os.environ["CERTRAIL_NAMESERVERS"])),
        Clock(now, time.sleep, now() + timedelta(seconds=60)),
        Accounts(store, aws),
        Nobody(),
    )
    sys.stdout.write("\n".join(steps.taken) + "\n")


if __name__ == "__main__":
    main()
