"""How long certrail, lego and certbot take for a certificate, and what they ask for it.

All of them get theirs by dns-01 from the same Pebble, through the same emulated Route 53 and its
name server, one after the other. See README.md beside this.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import requests

from bench.contenders import OURS, PEERS, Contender, Place
from bench.processes import Failed
from certrail.aws import Aws
from sandbox import Sandbox, resources
from sandbox.find_pebble import Unavailable
from sandbox.pebble import Pebble
from sandbox.rules.route53 import propagation
from tests.buckets import make_bucket

ZONE = "bench.example"
BUCKET = "certrail-bench"

# What Pebble writes down of each request, and of each certificate.
REQUEST = re.compile(r"([A-Z]+) (/\S*) -> calling handler\(\)")
ISSUED = "Issued certificate serial"


@dataclass(frozen=True)
class Measured:
    """seconds: of each certificate. acme, route53: requests and calls for one, on average."""

    contender: Contender
    seconds: tuple[float, ...]
    acme: float
    route53: float

    @property
    def mean(self) -> float:
        """Not the median: whoever looks a moment too early waits a whole pause, so that most times
        are either short or long."""
        return statistics.mean(self.seconds)


def main() -> int:
    options = _options()
    propagation.polls = options.pending_polls
    measured: list[Measured] = []
    missing: list[str] = []
    with Sandbox() as sandbox, tempfile.TemporaryDirectory(prefix="certrail-bench-") as folder:
        place = _furnished(sandbox, Path(folder))
        ours = [_measure(each, place, options.certificates) for each in OURS]
        for peer in PEERS:
            try:
                measured.append(_measure(peer, place, options.certificates))
            except (Unavailable, Failed) as error:
                missing.append(f"{peer.__name__}: {error}")
    print(_report(ours, measured, missing, options))
    return 0 if measured else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.issuance", description=__doc__)
    parser.add_argument(
        "--certificates", type=int, default=20, metavar="N", help="of each, measured (20)"
    )
    parser.add_argument(
        "--pending-polls",
        type=int,
        default=1,
        metavar="N",
        help="so many times Route 53 says that a change is PENDING (1)",
    )
    return parser.parse_args()


def _furnished(sandbox: Sandbox, folder: Path) -> Place:
    session = sandbox.session()
    resources.hosted_zone(ZONE, session=session, endpoint=sandbox.endpoint)
    make_bucket(BUCKET, Aws(session))
    return Place(sandbox, folder, BUCKET)


def _measure(
    contending: Callable[[Place], AbstractContextManager[Contender]], place: Place, count: int
) -> Measured:
    """Let one of them issue. Raises Unavailable, Failed."""
    sandbox = place.sandbox
    with contending(place) as contender:
        # Makes the account, and fills whatever is filled once.
        contender.issue(f"first.{contender.label}.{ZONE}")
        before, mark = _log(sandbox.ca), sandbox.server.calls.mark()
        seconds = []
        print(f"{contender.name} …", file=sys.stderr)
        for number in range(count):
            start = time.perf_counter()
            contender.issue(f"n{number}.{contender.label}.{ZONE}")
            seconds.append(time.perf_counter() - start)
        calls = sandbox.server.calls.since(mark)
        said = _log(sandbox.ca)[len(before) :]
    if said.count(ISSUED) != count:
        raise Failed(f"Pebble issued {said.count(ISSUED)} certificates, not {count}")
    return Measured(
        contender,
        tuple(seconds),
        # One of them is ours, to read the log.
        acme=(len(REQUEST.findall(said)) - 1) / count,
        route53=sum(call.service == "route53" for call in calls) / count,
    )


def _log(ca: Pebble) -> str:
    """Pebble's log up to now. It comes through a pipe, a little late: so a request of our own, of a
    kind that nobody else makes, is waited for."""
    so_far = len(ca.log)
    requests.head(ca.directory, verify=str(ca.ca_bundle), timeout=10).raise_for_status()
    deadline = time.monotonic() + 10
    while ("HEAD", "/dir") not in REQUEST.findall(ca.log, so_far):
        if time.monotonic() > deadline:
            raise Failed("Pebble does not write down requests as it did")
        time.sleep(0.01)
    return ca.log


def _report(
    ours: Sequence[Measured],
    peers: Sequence[Measured],
    missing: Sequence[str],
    options: argparse.Namespace,
) -> str:
    everybody = [*ours, *peers]
    warm, cold = ours
    lines = [
        f"{'':26}{'seconds for a certificate':>30}{'times certrail':>18}{'requests for one':>20}",
        f"{'':26}{'mean':>10}{'fastest':>10}{'slowest':>10}{'one':>9}{'each':>9}"
        f"{'ACME':>10}{'Route 53':>10}",
    ]
    for each in everybody:
        lines.append(
            f"{each.contender.name:26}"
            f"{each.mean:10.2f}{min(each.seconds):10.2f}{max(each.seconds):10.2f}"
            f"{each.mean / warm.mean:9.1f}{each.mean / cold.mean:9.1f}"
            f"{each.acme:10.1f}{each.route53:10.1f}"
        )
    lines += [f"not measured: {reason}" for reason in missing]
    sections = {
        "How it was measured": _method(options),
        "Who": [f"{each.contender.name}: {each.contender.how}" for each in everybody],
        "What is not comparable": NOT_COMPARABLE,
    }
    for title, points in sections.items():
        lines += ["", title, *(line for point in points for line in _point(point))]
    return "\n".join(lines)


def _method(options: argparse.Namespace) -> list[str]:
    return [
        f"{options.certificates} certificates each, one name and a P-256 key each, one after the "
        "other; before those, one that is not counted and makes the account.",
        f"On {os.cpu_count()} cores ({platform.machine()}), with everything on this machine: the "
        "network costs nothing.",
        "Pebble validates without its random sleep, refuses no good nonce, reuses no "
        "authorization, and asks to be polled after a second at most.",
        "Route 53 is emulated. How often a change is found PENDING before it is INSYNC: "
        f"{options.pending_polls}. What AWS takes, generally up to a minute, comes on top for all.",
        "ACME requests are counted in Pebble's log, calls of Route 53 at the emulation.",
        "`times certrail` compares means: with certrail in one process for all (one), and in a "
        "process for each certificate (each).",
    ]


NOT_COMPARABLE = [
    "certrail publishes into a bucket (emulated S3, within its time), the others write files.",
    "certrail also asks the name server whether the record is there. lego's own check of that is "
    "off: it asks the zone's servers at port 53, which the sandbox has not. certbot has none.",
    "certbot looks at a change of Route 53 every 5 seconds, lego every 4 unless it is told "
    "otherwise: that a change is PENDING for one look costs them one whole pause. With "
    "`--pending-polls 0` it costs nobody any.",
    "Pebble validates within milliseconds. Who looks a moment too early waits a whole pause all "
    "the same: certrail the second that Pebble asks for, certbot one of its own, lego about 5. A "
    "real CA takes seconds anyway, and less is lost.",
    "lego and certbot are made to be run once a day or by hand, where nobody waits for these "
    "seconds. They weigh where certificates are many, or a function is paid by its time.",
]


def _point(text: str) -> Iterator[str]:
    yield from textwrap.wrap(
        text,
        width=98,
        initial_indent="- ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


if __name__ == "__main__":
    sys.exit(main())
