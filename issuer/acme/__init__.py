"""A thin ACME client (RFC 8555, RFC 9773) over the signatures, nonces and messages of `acme`.

What the library leaves out is here: a bad nonce is retried until it passes, `Retry-After` is
honoured wherever the CA sends it, a lost connection or an overloaded CA is tried again, the CA's
problem documents are kept word for word, an order is polled instead of each authorization, and
what is newer than the library: `replaces`, renewal information, dns-persist-01, key rollover.
"""

from issuer.acme.answers import Authorization, Order, RenewalInfo
from issuer.acme.client import Client, reader
from issuer.acme.network import PATIENCE, Unreachable
from issuer.acme.problems import words

__all__ = [
    "PATIENCE",
    "Authorization",
    "Client",
    "Order",
    "RenewalInfo",
    "Unreachable",
    "reader",
    "words",
]
