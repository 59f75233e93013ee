"""What clients get, seen by real handshakes: with what the sandbox's AWS would show, and with
servers of our own."""

from __future__ import annotations

import itertools
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dns.exception
import dns.resolver
import pytest

from certrail.bundle import Bundle
from certrail.errors import DeployError
from certrail.keys import KeyType
from certrail.nameservers import Server
from certrail.target import Endpoint
from deployers import verify
from deployers.seen import Seen, Verdict
from deployers.verify import Network, Unreachable, Wanted, look
from sandbox import resources
from tests.certrail.bundles import Authority, authority, make_bundle
from tests.deployers.cloud import DOMAINS, Cloud
from tests.deployers.contract.worlds import ALB
from tests.deployers.internet import internet

NAME = "shop.example.com"
PATIENCE = timedelta(seconds=20)


@pytest.fixture(scope="module")
def way() -> Iterator[Network]:
    with internet() as there:
        yield there


def wanted(bundle: Bundle, *, anchors: str | None = None) -> Wanted:
    return Wanted(bundle.fingerprint, bundle.facts.key_type, anchors or bundle.chain)


def verdicts(seen: tuple[Seen, ...]) -> set[Verdict]:
    return {each.verdict for each in seen}


# What AWS would show


def imported(cloud: Cloud, bundle: Bundle, arn: str | None = None) -> str:
    extra = {"CertificateArn": arn} if arn else {}
    made: str = cloud.client("acm").import_certificate(
        Certificate=bundle.certificate,
        PrivateKey=bundle.private_key.reveal(),
        CertificateChain=bundle.chain,
        **extra,
    )["CertificateArn"]
    return made


def listener(
    cloud: Cloud, *bundles: Bundle, internal: bool = False, default: bool = False
) -> Endpoint:
    """A dual-stack ALB with these in its list, at the first of them also in its default's place."""
    resources.listener(
        ALB, session=cloud.session, endpoint=cloud.endpoint, internal=internal, dualstack=True
    )
    elb = cloud.client("elbv2")
    for bundle in bundles:
        certificates = [{"CertificateArn": imported(cloud, bundle)}]
        elb.add_listener_certificates(ListenerArn=ALB, Certificates=certificates)
        if default and bundle is bundles[0]:
            elb.modify_listener(ListenerArn=ALB, Certificates=certificates)
    (balancer,) = elb.describe_load_balancers()["LoadBalancers"]
    return Endpoint(balancer["DNSName"], 443, (NAME,))


def test_every_address_of_both_families_for_every_name(cloud: Cloud, way: Network) -> None:
    bundle = make_bundle(DOMAINS)
    there = listener(cloud, bundle, default=True)
    endpoint = Endpoint(there.host, 443, (NAME, "a.shop.example.com", ""))
    seen = look([endpoint], wanted(bundle), way, PATIENCE)[endpoint]
    assert verdicts(seen) == {Verdict.GOOD}
    assert {each.fingerprint for each in seen} == {bundle.fingerprint}
    # Two zones, IPv4 and IPv6, three names each.
    addresses = {each.address for each in seen}
    assert len(addresses) == 4
    assert {address.startswith("[2001:db8:") for address in addresses} == {True, False}
    assert len(seen) == 12


def test_another_certificate(cloud: Cloud, way: Network) -> None:
    there, new = make_bundle(DOMAINS), make_bundle(DOMAINS)
    endpoint = listener(cloud, there)
    seen = look([endpoint], wanted(new), way, PATIENCE)[endpoint]
    assert verdicts(seen) == {Verdict.OTHER}
    assert {each.fingerprint for each in seen} == {there.fingerprint}
    assert f"serves {there.fingerprint[:12]}, not {new.fingerprint[:12]}" in str(seen[0])


def test_the_default_is_asked_without_a_name(cloud: Cloud, way: Network) -> None:
    bundle = make_bundle(DOMAINS)
    there = listener(cloud, bundle)
    endpoint = Endpoint(there.host, 443, (NAME, ""))
    seen = look([endpoint], wanted(bundle), way, PATIENCE)[endpoint]
    assert {each.server_name for each in seen if each.verdict is Verdict.OTHER} == {""}
    assert {each.server_name for each in seen if each.verdict is Verdict.GOOD} == {NAME}
    assert any("asked without a name" in str(each) for each in seen)


def test_a_chain_that_leads_elsewhere_is_told_of_the_wanted_certificate(
    cloud: Cloud, way: Network
) -> None:
    bundle = make_bundle(DOMAINS)
    endpoint = listener(cloud, bundle)
    another = Authority().bundle([NAME]).chain
    seen = look([endpoint], wanted(bundle, anchors=another), way, PATIENCE)[endpoint]
    assert verdicts(seen) == {Verdict.UNTRUSTED}
    assert f"serves {bundle.fingerprint[:12]}, which a client does not believe" in seen[0].text


def test_the_systems_roots_where_there_are_no_anchors(
    cloud: Cloud, way: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle(DOMAINS)
    endpoint = listener(cloud, bundle)
    system = Wanted(bundle.fingerprint, bundle.facts.key_type)
    assert verdicts(look([endpoint], system, way, PATIENCE)[endpoint]) == {Verdict.UNTRUSTED}
    roots = tmp_path / "roots.pem"
    roots.write_text(authority().root)
    monkeypatch.setenv("SSL_CERT_FILE", str(roots))
    system = Wanted(bundle.fingerprint, bundle.facts.key_type)
    assert verdicts(look([endpoint], system, way, PATIENCE)[endpoint]) == {Verdict.GOOD}


def test_without_any_root_nobody_is_called_wrong(
    way: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (tmp_path / "none", tmp_path):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
        monkeypatch.setenv("SSL_CERT_DIR", str(folder))
        with pytest.raises(DeployError, match="no root certificates"):
            look([], Wanted("", KeyType.ECDSA_P256), way, PATIENCE)
    (tmp_path / "0a1b2c3d.0").write_text(authority().root)
    assert look([], Wanted("", KeyType.ECDSA_P256), way, PATIENCE) == {}


def test_a_name_that_the_certificate_does_not_have(cloud: Cloud, way: Network) -> None:
    bundle = make_bundle([NAME])
    there = listener(cloud, bundle, default=True)
    endpoint = Endpoint(there.host, 443, ("elsewhere.example.com",))
    seen = look([endpoint], wanted(bundle), way, PATIENCE)[endpoint]
    assert verdicts(seen) == {Verdict.UNTRUSTED}
    assert "Hostname mismatch" in seen[0].text


@pytest.mark.parametrize("key_type", [KeyType.ECDSA_P256, KeyType.RSA_2048])
def test_of_two_key_types_each_finds_its_own(cloud: Cloud, way: Network, key_type: KeyType) -> None:
    bundles = {kind: make_bundle(DOMAINS, kind) for kind in (KeyType.ECDSA_P256, KeyType.RSA_2048)}
    endpoint = listener(cloud, *bundles.values())
    seen = look([endpoint], wanted(bundles[key_type]), way, PATIENCE)[endpoint]
    assert verdicts(seen) == {Verdict.GOOD}


def test_the_other_key_type_is_no_excuse(cloud: Cloud, way: Network) -> None:
    rsa, old, new = (
        make_bundle(DOMAINS, kind)
        for kind in (KeyType.RSA_2048, KeyType.ECDSA_P256, KeyType.ECDSA_P256)
    )
    endpoint = listener(cloud, rsa, old)
    seen = look([endpoint], wanted(new), way, PATIENCE)[endpoint]
    assert verdicts(seen) == {Verdict.OTHER}


# What cannot be reached


def test_an_internal_load_balancer(cloud: Cloud, way: Network) -> None:
    bundle = make_bundle(DOMAINS)
    endpoint = listener(cloud, bundle, internal=True)
    seen = look([endpoint], wanted(bundle), way, PATIENCE)[endpoint]
    assert verdicts(seen) == {Verdict.UNREACHABLE}
    assert any("the proxy answers `HTTP/1.1 504" in each.text for each in seen)


def test_a_port_at_which_nothing_is(cloud: Cloud, way: Network) -> None:
    bundle = make_bundle(DOMAINS)
    endpoint = Endpoint(listener(cloud, bundle).host, 8443, (NAME,))
    assert verdicts(look([endpoint], wanted(bundle), way, PATIENCE)[endpoint]) == {
        Verdict.UNREACHABLE
    }


def test_an_address_that_cannot_be_reached_is_not_tried_for_every_name(
    direct: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def in_vain(_: Network, address: str, port: int) -> socket.socket:
        tried.append(address)
        raise Unreachable("no answer in time")

    monkeypatch.setattr(Network, "connect", in_vain)
    monkeypatch.setattr(verify, "AT_ONCE", 1)
    names = tuple(f"{number}.example.com" for number in range(100))
    endpoint = Endpoint("localhost", 443, names)
    seen = look([endpoint], wanted(make_bundle(["localhost"])), direct, PATIENCE)[endpoint]
    assert verdicts(seen) == {Verdict.UNREACHABLE}
    assert {each.server_name for each in seen} == set(names)
    assert tried == list(dict.fromkeys(tried))


def test_a_host_without_an_address(cloud: Cloud, way: Network) -> None:
    endpoint = Endpoint("gone.eu-central-1.elb.amazonaws.com", 443, (NAME,))
    (seen,) = look([endpoint], wanted(make_bundle([NAME])), way, PATIENCE)[endpoint]
    assert (seen.verdict, seen.address) == (Verdict.UNREACHABLE, endpoint.host)


def test_one_family_of_addresses_that_the_dns_does_not_answer_for(
    direct: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = dns.resolver.Resolver.resolve

    def half(self: dns.resolver.Resolver, host: str, kind: str, **more: Any) -> Any:
        if kind in silent:
            raise dns.exception.Timeout
        return resolve(self, host, kind, **more)

    monkeypatch.setattr(dns.resolver.Resolver, "resolve", half)
    silent = {"AAAA"}
    assert direct.addresses("localhost") == ("127.0.0.1",)
    silent = {"A", "AAAA"}
    with pytest.raises(Unreachable, match="Timeout"):
        direct.addresses("localhost")


def test_a_proxy_that_is_not_there(cloud: Cloud, way: Network) -> None:
    bundle = make_bundle(DOMAINS)
    endpoint = listener(cloud, bundle)
    with socket.create_server(("127.0.0.1", 0)) as there:
        closed = Server(*there.getsockname())
    lost = Network(way.nameservers, closed)
    seen = look([endpoint], wanted(bundle), lost, PATIENCE)[endpoint]
    assert verdicts(seen) == {Verdict.UNREACHABLE}
    assert "Connection refused" in seen[0].text


def test_without_time_left_nothing_is_said(cloud: Cloud, way: Network) -> None:
    bundle = make_bundle(DOMAINS)
    endpoint = listener(cloud, bundle)
    assert verdicts(look([endpoint], wanted(bundle), way, timedelta(0))[endpoint]) == {
        Verdict.SKIPPED
    }


def test_where_there_is_not_the_time_for_all_some_are_done_with(
    cloud: Cloud, way: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else all would be looked at again and again, and none of them ever be called served."""
    bundle = make_bundle(["*.shop.example.com"])
    there = listener(cloud, bundle)
    due = [
        replace(there, server_names=tuple(f"{one}-{name}.shop.example.com" for name in range(5)))
        for one in range(6)
    ]
    clock = itertools.count()
    ticks = SimpleNamespace(monotonic=lambda: next(clock) / 1000)
    monkeypatch.setattr(verify, "time", ticks)
    first = True
    while due:
        # A handshake asks for the time three times, and there are 120.
        seen = look(due, wanted(bundle), way, timedelta(milliseconds=200))
        left = [each for each in due if verdicts(seen[each]) != {Verdict.GOOD}]
        assert len(left) < len(due)
        assert left or not first
        due, first = left, False


# Directly, with servers of our own at `localhost`


@contextmanager
def server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """At 127.0.0.1 and ::1, where that is there. Returns the port."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listens:

        def run() -> None:
            while True:
                try:
                    connection, _ = listens.accept()
                except OSError:
                    return
                with connection:
                    try:
                        serve(connection)
                    except OSError:
                        # A client that does not like what it is shown hangs up.
                        continue

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield listens.getsockname()[1]
        listens.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def direct(way: Network) -> Network:
    return Network(way.nameservers)


def tls(
    bundle: Bundle, folder: Path, *, oldest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
) -> Callable[[socket.socket], None]:
    pair = folder / "pair.pem"
    pair.write_text(bundle.private_key.reveal() + bundle.fullchain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = oldest
    context.load_cert_chain(pair)
    return lambda connection: context.wrap_socket(connection, server_side=True).close()


def test_without_a_proxy(direct: Network, tmp_path: Path) -> None:
    bundle = make_bundle(["localhost"])
    with server(tls(bundle, tmp_path)) as port:
        endpoint = Endpoint("localhost", port, ("localhost",))
        seen = look([endpoint], wanted(bundle), direct, PATIENCE)[endpoint]
    assert {each.address for each in seen} == {f"127.0.0.1:{port}", f"[::1]:{port}"}
    assert verdicts(seen) == {Verdict.GOOD}


def test_a_certificate_that_has_ended(direct: Network, tmp_path: Path) -> None:
    bundle = make_bundle(["localhost"], days=-0.01)
    with server(tls(bundle, tmp_path)) as port:
        endpoint = Endpoint("localhost", port, ("localhost",))
        seen = look([endpoint], wanted(bundle), direct, PATIENCE)[endpoint]
    assert verdicts(seen) == {Verdict.UNTRUSTED}
    assert seen[0].text.endswith("certificate has expired")


def test_a_server_of_tls_1_3_only_is_not_asked_for_a_kind_of_key(
    direct: Network, tmp_path: Path
) -> None:
    shown = make_bundle(["localhost"])
    with server(tls(shown, tmp_path, oldest=ssl.TLSVersion.TLSv1_3)) as port:
        endpoint = Endpoint("localhost", port, ("localhost",))
        rsa = wanted(make_bundle(["localhost"], KeyType.RSA_2048))
        seen = look([endpoint], rsa, direct, PATIENCE)[endpoint]
    assert verdicts(seen) == {Verdict.OTHER}
    assert seen[0].believed
    assert seen[0].text.endswith("speaks TLS 1.3 only, in which nobody can ask for one kind of key")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_that_wants_a_certificate_of_the_clients(
    direct: Network, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    bundle = make_bundle(["localhost"])
    pair = tmp_path / "pair.pem"
    pair.write_text(bundle.private_key.reveal() + bundle.fullchain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=authority().root)
    with server(lambda there: context.wrap_socket(there, server_side=True).close()) as port:
        endpoint = Endpoint("localhost", port, ("localhost",))
        good = look([endpoint], wanted(bundle), direct, PATIENCE)[endpoint]
        another = wanted(bundle, anchors=Authority().bundle(["localhost"]).chain)
        bad = look([endpoint], another, direct, PATIENCE)[endpoint]
    assert verdicts(good) == {Verdict.GOOD}
    assert verdicts(bad) == {Verdict.UNTRUSTED}


def test_a_server_whose_key_is_not_the_certificates(direct: Network, tmp_path: Path) -> None:
    """As one that signs what no client can verify: it shows the certificate, and nobody gets on."""
    bundle = make_bundle(["localhost"])
    pair = tmp_path / "pair.pem"
    pair.write_text(bundle.private_key.reveal() + bundle.fullchain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    def serve(connection: socket.socket) -> None:
        heard, says = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(heard, says, server_side=True)
        heard.write(connection.recv(65536))
        with suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        words = bytearray(says.read())
        # Its last message is ServerHelloDone, in a record of its own or in that of the signature.
        end = words.rindex(b"\x0e\x00\x00\x00")
        words[end - (8 if words[end - 5] == 22 else 3)] ^= 1
        connection.sendall(words)
        connection.recv(100)

    with server(serve) as port:
        endpoint = Endpoint("localhost", port, ("localhost",))
        seen = look([endpoint], wanted(bundle), direct, PATIENCE)[endpoint]
    assert verdicts(seen) == {Verdict.REFUSED}
    assert "SIGNATURE" in seen[0].text


@pytest.mark.parametrize(
    ("words", "verdict", "said"),
    [
        (b"", Verdict.UNREACHABLE, "no TLS comes back"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Verdict.REFUSED, "the TLS handshake fails"),
    ],
)
def test_what_speaks_no_tls(direct: Network, words: bytes, verdict: Verdict, said: str) -> None:
    def speak(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(words)

    with server(speak) as port:
        endpoint = Endpoint("localhost", port, ("localhost",))
        seen = look([endpoint], wanted(make_bundle(["localhost"])), direct, PATIENCE)[endpoint]
    assert verdicts(seen) == {verdict}
    assert said in seen[0].text


def test_the_way_is_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Network.from_environment() == Network()
    monkeypatch.setenv("CERTRAIL_NAMESERVERS", "127.0.0.1:5353")
    monkeypatch.setenv("CERTRAIL_PROXY", "proxy.corp.example:3128")
    assert Network.from_environment() == Network(
        (Server("127.0.0.1", 5353),), Server("proxy.corp.example", 3128)
    )
