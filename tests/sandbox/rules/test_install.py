"""Installing the rules again changes nothing."""

import pytest

from sandbox import rules
from sandbox.rules import acm
from tests.sandbox.rules.conftest import Cloud, refused
from tests.sandbox.rules.issuance import Authority


def test_twice_is_once(cloud: Cloud, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    rules.install()
    monkeypatch.setattr(acm.import_limit, "burst", 2)
    monkeypatch.setattr(acm.import_limit, "clock", lambda: 0.0)
    issued = authority.issue("www.example.com")
    arn = cloud.acm.import_certificate(**issued.material)["CertificateArn"]
    cloud.acm.import_certificate(**issued.material, CertificateArn=arn)
    with refused("ThrottlingException"):
        cloud.acm.import_certificate(**issued.material, CertificateArn=arn)
    shown = cloud.acm.describe_certificate(CertificateArn=arn)["Certificate"]
    assert shown["KeyUsages"] == [{"Name": "DIGITAL_SIGNATURE"}]
