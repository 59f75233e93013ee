"""Who issues, and with which settings: those that make each of them fast and are safe to use."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bench import fetch
from bench.processes import Conversation, run
from sandbox import Sandbox
from sandbox.sandbox import SOURCE

EMAIL = "bench@example.com"
# Of lego, on top of what it needs to find the sandbox.
LEGO_OPTIONS = (fetch.NEEDED, "--key-type", "ec256")
CERTBOT_OPTIONS = (
    *("--non-interactive", "--agree-tos", "--no-eff-email", "--email", EMAIL),
    *("--no-random-sleep-on-renew", "--no-directory-hooks"),
    *("--key-type", "ecdsa", "--elliptic-curve", "secp256r1"),
)


@dataclass(frozen=True)
class Place:
    """Where all of them issue. folder: for what they keep. bucket: for what certrail keeps."""

    sandbox: Sandbox
    folder: Path
    bucket: str

    def environment(self, **more: str) -> dict[str, str]:
        """Of a child process: the sandbox, and nothing of whoever runs this."""
        own = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LANG": "C.UTF-8"}
        return own | self.sandbox.environment | more

    def folder_of(self, label: str) -> Path:
        folder = self.folder / label
        folder.mkdir()
        return folder


@dataclass(frozen=True)
class Contender:
    """One way to get a certificate.

    label: part of the names it gets certificates for. how: version and settings, for the reader.
    issue: gets a certificate with this one name, or raises Failed.
    """

    name: str
    label: str
    how: str
    issue: Callable[[str], object]


@contextmanager
def certrail_warm(place: Place) -> Iterator[Contender]:
    worker = Conversation(_worker(place), place.environment(), SOURCE)
    try:
        yield Contender(
            "certrail, one process",
            "warm",
            f"{_certrail()}; `issue()` again and again, as the worker function does while it is "
            "warm",
            worker.say,
        )
    finally:
        worker.end()


@contextmanager
def certrail_cold(place: Place) -> Iterator[Contender]:
    def issue(name: str) -> None:
        run(_worker(place), environment=place.environment(), folder=SOURCE, stdin=f"{name}\n")

    yield Contender(
        "certrail, a process each",
        "cold",
        f"{_certrail()}; Python is started and certrail imported for each certificate",
        issue,
    )


@contextmanager
def lego_hurried(place: Place) -> Iterator[Contender]:
    yield _lego(
        place,
        "lego, no pauses",
        "lego-hurried",
        # It sleeps for this long before it looks at all, and between looks.
        {"AWS_POLLING_INTERVAL": "0"},
    )


@contextmanager
def lego_as_it_comes(place: Place) -> Iterator[Contender]:
    yield _lego(place, "lego, as it comes", "lego", {})


@contextmanager
def certbot(place: Place) -> Iterator[Contender]:
    program = fetch.certbot()
    environment = place.environment()
    folder = place.folder_of("certbot")
    command: list[str | Path] = [
        program,
        "certonly",
        # Not the cli.ini of whoever runs this.
        f"--config={os.devnull}",
        *(f"--{each}-dir={folder / each}" for each in ("config", "work", "logs")),
        f"--server={place.sandbox.directory}",
        "--dns-route53",
        *CERTBOT_OPTIONS,
    ]

    def issue(name: str) -> None:
        run([*command, f"--domain={name}"], environment=environment)

    said = run([program, "--version"], environment=environment).split()[-1]
    yield Contender(
        "certbot",
        "certbot",
        f"certbot and certbot-dns-route53 {said}, from PyPI; {' '.join(CERTBOT_OPTIONS)}",
        issue,
    )


OURS = (certrail_warm, certrail_cold)
PEERS = (lego_hurried, lego_as_it_comes, certbot)


def _lego(place: Place, name: str, label: str, settings: dict[str, str]) -> Contender:
    program = fetch.lego()
    environment = place.environment(LEGO_CA_CERTIFICATES=str(place.sandbox.ca_bundle), **settings)
    command: list[str | Path] = [
        program,
        f"--path={place.folder_of(label)}",
        f"--server={place.sandbox.directory}",
        *("--accept-tos", f"--email={EMAIL}"),
        *("--dns=route53", "--dns.resolvers={}:{}".format(*place.sandbox.dns)),
        *LEGO_OPTIONS,
    ]

    def issue(domain: str) -> None:
        run([*command, f"--domains={domain}", "run"], environment=environment)

    said = run([program, "--version"], environment=environment).split()[2]
    stated = [f"{variable}={value}" for variable, value in settings.items()]
    return Contender(name, label, f"lego {said}; {' '.join([*LEGO_OPTIONS, *stated])}", issue)


def _worker(place: Place) -> list[str | Path]:
    return [sys.executable, "-m", "bench.worker", place.sandbox.directory, place.bucket]


def _certrail() -> str:
    return f"certrail {version('certrail')} on Python {platform.python_version()}"
