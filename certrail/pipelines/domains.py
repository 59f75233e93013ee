"""Domain names as a certificate carries them: lower case, A-labels, perhaps a leading wildcard.

What is refused here, a CA would refuse after the order was made, with the whole order
(RFC 5890, 2.3.1; CA/Browser Forum Baseline Requirements, 3.2.2.4 and 7.1.4.2).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

import idna

from certrail.target import Wrong

# A name is at most 253 characters as text, a label 63 (RFC 1035, 2.3.4).
NAME_LIMIT = 253
LABEL_LIMIT = 63
# letsencrypt.org/docs/rate-limits: names in one certificate.
NAMES_LIMIT = 100

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
URL = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?//(?:[^/@]*@)?([^/:?#]+).*", re.IGNORECASE | re.DOTALL)
PORT_OR_PATH = re.compile(r"([^/:?#\[\]]+)(?::[0-9]*)?(?:[/?#].*)?", re.DOTALL)


def normalise(text: str) -> str:
    """The name as it goes into the certificate. Raises Wrong."""
    if not text or text.strip() != text:
        bare = text.strip()
        raise Wrong(
            "a domain is empty" if not bare else f"`{bare}` has spaces around it",
            f"write `{bare}`" if bare else "write a host name, like `shop.example.com`",
        )
    _refuse_url(text)
    _refuse_address(text)
    name = _wildcard_checked(text)
    if name.endswith("."):
        raise Wrong(f"`{text}` ends with a dot", f"write `{text.rstrip('.')}`")
    labels = [_label(label, text) for label in name.removeprefix("*.").split(".")]
    if len(labels) < 2:
        raise Wrong(
            f"`{text}` has too few labels",
            "a certificate needs a name below a public suffix, like `shop.example.com`",
        )
    if labels[-1].isdigit():
        raise Wrong(f"`{text}` ends in a number", "no top-level domain is a number")
    name = ".".join(["*", *labels] if name.startswith("*.") else labels)
    if len(name) > NAME_LIMIT:
        raise Wrong(f"`{text}` is {len(name)} characters long", f"a name has at most {NAME_LIMIT}")
    return name


def covered_by(name: str, names: Sequence[str]) -> str | None:
    """The wildcard among `names` that makes `name` redundant. Boulder, the software of Let's
    Encrypt, refuses an order with both (policy.WellFormedDomainNames and NewOrder)."""
    parent = name.partition(".")[2]
    wildcard = f"*.{parent}"
    return wildcard if not name.startswith("*.") and wildcard in names else None


def _refuse_url(text: str) -> None:
    match = URL.fullmatch(text) or PORT_OR_PATH.fullmatch(text)
    if match and match[1] != text:
        raise Wrong(f"`{text}` is more than a host name", f"write `{match[1]}`")


def _refuse_address(text: str) -> None:
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return
    raise Wrong(
        f"`{text}` is an IP address, and DNS-01 cannot prove an address",
        "write the host name that points to it",
    )


def _wildcard_checked(text: str) -> str:
    if "*" not in text.removeprefix("*."):
        return text
    if text == "*":
        raise Wrong("`*` stands for no name", "write `*.` and a domain, like `*.example.com`")
    parent = text.rpartition("*")[2].partition(".")[2]
    raise Wrong(
        f"`{text}`: a wildcard is the whole leftmost label and nothing else",
        f"write `*.{parent}`" if parent else "write it like `*.example.com`",
    )


def _label(label: str, name: str) -> str:
    """One label in A-label form. Raises Wrong."""
    if not label:
        raise Wrong(f"`{name}` has an empty label", "two dots never follow each other")
    if "_" in label:
        raise Wrong(
            f"`{name}` has an underscore",
            "host names have letters, digits and hyphens; a certificate for this one is not issued",
        )
    if any(character.isspace() for character in label):
        raise Wrong(f"`{name}` has a space in it", "one domain to a list item")
    try:
        if not label.isascii():
            # UTS 46 maps what people type (capitals, full-width forms) to what IDNA 2008 allows.
            label = idna.encode(label, uts46=True).decode("ascii")
            if "." in label:  # an ideographic full stop
                raise Wrong(f"`{name}` has an unusual dot", f"write `{idna.decode(label)}`")
        label = label.lower()
        if label.startswith("xn--"):
            idna.ulabel(label)
    except (idna.IDNAError, UnicodeError):
        raise Wrong(
            f"`{name}`: `{label}` is not a label that IDNA 2008 allows",
            "check the spelling; emoji and symbols are not registered",
        ) from None
    if len(label) > LABEL_LIMIT:
        raise Wrong(
            f"`{name}` has a label of {len(label)} characters", f"a label has at most {LABEL_LIMIT}"
        )
    if label.startswith("-") or label.endswith("-"):
        raise Wrong(
            f"`{name}`: `{label}` starts or ends with a hyphen",
            "a label starts and ends with a letter or a digit",
        )
    if not LABEL.fullmatch(label):
        raise Wrong(
            f"`{name}`: `{label}` is not a host name", "letters, digits and hyphens make a label"
        )
    if label[2:4] == "--" and not label.startswith("xn--"):
        raise Wrong(
            f"`{name}`: `{label}` has hyphens where only `xn--` may",
            "such labels are reserved (RFC 5890, 2.3.1) and CAs refuse them",
        )
    return label
