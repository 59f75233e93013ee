from __future__ import annotations

import re
from pathlib import Path

import pytest

from certrail.store import Store, account_key
from issuer.account import Account
from sandbox import Sandbox
from tests.cli.conftest import Certrail

LIMITS = ", limits: {orders: 300, certificates: 50}}\ndefaults"


@pytest.fixture(autouse=True)
def _pushed(certrail: Certrail, file: Path) -> None:
    assert certrail("push").code == 0


def row(out: str, name: str) -> str:
    found = re.search(rf"^  {name}  +(.*)$", out, re.MULTILINE)
    assert found, out
    return found[1]


def stored(store: Store) -> Account:
    found = store.read(account_key("sandbox"), Account)
    assert found
    return found.value


def test_show_makes_the_account_and_shows_it(
    certrail: Certrail, store: Store, sandbox: Sandbox
) -> None:
    shown = certrail("account", "show", "sandbox")
    assert shown.code == 0, shown.err
    assert row(shown.out, "account") == stored(store).uri
    assert row(shown.out, "directory") == sandbox.directory
    assert row(shown.out, "profiles") == "classic"
    assert row(shown.out, "orders left") == row(shown.out, "certificates left") == "not counted"
    assert row(shown.out, "waiting") == "nothing"
    as_json = certrail("account", "show", "sandbox", "--json").json()
    assert as_json["account"] == stored(store).uri
    assert as_json["key"] == row(shown.out, "key")
    assert (as_json["profiles"], as_json["orders_left"]) == (["classic"], None)


def test_show_counts_what_the_limits_leave(certrail: Certrail, file: Path) -> None:
    file.write_text(file.read_text().replace("}\ndefaults", LIMITS, 1))
    assert certrail("push").code == 0
    before = certrail("account", "show", "sandbox").out
    assert (row(before, "orders left"), row(before, "certificates left")) == ("300", "all")
    assert certrail("issue", "fleet").code == 0
    after = certrail("account", "show", "sandbox").out
    assert row(after, "orders left") == "299"
    assert row(after, "certificates left") == "49 for example.org"


def test_a_new_key_for_the_same_account(certrail: Certrail, store: Store) -> None:
    before = certrail("account", "show", "sandbox", "--json").json()
    rolled = certrail("account", "rollover", "sandbox")
    assert rolled.code == 0, rolled.err
    after = certrail("account", "show", "sandbox", "--json").json()
    assert after["account"] == before["account"]
    assert after["key"] != before["key"]
    assert rolled.out == f"sandbox: {after['account']} has a new key, {after['key'][:12]}\n"
    assert stored(store).next_key is None
    assert certrail("issue", "fleet").code == 0


def test_an_end_for_good_must_be_meant(certrail: Certrail, store: Store) -> None:
    assert certrail("account", "show", "sandbox").code == 0
    uri = stored(store).uri
    asked = certrail("account", "deactivate", "sandbox")
    assert asked.code == 2
    assert "this ends the account of `sandbox` for good. Give --yes" in asked.err
    assert not stored(store).deactivated

    ended = certrail("account", "deactivate", "sandbox", "--yes")
    assert ended.code == 0, ended.err
    assert ended.out == f"sandbox: {uri} is deactivated\n"
    refused = certrail("issue", "fleet")
    assert refused.code == 1
    assert "the account of issuer `sandbox` was deactivated" in refused.err


def test_records_to_be_set_once(certrail: Certrail, file: Path, store: Store) -> None:
    needless = certrail("account", "records", "sandbox")
    assert needless.code == 2
    assert "`sandbox` proves names by dns-01, for which certrail sets the records" in needless.err

    lasting = file.read_text().replace("}\ndefaults", ", validation: dns-persist-01}\ndefaults", 1)
    file.write_text(lasting)
    assert certrail("push").code == 0
    listed = certrail("account", "records", "sandbox")
    assert listed.code == 0, listed.err
    value = rf'"[^"; ]+; accounturi={re.escape(stored(store).uri or "")}'
    assert re.fullmatch(
        rf'_validation-persist\.shop\.example\.com TXT {value}; policy=wildcard"\n'
        rf'_validation-persist\.mail\.example\.org TXT {value}"\n'
        rf'_validation-persist\.shop\.example\.com TXT {value}"\n',
        listed.out,
    )


def test_an_issuer_that_is_not_there(certrail: Certrail) -> None:
    result = certrail("account", "show", "letsencrypt")
    assert result.code == 2
    assert "there is no issuer `letsencrypt`. There is sandbox" in result.err
