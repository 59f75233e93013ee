"""dns-lexicon's own provider `ddns`, against a real BIND."""

from __future__ import annotations

import io
import json
import random
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from certrail.errors import DnsError
from certrail.nameservers import Server
from certrail.pipelines.zones import LexiconZone
from issuer.dns import challenge_name
from issuer.dns.challenges import Dns
from issuer.dns.lexicon import Lexicon
from tests.issuer.dns.bind import ALGORITHMS, WRITER, Bind
from tests.issuer.dns.world import World, token, within


class Forward(socketserver.StreamRequestHandler):
    """One question and its answer, each with its length in front (RFC 1035, 4.2.2)."""

    to: tuple[str, int]

    def handle(self) -> None:
        with socket.create_connection(self.to) as connection, connection.makefile("rb") as answers:
            connection.sendall(message(self.rfile))
            self.wfile.write(message(answers))


def message(stream: io.BufferedIOBase) -> bytes:
    size = stream.read(2)
    return size + stream.read(int.from_bytes(size))


@pytest.fixture
def host(bind: Bind) -> Iterator[str]:
    """A loopback address at whose port 53 BIND is reached: the provider knows no other port, and
    BIND listens at no address that an interface does not have."""
    host = f"127.{random.randrange(1, 255)}.{random.randrange(256)}.{random.randrange(1, 255)}"  # noqa: S311
    handler = type("ToBind", (Forward,), {"to": bind.address})
    try:
        server = socketserver.ThreadingTCPServer((host, 53), handler)
    except OSError as error:
        pytest.skip(f"port 53 of {host} is not for us: {error}")
    with server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        serving.start()
        yield host
        server.shutdown()
        serving.join()


def options(host: str, secret: str, algorithm: str = ALGORITHMS[WRITER]) -> dict[str, Any]:
    return {"auth_token": f"{algorithm}:{WRITER}:{secret}", "ddns_server": host}


def entry(world: World, zone: str, given: object, name: str = "ddns") -> LexiconZone:
    text = given if isinstance(given, str) else json.dumps(given)
    arn = world.secret(text)
    return LexiconZone(provider="lexicon", zone=zone, name=name, credentials=arn)


def dns(world: World, bind: Bind, host: str, secret: str = "") -> Dns:
    zone = entry(world, bind.zone, options(host, secret or bind.secrets[WRITER]))
    return world.dns(zone, nameservers=[Server(*bind.address)])


def test_there_while_needed_and_gone_afterwards(world: World, bind: Bind, host: str) -> None:
    """The record that somebody else has at the name stays."""
    tokens = [token(bind.zone, "a"), token(f"*.{bind.zone}", "b"), token(f"www.{bind.zone}", "c")]
    provider = dns(world, bind, host)
    provider.locate(each.name for each in tokens)
    with provider.presenting(tokens, within(20)):
        assert bind.texts(tokens[0].name) == {"theirs", tokens[0].value, tokens[1].value}
        assert bind.texts(tokens[2].name) == {tokens[2].value}
    assert bind.texts(tokens[0].name) == {"theirs"}
    assert bind.texts(tokens[2].name) == set()


def test_what_a_run_that_died_left_behind(world: World, bind: Bind, host: str) -> None:
    left, gone = token(bind.zone, "left"), token(f"a.{bind.zone}", "gone")
    zone = entry(world, bind.zone, options(host, bind.secrets[WRITER]))
    Lexicon(world.aws, zone).place([left], within(10), [])
    dns(world, bind, host).remove([left, gone])
    assert bind.texts(left.name) == {"theirs"}


def test_a_provider_that_refuses(world: World, bind: Bind, host: str) -> None:
    wrong = "d3JvbmctYnV0LXNlY3JldC1hbGwtdGhlLXNhbWU="
    with (
        pytest.raises(Exception, match="could not write the record") as caught,
        dns(world, bind, host, wrong).presenting([token(bind.zone)], within(10)),
    ):
        pass
    assert wrong not in str(caught.value)
    assert bind.texts(challenge_name(bind.zone)) == {"theirs"}


def test_a_message_with_credentials_in_it(world: World) -> None:
    """This provider's error tells a part of them."""
    bad = options("127.0.0.1", "c2VjcmV0", algorithm="hmac-s3cr3t")
    with pytest.raises(DnsError, match=r"could not write .* \(\w+") as caught:
        Lexicon(world.aws, entry(world, "shop.example", bad)).place(
            [token("shop.example")], within(5), []
        )
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("text", ["not json s3cr3t", '["s3cr3t"]'])
def test_options_that_are_no_object(world: World, text: str) -> None:
    with pytest.raises(DnsError, match="are not a JSON object") as caught:
        world.dns(entry(world, "shop.example", text)).locate([challenge_name("shop.example")])
    assert "s3cr3t" not in str(caught.value)


def test_a_provider_that_does_not_exist(world: World) -> None:
    with pytest.raises(DnsError, match="dns-lexicon has no such provider"):
        world.dns(entry(world, "shop.example", {}, "nobody")).locate(
            [challenge_name("shop.example")]
        )


def test_without_the_package(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "lexicon"]:
        monkeypatch.delitem(sys.modules, name)
    searched = [path for path in sys.path if "site-packages" not in path]
    monkeypatch.setattr(sys, "path", searched)
    sys.path_importer_cache.clear()
    with pytest.raises(DnsError, match=r"not installed. Install certrail\[lexicon\]"):
        world.dns(entry(world, "shop.example", {})).locate([challenge_name("shop.example")])


def test_the_package_is_not_part_of_a_function() -> None:
    """Whose packages are those that its modules import."""
    program = "import build; print(*build.follow(['issuer.dns.challenges']).packages)"
    packages = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[3] / "functions",
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert "dns" in packages
    assert "lexicon" not in packages
