from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certrail.pipelines.domains import covered_by, normalise
from certrail.target import Wrong


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("shop.example.com", "shop.example.com"),
        ("Shop.EXAMPLE.com", "shop.example.com"),
        ("*.example.com", "*.example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("Bücher.example", "xn--bcher-kva.example"),
        ("*.straße.example", "*.xn--strae-oqa.example"),
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("1.example.com", "1.example.com"),
        ("a" * 63 + ".example.com", "a" * 63 + ".example.com"),
    ],
)
def test_a_name_as_the_certificate_has_it(text: str, name: str) -> None:
    assert normalise(text) == name
    assert normalise(name) == name


@pytest.mark.parametrize(
    ("text", "what", "right"),
    [
        ("", "a domain is empty", "write a host name, like `shop.example.com`"),
        (" a.example.com", "`a.example.com` has spaces around it", "write `a.example.com`"),
        ("a b.example.com", "`a b.example.com` has a space in it", "one domain to a list item"),
        (
            "https://a.example.com/x",
            "`https://a.example.com/x` is more than a host name",
            "write `a.example.com`",
        ),
        ("//a.example.com", "`//a.example.com` is more than a host name", "write `a.example.com`"),
        (
            "https://user@a.example.com:8443",
            "`https://user@a.example.com:8443` is more than a host name",
            "write `a.example.com`",
        ),
        (
            "a.example.com:443",
            "`a.example.com:443` is more than a host name",
            "write `a.example.com`",
        ),
        ("a.example.com/x", "`a.example.com/x` is more than a host name", "write `a.example.com`"),
        ("a.example.com.", "`a.example.com.` ends with a dot", "write `a.example.com`"),
        (
            "203.0.113.7",
            "`203.0.113.7` is an IP address, and DNS-01 cannot prove an address",
            "write the host name that points to it",
        ),
        (
            "2001:db8::7",
            "`2001:db8::7` is an IP address, and DNS-01 cannot prove an address",
            "write the host name that points to it",
        ),
        ("1.2.3.4.5", "`1.2.3.4.5` ends in a number", "no top-level domain is a number"),
        ("*", "`*` stands for no name", "write `*.` and a domain, like `*.example.com`"),
        (
            "a.*.example.com",
            "`a.*.example.com`: a wildcard is the whole leftmost label and nothing else",
            "write `*.example.com`",
        ),
        (
            "*.*.example.com",
            "`*.*.example.com`: a wildcard is the whole leftmost label and nothing else",
            "write `*.example.com`",
        ),
        (
            "a*.example.com",
            "`a*.example.com`: a wildcard is the whole leftmost label and nothing else",
            "write `*.example.com`",
        ),
        (
            "*.com",
            "`*.com` has too few labels",
            "a certificate needs a name below a public suffix, like `shop.example.com`",
        ),
        (
            "localhost",
            "`localhost` has too few labels",
            "a certificate needs a name below a public suffix, like `shop.example.com`",
        ),
        (
            "a..example.com",
            "`a..example.com` has an empty label",
            "two dots never follow each other",
        ),
        (".example.com", "`.example.com` has an empty label", "two dots never follow each other"),
        (
            "a_b.example.com",
            "`a_b.example.com` has an underscore",
            "host names have letters, digits and hyphens; a certificate for this one is not issued",
        ),
        (
            "-a.example.com",
            "`-a.example.com`: `-a` starts or ends with a hyphen",
            "a label starts and ends with a letter or a digit",
        ),
        (
            "a!.example.com",
            "`a!.example.com`: `a!` is not a host name",
            "letters, digits and hyphens make a label",
        ),
        (
            "ab--c.example.com",
            "`ab--c.example.com`: `ab--c` has hyphens where only `xn--` may",
            "such labels are reserved (RFC 5890, 2.3.1) and CAs refuse them",
        ),
        (
            "💩.example.com",
            "`💩.example.com`: `💩` is not a label that IDNA 2008 allows",
            "check the spelling; emoji and symbols are not registered",
        ),
        (
            "xn--999999999.example.com",
            "`xn--999999999.example.com`: `xn--999999999` is not a label that IDNA 2008 allows",
            "check the spelling; emoji and symbols are not registered",
        ),
        (
            "a" * 64 + ".example.com",
            f"`{'a' * 64}.example.com` has a label of 64 characters",
            "a label has at most 63",
        ),
        (
            ".".join(["a" * 50] * 5),
            f"`{'.'.join(['a' * 50] * 5)}` is 254 characters long",
            "a name has at most 253",
        ),
    ],
)
def test_what_no_certificate_has(text: str, what: str, right: str) -> None:
    with pytest.raises(Wrong) as caught:
        normalise(text)
    assert (caught.value.what, caught.value.right) == (what, right)


LABELS = st.from_regex(r"[a-z0-9]([a-z0-9]{0,3}[a-z0-9])?", fullmatch=True)
NAMES = st.builds(
    lambda wildcard, labels, top: ".".join(["*"] * wildcard + labels + [top]),
    st.booleans(),
    st.lists(LABELS, min_size=1, max_size=5),
    st.sampled_from(["com", "example", "xn--zckzah"]),
)


@settings(deadline=None)
@given(NAMES)
def test_a_host_name_is_itself_in_any_case(name: str) -> None:
    assert normalise(name) == name
    assert normalise(name.upper()) == name


@settings(deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_a_name_or_wrong(text: str) -> None:
    try:
        name: str | Wrong = normalise(text)
    except Wrong as wrong:
        name = wrong
    if isinstance(name, Wrong):
        assert name.what
        assert name.right
    else:
        assert name.isascii()
        assert normalise(name) == name


def test_a_wildcard_covers_one_label() -> None:
    names = ["*.example.com", "a.example.com", "example.com", "b.a.example.com"]
    assert covered_by("a.example.com", names) == "*.example.com"
    assert covered_by("example.com", names) is None
    assert covered_by("b.a.example.com", names) is None
    assert covered_by("*.example.com", names) is None
