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
START = "start it with `issuers:` and `pipelines:`"
SYNTAX = "look at the indentation, quotes and colons up to here"
LIST_NEEDED = "where a list is needed"
TEXT_NEEDED = "where text is needed"
MAPPING_NEEDED = "where a mapping of keys and values is needed"

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
            "`key_type`, `profile`, `targets`"
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
            "9: `203.0.113.7` is an IP address → write the host name that points to it",
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
            "7: `two/2` cannot be a name here → up to 100 letters, digits, `.`, `-` and `_`, a "
            "letter or digit in front",
            "7: issuer `two/2` has no `directory` → add `directory: "
            "https://acme-v02.api.letsencrypt.org/directory`",
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
            "13: unknown key `copies` in target `edge` → remove it; the keys left are `account`",
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
