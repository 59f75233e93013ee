"""What the real kinds say of a wrong file, to the letter."""

from __future__ import annotations

import json

import pytest
import yaml
from jsonschema import Draft202012Validator

from certrail.errors import PipelinesInvalid
from certrail.pipelines import Opaque, Pipelines, load
from cli.reference import schema
from deployers.kinds.all import AnyTarget

ALB = (
    "arn:aws:elasticloadbalancing:eu-central-1:111111111111:"
    "listener/app/shop/50dc6c495c0c9188/f2f7dc8efc522ab2"
)
IMPORT = "arn:aws:acm:eu-central-1:111111111111:certificate/12345678-1234-1234-1234-123456789012"
NLB = ALB.replace("/app/", "/net/")
# The first target of the first pipeline is on line 6.
FIRST = """\
issuers: {one: {directory: "https://one.example/dir"}}
defaults: {region: eu-central-1}
pipelines:
  - name: shop
    domains: [shop.example.com]
"""
EDGE = "accounts: {edge: {role_arn: 'arn:aws:iam::222222222222:role/certrail'}}\npipelines:"
SECOND = "  - name: other\n    domains: [other.example.com]\n"
SERVED = "set this pipeline's `key_type` to one of `ecdsa-p256`, "
TAKEN = "two certificates cannot be in the same place: choose one"
SHOWN = (
    "clients of `shop.example.com` may be shown the certificate of the target on line {} here, "
    "whose key is of the same kind → take the name from one of the two pipelines, give one an RSA "
    "and the other an ECDSA key, or set `verify: false` here"
)
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
            "`account`, `key_type`, `wave`, `verify`"
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
    "keys that API Gateway cannot serve": (
        FIRST
        + "    key_type: ecdsa-p384\n"
        + targets("{type: apigateway, domain_name: api.example.com}"),
        [
            "8: `apigateway/eu-central-1/api.example.com` cannot serve a key of type `ecdsa-p384` "
            "→ set this pipeline's `key_type` to one of `ecdsa-p256`, `rsa-2048`"
        ],
    ),
    "an import that is never left, and is to be": (
        FIRST + "    rotation: replace\n" + targets(f"{{type: acm, certificate_arn: '{IMPORT}'}}"),
        [
            "8: `acm/eu-central-1` names a resource of yours, which is never left for another → "
            "remove `certificate_arn`, or the pipeline's `rotation: replace`"
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
    "certificates for the same name, of which clients are shown one": (
        FIRST
        + targets(
            f"{{type: listener, listener: '{ALB}', default: true}}",
            f"{{type: listener, listener: '{NLB}', verify: false}}",
        )
        + "  - name: all\n    domains: ['*.example.com']\n"
        + targets(
            f"{{type: listener, listener: '{ALB}'}}",
            f"{{type: listener, listener: '{NLB}'}}",
        )
        + "  - name: large\n    domains: [SHOP.example.com]\n"
        "    key_type: [rsa-2048, rsa-4096, ecdsa-p384]\n"
        + targets(
            f"{{type: listener, listener: '{ALB}'}}",
            f"{{type: listener, listener: '{ALB}', key_type: rsa-4096}}",
            f"{{type: listener, listener: '{ALB}', key_type: ecdsa-p384}}",
        ),
        [
            f"7: {SHOWN.format(12)}",
            f"19: {SHOWN.format(18)}",
            f"20: {SHOWN.format(7)}",
            f"20: {SHOWN.format(12)}",
        ],
    ),
    "labels of one secret, that two pipelines want": (
        FIRST
        + targets(
            "{type: secretsmanager, name: tls/shop, stage: CANARY}",
            "{type: secretsmanager, name: tls/shop}",
            "{type: secretsmanager, name: tls/shop, stage: CANARY}",
        )
        + SECOND
        + targets("{type: secretsmanager, name: tls/shop, stage: BLUE, region: eu-central-1}"),
        [
            "9: `secretsmanager/eu-central-1/tls/shop:CANARY` is a target of this pipeline "
            "already, on line 7 → remove one of the two",
            "13: `secretsmanager/eu-central-1/tls/shop` belongs to pipeline `shop`, on line 7 → "
            f"{TAKEN}",
        ],
    ),
    "a fleet's secret that another pipeline wants": (
        FIRST
        + targets("{type: fleet, name: web, instances: {a: b}, secret: tls/shop}")
        + SECOND
        + targets("{type: secretsmanager, name: tls/shop, region: eu-central-1}"),
        [
            "11: `secretsmanager/eu-central-1/tls/shop` belongs to pipeline `shop`, on line 7 → "
            f"{TAKEN}",
        ],
    ),
    "readers that could never decrypt": (
        FIRST + targets("{type: secretsmanager, name: tls/shop, readers: ['222222222222']}"),
        [
            "7: `readers` in other accounts can never use AWS's own key → add `kms_key`, a key of "
            "yours whose policy lets them decrypt"
        ],
    ),
    "parameter names that AWS refuses": (
        FIRST + targets("{type: parameterstore, name: tls/shop}"),
        [
            "7: `tls/shop` cannot name a parameter → write it like `/tls/shop/bundle`: 2 to 15 "
            "levels, 950 characters at most"
        ],
    ),
    "what is no target at all": (
        FIRST + targets("", "[]", "shop"),
        [
            "7: target 1 is left empty, where a mapping of keys and values is needed → give it a "
            "value, or remove the key",
            "8: target 2 is a list, where a mapping of keys and values is needed → write a mapping "
            "of keys and values",
            "9: target 3 is the text `shop`, where a mapping of keys and values is needed → write "
            "`key: value`, one to a line",
        ],
    ),
    "select and covers": (
        FIRST
        + targets(
            "{type: cloudfront, select: '[*]', covers: true}",
            "{type: listener, covers: false}",
        ),
        [
            "7: there are `select` and `covers` → remove one of the two",
            "8: nothing is selected → set `covers: true`, or give `select`",
        ],
    ),
    "a selection with an address": (
        FIRST + targets("{type: cloudfront, covers: true, distribution: E12ABC}"),
        [
            "7: unknown key `distribution` in selection `cloudfront` → remove it; the keys left "
            "are `select`, `accounts`, `limit`, `key_type`, `wave`, `verify`"
        ],
    ),
    "a selection with the keys of a target": (
        FIRST
        + targets(
            "{type: cloudfront, covers: true, account: edge}",
            "{type: listener, covers: true, region: eu-west-1}",
        ),
        [
            "7: unknown key `account` in selection `cloudfront` → did you mean `accounts`?",
            "8: unknown key `region` in selection `listener` → did you mean `regions`?",
        ],
    ),
    "kinds that are not found": (
        FIRST + targets("{type: acm, covers: true}", "{type: secretsmanager, covers: true}"),
        [
            "7: unknown key `covers` in selection `acm` → remove it; the keys left are `account`, "
            "`key_type`, `wave`, `region`, `certificate_arn`, `tags`",
            "8: selection `secretsmanager` has no `select` → add `select: [?Tags.tls == 'shop']`",
            "8: unknown key `covers` in selection `secretsmanager` → remove it; the keys left are "
            "`select`, `accounts`, `limit`, `key_type`, `wave`, `regions`, `kms_key`, "
            "`replica_regions`, `shape`, `tags`",
        ],
    ),
    "accounts that are not there": (
        FIRST.replace("pipelines:", EDGE)
        + targets(
            "{type: cloudfront, covers: true, accounts: [self, edgy]}",
            "{type: listener, covers: true, accounts: []}",
        ),
        [
            "8: there is no account `edgy` → did you mean `edge`?",
            '9: `accounts` is empty → for example `["self", "edge"]`',
        ],
    ),
    "an account with a name that is taken": (
        FIRST.replace("pipelines:", EDGE.replace("edge", "self")) + targets("{type: acm}"),
        ["3: `self` is the account certrail runs in → choose another name for it"],
    ),
    "limits": (
        FIRST
        + targets(
            "{type: cloudfront, covers: true, limit: 0}",
            "{type: listener, covers: true, limit: many}",
        ),
        [
            "7: `limit` should be greater than or equal to 1",
            "8: `limit` is the text `many`, where a whole number is needed → write a whole number",
        ],
    ),
    "expressions": (
        FIRST
        + targets(
            "{type: cloudfront, select: \"[?Tags.team = 'shop']\"}",
            '{type: cloudfront, select: "DistributionList.Items[*]"}',
            "{type: listener, select: \"[?contains(Tags.team, 'shop')]\"}",
            '{type: secretsmanager, select: "length(@)"}',
            '{type: listener, select: ""}',
        ),
        [
            "7: `[?Tags.team = 'shop']` cannot be applied to a list of distributions (Bad jmespath "
            "expression: Unknown token '=') → it looks like `[?Tags.team == 'shop']`",
            "8: `DistributionList.Items[*]` makes no list → it is given a list, and looks like "
            "`[?Tags.team == 'shop']`",
            "9: `[?contains(Tags.team, 'shop')]` cannot be applied to a list of listeners (In "
            "function contains(), invalid type for value: None, expected one of: ['array', "
            "'string'], received: \"null\") → an item may lack what it looks at: `Tags.team || "
            "''` stands for that",
            "10: `length(@)` makes no list → it is given a list, and looks like "
            "`[?Tags.team == 'shop']`",
            "11: `` cannot be applied to a list of listeners (Invalid JMESPath expression: cannot "
            "be empty.) → it looks like `[?Tags.team == 'shop']`",
        ],
    ),
    "a default that is found out": (
        FIRST + targets("{type: listener, covers: true, default: true}"),
        ["7: with `covers`, `default` is found out for each listener → remove `default`"],
    ),
    "the same twice": (
        FIRST
        + targets(
            "{type: listener, covers: true}",
            "{type: listener, covers: true, limit: 9}",
            "{type: listener, covers: true, regions: eu-west-1}",
        ),
        ["8: this selection is on line 7 already → remove one"],
    ),
    "waves": (
        FIRST
        + "    waves: [{name: canary}, {name: rest}]\n"
        + targets(
            "{type: listener, covers: true, wave: canari}",
            "{type: cloudfront, distribution: E12ABC, wave: canary}",
            "{type: cloudfront, covers: true}",
        ),
        [
            "8: there is no wave `canari` → did you mean `canary`?",
            "10: `cloudfront `covers`` in wave `rest` and `cloudfront/E12ABC` in wave `canary` use "
            "the same import, `acm/us-east-1`, whose content changes for both at once → set "
            "`rotation: replace` for the pipeline, or put both into one wave",
        ],
    ),
    "a key that no distribution serves": (
        FIRST + "    key_type: rsa-4096\n" + targets("{type: cloudfront, covers: true}"),
        [
            "8: `cloudfront `covers`` cannot serve a key of type `rsa-4096` → "
            + SERVED
            + "`rsa-2048`, `rsa-3072`"
        ],
    ),
    "no region to look in": (
        FIRST.replace("defaults: {region: eu-central-1}\n", "")
        + targets("{type: listener, covers: true}"),
        [
            '6: selection `listener` has no `regions` → add `regions: ["eu-central-1"]`, or set '
            "`defaults.region`"
        ],
    ),
    "a region that is none": (
        FIRST + targets("{type: listener, covers: true, regions: [eu-central-1a]}"),
        ["7: `eu-central-1a` is not a region → did you mean `eu-central-1`?"],
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


def test_selections_of_each_kind() -> None:
    text = (
        FIRST.replace("pipelines:", EDGE)
        + "    key_type: [ecdsa-p256, rsa-2048]\n"
        + targets(
            "{type: acm}",
            "{type: cloudfront, covers: true, accounts: edge, limit: 100}",
            "{type: listener, covers: true, regions: [eu-central-1, us-east-1]}",
            "{type: listener, covers: true, key_type: rsa-2048, accounts: [self, edge]}",
            "{type: secretsmanager, select: '[*].Name', shape: '{crt: fullchain}'}",
        )
    )
    ecdsa, rsa = load(text, "pipelines.yaml", Pipelines[AnyTarget]).pipelines
    assert [target.address for target in ecdsa.targets] == ["acm/eu-central-1"]
    assert [str(selection) for selection in ecdsa.selections] == [
        "cloudfront `covers`",
        "listener `covers`",
        "secretsmanager `[*].Name`",
    ]
    assert [[str(at) for at in each.locations] for each in ecdsa.selections] == [
        ["edge, us-east-1"],
        ["self, eu-central-1", "self, us-east-1"],
        ["self, eu-central-1"],
    ]
    assert rsa.targets == ()
    (both,) = rsa.selections
    assert [str(at) for at in both.locations] == ["self, eu-central-1", "edge, eu-central-1"]
    schema_of_the_file = Draft202012Validator(json.loads(schema(Pipelines[AnyTarget])))
    assert not list(schema_of_the_file.iter_errors(yaml.safe_load(text)))
    for right, wrong in {
        "limit: 100": "limit: 0",
        "select: '[*].Name'": "covers: true",
        "covers: true, accounts: edge": "distribution: E1, covers: true",
        "regions: [": "region: [",
    }.items():
        assert right in text
        changed = yaml.safe_load(text.replace(right, wrong))
        assert list(schema_of_the_file.iter_errors(changed)), wrong


def test_the_issuer_reads_a_file_with_selections() -> None:
    text = FIRST + targets("{type: listener, covers: true}", "{type: mystery, select: 1}")
    (pipeline,) = load(text, "pipelines.yaml", Pipelines[Opaque]).pipelines
    assert (pipeline.domains, pipeline.selections) == (("shop.example.com",), ())
