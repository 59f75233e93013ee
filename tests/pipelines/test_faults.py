"""Wrong files, and what somebody who wrote one is told, to the letter."""

from __future__ import annotations

import pytest

from certrail.errors import PipelinesInvalid
from certrail.pipelines import load
from tests.pipelines.kinds import File

ISSUER = "issuers: {one: {directory: 'https://one.example/dir'}}\n"
# One pipeline, whose first key of its own is on line 4.
ONE = ISSUER + "pipelines:\n  - name: a\n"
SHOP = ONE + "    domains: [a.example.com]\n"
# Its first target is on line 6.
TARGETS = SHOP + "    targets:\n"
TWO = (
    ISSUER
    + "pipelines:\n"
    + "  - {name: a, domains: [a.example.com], targets: [%s]}\n"
    + "  - {name: b, domains: [b.example.com], targets: [%s]}\n"
)
BOTH = (
    "issuers:\n"
    "  one: {directory: 'https://one.example/dir'}\n"
    "  two: {directory: 'https://two.example/dir'}\n"
    "pipelines:\n  - name: a\n    domains: [a.example.com]\n"
)
LE = SHOP.replace("directory: 'https://one.example/dir'", "ca: letsencrypt%s")
# Its first zone is on line 6.
ZONES = SHOP + "zones:\n"
START = "start it with `issuers:` and `pipelines:`"
SYNTAX = "look at the indentation, quotes and colons up to here"
LIST_NEEDED = "where a list is needed"
ARN = "arn:aws:secretsmanager:eu-central-1:111111111111:secret:one-AbCdEf"
A_SECRET = (
    "put it into Secrets Manager or Parameter Store, and give "
    "`arn:aws:secretsmanager:…:secret:…` or `arn:aws:ssm:…:parameter/…`"
)
BOUND = "add `external_account:` with its `key_id` and the ARN of its `secret`"
TEXT_NEEDED = "where text is needed"
CAS = (
    "`letsencrypt`, `letsencrypt-staging`, `zerossl`, `google`, `sslcom-ecc`, `sslcom-rsa`, "
    "`actalis`, `aws-acm`"
)
NAME_A_CA = f"add `directory:`, or `ca:` with one of {CAS}"
MAPPING_NEEDED = "where a mapping of keys and values is needed"

CAS_SORTED = (
    "`actalis`, `aws-acm`, `google`, `letsencrypt`, `letsencrypt-staging`, `sslcom-ecc`, "
    "`sslcom-rsa`, `zerossl`"
)
CAS_OR = CAS.replace(", `aws", " or `aws")


def names(count: int) -> str:
    return "[" + ", ".join(f"n{number}.example.com" for number in range(count)) + "]"


WRONG_FILES: dict[str, tuple[str | bytes, list[str]]] = {
    "empty": ("", [f"1: the file is empty → {START}"]),
    "comments only": ("# soon\n\n", [f"1: the file is empty → {START}"]),
    "a list": ("# mine\n- name: a\n", [f"2: the file is a list at the top → {START}"]),
    "a word": ("hello\n", [f"1: the file is one piece of text at the top → {START}"]),
    "not UTF-8": (
        b"issuers:\n  \xe9t\xe9: {}\n",
        ["2: this is not UTF-8 text → save the file as UTF-8"],
    ),
    "a control character": (
        "a: é\nb: \x07\n",
        ["2: there is a control character in the text → remove the character"],
    ),
    "a tab": (
        "issuers:\n\tone: {}\n",
        ["2: a tab indents this line → YAML indents with spaces only"],
    ),
    "an open quote": (
        "issuers:\n  one: {directory: 'https://}\n",
        [f"2: this is not YAML: found unexpected end of stream → {SYNTAX}"],
    ),
    "two colons": (
        "issuers:\n  a: b: c\n",
        [f"2: this is not YAML: mapping values are not allowed in this context → {SYNTAX}"],
    ),
    "two documents": (
        "issuers: {}\n---\npipelines: []\n",
        ["2: the file has a second YAML document → remove the line `---`"],
    ),
    "a wildcard without quotes": (
        ONE + "    domains: [a.example.com, *.a.example.com]\n",
        [
            "4: a wildcard must be in quotes → without them `*` means something else to YAML: "
            'write "*.example.com"'
        ],
    ),
    "an alias": (
        "a: &x {k: v}\nb: *x\nc:\n  <<: *x\n",
        [
            "2: `*x` is a YAML alias, which is not read here → write the value out; a wildcard is "
            'in quotes: "*.x"',
            "4: `<<` is not read here → write the keys out, or use `defaults`",
            "4: `*x` is a YAML alias, which is not read here → write the value out; a wildcard is "
            'in quotes: "*.x"',
        ],
    ),
    "an alias to itself": (
        "a: &x [*x]\n",
        [
            "1: `*x` is a YAML alias, which is not read here → write the value out; a wildcard is "
            'in quotes: "*.x"'
        ],
    ),
    "a tag": (
        "a: !!python/object:os.system {}\n",
        [
            "1: the YAML tag `tag:yaml.org,2002:python/object:os.system` is not read here → "
            "remove the tag"
        ],
    ),
    "too deep to be meant": (
        "issuers:\n  one: " + "[" * 100_000 + "\n",
        ["2: the file is nested too deeply → no key of it is that deep"],
    ),
    "an alias, a tag and an open bracket": (
        "a: &x 1\nb: *x\nc: !mine d\ne: [1\n",
        [
            "2: `*x` is a YAML alias, which is not read here → write the value out; a wildcard is "
            'in quotes: "*.x"',
            "3: the YAML tag `!mine` is not read here → remove the tag",
            f"4: this is not YAML: did not find expected ',' or ']' → {SYNTAX}",
        ],
    ),
    "a duplicate key": (
        SHOP + "    name: b\n",
        ["5: `name` is given twice, first on line 3 → keep one of the two"],
    ),
    "a list as a key": (
        SHOP + "    [x]: y\n",
        ["5: a list or a mapping cannot be a key → keys are plain words"],
    ),
    "nothing needed is there": (
        "defaults: {}\n",
        [
            "1: the file has no `issuers` → add `issuers:`",
            "1: the file has no `pipelines` → add `pipelines:`",
        ],
    ),
    "nothing in what is needed": (
        "issuers: {}\npipelines: []\n",
        [
            "1: `issuers` is empty → write at least one",
            "2: `pipelines` is empty → write at least one",
        ],
    ),
    "headings without anything": (
        "issuers:\npipelines:\ndefaults:\n",
        [
            f"1: `issuers` is left empty, {MAPPING_NEEDED} → give it a value, or remove the key",
            f"2: `pipelines` is left empty, {LIST_NEEDED} → give it a value, or remove the key",
            f"3: `defaults` is left empty, {MAPPING_NEEDED} → give it a value, or remove the key",
        ],
    ),
    "a misspelt heading": (
        "isuers: {one: {directory: 'https://one.example/dir'}}\n"
        "pipelines: [{name: a, domains: [a.example.com]}]\n",
        ["1: unknown key `isuers` in the file → did you mean `issuers`?"],
    ),
    "an unknown key like none": (
        SHOP + "    colour: red\n",
        [
            "5: unknown key `colour` in pipeline `a` → remove it; the keys left are `issuer`, "
            "`incoming`, `key_type`, `profile`, `renew_before`, `rotation`, `waves`, `targets`"
        ],
    ),
    "a misspelt key that is needed": (
        ONE + "    domain: [a.example.com]\n",
        ["4: unknown key `domain` in pipeline `a` → did you mean `domains`?"],
    ),
    "a missing key": (
        ONE + "    targets: []\n",
        ['3: pipeline `a` has no `domains` → add `domains: ["shop.example.com"]`'],
    ),
    "a missing name": (
        ISSUER + "pipelines:\n  -\n    domains: [a.example.com]\n",
        ["4: pipeline 1 has no `name` → add `name: shop`"],
    ),
    "pipelines as a mapping": (
        ISSUER + "pipelines:\n  name: a\n  domains: [a.example.com]\n",
        [
            f"2: `pipelines` is a mapping of keys and values, {LIST_NEEDED} → put `- ` before its "
            "first key"
        ],
    ),
    "a pipeline that is a word": (
        ISSUER + "pipelines:\n  - shop\n",
        [f"3: pipeline 1 is the text `shop`, {MAPPING_NEEDED} → write `key: value`, one to a line"],
    ),
    "a name that is a number": (
        ISSUER + "pipelines:\n  - name: 12\n    domains: [a.example.com]\n",
        [f'3: `name` is the number `12`, {TEXT_NEEDED} → put it in quotes: "12"'],
    ),
    "a name that is a no": (
        ISSUER + "pipelines:\n  - name: no\n    domains: [a.example.com]\n",
        [f"3: `name` is `false` to YAML, {TEXT_NEEDED} → put it in quotes, as it was written"],
    ),
    "a name that cannot be": (
        ISSUER + "pipelines:\n  - name: a/b\n    domains: [a.example.com]\n",
        [
            "3: `a/b` cannot name a pipeline → up to 100 letters, digits, `.`, `-` and `_`; `*.` "
            "only in front"
        ],
    ),
    "a name in use": (
        SHOP + "  - name: a\n    domains: [b.example.com]\n",
        [
            "5: the name `a` is taken by the pipeline on line 3 → every pipeline has a name of its "
            "own"
        ],
    ),
    "a name with the same key in the bucket": (
        ISSUER
        + "pipelines:\n"
        + '  - {name: "*.a.example", domains: [a.example.com]}\n'
        + "  - {name: _wildcard.a.example, domains: [b.example.com]}\n",
        [
            "4: the name `_wildcard.a.example` is taken by the pipeline on line 3 → every pipeline "
            "has a name of its own"
        ],
    ),
    "one domain outside a list": (
        ONE + "    domains: a.example.com\n",
        [f'4: `domains` is the text `a.example.com`, {LIST_NEEDED} → write `["a.example.com"]`'],
    ),
    "no domains": (
        ONE + "    domains: []\n",
        ['4: `domains` is empty → for example `["shop.example.com"]`'],
    ),
    "too many domains": (
        ONE + "    domains:\n" + "".join(f"      - a{n}.example.com\n" for n in range(101)),
        ["4: `domains` has 101 entries → at most 100 are possible"],
    ),
    "bad domains, each on its line": (
        ONE
        + "    domains:\n"
        + "      - https://a.example.com/\n"
        + "      - a_b.example.com\n"
        + "      - 12\n"
        + '      - "*"\n'
        + "      - 203.0.113.7\n",
        [
            "5: `https://a.example.com/` is more than a host name → write `a.example.com`",
            "6: `a_b.example.com` has an underscore → host names have letters, digits and hyphens; "
            "a certificate for this one is not issued",
            f'7: `domains`, item 3, is the number `12`, {TEXT_NEEDED} → put it in quotes: "12"',
            "8: `*` stands for no name → write `*.` and a domain, like `*.example.com`",
            "9: `203.0.113.7` is an IP address, and DNS-01 cannot prove an address → write the "
            "host name that points to it",
        ],
    ),
    "a domain twice": (
        ONE + "    domains:\n      - a.example.com\n      - a.example.com\n",
        ["6: `a.example.com` is listed twice, first on line 5 → remove one"],
    ),
    "a domain twice, spelled in two ways": (
        ONE + "    domains:\n      - xn--bcher-kva.example\n      - Bücher.example\n",
        [
            "6: `Bücher.example` is `xn--bcher-kva.example`, which is listed twice, first on line "
            "5 → remove one"
        ],
    ),
    "a domain under its own wildcard": (
        ONE + '    domains:\n      - a.example.com\n      - example.com\n      - "*.example.com"\n',
        [
            "5: `a.example.com` is covered by `*.example.com` of the same certificate → remove it: "
            "Let's Encrypt refuses an order with both"
        ],
    ),
    "an unknown issuer": (
        SHOP + "    issuer: won\n",
        ["5: there is no issuer `won` → did you mean `one`?"],
    ),
    "an unknown default issuer": (
        SHOP + "defaults:\n  issuer: letsencrypt\n",
        ["6: there is no issuer `letsencrypt` → there is `one`"],
    ),
    "certificates from elsewhere among issuers": (
        SHOP + "    issuer: [one, incoming]\n",
        ["5: `incoming` is no issuer to try among others → give it alone, or remove it"],
    ),
    "an issuer that is called incoming": (
        "issuers:\n  incoming: {directory: 'https://one.example/dir'}\n"
        "pipelines: [{name: a, domains: [a.example.com], issuer: incoming}]\n",
        [
            "2: `incoming` is the issuer of certificates that come from elsewhere → choose another "
            "name for it"
        ],
    ),
    "how it comes in where it does not": (
        SHOP + "    incoming: {}\n",
        [
            "5: this pipeline's certificate is not from elsewhere → set `issuer: incoming`, or "
            "remove `incoming:`"
        ],
    ),
    "an order for what is not ordered": (
        "pipelines:\n  - name: a\n    domains: [a.example.com]\n    issuer: incoming\n"
        "    profile: tlsserver\n",
        [
            "5: a profile is for an order, and this certificate is not ordered here → remove it",
        ],
    ),
    "a certificate of ACM with a password and two keys": (
        "pipelines:\n  - name: a\n    domains: [a.example.com]\n    issuer: incoming\n"
        "    key_type: [rsa-2048, ecdsa-p256]\n    incoming:\n"
        "      certificate_arn: arn:aws:acm:us-east-1:111111111111:certificate/1\n"
        f"      password_secret: {ARN}\n",
        [
            "5: one certificate of ACM has one key, and here are 2 types → give the one that it "
            "has",
            "8: what is exported from ACM has no password of yours → remove it, or "
            "`certificate_arn`",
        ],
    ),
    "what is no ARN of a certificate": (
        "pipelines:\n  - name: a\n    domains: [a.example.com]\n    issuer: incoming\n"
        "    incoming:\n      certificate_arn: arn:aws:iam::111111111111:server-certificate/a\n"
        "      pasword_secret: x\n",
        [
            "6: `arn:aws:iam::111111111111:server-certificate/a` is not the ARN of a certificate "
            "in ACM → it looks like `arn:aws:acm:us-east-1:111111111111:certificate/…`",
            "7: unknown key `pasword_secret` in `incoming` → did you mean `password_secret`?",
        ],
    ),
    "no issuers for what is ordered": (
        "pipelines:\n  - {name: a, domains: [a.example.com], issuer: incoming}\n"
        "  - {name: b, domains: [b.example.com]}\n",
        ["1: the file has no `issuers` → add `issuers:`"],
    ),
    "an undecided issuer": (
        "issuers:\n"
        "  one: {directory: 'https://one.example/dir'}\n"
        "  two: {directory: 'https://two.example/dir'}\n"
        "pipelines:\n"
        "  - {name: a, domains: [a.example.com], issuer: one}\n"
        "  - {name: b, domains: [b.example.com]}\n",
        [
            "6: there are 2 issuers, and nothing says which one to use → add `issuer:` here, or "
            "set `defaults.issuer` for all"
        ],
    ),
    "a bad issuer": (
        "issuers:\n"
        "  one:\n"
        "    directory: http://one.example/dir\n"
        "    email: mailto:ops@example.com\n"
        "    key_type: rsa2048\n"
        '    profile: ""\n'
        "  two/2: {}\n"
        "pipelines: [{name: a, domains: [a.example.com], issuer: one}]\n",
        [
            "3: `http://one.example/dir` is not an https URL → give the CA's directory, like "
            "`https://acme-v02.api.letsencrypt.org/directory`",
            "4: `mailto:ops@example.com` is not an e-mail address → write `ops@example.com`",
            "5: there is no key type `rsa2048` → did you mean `rsa-2048`?",
            "6: the value is empty → give it a value, or remove the key",
            f"7: issuer `two/2` names no CA → {NAME_A_CA}",
            "7: `two/2` cannot be a name here → up to 100 letters, digits, `.`, `-` and `_`, a "
            "letter or digit in front",
        ],
    ),
    "an e-mail address without a host": (
        "issuers: {one: {directory: 'https://one.example/dir', email: ops}}\n"
        "pipelines: [{name: a, domains: [a.example.com]}]\n",
        ["1: `ops` is not an e-mail address → one address, like `ops@example.com`"],
    ),
    "a bad account": (
        SHOP
        + "accounts:\n  edge:\n    role_arn: arn:aws:iam::2:role/certrail\n    external_id: a b\n",
        [
            "7: `arn:aws:iam::2:role/certrail` is not the ARN of a role → it looks like "
            "`arn:aws:iam::222222222222:role/certrail`",
            "8: `a b` cannot be an external id → 2 to 1224 letters, digits and `+=,.@:/-_`, as in "
            "the role's trust policy",
        ],
    ),
    "an unknown account": (
        TARGETS + "      - {type: edge, site: E1, account: egde}\naccounts:\n"
        "  edge: {role_arn: 'arn:aws:iam::222222222222:role/certrail'}\n",
        ["6: there is no account `egde` → did you mean `edge`?"],
    ),
    "an account where there are none": (
        TARGETS + "      - type: edge\n        site: E1\n        account: edge\n",
        ["8: there is no account `edge` → add it under `accounts:` at the top"],
    ),
    "a misspelt type": (
        TARGETS + "      - type: valt\n",
        ["6: there is no target type `valt` → did you mean `vault`?"],
    ),
    "a type like none": (
        TARGETS + "      - type: nginx\n",
        ["6: there is no target type `nginx` → there is `box`, `edge`, `vault`"],
    ),
    "no type": (
        TARGETS + "      - site: E1\n",
        ["6: target 1 has no `type` → add `type:`, one of `box`, `edge`, `vault`"],
    ),
    "a misspelt `type`": (
        TARGETS + "      - site: E1\n        tpye: edge\n",
        ["7: target 1 has no `type` → write `type:` for `tpye:`"],
    ),
    "a target that is a word": (
        TARGETS + "      - vault\n",
        [f"6: target 1 is the text `vault`, {MAPPING_NEEDED} → write `key: value`, one to a line"],
    ),
    "targets as a mapping": (
        SHOP + "    targets:\n      type: vault\n",
        [
            f"5: `targets` is a mapping of keys and values, {LIST_NEEDED} → put `- ` before its "
            "first key"
        ],
    ),
    "a region nowhere": (
        TARGETS + "      - type: vault\n",
        [
            "6: target `vault` has no `region` → add `region: eu-central-1`, or set "
            "`defaults.region`"
        ],
    ),
    "a region misspelt, and for all": (
        TARGETS
        + "      - type: vault\n"
        + "      - {type: box, name: x, region: EU-west-1, copies: [Frankfurt]}\n"
        + "defaults:\n  region: eu-central-1a\n",
        [
            "7: `EU-west-1` is not a region → did you mean `eu-west-1`?",
            "7: `Frankfurt` is not a region → a region is named like `eu-central-1`",
            "9: `eu-central-1a` is not a region → did you mean `eu-central-1`?",
        ],
    ),
    "what a kind refuses": (
        TARGETS
        + "      - type: box\n        name: TLS\n        region: eu-west-1\n        depth: 0\n"
        + "      - type: edge\n        site: X1\n        default: perhaps\n        copies: []\n"
        + "      - type: vault\n        region: eu-west-1\n        tags: {cost: 7}\n",
        [
            "7: a box cannot be named `TLS` → letters a-z and `/`",
            "9: `depth` should be greater than or equal to 1",
            "11: `site` cannot be `X1` → for example `E1EXAMPLE`",
            "12: `default` is the text `perhaps`, where `true` or `false` is needed → write `true` "
            "or `false`",
            "13: unknown key `copies` in target `edge` → remove it; the keys left are `account`, "
            "`key_type`, `wave`",
            f'16: `cost` is the number `7`, {TEXT_NEEDED} → put it in quotes: "7"',
        ],
    ),
    "a target twice": (
        TARGETS + "      - {type: edge, site: E1}\n      - {type: edge, site: E1, default: true}\n",
        ["7: `edge/E1` is a target of this pipeline already, on line 6 → remove one of the two"],
    ),
    "a target of two pipelines": (
        TWO % ("{type: edge, site: E1}", "{type: edge, site: E1}"),
        [
            "4: `edge/E1` belongs to pipeline `a`, on line 3 → two certificates cannot be in the "
            "same place: choose one"
        ],
    ),
    "a key that a target cannot serve": (
        TARGETS + "      - type: vault\n        region: eu-west-1\n      - {type: edge, site: E1}\n"
        "defaults: {key_type: rsa-4096}\n",
        [
            "8: `edge/E1` cannot serve a key of type `rsa-4096` → set this pipeline's `key_type` "
            "to one of `ecdsa-p256`, `rsa-2048`, `rsa-3072`"
        ],
    ),
    "issuers in a list": (
        BOTH + "    issuer:\n      - one\n      - tow\n      - one\n      - 3\n",
        [
            "9: there is no issuer `tow` → did you mean `two`?",
            "10: issuer `one` is listed twice → remove one",
            f'11: `issuer`, item 4, is the number `3`, {TEXT_NEEDED} → put it in quotes: "3"',
        ],
    ),
    "issuers in the list of all": (
        BOTH + "defaults:\n  issuer: [one, one, three]\n",
        [
            "8: issuer `one` is listed twice → remove one",
            "8: there is no issuer `three` → there is `one`, `two`",
        ],
    ),
    "an empty list of issuers": (
        BOTH + "    issuer: []\n",
        [
            "7: `issuer` is empty → for example `letsencrypt`",
        ],
    ),
    "a profile of several CAs": (
        BOTH + "    issuer: [one, two]\n    profile: tlsserver\n",
        [
            "8: a profile belongs to one CA, and this pipeline has 2 issuers → set `profile` on "
            "each issuer instead"
        ],
    ),
    "a CA like one": (
        LE.replace("letsencrypt", "letsencript") % "",
        [
            "1: there is no CA `letsencript` here → did you mean `letsencrypt`?, or give its "
            "`directory:` instead"
        ],
    ),
    "a CA like none": (
        LE.replace("letsencrypt", "digicert") % "",
        [
            f"1: there is no CA `digicert` here → there is {CAS_SORTED}, or give its `directory:` "
            "instead"
        ],
    ),
    "a list of CAs": (
        LE.replace("letsencrypt", "[letsencrypt, google]") % "",
        [f"1: `ca` cannot be a list → it may be {CAS_OR}"],
    ),
    "a CA named in two ways": (
        LE % ", directory: 'https://acme-v02.api.letsencrypt.org/directory'",
        [
            "1: `letsencrypt` has a directory of its own → remove `directory:`, or `ca:` where "
            "another CA is meant"
        ],
    ),
    "no CA": (
        SHOP.replace("directory: 'https://one.example/dir'", "email: ops@example.com"),
        [f"1: issuer `one` names no CA → {NAME_A_CA}"],
    ),
    "a misspelt CA": (
        SHOP.replace("directory", "directroy"),
        ["1: unknown key `directroy` in issuer `one` → did you mean `directory`?"],
    ),
    "a CA that every customer has at another place": (
        SHOP.replace(
            "directory: 'https://one.example/dir'",
            f"ca: aws-acm, external_account: {{key_id: k, secret: '{ARN}'}}",
        ),
        ["1: `aws-acm` has a directory for each customer → add the `directory:` of yours"],
    ),
    "no external account where one is needed": (
        "issuers:\n"
        "  one: {ca: zerossl, email: ops}\n"
        "  two: {directory: 'https://dv.acme-v02.api.pki.goog/directory'}\n"
        "  three: {ca: actalis, external_acount: {key_id: k}}\n"
        "  four: {ca: google, external_account: {key_id: k}}\n"
        "  five: {ca: sslcom-ecc, external_account: }\n"
        "pipelines: [{name: a, domains: [a.example.com], issuer: one}]\n",
        [
            f"2: the CA of `one` makes accounts only with an external account binding → {BOUND}",
            "2: `ops` is not an e-mail address → one address, like `ops@example.com`",
            f"3: the CA of `two` makes accounts only with an external account binding → {BOUND}",
            "4: unknown key `external_acount` in issuer `three` → did you mean `external_account`?",
            "5: `external_account` has no `secret` → add `secret: "
            "arn:aws:secretsmanager:eu-central-1:111111111111:secret:zerossl-AbCdEf`",
            f"6: the CA of `five` makes accounts only with an external account binding → {BOUND}",
        ],
    ),
    "a secret in the file": (
        LE.replace("letsencrypt", "zerossl")
        % ", external_account: {key_id: '', secret: c2VjcmV0, kid: k}",
        [
            "1: the value is empty → give it a value, or remove the key",
            f"1: `c2VjcmV0` is not the ARN of a secret or a parameter → {A_SECRET}",
            "1: unknown key `kid` in `external_account` → remove it",
        ],
    ),
    "what an issuer cannot have": (
        "issuers:\n"
        "  one:\n"
        "    ca: letsencrypt\n"
        "    root: letsencrypt.pem\n"
        "    key_type: [rsa-2048]\n"
        "    validation: dns-02\n"
        "    limits: {orders: 0, certificates: many, duplicates: 5}\n"
        "pipelines: [{name: a, domains: [a.example.com]}]\n",
        [
            "4: this is no certificate in PEM → write `root: |` and below it the certificate, from "
            "`-----BEGIN CERTIFICATE-----` on",
            "5: `key_type` is a list, where one is needed → several are for a pipeline to list",
            "6: `validation` cannot be `dns-02` → it may be `dns-01` or `dns-persist-01`",
            "7: `orders` should be greater than or equal to 1",
            "7: `certificates` is the text `many`, where a whole number is needed → write a whole "
            "number",
            "7: unknown key `duplicates` in `limits` → remove it",
        ],
    ),
    "a root with a letter too few": (
        "issuers:\n"
        "  one:\n"
        "    directory: https://one.example/dir\n"
        "    root: |\n"
        "      -----BEGIN CERTIFICATE-----\n"
        "      MIIBgDCC\n"
        "      -----END CERTIFICATE-----\n"
        "pipelines: [{name: a, domains: [a.example.com]}]\n",
        [
            "4: this is no certificate in PEM → write `root: |` and below it the certificate, from "
            "`-----BEGIN CERTIFICATE-----` on"
        ],
    ),
    "times that are none": (
        ISSUER
        + "pipelines:\n"
        + "  - {name: a, domains: [a.example.com], renew_before: a month}\n"
        + "  - {name: b, domains: [b.example.com], renew_before: 20}\n"
        + "  - {name: c, domains: [c.example.com], renew_before: [20d]}\n",
        [
            "3: `a month` is not a time → write days or hours, like `20d` or `36h`",
            "4: `20` is not a time → write days or hours, like `20d` or `36h`",
            "5: this is not a time → write days or hours, like `20d` or `36h`",
        ],
    ),
    "renewals as early as the certificate": (
        "issuers:\n"
        "  le: {ca: letsencrypt}\n"
        "  tls: {ca: letsencrypt-staging, profile: tlsserver}\n"
        "pipelines:\n"
        "  - {name: a, domains: [a.example.com], issuer: le, renew_before: 90d}\n"
        "  - {name: b, domains: [b.example.com], issuer: tls, renew_before: 45d}\n"
        "  - {name: c, domains: [c.example.com], issuer: le, profile: shortlived, "
        "renew_before: 160h}\n"
        "  - {name: d, domains: [d.example.com], issuer: [le, tls], renew_before: 50d}\n"
        "  - {name: e, domains: [e.example.com], issuer: le, renew_before: 89d}\n",
        [
            "5: certificates from `le` live 90 days: one would be due as soon as it is there → "
            "give less than that, or leave it out",
            "6: certificates from `tls` with profile `tlsserver` live 45 days: one would be due as "
            "soon as it is there → give less than that, or leave it out",
            "7: certificates from `le` with profile `shortlived` live 6.67 days: one would be due "
            "as soon as it is there → give less than that, or leave it out",
            "8: certificates from `tls` with profile `tlsserver` live 45 days: one would be due as "
            "soon as it is there → give less than that, or leave it out",
        ],
    ),
    "more names than the profile takes": (
        LE % ", profile: tlsserver"
        + f"  - name: b\n    domains: {names(26)}\n"
        + f"  - name: c\n    profile: shortlived\n    domains: {names(26)}\n"
        + f"  - name: d\n    profile: classic\n    domains: {names(26)}\n"
        + f"  - name: e\n    domains: {names(101)}\n",
        [
            "6: there are 26 names, and certificates from `one` with profile `tlsserver` have at "
            "most 25 → split the pipeline, or choose another profile",
            "9: there are 26 names, and certificates from `one` with profile `shortlived` have at "
            "most 25 → split the pipeline, or choose another profile",
            "14: `domains` has 101 entries → at most 100 are possible",
        ],
    ),
    "key types in a list": (
        SHOP + "    key_type:\n      - rsa-2048\n      - rsa2048\n      - rsa-2048\n      - 7\n",
        [
            "7: there is no key type `rsa2048` → did you mean `rsa-2048`?",
            "8: key type `rsa-2048` is listed twice → remove one",
            "9: there is no key type `7` → there is `ecdsa-p256`, `ecdsa-p384`, `rsa-2048`, "
            "`rsa-3072`, `rsa-4096`",
        ],
    ),
    "no key types": (
        SHOP + "    key_type: []\n",
        ["5: `key_type` is empty → write at least one"],
    ),
    "a target with a key that the pipeline has not": (
        SHOP
        + "    key_type: [ecdsa-p256, rsa-2048]\n    targets:\n"
        + "      - {type: edge, site: E1, key_type: rsa-3072}\n"
        + "      - {type: edge, site: E2, key_type: rsa}\n"
        + "      - {type: edge, site: E3, key_type: rsa-2048}\n",
        [
            "7: the pipeline has no certificate with a key of type `rsa-3072` → add it to the "
            "pipeline's `key_type`; there is `ecdsa-p256`, `rsa-2048`",
            "8: there is no key type `rsa` → there is `ecdsa-p256`, `ecdsa-p384`, `rsa-2048`, "
            "`rsa-3072`, `rsa-4096`",
        ],
    ),
    "two keys in one place": (
        SHOP
        + "    key_type: [ecdsa-p256, rsa-2048]\n    targets:\n"
        + "      - {type: edge, site: E1}\n"
        + "      - {type: edge, site: E1, key_type: rsa-2048}\n"
        + "      - {type: vault, region: eu-west-1}\n"
        + "      - {type: vault, region: eu-west-1, key_type: rsa-2048}\n"
        + "      - {type: vault, region: eu-west-1, key_type: ecdsa-p256}\n",
        [
            "8: `edge/E1` belongs to pipeline `a`, on line 7 → two certificates cannot be in the "
            "same place: choose one",
            "11: `vault/eu-west-1` is a target of this pipeline already, on line 9 → remove one of "
            "the two",
        ],
    ),
    "a name that a key type takes": (
        SHOP
        + "    key_type: [ecdsa-p256, rsa-2048]\n"
        + "  - {name: a.rsa-2048, domains: [b.example.com]}\n"
        + "  - {name: b.rsa-4096, domains: [b.example.com]}\n"
        + "  - {name: b, domains: [b.example.com], key_type: [rsa-2048, rsa-4096]}\n",
        [
            "6: the name `a.rsa-2048` is taken by the pipeline on line 3 → every pipeline has a "
            "name of its own",
            "8: the name `b.rsa-4096` of its key `rsa-4096` is taken by the pipeline on line 7 → "
            "every pipeline has a name of its own",
        ],
    ),
    "providers that are none": (
        ZONES
        + "  - {provider: rute53, zone: a.example}\n"
        + "  - {provider: cloudflare, zone: b.example}\n"
        + "  - {zone: c.example}\n"
        + "  - {zone: d.example, provder: route53}\n"
        + "  - e.example\n",
        [
            "6: there is no provider `rute53` → did you mean `route53`?",
            "7: there is no provider `cloudflare` → there is `lexicon`, `rfc2136`, `route53`",
            "8: zone 3 has no `provider` → add `provider:`, one of `lexicon`, `rfc2136`, `route53`",
            "9: zone 4 has no `provider` → write `provider:` for `provder:`",
            f"10: zone 5 is the text `e.example`, {MAPPING_NEEDED} → write `key: value`, one to a "
            "line",
        ],
    ),
    "zones with wrong keys": (
        ZONES
        + "  - {provider: route53, zone: a.example, zoneid: Z1}\n"
        + "  - {provider: route53, zon: b.example}\n"
        + "  - {provider: route53, zone: c.example, acount: edge}\n"
        + "  - {provider: route53, zone: d.example, zone_id: /hostedzone/Z1}\n"
        + "  - {provider: rfc2136, zone: e.example, server: ns1, key_name: k}\n"
        + "  - {provider: lexicon, name: cloudflare, credentials: token, zone: f.example}\n"
        + "  - {provider: rfc2136, zone: g.example, server: ns1, key_name: '', key_algorithm: "
        f"hmac-md5, key_secret: '{ARN}'}}\n",
        [
            "6: unknown key `zoneid` in zone `a.example` → did you mean `zone_id`?",
            "7: unknown key `zon` in zone 2 → did you mean `zone`?",
            "8: unknown key `acount` in zone `c.example` → did you mean `account`?",
            "9: `zone_id` cannot be `/hostedzone/Z1` → for example `Z0123456789EXAMPLE`",
            "10: zone `e.example` has no `key_secret` → add `key_secret: "
            "arn:aws:secretsmanager:eu-central-1:111111111111:secret:dns-AbCdEf`",
            f"11: `token` is not the ARN of a secret or a parameter → {A_SECRET}",
            "12: the value is empty → give it a value, or remove the key",
            "12: `key_algorithm` cannot be `hmac-md5` → it may be `hmac-sha256`, `hmac-sha384` or "
            "`hmac-sha512`",
        ],
    ),
    "zones that are none, or twice": (
        ZONES
        + '  - {provider: route53, zone: "*.a.example"}\n'
        + "  - {provider: route53, zone: Bücher.example}\n"
        + f"  - {{provider: lexicon, zone: xn--bcher-kva.example, name: x, credentials: '{ARN}'}}\n"
        + "  - {provider: route53, zone: a_b.example}\n"
        + "  - {provider: route53, zone: _acme-challenge.c.example}\n",
        [
            "6: `*.a.example`: a zone stands for all names below it → write `a.example`",
            "8: zone `xn--bcher-kva.example` is on line 7 already → remove one",
            "9: `a_b.example` has an underscore → host names have letters, digits and hyphens; a "
            "certificate for this one is not issued",
        ],
    ),
    "a zone in an unknown account": (
        ZONES
        + "  - {provider: route53, zone: a.example, account: egde}\n"
        + "accounts: {edge: {role_arn: 'arn:aws:iam::222222222222:role/certrail'}}\n",
        ["6: there is no account `egde` → did you mean `edge`?"],
    ),
    "zones as a mapping": (
        SHOP + "zones:\n  provider: route53\n  zone: a.example\n",
        [f"5: `zones` is a mapping of keys and values, {LIST_NEEDED} → write a list"],
    ),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_a_wrong_file(case: str) -> None:
    text, expected = WRONG_FILES[case]
    with pytest.raises(PipelinesInvalid) as caught:
        load(text, "pipelines.yaml", File)
    assert [str(fault) for fault in caught.value.faults] == [
        f"pipelines.yaml:{line}" for line in expected
    ]


def test_what_two_pipelines_may_share_is_no_fault() -> None:
    vault = "{type: vault, region: eu-west-1}"
    assert load(TWO % (vault, vault), "pipelines.yaml", File).pipelines


def test_faults_are_told_without_what_moves_a_cursor() -> None:
    text = SHOP + '    issuer: "\\e[2J\\n' + "x" * 1000 + '"\n'
    with pytest.raises(PipelinesInvalid) as caught:
        load(text, "pipelines.yaml", File)
    (fault,) = caught.value.faults
    assert fault.what.startswith("there is no issuer `\\x1b[2J\\nxxx")
    assert len(fault.what) < 400
