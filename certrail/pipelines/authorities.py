"""What is known of the CAs that people name most, so that what cannot work is said when the file is
read, and no request is sent that the CA would refuse.

Sources:
  Let's Encrypt  letsencrypt.org/docs/rate-limits, /docs/staging-environment, /docs/profiles
  directories    the CAs' own pages; go-acme.github.io/lego/advanced/caservers lists them
  AWS            docs.aws.amazon.com/acm/latest/userguide/acm-acme.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import MappingProxyType

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Rate:
    """A token bucket: `burst` at once, and as many again over `period`, one by one."""

    burst: int
    period: timedelta

    @property
    def refill(self) -> timedelta:
        """The time after which one more is there."""
        return self.period / self.burst


@dataclass(frozen=True)
class Limits:
    """What a CA counts. None: without limit.

    orders: new orders of an account. certificates: of a registered domain, whoever orders them.
    duplicates: of exactly the same names. failures: failed validations of one name.
    """

    orders: Rate | None = None
    certificates: Rate | None = None
    duplicates: Rate | None = None
    failures: Rate | None = None


NO_LIMITS = Limits()


@dataclass(frozen=True)
class Profile:
    """life: of its certificates. names: the most it takes in one."""

    life: timedelta
    names: int = 100


@dataclass(frozen=True)
class Authority:
    """directory: empty where it differs from customer to customer.
    bound: whether an account needs an external account binding (RFC 8555, 7.3.4).
    profiles: by name, where they are known; "" is what an order without a profile gets.
    trusted: whether clients have its root.
    """

    directory: str
    bound: bool = False
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    limits: Limits = NO_LIMITS
    trusted: bool = True


# Lives as of 2026-11; `classic` becomes 64 days on 2027-02-10 and 45 on 2028-02-16.
LETS_ENCRYPT = MappingProxyType(
    {
        "": Profile(90 * DAY),
        "classic": Profile(90 * DAY),
        "tlsserver": Profile(45 * DAY, names=25),
        "shortlived": Profile(160 * HOUR, names=25),
    }
)
NINETY_DAYS = MappingProxyType({"": Profile(90 * DAY)})

AUTHORITIES: Mapping[str, Authority] = MappingProxyType(
    {
        "letsencrypt": Authority(
            "https://acme-v02.api.letsencrypt.org/directory",
            profiles=LETS_ENCRYPT,
            limits=Limits(
                orders=Rate(300, 3 * HOUR),
                certificates=Rate(50, 7 * DAY),
                duplicates=Rate(5, 7 * DAY),
                failures=Rate(5, HOUR),
            ),
        ),
        "letsencrypt-staging": Authority(
            "https://acme-staging-v02.api.letsencrypt.org/directory",
            profiles=LETS_ENCRYPT,
            limits=Limits(
                orders=Rate(1500, 3 * HOUR),
                certificates=Rate(30_000, 7 * DAY),
                duplicates=Rate(30_000, 7 * DAY),
                failures=Rate(200, HOUR),
            ),
            trusted=False,
        ),
        "zerossl": Authority("https://acme.zerossl.com/v2/DV90", bound=True, profiles=NINETY_DAYS),
        "google": Authority(
            "https://dv.acme-v02.api.pki.goog/directory", bound=True, profiles=NINETY_DAYS
        ),
        "sslcom-ecc": Authority("https://acme.ssl.com/sslcom-dv-ecc", bound=True),
        "sslcom-rsa": Authority("https://acme.ssl.com/sslcom-dv-rsa", bound=True),
        "actalis": Authority(
            "https://acme-api.actalis.com/acme/directory", bound=True, profiles=NINETY_DAYS
        ),
        # Each endpoint has a directory of its own.
        "aws-acm": Authority("", bound=True),
    }
)

_BY_DIRECTORY = {each.directory: each for each in AUTHORITIES.values() if each.directory}


def authority(ca: str | None, directory: str | None) -> Authority:
    """What is known of an issuer's CA, found by its name or by its directory."""
    if ca is not None:
        known = AUTHORITIES[ca]
        return replace(known, directory=known.directory or directory or "")
    return _BY_DIRECTORY.get(directory or "", Authority(directory or ""))
