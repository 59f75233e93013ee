"""Real handshakes with what the emulated AWS serves, as a client on the internet makes them."""

from __future__ import annotations

import http.client
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from certrail.target import Endpoint
from sandbox import fronts, resources
from sandbox.dns import NameServer
from sandbox.edge import Edge
from sandbox.propagation import Delay, propagation
from sandbox.server import Server
from sandbox.visitor import Shown, Visitor, addresses, anything, handshake, problem
from tests.sandbox.aws import ACCOUNT, Aws
from tests.sandbox.rules.issuance import Authority, Issued, pem

NAME = "www.shop.example.com"
NAMES = ["shop.example.com", "*.shop.example.com"]
DISTRIBUTION = "E1SHOP"
EU, US = "eu-central-1", "us-east-1"
OTHERS = ("222222222222", "333333333333")
DAY = timedelta(days=1)


def arn_of(kind: str = "app", *, region: str = EU, account: str = ACCOUNT, last: str = "a1") -> str:
    where = f"arn:aws:elasticloadbalancing:{region}:{account}:listener"
    return f"{where}/{kind}/shop/50dc6c495c0c9188/{last}"


class World:
    """An AWS, its name server, and a client of what it serves."""

    def __init__(self, server: Server, nameserver: NameServer, edge: Edge) -> None:
        self.aws = Aws(server)
        self.at: Any = {"session": self.aws.session, "endpoint": server.endpoint}
        self.edge = edge
        self.nameserver = nameserver

    def imported(self, issued: Issued, *, region: str = EU, over: str | None = None) -> str:
        more = {"CertificateArn": over} if over else {}
        answer = self.aws("acm", region).import_certificate(**issued.material, **more)
        arn: str = answer["CertificateArn"]
        return arn

    def add(self, listener: str, *certificates: str) -> None:
        elb = self.aws("elbv2", listener.split(":")[3])
        for arn in certificates:
            elb.add_listener_certificates(
                ListenerArn=listener, Certificates=[{"CertificateArn": arn}]
            )

    def default(self, listener: str, certificate: str) -> None:
        self.aws("elbv2", listener.split(":")[3]).modify_listener(
            ListenerArn=listener, Certificates=[{"CertificateArn": certificate}]
        )

    def point(self, distribution: str, certificate: str) -> None:
        cloudfront = self.aws("cloudfront", US)
        answer = cloudfront.get_distribution_config(Id=distribution)
        viewer = {
            "ACMCertificateArn": certificate,
            "SSLSupportMethod": "sni-only",
            "MinimumProtocolVersion": "TLSv1.2_2021",
        }
        config = {**answer["DistributionConfig"], "ViewerCertificate": viewer}
        cloudfront.update_distribution(
            Id=distribution, IfMatch=answer["ETag"], DistributionConfig=config
        )

    def host(self, resource: str, *, account: str | None = None) -> str:
        """The service's own DNS name of a listener's load balancer, or of a distribution."""
        aws = Aws(self.aws.server, account=account) if account else self.aws
        if not resource.startswith("arn:"):
            name: str = aws("cloudfront", US).get_distribution(Id=resource)["Distribution"][
                "DomainName"
            ]
            return name
        elb = aws("elbv2", resource.split(":")[3])
        (listener,) = elb.describe_listeners(ListenerArns=[resource])["Listeners"]
        balancers = elb.describe_load_balancers(LoadBalancerArns=[listener["LoadBalancerArn"]])
        host: str = balancers["LoadBalancers"][0]["DNSName"]
        return host

    def addresses(self, host: str) -> list[str]:
        """In a stable order, IPv4 before IPv6."""
        found = addresses(self.nameserver.address, host)
        return sorted(found, key=lambda address: (":" in address, address))

    def see(
        self, host: str, name: str | None = NAME, *, port: int = 443, **more: Any
    ) -> list[Shown]:
        """What each address shows."""
        return [
            handshake(self.edge.address, address, port, name, **more)
            for address in self.addresses(host)
        ]

    def shown(self, host: str, name: str | None = NAME, **more: Any) -> str:
        """The fingerprint that all addresses show."""
        (fingerprint,) = {each.fingerprint for each in self.see(host, name, **more)}
        return fingerprint

    def certificate(self, arn: str) -> str:
        """The fingerprint of what ACM has at an ARN."""
        answer = self.aws("acm", arn.split(":")[3]).get_certificate(CertificateArn=arn)
        return fingerprint(answer["Certificate"].encode())


def fingerprint(text: bytes) -> str:
    """Of the first certificate of a PEM text."""
    return x509.load_pem_x509_certificate(text).fingerprint(SHA256()).hex()


def mark(issued: Issued) -> str:
    return fingerprint(issued.certificate)


class Clock:
    """The time as `propagation` has it, moved by hand."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now

    def on(self, time: timedelta) -> None:
        self.now += time


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[NameServer, Edge]]:
    with NameServer() as nameserver, Edge() as edge:
        yield nameserver, edge


@pytest.fixture
def world(server: Server, running: tuple[NameServer, Edge]) -> World:
    return World(server, *running)


@pytest.fixture
def clock(world: World) -> Clock:
    clock = Clock()
    propagation.clock = clock
    return clock


@pytest.fixture
def alb(world: World) -> str:
    return resources.listener(arn_of("app"), **world.at)


@pytest.fixture
def nlb(world: World) -> str:
    return resources.listener(arn_of("net"), **world.at)


@pytest.fixture
def distribution(world: World) -> str:
    return resources.distribution(DISTRIBUTION, NAMES, **world.at)


@pytest.fixture(params=["app", "net"])
def listener(request: pytest.FixtureRequest, world: World) -> str:
    return resources.listener(arn_of(request.param), **world.at)


class TestListeners:
    def test_the_whole_chain_is_shown_as_acm_has_it(
        self, world: World, listener: str, authority: Authority
    ) -> None:
        issued = authority.issue(*NAMES)
        world.add(listener, world.imported(issued))
        for shown in world.see(world.host(listener)):
            chain = b"".join(ssl.DER_cert_to_PEM_cert(each).encode() for each in shown.chain)
            assert chain == issued.certificate + issued.chain

    def test_the_list_is_asked_before_the_default(
        self, world: World, listener: str, authority: Authority
    ) -> None:
        default, listed = authority.issue(*NAMES), authority.issue(*NAMES)
        world.default(listener, world.imported(default))
        host = world.host(listener)
        assert world.shown(host) == mark(default)
        world.add(listener, world.imported(listed))
        assert world.shown(host) == mark(listed)
        assert world.shown(host, "SHOP.example.com") == mark(listed)

    def test_the_default_is_for_no_name_and_for_names_that_nothing_matches(
        self, world: World, listener: str, authority: Authority
    ) -> None:
        default, listed = authority.issue("else.example.com"), authority.issue(*NAMES)
        world.default(listener, world.imported(default))
        world.add(listener, world.imported(listed))
        host = world.host(listener)
        assert world.shown(host, None) == mark(default)
        assert world.shown(host, "unknown.example.com") == mark(default)
        # A wildcard stands for one label, and not for none.
        assert world.shown(host, "a.b.shop.example.com") == mark(default)

    def test_two_listeners_of_one_load_balancer(self, world: World, authority: Authority) -> None:
        first, second = (resources.listener(arn_of(last=last), **world.at) for last in ("a1", "b2"))
        one, other = authority.issue(NAME), authority.issue(NAME)
        world.add(first, world.imported(one))
        world.add(second, world.imported(other))
        host = world.host(first)
        assert host == world.host(second)
        assert world.shown(host, port=443) == mark(one)
        assert world.shown(host, port=444) == mark(other)
        with pytest.raises(ConnectionError, match="502"):
            world.see(host, port=445)

    def test_each_zone_has_an_address_and_dualstack_has_ipv6(self, world: World) -> None:
        plain = resources.listener(arn_of("app"), **world.at)
        dualstack = resources.listener(arn_of("net"), dualstack=True, **world.at)
        assert [":" in each for each in world.addresses(world.host(plain))] == [False, False]
        families = [":" in each for each in world.addresses(world.host(dualstack))]
        assert families == [False, False, True, True]
        assert len(world.see(world.host(dualstack))) == 4

    def test_an_internal_load_balancer_has_addresses_that_nobody_out_here_reaches(
        self, world: World
    ) -> None:
        internal = resources.listener(arn_of(), internal=True, **world.at)
        host = world.host(internal)
        assert host.startswith("internal-")
        assert all(each.startswith("10.") for each in world.addresses(host))
        with pytest.raises(ConnectionError, match="504"):
            world.see(host)

    def test_a_listener_without_tls(self, world: World) -> None:
        plain = resources.listener(arn_of(), protocol="HTTP", **world.at)
        with pytest.raises(ConnectionError, match="502"):
            world.see(world.host(plain))


class TestSmartSelection:
    """The order of the user guides: key, (ALB: expiry), hash, key length, validity."""

    def test_ecdsa_for_clients_that_can_and_rsa_for_the_others(
        self, world: World, listener: str, authority: Authority
    ) -> None:
        rsa, ecdsa = authority.issue(*NAMES, key="RSA_2048"), authority.issue(*NAMES)
        world.add(listener, world.imported(rsa), world.imported(ecdsa))
        host = world.host(listener)
        assert world.shown(host) == mark(ecdsa)
        for family, certificate in (("ECDSA", ecdsa), ("RSA", rsa)):
            client = anything()
            client.maximum_version = ssl.TLSVersion.TLSv1_2
            client.set_ciphers(f"ECDHE+a{family}")
            assert world.shown(host, context=client) == mark(certificate)

    @pytest.mark.parametrize(
        ("offered", "key"),
        [
            ("rsa_pss_rsae_sha256", "RSA_2048"),
            ("ecdsa_secp256r1_sha256", "EC_prime256v1"),
            # The client's order does not count.
            ("rsa_pss_rsae_sha256:ecdsa_secp256r1_sha256", "EC_prime256v1"),
        ],
    )
    def test_tls_1_3_says_it_by_signature_algorithms(
        self, world: World, alb: str, authority: Authority, offered: str, key: str
    ) -> None:
        keys = ("RSA_2048", "EC_prime256v1")
        certificates = {each: authority.issue(*NAMES, key=each) for each in keys}
        world.add(alb, *[world.imported(each) for each in certificates.values()])
        through = "{}:{}".format(*world.edge.address)
        to = f"{world.addresses(world.host(alb))[0]}:443"
        client = f"openssl s_client -tls1_3 -proxy {through} -connect {to} -servername {NAME}"
        done = subprocess.run(
            [*client.split(), "-sigalgs", offered], input=b"", capture_output=True, check=False
        )
        begin = done.stdout.index(b"-----BEGIN CERTIFICATE-----")
        assert fingerprint(done.stdout[begin:]) == mark(certificates[key])

    def test_the_longer_key_then_the_longer_life(
        self, world: World, listener: str, authority: Authority
    ) -> None:
        short = authority.issue(*NAMES, key="RSA_2048", ends=200 * DAY)
        long = authority.issue(*NAMES, key="RSA_3072", ends=50 * DAY)
        longer = authority.issue(*NAMES, key="RSA_3072", ends=60 * DAY)
        host = world.host(listener)
        for issued, expected in ((short, short), (long, long), (longer, longer)):
            world.add(listener, world.imported(issued))
            assert world.shown(host) == mark(expected)

    @pytest.mark.parametrize(("kind", "shows_expired"), [("app", False), ("net", True)])
    def test_an_expired_entry_is_passed_over_by_an_alb_only(
        self, world: World, authority: Authority, clock: Clock, kind: str, shows_expired: bool
    ) -> None:
        listener = resources.listener(arn_of(kind), **world.at)
        old = authority.issue(*NAMES, ends=10 * DAY, starts=-80 * DAY)
        new = authority.issue(*NAMES, ends=60 * DAY, starts=-1 * DAY)
        world.add(listener, world.imported(old), world.imported(new))
        clock.on(11 * DAY)
        expected = old if shows_expired else new
        assert world.shown(world.host(listener)) == mark(expected)

    def test_of_equals_the_older_entry_shows(
        self, world: World, listener: str, authority: Authority
    ) -> None:
        # AWS does not say; what is left behind in a list must not go unseen.
        old, new = (
            authority.issue(*NAMES, starts=-timedelta(1), ends=timedelta(80)) for _ in range(2)
        )
        world.add(listener, world.imported(old), world.imported(new))
        assert world.shown(world.host(listener)) == mark(old)


class TestDistributions:
    def test_aliases_have_the_viewer_certificate(
        self, world: World, distribution: str, authority: Authority
    ) -> None:
        issued = authority.issue(*NAMES)
        world.point(distribution, world.imported(issued, region=US))
        host = world.host(distribution)
        assert world.shown(host, "shop.example.com") == mark(issued)
        assert world.shown(host, NAME) == mark(issued)

    def test_its_own_name_has_cloudfronts_certificate(
        self, world: World, distribution: str
    ) -> None:
        host = world.host(distribution)
        (first, *_) = world.see(host, host)
        assert problem(first.chain, host, datetime.now(UTC)) == ""
        assert "not for" in problem(first.chain, NAME, datetime.now(UTC))

    @pytest.mark.parametrize("name", [None, "unknown.example.com", "example.com"])
    def test_any_other_name_and_none_at_all_are_refused(
        self, world: World, distribution: str, name: str | None
    ) -> None:
        with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
            world.see(world.host(distribution), name)

    def test_ipv4_and_as_long_as_it_is_enabled_ipv6(self, world: World, distribution: str) -> None:
        host = world.host(distribution)
        assert [":" in each for each in world.addresses(host)] == [False, False, True]
        cloudfront = world.aws("cloudfront", US)
        answer = cloudfront.get_distribution_config(Id=distribution)
        config = {**answer["DistributionConfig"], "IsIPV6Enabled": False}
        cloudfront.update_distribution(
            Id=distribution, IfMatch=answer["ETag"], DistributionConfig=config
        )
        assert [":" in each for each in world.addresses(host)] == [False, False]

    def test_only_port_443(self, world: World, distribution: str) -> None:
        with pytest.raises(ConnectionError, match="502"):
            world.see(world.host(distribution), port=8443)


class TestCustomDomains:
    @pytest.mark.parametrize("edge", [False, True], ids=["regional", "edge"])
    def test_a_domain_shows_its_certificate(
        self, world: World, authority: Authority, edge: bool
    ) -> None:
        resources.domain_name(NAME, region=EU, edge=edge, dualstack=True, **world.at)
        gateway = world.aws("apigateway", EU)
        before = gateway.get_domain_name(domainName=NAME)
        host = before["distributionDomainName" if edge else "regionalDomainName"]
        assert [":" in each for each in world.addresses(host)] == [False, False, True]
        assert world.shown(host) == world.certificate(
            before["certificateArn" if edge else "regionalCertificateArn"]
        )
        issued = authority.issue(*NAMES)
        gateway.update_domain_name(
            domainName=NAME,
            patchOperations=[
                {
                    "op": "replace",
                    "path": "/certificateArn" if edge else "/regionalCertificateArn",
                    "value": world.imported(issued, region=US if edge else EU),
                }
            ],
        )
        assert world.shown(host) == mark(issued)

    def test_another_name_gets_what_belongs_to_execute_api(self, world: World) -> None:
        resources.domain_name(NAME, region=EU, **world.at)
        host = world.aws("apigateway", EU).get_domain_name(domainName=NAME)["regionalDomainName"]
        for name in (None, "else.example.com", host):
            for shown in world.see(host, name):
                assert problem(shown.chain, host, datetime.now(UTC)) == ""

    def test_another_name_at_an_edge_is_refused(self, world: World) -> None:
        resources.domain_name(NAME, region=EU, edge=True, **world.at)
        domain = world.aws("apigateway", EU).get_domain_name(domainName=NAME)
        with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
            world.see(domain["distributionDomainName"], "else.example.com")


class TestPropagation:
    def test_at_once_unless_something_else_is_said(
        self, world: World, distribution: str, authority: Authority
    ) -> None:
        first, second = authority.issue(*NAMES), authority.issue(*NAMES)
        arn = world.imported(first, region=US)
        world.point(distribution, arn)
        host = world.host(distribution)
        assert world.shown(host) == mark(first)
        world.imported(second, region=US, over=arn)
        assert world.shown(host) == mark(second)

    def test_a_reimport_arrives_at_one_address_after_the_other(
        self, world: World, distribution: str, authority: Authority, clock: Clock
    ) -> None:
        first, second = authority.issue(*NAMES), authority.issue(*NAMES)
        arn = world.imported(first, region=US)
        world.point(distribution, arn)
        propagation.delays["cloudfront"] = Delay(reimport=timedelta(hours=24))
        host = world.host(distribution)
        ((one, other), (six,)) = self.by_family(world, host)
        world.imported(second, region=US, over=arn)

        def seen() -> list[bool]:
            return [
                handshake(world.edge.address, each, 443, NAME).fingerprint == mark(second)
                for each in (one, other, six)
            ]

        assert seen() == [False, False, False]
        clock.on(timedelta(hours=12) - timedelta(microseconds=1))
        assert seen() == [False, False, False]
        clock.on(timedelta(microseconds=1))
        assert seen() == [True, False, False]
        clock.on(timedelta(hours=12) - timedelta(microseconds=1))
        assert seen() == [True, False, False]
        clock.on(timedelta(microseconds=1))
        assert seen() == [True, True, True]

    def test_a_relink_and_a_reimport_take_their_own_time(
        self, world: World, distribution: str, authority: Authority, clock: Clock
    ) -> None:
        first, second, third = (authority.issue(*NAMES) for _ in range(3))
        world.point(distribution, world.imported(first, region=US))
        propagation.delays["cloudfront"] = Delay(
            reimport=timedelta(hours=24), relink=timedelta(minutes=10)
        )
        host = world.host(distribution)
        arn = world.imported(second, region=US)
        world.point(distribution, arn)
        assert world.shown(host) == mark(first)
        clock.on(timedelta(minutes=10))
        assert world.shown(host) == mark(second)
        world.imported(third, region=US, over=arn)
        clock.on(timedelta(hours=23))
        assert mark(second) in {each.fingerprint for each in world.see(host)}
        clock.on(timedelta(hours=1))
        assert world.shown(host) == mark(third)

    def test_changes_arrive_in_their_order(
        self, world: World, alb: str, authority: Authority, clock: Clock
    ) -> None:
        issued = [authority.issue(*NAMES) for _ in range(4)]
        arn = world.imported(issued[0])
        world.add(alb, arn)
        propagation.delays["elbv2"] = Delay(reimport=timedelta(seconds=60))
        host = world.host(alb)
        for each in issued[1:]:
            world.imported(each, over=arn)
            clock.on(timedelta(seconds=20))
        # 20 seconds after the last, and 60 after the first of them.
        for number in (1, 2, 3):
            assert mark(issued[number]) in {each.fingerprint for each in world.see(host)}
            clock.on(timedelta(seconds=20))
        assert world.shown(host) == mark(issued[3])

    def test_a_listener_and_a_domain_wait_as_well(
        self, world: World, alb: str, authority: Authority, clock: Clock
    ) -> None:
        resources.domain_name(NAME, region=EU, **world.at)
        gateway = world.aws("apigateway", EU)
        domain = gateway.get_domain_name(domainName=NAME)
        placeholder = world.certificate(domain["regionalCertificateArn"])
        issued = authority.issue(*NAMES)
        arn = world.imported(issued)
        default = world.shown(world.host(alb))
        propagation.delays["elbv2"] = Delay(relink=timedelta(minutes=2))
        propagation.delays["apigateway"] = Delay(relink=timedelta(minutes=40))
        world.add(alb, arn)
        gateway.update_domain_name(
            domainName=NAME,
            patchOperations=[{"op": "replace", "path": "/regionalCertificateArn", "value": arn}],
        )
        assert world.shown(world.host(alb)) == default
        clock.on(timedelta(minutes=2))
        assert world.shown(world.host(alb)) == mark(issued)
        assert world.shown(domain["regionalDomainName"]) == placeholder
        clock.on(timedelta(minutes=38))
        assert world.shown(domain["regionalDomainName"]) == mark(issued)

    def test_what_is_still_served_somewhere_is_in_use(
        self, world: World, alb: str, authority: Authority, clock: Clock
    ) -> None:
        old = world.imported(authority.issue(*NAMES))
        world.add(alb, old)
        propagation.delays["elbv2"] = Delay(relink=timedelta(minutes=2))
        elb, acm = world.aws("elbv2"), world.aws("acm")
        elb.remove_listener_certificates(ListenerArn=alb, Certificates=[{"CertificateArn": old}])
        with pytest.raises(acm.exceptions.ResourceInUseException):
            acm.delete_certificate(CertificateArn=old)
        clock.on(timedelta(minutes=2))
        acm.delete_certificate(CertificateArn=old)

    @staticmethod
    def by_family(world: World, host: str) -> tuple[list[str], list[str]]:
        """IPv4 and IPv6, each in the order in which changes arrive."""
        front = fronts.named(host)
        assert front
        found = [str(each) for each in front.addresses]
        assert sorted(found) == sorted(world.addresses(host))
        return [each for each in found if ":" not in each], [each for each in found if ":" in each]


class TestAccounts:
    def test_three_accounts_and_two_regions(self, world: World) -> None:
        seen = {}
        for account in (ACCOUNT, *OTHERS):
            for region in (EU, US):
                arn = resources.listener(
                    arn_of(account=account, region=region), names=[NAME], **world.at
                )
                host = world.host(arn, account=account)
                seen[host] = (world.shown(host), *world.addresses(host))
            distribution = resources.distribution(
                f"E{account}", [f"{account}.example.com"], account=account, **world.at
            )
            host = world.host(distribution, account=account)
            name = f"{account}.example.com"
            seen[host] = (world.shown(host, name), *world.addresses(host))
        assert len(seen) == 9
        # Same names and ids, and still nothing is shared.
        everything = [each for values in seen.values() for each in values]
        assert len(set(everything)) == len(everything)

    def test_a_thousand_load_balancers_do_not_share_an_address(self) -> None:
        owners = [f"arn:aws:elasticloadbalancing:::loadbalancer/{each}" for each in range(3000)]
        given = [each for owner in owners for each in fronts._ipv4(owner, 3)]
        assert len(set(given)) == 9000
        assert given == [each for owner in owners for each in fronts._ipv4(owner, 3)]


class TestTheProxy:
    @pytest.fixture
    def ask(self, world: World) -> Callable[[bytes], bytes]:
        def send(request: bytes) -> bytes:
            with socket.create_connection(world.edge.address, 10) as connection:
                connection.sendall(request)
                with suppress(OSError):
                    # It may have answered, and hung up.
                    connection.shutdown(socket.SHUT_WR)
                answer = b""
                while more := connection.recv(4096):
                    answer += more
                return answer

        return send

    @pytest.mark.parametrize(
        ("line", "status"),
        [
            (b"CONNECT 198.18.0.5:443 HTTP/1.1", b"502"),
            (b"CONNECT [2001:db8::5]:443 HTTP/1.1", b"502"),
            (b"CONNECT shop.example.com:443 HTTP/1.1", b"400"),
            (b"CONNECT 198.18.0.5 HTTP/1.1", b"400"),
            (b"CONNECT 198.18.0.5:port HTTP/1.1", b"400"),
            (b"GET http://198.18.0.5/ HTTP/1.1", b"501"),
            (b"nonsense", b"400"),
        ],
    )
    def test_what_it_refuses(
        self, ask: Callable[[bytes], bytes], line: bytes, status: bytes
    ) -> None:
        assert status in ask(line + b"\r\n\r\n").split(b"\r\n")[0]

    def test_it_answers_one_request(self, world: World, distribution: str) -> None:
        # Python 3.11's client forgets the brackets of an IPv6 address.
        for address in world.addresses(world.host(distribution))[:2]:
            client = http.client.HTTPSConnection(*world.edge.address, context=anything())
            client.set_tunnel(address, 443)
            client.connect = self.naming(client, NAME)  # type: ignore[method-assign]
            client.request("GET", "/")
            answer = client.getresponse()
            assert (answer.status, answer.read()) == (200, b"served by the sandbox\n")
            client.close()

    @staticmethod
    def naming(client: http.client.HTTPSConnection, name: str) -> Callable[[], None]:
        """http.client would ask for the address it tunnels to."""

        def connect() -> None:
            http.client.HTTPConnection.connect(client)
            client.sock = anything().wrap_socket(client.sock, server_hostname=name)

        return connect

    def test_no_session_is_resumed(self, world: World, distribution: str) -> None:
        (address, *_) = world.addresses(world.host(distribution))
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            client = anything()
            client.maximum_version = client.minimum_version = version
            session = None
            for _ in range(2):
                with socket.create_connection(world.edge.address, 10) as raw:
                    raw.sendall(f"CONNECT {address}:443 HTTP/1.1\r\n\r\n".encode())
                    assert raw.recv(4096).endswith(b"\r\n\r\n")
                    with client.wrap_socket(raw, server_hostname=NAME, session=session) as tls:
                        tls.sendall(b"GET / HTTP/1.1\r\n\r\n")
                        assert tls.recv(4096)
                        assert not tls.session_reused
                        session = tls.session

    def test_it_ends_with_connections_open(self, world: World, distribution: str) -> None:
        (address, *_) = world.addresses(world.host(distribution))
        threads = set(threading.enumerate())
        edge = Edge()
        edge.start()
        silent = socket.create_connection(edge.address)
        half = socket.create_connection(edge.address)
        half.sendall(f"CONNECT {address}:443 HTTP/1.1\r\n\r\n".encode())
        assert half.recv(4096).startswith(b"HTTP/1.1 200")
        raw = socket.create_connection(edge.address)
        raw.sendall(f"CONNECT {address}:443 HTTP/1.1\r\n\r\n".encode())
        assert raw.recv(4096).startswith(b"HTTP/1.1 200")
        whole = anything().wrap_socket(raw, server_hostname=NAME)
        edge.stop()
        assert set(threading.enumerate()) <= threads
        for each in (silent, half, whole):
            each.close()
        edge.stop()


class TestVisitor:
    @pytest.fixture
    def visit(self, world: World) -> Callable[[Sequence[Endpoint]], Visitor]:
        def make(endpoints: Sequence[Endpoint], **more: Any) -> Visitor:
            return Visitor(world.edge.address, world.nameserver.address, endpoints, **more)

        return make

    def test_it_sees_every_address_and_name_and_every_change(
        self,
        world: World,
        visit: Callable[..., Visitor],
        alb: str,
        distribution: str,
        authority: Authority,
    ) -> None:
        first, second = authority.issue(*NAMES), authority.issue(*NAMES)
        arn, us = world.imported(first), world.imported(first, region=US)
        world.add(alb, arn)
        world.point(distribution, us)
        names = ("shop.example.com", NAME)
        endpoints = [
            Endpoint(world.host(alb), 443, names),
            Endpoint(world.host(distribution), 443, names),
        ]
        root = pem(authority.root).decode()
        with visit(endpoints, roots=[root]) as visitor:
            before = visitor.a_round()
            # Two addresses of the one, three of the other, with two names each.
            assert len({(each.address, each.server_name) for each in before}) == 10
            assert len(before) == 10
            assert {each.fingerprint for each in before} == {mark(first)}
            world.imported(second, over=arn)
            world.imported(second, region=US, over=us)
            after = visitor.a_round()
            assert {each.fingerprint for each in after} == {mark(second)}
        assert visitor.wrong == []
        assert visitor.fingerprints == [mark(first), mark(second)]

    def test_it_says_what_is_wrong(
        self,
        world: World,
        visit: Callable[..., Visitor],
        alb: str,
        distribution: str,
        authority: Authority,
        clock: Clock,
    ) -> None:
        issued = authority.issue(*NAMES, ends=5 * DAY)
        world.add(alb, world.imported(issued))
        stranger = ssl.DER_cert_to_PEM_cert(world.see(world.host(alb))[0].chain[-1])
        endpoints = {
            "not for": Endpoint(world.host(alb), 443, ("else.example.com",)),
            "no handshake": Endpoint(world.host(distribution), 443, ("else.example.com",)),
            "refuses": Endpoint(world.host(alb), 8443, (NAME,)),
            "no address": Endpoint("gone.eu-central-1.elb.amazonaws.com", 443, (NAME,)),
        }
        for text, endpoint in endpoints.items():
            with visit([endpoint]) as visitor:
                wrong = visitor.a_round()
            assert wrong
            assert all(text in each.wrong or "502" in each.wrong for each in wrong), wrong
        good = Endpoint(world.host(alb), 443, (NAME,))
        (other, _) = resources.throwaway_certificate(["a root of somebody else"])
        with visit([good], roots=[stranger], clock=clock) as visitor:
            assert [each.wrong for each in visitor.a_round()] == ["", ""]
            clock.on(6 * DAY)
            assert all("not valid at" in each.wrong for each in visitor.a_round())
        with visit([good], roots=[other.decode()]) as visitor:
            assert all("is not trusted" in each.wrong for each in visitor.a_round())
