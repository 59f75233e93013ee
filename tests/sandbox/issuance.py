"""A certificate from an ACME CA with the plain `acme` library: what the sandbox's CA is tested
with, so that its faults cannot hide behind those of our own client."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from acme import challenges, client, crypto_util, messages
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from josepy.jwa import ES256
from josepy.jwk import JWKEC

PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)
PATIENCE = timedelta(seconds=30)


@dataclass(frozen=True)
class Issued:
    """PEM blocks, the leaf first; `alternatives` are the CA's other chains."""

    chain: tuple[str, ...]
    alternatives: tuple[tuple[str, ...], ...]


def account(
    directory: str, ca_bundle: Path, *, binding: tuple[str, str] | None = None
) -> client.ClientV2:
    """A client with a new account, bound to an external one by (key id, MAC key) if given."""
    key = JWKEC(key=ec.generate_private_key(ec.SECP256R1()))
    network = client.ClientNetwork(key, alg=ES256)
    # requests takes a path as well, the library's annotation does not.
    network.verify_ssl = str(ca_bundle)  # type: ignore[assignment]
    found = client.ClientV2.get_directory(directory, network)
    made = client.ClientV2(found, network)
    bound = None
    if binding:
        bound = messages.ExternalAccountBinding.from_data(
            key.public_key(), binding[0], binding[1], found
        )
    made.new_account(
        messages.NewRegistration(terms_of_service_agreed=True, external_account_binding=bound)
    )
    return made


def issue(
    acme: client.ClientV2,
    names: Sequence[str],
    publish: Callable[[str, str], None],
    *,
    profile: str | None = None,
) -> Issued:
    """Order, prove by dns-01 (`publish` gets the name and value of each TXT record), and fetch."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    order = acme.new_order(crypto_util.make_csr(pem, list(names)), profile=profile)
    answers = []
    for authorization in order.authorizations:
        for body in authorization.body.challenges:
            if isinstance(body.chall, challenges.DNS01):
                name = body.chall.validation_domain_name(authorization.body.identifier.value)
                publish(name, body.chall.validation(acme.net.key))
                answers.append((body, body.response(acme.net.key)))
    for body, response in answers:
        acme.answer_challenge(body, response)
    # The library wants a naive local time.
    deadline = datetime.now() + PATIENCE
    done = acme.poll_authorizations(order, deadline)
    done = acme.finalize_order(done, deadline, fetch_alternative_chains=True)
    return Issued(
        chain=tuple(PEM.findall(done.fullchain_pem)),
        alternatives=tuple(tuple(PEM.findall(each)) for each in done.alternative_fullchains_pem),
    )
