"""What is asked of a CA: an account, an order, its proof, the certificate, its renewal, its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import requests
from acme import messages
from acme.jws import JWS
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.errors import Error as JoseError
from josepy.jwa import ES256
from josepy.jwk import JWKEC

from certrail.errors import AcmeRefused, CertrailError, DeadlinePassed, IssueError, raise_together
from certrail.pipelines.resolved import Issuer
from issuer.acme import answers
from issuer.acme.answers import Authorization, Order, RenewalInfo
from issuer.acme.network import Network
from issuer.acme.newer import Empty, KeyChange, OrderReplacing, binding, signer
from issuer.acme.problems import refused
from issuer.clock import Backoff, Clock

# How long the other names may take to be judged once one has failed, to report them together.
STRAGGLERS = timedelta(seconds=10)
# A CA that is asked half a second later has usually finished, and is asked once.
FIRST_POLL = 0.25
# A process that lives for days sees a directory that changed.
DIRECTORY_LIVES = timedelta(hours=1)
# The orders of an account that are looked at for one whose address was lost (7.1.2.1).
RECENT_ORDERS, PAGES = 20, 10


class Client:
    """One CA, one account. Not to be shared between threads: its nonces are not.

    account: its URI, empty until it is made. clock: of the run that uses the client now.
    """

    def __init__(
        self, issuer: Issuer, key: JWKEC, clock: Clock, account: str | None = None
    ) -> None:
        self.issuer = issuer
        self._key = key
        self._host = urlsplit(issuer.directory).netloc
        self._network = Network(self._host, key, clock, issuer.root)
        self._directory: messages.Directory | None = None
        self._directory_read_at = datetime.min.replace(tzinfo=UTC)
        self.account = account or ""
        if account:
            self._network.account = answers.registration(account)

    @property
    def clock(self) -> Clock:
        return self._network.clock

    @clock.setter
    def clock(self, clock: Clock) -> None:
        self._network.clock = clock

    @property
    def thumbprint(self) -> bytes:
        """Of the account's key (RFC 7638)."""
        return bytes(self._key.thumbprint())

    # The CA

    @property
    def profiles(self) -> Mapping[str, str] | None:
        """What each profile is, by name; None where the CA has none."""
        return self._meta.profiles or None

    @property
    def domains(self) -> tuple[str, ...]:
        """What the CA calls itself in DNS records (7.1.1, `caaIdentities`)."""
        return tuple(self._meta.caa_identities or ())

    @property
    def has_renewal_info(self) -> bool:
        self._at("newOrder")
        return self._directory is not None and "renewalInfo" in self._directory.to_partial_json()

    # The account

    def new_account(self, email: str | None, mac_key: str | None = None) -> str:
        """The URI of the key's account, which is made where the CA has none for the key (7.3).

        Agrees to the CA's terms of service: to name a CA in pipelines.yaml is to accept them.
        mac_key: of the issuer's external account, base64url.
        """
        url = self._at("newAccount")
        bound = None
        if self.issuer.external_account is not None and mac_key is not None:
            bound = binding(self._key, self.issuer.external_account, mac_key, url)
        elif self._meta.external_account_required:
            raise IssueError(
                "the CA makes accounts only with an external account binding",
                where=self.issuer.name,
                next="Give the issuer its `external_account`",
            )
        message = messages.NewRegistration.from_data(
            email=email, terms_of_service_agreed=True, external_account_binding=bound
        )
        answer = self._network.signed(url, message, "to make an account")
        self.account = answers.location(answer)
        self._network.account = answers.registration(self.account)
        return self.account

    def knows_key(self, key: JWKEC) -> bool:
        """Whether the CA has an account with this key (7.3.1)."""
        network = Network(self._host, key, self.clock, self.issuer.root)
        url = self._at("newAccount")
        network.new_nonce = self._network.new_nonce
        message = messages.NewRegistration(only_return_existing=True)
        try:
            network.signed(url, message, "whether it knows a key")
        except AcmeRefused as error:
            if error.type == "accountDoesNotExist":
                return False
            raise
        return True

    def change_key(self, key: JWKEC) -> None:
        """Let the account have another key (7.3.5)."""
        url = self._at("keyChange")
        change = KeyChange(self.account, self._key.public_key())
        signed = JWS.sign(change.json_dumps(indent=2).encode(), key, ES256, None, url)
        self._network.signed(url, signed, "to change the account's key")
        self._key = self._network.key = key

    def deactivate(self) -> None:
        """End the account for good (7.3.6)."""
        self._at("newAccount")
        message = messages.Registration.from_json({"status": "deactivated"})
        self._network.signed(self.account, message, "to deactivate the account")

    # The order

    def new_order(
        self, domains: Sequence[str], profile: str | None, replaces: str | None = None
    ) -> Order:
        """replaces: the certificate that this one is to take the place of (RFC 9773, 5), by its
        unique identifier (4.1)."""
        names = [messages.Identifier(typ=messages.IDENTIFIER_FQDN, value=name) for name in domains]
        message = OrderReplacing(identifiers=names, profile=profile, replaces=replaces)
        doing = f"to take an order for {_several(domains)}"
        answer = self._network.signed(self._at("newOrder"), message, doing)
        return self._order(answers.location(answer), answer)

    def orders(self) -> list[str]:
        """The account's orders, where the CA lists them (7.1.2.1); it promises no sequence."""
        self._at("newOrder")
        account = self._network.signed(self.account, None, "to show the account")
        url, found = answers.member(account, "orders", str), list[str]()
        for _ in range(PAGES):
            if not url:
                break
            page = self._network.signed(url, None, "to list the account's orders")
            found += answers.member(page, "orders", list) or []
            links = requests.utils.parse_header_links(page.headers.get("Link", ""))
            url = next((each["url"] for each in links if each.get("rel") == "next"), None)
        return found

    def lost_order(self, domains: Sequence[str]) -> Order | None:
        """An order for these names that can still be finalized, where the CA lists orders: one that
        was made by a run that died before it knew its address."""
        try:
            # The CAs that list them put the newest last.
            for url in reversed(self.orders()[-RECENT_ORDERS:]):
                order = self.order(url)
                if order.is_open and order.domains == frozenset(domains):
                    return order
        except AcmeRefused as error:
            # To look for it is a courtesy: without the list it is ordered anew.
            if error.retryable:
                raise
        return None

    def order(self, url: str) -> Order:
        """The order as it stands now."""
        self._at("newOrder")
        return self._order(url, self._network.signed(url, None, "to say how an order stands"))

    def authorizations(self, order: Order) -> tuple[Authorization, ...]:
        return tuple(self._authorization(url) for url in order.authorizations)

    def txt(self, challenge: messages.ChallengeBody) -> str:
        """The text of the challenge's record (8.4)."""
        return str(challenge.chall.validation(self._key))

    def respond(self, authorization: Authorization) -> None:
        """Tell the CA that the record is there."""
        assert authorization.challenge is not None  # noqa: S101  the caller has placed its record
        doing = f"to validate {authorization.name}"
        try:
            self._network.signed(authorization.challenge.uri, Empty(), doing)
        except AcmeRefused:
            # An earlier try arrived although its answer did not: the CA is at it, or done.
            again = self._authorization(authorization.url)
            if again.challenge is None or again.challenge.status == messages.STATUS_PENDING:
                raise

    def validated(self, order: Order) -> Order:
        """Wait until every name of the order is proven. One request a poll, whatever the number of
        names. Raises AcmeRefused, with each failed name's own problem."""
        backoff = Backoff(self.clock, "the CA to validate the names", first=FIRST_POLL)
        while True:
            if order.status == messages.STATUS_INVALID:
                raise_together("the CA did not validate every name", self._invalid(order))
            if order.status != messages.STATUS_PENDING:
                return order
            backoff.pause(order.retry_at)
            order = self.order(order.url)

    def issued(self, order: Order, csr: bytes, domains: Sequence[str]) -> Order:
        """Finalize a ready order, and wait until it is valid. Goes by what the order says, so that
        it may be called again for an order that was finalized before.

        csr: PEM. domains: for the words of an error.
        """
        message = messages.CertificateRequest(csr=x509.load_pem_x509_csr(csr))
        doing = f"to issue for {_several(domains)}"
        backoff = Backoff(self.clock, "the CA to issue the certificate", first=FIRST_POLL)
        while order.status != messages.STATUS_VALID or order.certificate is None:
            if order.status == messages.STATUS_INVALID:
                raise refused(order.problem, doing, self._host)
            if order.status == messages.STATUS_READY:
                try:
                    answer = self._network.signed(order.finalize, message, doing)
                    order = self._order(order.url, answer)
                    continue
                except AcmeRefused as error:
                    # An earlier try arrived although its answer did not: the order tells.
                    if error.type != "orderNotReady":
                        raise
            backoff.pause(order.retry_at)
            order = self.order(order.url)
        return order

    def chains(self, order: Order) -> Iterator[str]:
        """The certificate with its chain, PEM (7.4.2): as the CA prefers it, then each alternate,
        which is asked for when it is looked at."""
        assert order.certificate is not None  # noqa: S101  `issued` has seen to it
        doing = "to hand out the certificate"
        answer = self._network.signed(order.certificate, None, doing)
        yield answers.pem(answer)
        for link in requests.utils.parse_header_links(answer.headers.get("Link", "")):
            if link.get("rel") == "alternate":
                yield answers.pem(self._network.signed(link["url"], None, doing))

    # The certificate

    def renewal_info(self, certificate: str) -> RenewalInfo:
        """When the CA wants a certificate of its own to be renewed. certificate: by its unique
        identifier (RFC 9773, 4.1). Raises AcmeRefused, Unreachable."""
        url = f"{self._at('renewalInfo').rstrip('/')}/{certificate}"
        answer = self._network.fetch(url, "when to renew")
        return answers.renewal_info(answer, self.clock.now())

    def revoke(self, certificate: str, reason: int, key: Any = None) -> None:
        """Revoke a certificate (7.6). certificate: PEM. reason: a CRLReason (RFC 5280, 5.3.1).

        key: the certificate's own private key, for a certificate of another account. Revoked
        already counts as done.
        """
        url = self._at("revokeCert")
        network = self._network
        if key is not None:
            jwk, algorithm = signer(key)
            network = Network(self._host, jwk, self.clock, self.issuer.root, algorithm)
            network.new_nonce = self._network.new_nonce
        message = messages.Revocation(
            certificate=x509.load_pem_x509_certificate(certificate.encode()), reason=reason
        )
        try:
            network.signed(url, message, "to revoke the certificate")
        except AcmeRefused as error:
            if error.type != "alreadyRevoked":
                raise

    # What the CA answers

    def _at(self, name: str) -> str:
        """The URL of one of the directory's resources (7.1.1)."""
        now = self.clock.now()
        if self._directory is None or now - self._directory_read_at > DIRECTORY_LIVES:
            answer = self._network.fetch(self.issuer.directory, "to show its directory")
            try:
                self._directory = messages.Directory.from_json(answer.json())
                self._network.new_nonce = str(self._directory["newNonce"])
                self._directory_read_at = now
            except (ValueError, KeyError, TypeError, AttributeError, JoseError) as error:
                raise IssueError(
                    "this is no ACME directory",
                    where=self.issuer.directory,
                    next="Give the issuer the URL of the CA's directory",
                ) from error
        try:
            return str(self._directory[name])
        except KeyError as error:
            raise IssueError(f"the directory has no {name}", where=self.issuer.directory) from error

    @property
    def _meta(self) -> messages.Directory.Meta:
        self._at("newOrder")
        assert self._directory is not None  # noqa: S101  it was just read
        meta: messages.Directory.Meta = self._directory["meta"]
        return meta

    def _order(self, url: str, answer: requests.Response) -> Order:
        return answers.order(url, answer, self.clock.now())

    def _authorization(self, url: str) -> Authorization:
        answer = self._network.signed(url, None, "to say what it wants proven")
        return answers.authorization(url, answer, self.issuer.validation)

    def _invalid(self, order: Order) -> list[CertrailError]:
        """Why an order became invalid: by name, once every name is judged."""
        backoff = Backoff(self.clock, "the CA to judge the other names")
        until = min(self.clock.now() + STRAGGLERS, self.clock.deadline)
        while True:
            found = self.authorizations(order)
            undecided = any(each.status == messages.STATUS_PENDING for each in found)
            if not undecided or self.clock.now() >= until:
                break
            try:
                backoff.pause()
            except DeadlinePassed:
                break
        failures: list[CertrailError] = [
            refused(each.problem, f"to validate {each.name}", self._host, validating=each.name)
            for each in found
            if each.status not in (messages.STATUS_VALID, messages.STATUS_PENDING)
        ]
        return failures or [refused(order.problem, "to go on with the order", self._host)]


def _several(domains: Sequence[str]) -> str:
    shown = ", ".join(domains[:3])
    return f"{shown} and {len(domains) - 3} more" if len(domains) > 3 else shown


def reader(issuer: Issuer, clock: Clock) -> Client:
    """A client for what nobody has to sign: the directory, and renewal information."""
    return Client(issuer, JWKEC(key=ec.generate_private_key(ec.SECP256R1())), clock)
