"""Dynamic updates to a real BIND: our records only, and what is said where it refuses."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from certrail.errors import CertrailError, DnsError, FailedTogether
from certrail.nameservers import Server
from certrail.pipelines.zones import Rfc2136Zone
from issuer.dns import challenge_name
from issuer.dns.challenges import Dns
from issuer.dns.rfc2136 import Rfc2136
from tests.issuer.dns.bind import LONG, READER, WRITER, Bind
from tests.issuer.dns.world import World, token, within


def entry(world: World, bind: Bind, key: str = WRITER, **more: Any) -> Rfc2136Zone:
    given: dict[str, Any] = {
        "provider": "rfc2136",
        "zone": bind.zone,
        "server": bind.server,
        "key_name": key,
        "key_secret": more.pop("key_secret", None) or world.secret(bind.secrets[key]),
    }
    return Rfc2136Zone.model_validate(given | more)


def dns(world: World, bind: Bind, *entries: Rfc2136Zone) -> Dns:
    return world.dns(*entries or [entry(world, bind)], nameservers=[Server(*bind.address)])


def test_there_while_needed_and_gone_afterwards(world: World, bind: Bind) -> None:
    """The record that somebody else has at the name stays."""
    tokens = [token(bind.zone, "a"), token(f"*.{bind.zone}", "b")]
    provider = dns(world, bind)
    provider.locate(each.name for each in tokens)
    with provider.presenting(tokens, within(20)):
        assert bind.texts(tokens[0].name) == {"theirs", *(each.value for each in tokens)}
    assert bind.texts(tokens[0].name) == {"theirs"}


def test_many_names_are_one_update(world: World, bind: Bind) -> None:
    tokens = [token(f"n{number}.{bind.zone}") for number in range(100)]
    with dns(world, bind).presenting(tokens, within(30)):
        assert all(bind.texts(each.name) == {each.value} for each in tokens)
    assert not any(bind.texts(each.name) for each in tokens)
    # The log has a line for each record, and the update it belongs to is by one client.
    added = [line for line in bind.log.splitlines() if "adding an RR" in line]
    assert len(added) == 100
    assert len({line.partition("client ")[2].partition(" ")[0] for line in added}) == 1


def test_writers_for_one_name_do_not_hurt_each_other(world: World, bind: Bind) -> None:
    together = threading.Barrier(3)

    def present(number: int) -> None:
        with dns(world, bind).presenting([token(bind.zone, str(number))], within(30)):
            together.wait()
            assert len(bind.texts(challenge_name(bind.zone))) == 4
            together.wait()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(present, range(3)))
    assert bind.texts(challenge_name(bind.zone)) == {"theirs"}


def test_what_a_run_that_died_left_behind(world: World, bind: Bind) -> None:
    left, gone = token(bind.zone, "left"), token(f"a.{bind.zone}", "gone")
    Rfc2136(world.aws, entry(world, bind)).place([left], within(10), [])
    dns(world, bind).remove([left, gone])
    assert bind.texts(left.name) == {"theirs"}


def test_another_algorithm(world: World, bind: Bind) -> None:
    with_512 = entry(world, bind, LONG, key_algorithm="hmac-sha512")
    with dns(world, bind, with_512).presenting([token(bind.zone)], within(20)):
        assert len(bind.texts(challenge_name(bind.zone))) == 2


def test_a_key_from_parameter_store(world: World, bind: Bind) -> None:
    stored = entry(world, bind, key_secret=world.parameter(f"{bind.secrets[WRITER]}\n"))
    with dns(world, bind, stored).presenting([token(bind.zone)], within(20)):
        assert len(bind.texts(challenge_name(bind.zone))) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"key_name": "nobody."}, r"does not know the TSIG key `nobody\.`.*Compare `key_name`"),
        ({"key_algorithm": "hmac-sha512"}, "does not know the TSIG key"),
        ({"key": LONG, "key_name": WRITER}, "another secret for the TSIG key.*Store the server's"),
    ],
)
def test_a_wrong_key(world: World, bind: Bind, change: dict[str, Any], said: str) -> None:
    """Found before the CA is asked, and nothing is left."""
    provider = dns(world, bind, entry(world, bind, **change))
    with pytest.raises(DnsError, match=said) as caught:
        provider.locate([challenge_name(bind.zone)])
    assert not caught.value.retryable
    assert not [secret for secret in bind.secrets.values() if secret in shown(caught.value)]
    with (
        pytest.raises(DnsError, match=said),
        provider.presenting([token(bind.zone)], within(10)),
    ):
        pass
    assert bind.texts(challenge_name(bind.zone)) == {"theirs"}


def test_a_key_that_may_not_write(world: World, bind: Bind) -> None:
    """The one failure, because nothing was written that would have to be removed."""
    provider = dns(world, bind, entry(world, bind, READER))
    provider.locate([challenge_name(bind.zone)])
    with (
        pytest.raises(DnsError, match=r"REFUSED to the update of .*Allow the key") as caught,
        provider.presenting([token(bind.zone)], within(10)),
    ):
        pass
    assert not caught.value.retryable
    assert bind.texts(challenge_name(bind.zone)) == {"theirs"}


def test_a_key_that_is_no_base64(world: World, bind: Bind) -> None:
    provider = dns(world, bind, entry(world, bind, key_secret=world.secret("s3cr3t-s3cr3t")))
    with pytest.raises(DnsError, match="is not base64") as caught:
        provider.locate([challenge_name(bind.zone)])
    assert "s3cr3t" not in shown(caught.value)


def test_a_zone_that_the_server_does_not_have(world: World, bind: Bind) -> None:
    elsewhere = entry(world, bind, zone="elsewhere.example")
    with pytest.raises(FailedTogether) as caught:
        dns(world, bind, elsewhere).locate(
            [challenge_name("a.elsewhere.example"), challenge_name("b.elsewhere.example")]
        )
    first, second = caught.value.failures
    assert "no zone for a.elsewhere.example" in first.what
    assert "no zone for b.elsewhere.example" in second.what


def test_a_zone_that_is_delegated_away(world: World) -> None:
    """Its parent is here, but a record in that would be seen by nobody."""
    with (
        Bind("parent.example", "sub NS ns.elsewhere.example.") as bind,
        pytest.raises(DnsError, match=r"sub\.parent\.example is delegated from here"),
    ):
        dns(world, bind).locate([challenge_name("shop.sub.parent.example")])


def test_a_server_that_is_down(world: World, bind: Bind) -> None:
    provider = dns(world, bind)
    before = dns(world, bind)
    before.locate([challenge_name(bind.zone)])
    bind.stop()
    with pytest.raises(DnsError, match=r"ConnectionRefused.*can be reached") as caught:
        Rfc2136(world.aws, entry(world, bind)).place([token(bind.zone)], within(5), [])
    assert caught.value.retryable
    for late in (provider, before):
        with (
            pytest.raises(CertrailError) as failed,
            late.presenting([token(bind.zone)], within(5)),
        ):
            pass
        assert failed.value.retryable


def test_the_server_and_those_of_the_zone_are_asked(world: World, bind: Bind) -> None:
    servers = Rfc2136(world.aws, entry(world, bind)).servers(challenge_name(bind.zone))
    assert servers == [Server(*bind.address), Server(f"ns.{bind.zone}")]


@pytest.mark.parametrize("written", ["ns1.example:x", "ns1.example,ns2.example", ","])
def test_a_server_that_cannot_be_read(world: World, bind: Bind, written: str) -> None:
    with pytest.raises(DnsError, match="is not one name server"):
        dns(world, bind, entry(world, bind, server=written)).locate([challenge_name(bind.zone)])


def shown(error: BaseException | None) -> str:
    """All that a traceback would print."""
    texts = []
    while error is not None:
        texts.append(repr(error) + str(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(texts)
