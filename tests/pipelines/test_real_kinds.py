"""What the real kinds say of a wrong file, to the letter."""

from __future__ import annotations

import pytest

from certrail.errors import PipelinesInvalid
from certrail.pipelines import Pipelines, load
from deployers.kinds.all import AnyTarget

ALB = (
    "arn:aws:elasticloadbalancing:eu-central-1:111111111111:"
    "listener/app/shop/50dc6c495c0c9188/f2f7dc8efc522ab2"
)
NLB = ALB.replace("/app/", "/net/")
# The first target of the first pipeline is on line 6.
FIRST = """\
issuers: {one: {directory: "https://one.example/dir"}}
defaults: {region: eu-central-1}
pipelines:
  - name: shop
    domains: [shop.example.com]
"""
SECOND = "  - name: other\n    domains: [other.example.com]\n"
SERVED = "set this pipeline's `key_type` to one of `ecdsa-p256`, "
TAKEN = "two certificates cannot be in the same place: choose one"
LISTENER = "listener/{}/shop/50dc6c495c0c9188/f2f7dc8efc522ab2"


def targets(*lines: str) -> str:
    return "    targets:\n" + "".join(f"      - {line}\n" for line in lines)


WRONG_FILES = {
    "a distribution's ARN for its id": (
        FIRST
        + targets("{type: cloudfront, distribution: 'arn:aws:cloudfront::1:distribution/E12ABC'}"),
        [
            "7: `arn:aws:cloudfront::1:distribution/E12ABC` is not the id of a distribution → "
            "write `E12ABC`"
        ],
    ),
    "a load balancer for its listener": (
        FIRST + targets("{type: listener, listener: shop}"),
        [
            "7: `shop` is not the ARN of a listener of an ALB or NLB → it looks like "
            "`arn:aws:elasticloadbalancing:eu-central-1:111111111111:"
            "listener/app/shop/50dc6c495c0c9188/f2f7dc8efc522ab2`"
        ],
    ),
    "a listener in no region": (
        FIRST + targets(f"{{type: listener, listener: '{ALB.replace('eu-', 'u-')}'}}"),
        ["7: `u-central-1` is not a region → a region is named like `eu-central-1`"],
    ),
    "secret names that AWS refuses": (
        FIRST
        + targets(
            "{type: secretsmanager, name: '*.example.com'}",
            "{type: secretsmanager, name: shop-online}",
        ),
        [
            "7: `*.example.com` cannot name a secret → leave out `*`: ASCII letters, digits and "
            "`/_+=.@-` only",
            "8: `shop-online` ends in a hyphen and six characters, like the end of a secret's ARN "
            "→ `shop-online/bundle`",
        ],
    ),
    "a region of one kind on another": (
        FIRST + targets("{type: cloudfront, distribution: E12ABC, region: us-east-1}"),
        [
            "7: unknown key `region` in target `cloudfront` → remove it; the keys left are "
            "`account`, `key_type`"
        ],
    ),
    "keys that CloudFront cannot serve": (
        FIRST
        + "    key_type: rsa-4096\n"
        + targets("{type: cloudfront, distribution: E12ABC}")
        + SECOND
        + "    key_type: ecdsa-p384\n"
        + targets("{type: cloudfront, distribution: E34DEF}"),
        [
            f"8: `cloudfront/E12ABC` cannot serve a key of type `rsa-4096` → {SERVED}`rsa-2048`, "
            "`rsa-3072`",
            f"13: `cloudfront/E34DEF` cannot serve a key of type `ecdsa-p384` → {SERVED}"
            "`rsa-2048`, `rsa-3072`",
        ],
    ),
    "a key that an NLB cannot serve, and an ALB can": (
        FIRST
        + "    key_type: rsa-4096\n"
        + targets(
            f"{{type: listener, listener: '{ALB}'}}", f"{{type: listener, listener: '{NLB}'}}"
        ),
        [
            f"9: `{LISTENER.format('net')}` cannot serve a key of type `rsa-4096` → {SERVED}"
            "`ecdsa-p384`, `rsa-2048`, `rsa-3072`"
        ],
    ),
    "places that two pipelines want": (
        FIRST
        + targets(
            "{type: cloudfront, distribution: E12ABC}",
            "{type: secretsmanager, name: tls/shop}",
            f"{{type: listener, listener: '{ALB}', default: true}}",
            "{type: acm}",
        )
        + SECOND
        + targets(
            "{type: cloudfront, distribution: E12ABC}",
            "{type: secretsmanager, name: tls/shop, region: eu-central-1}",
            f"{{type: listener, listener: '{ALB}', default: true}}",
            "{type: acm}",
        ),
        [
            f"14: `cloudfront/E12ABC` belongs to pipeline `shop`, on line 7 → {TAKEN}",
            f"15: `secretsmanager/eu-central-1/tls/shop` belongs to pipeline `shop`, on line 8 → "
            f"{TAKEN}",
            f"16: `{LISTENER.format('app')}/default` belongs to pipeline `shop`, on line 9 → "
            f"{TAKEN}",
        ],
    ),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_a_wrong_file(case: str) -> None:
    text, expected = WRONG_FILES[case]
    with pytest.raises(PipelinesInvalid) as caught:
        load(text, "pipelines.yaml", Pipelines[AnyTarget])
    assert [str(fault) for fault in caught.value.faults] == [
        f"pipelines.yaml:{line}" for line in expected
    ]


def test_two_pipelines_may_share_a_listener() -> None:
    text = (
        FIRST
        + targets(f"{{type: listener, listener: '{ALB}', default: true}}")
        + SECOND
        + targets(f"{{type: listener, listener: '{ALB}'}}")
    )
    assert load(text, "pipelines.yaml", Pipelines[AnyTarget]).pipelines
