import copy
import json
import logging
import pickle
from dataclasses import asdict

import pytest

from certrail.bundle import Bundle
from certrail.secret import Secret
from tests.certrail.bundles import make_bundle

TEXT = "-----BEGIN PRIVATE KEY----- the key itself"


def test_no_printed_form_shows_the_text(caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret(TEXT)
    logging.getLogger(__name__).warning("a secret: %s %r", secret, {"key": secret})
    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r}", repr([secret]), caplog.text]
    assert not any("the key itself" in text for text in shown)
    assert secret.reveal() == TEXT


def test_it_is_neither_pickled_nor_turned_into_json() -> None:
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(Secret(TEXT))
    with pytest.raises(TypeError, match="not JSON serializable"):
        json.dumps({"key": Secret(TEXT)})
    with pytest.raises(TypeError, match="not pickled"):
        copy.deepcopy(Secret(TEXT))


def test_equality_is_that_of_the_text() -> None:
    assert Secret(TEXT) == Secret(TEXT)
    assert Secret(TEXT) != Secret(TEXT + " ")
    assert Secret(TEXT) != TEXT
    assert len({Secret(TEXT), Secret(TEXT)}) == 1


def test_a_bundle_shows_no_key() -> None:
    bundle: Bundle = make_bundle(["shop.example.com"])
    key = bundle.private_key.reveal().splitlines()[1]
    assert key not in repr(bundle)
    assert key not in str(bundle)
    with pytest.raises(TypeError, match="not pickled"):
        asdict(bundle)
