"""certrail's side: does what the issuer's worker function does, for each name that it reads.

Reads one name a line and answers "issued" for each, until stdin ends. A process of its own, as the
peers are: in that of the sandbox it would wait for the threads that answer it.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime, timedelta

from certrail.aws import Aws
from certrail.keys import KeyType
from certrail.nameservers import parse_servers
from certrail.pipelines.resolved import Issuer, Pipeline
from certrail.store import Store
from cli.workspace import OnTheTerminal
from issuer.account import Accounts
from issuer.clock import Clock
from issuer.dns.challenges import Dns
from issuer.issue import issue

ALLOWED = timedelta(minutes=5)


def main() -> None:
    directory, bucket = sys.argv[1:]
    # Kept from one certificate to the next, as a function that stays warm keeps them.
    aws = Aws()
    store = Store(bucket, aws)
    accounts = Accounts(store, aws)
    for line in sys.stdin:
        certrail_once(line.strip(), directory, store, aws, accounts)
        print("issued", flush=True)


def certrail_once(domain: str, directory: str, store: Store, aws: Aws, accounts: Accounts) -> None:
    """One certificate, from a name to its publication in the bucket."""
    pipeline = Pipeline[object](
        name=domain,
        entry=domain,
        domains=(domain,),
        issuers=(Issuer(name="pebble", directory=directory),),
        key_type=KeyType.ECDSA_P256,
        targets=(),
    )
    nameservers = list(parse_servers(os.environ["CERTRAIL_NAMESERVERS"]))
    dns = Dns(aws, zones=(), accounts={}, nameservers=nameservers)
    clock = Clock(lambda: datetime.now(UTC), time.sleep, datetime.now(UTC) + ALLOWED)
    if issue(pipeline, store, dns, clock, accounts, OnTheTerminal()) is None:
        raise RuntimeError(f"a certificate for {domain} was there before")


if __name__ == "__main__":
    main()
