"""ACM refuses what AWS refuses; beside each refusal, the legal variant that passes."""

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from sandbox import resources
from sandbox.rules import acm as rules
from tests.sandbox.rules.conftest import Cloud, refused
from tests.sandbox.rules.issuance import CLIENT, SERVER, Authority, Issued, new_key, pem, usages

if TYPE_CHECKING:
    from types_boto3_acm.type_defs import TagTypeDef

NAME = "www.example.com"


@pytest.fixture
def issued(authority: Authority) -> Issued:
    return authority.issue(NAME)


def imported(cloud: Cloud, issued: Issued) -> str:
    return cloud.acm.import_certificate(**issued.material)["CertificateArn"]


def exportable(issued: Issued) -> str:
    return resources.exportable_certificate(issued.certificate, issued.private_key, issued.chain)


def detail(cloud: Cloud, arn: str) -> dict[str, object]:
    return dict(cloud.acm.describe_certificate(CertificateArn=arn)["Certificate"])


class TestImport:
    def test_an_ordered_chain_passes(self, cloud: Cloud, issued: Issued) -> None:
        arn = imported(cloud, issued)
        answer = cloud.acm.get_certificate(CertificateArn=arn)
        assert answer["Certificate"].encode() == issued.certificate
        assert answer["CertificateChain"].encode() == issued.chain

    def test_no_chain_passes(self, cloud: Cloud, issued: Issued) -> None:
        cloud.acm.import_certificate(Certificate=issued.certificate, PrivateKey=issued.private_key)

    def test_a_root_may_come_last(self, cloud: Cloud, authority: Authority, issued: Issued) -> None:
        chain = issued.chain + pem(authority.root)
        cloud.acm.import_certificate(**{**issued.material, "CertificateChain": chain})

    def test_another_key(self, cloud: Cloud, authority: Authority, issued: Issued) -> None:
        other = authority.issue(NAME).private_key
        with refused("ValidationException", "does not match"):
            cloud.acm.import_certificate(**{**issued.material, "PrivateKey": other})

    def test_a_fullchain_as_certificate(self, cloud: Cloud, issued: Issued) -> None:
        fullchain = issued.certificate + issued.chain
        with refused("ValidationException", "contains more than one certificate"):
            cloud.acm.import_certificate(Certificate=fullchain, PrivateKey=issued.private_key)

    def test_the_leaf_in_its_chain(self, cloud: Cloud, issued: Issued) -> None:
        chain = issued.certificate + issued.chain
        with refused("ValidationException", "certificate chain"):
            cloud.acm.import_certificate(**{**issued.material, "CertificateChain": chain})

    def test_a_chain_out_of_order(self, cloud: Cloud, authority: Authority, issued: Issued) -> None:
        chain = pem(authority.upper) + pem(authority.lower)
        with refused("ValidationException", "certificate chain"):
            cloud.acm.import_certificate(**{**issued.material, "CertificateChain": chain})

    def test_a_chain_with_a_gap(self, cloud: Cloud, authority: Authority, issued: Issued) -> None:
        chain = pem(authority.lower) + pem(authority.root)
        with refused("ValidationException", "certificate chain"):
            cloud.acm.import_certificate(**{**issued.material, "CertificateChain": chain})

    def test_a_stranger_with_the_issuers_name(self, cloud: Cloud, issued: Issued) -> None:
        stranger = pem(Authority().lower)
        with refused("ValidationException", "certificate chain"):
            cloud.acm.import_certificate(**{**issued.material, "CertificateChain": stranger})

    def test_garbage_as_chain(self, cloud: Cloud, issued: Issued) -> None:
        with refused("ValidationException"):
            cloud.acm.import_certificate(**{**issued.material, "CertificateChain": b"garbage"})

    def test_an_encrypted_key(self, cloud: Cloud, issued: Issued) -> None:
        with refused("ValidationException", "unencrypted"):
            cloud.acm.import_certificate(
                **{**issued.material, "PrivateKey": issued.encrypted_key()}
            )

    def test_a_key_over_5120_bytes(self, cloud: Cloud, issued: Issued) -> None:
        padded = issued.private_key + b"\n" * (5121 - len(issued.private_key))
        with refused("ValidationException", "5120"):
            cloud.acm.import_certificate(**{**issued.material, "PrivateKey": padded})
        cloud.acm.import_certificate(**{**issued.material, "PrivateKey": padded[:5120]})

    def test_spaces_at_line_ends(self, cloud: Cloud, issued: Issued) -> None:
        spaced = issued.certificate.replace(b"\n", b" \n")
        with refused("ValidationException"):
            cloud.acm.import_certificate(**{**issued.material, "Certificate": spaced})

    @pytest.mark.parametrize(
        ("starts", "ends"),
        [(timedelta(days=-9), timedelta(minutes=-1)), (timedelta(minutes=5), timedelta(days=9))],
        ids=["expired", "not yet valid"],
    )
    def test_a_certificate_not_valid_now(
        self, cloud: Cloud, authority: Authority, starts: timedelta, ends: timedelta
    ) -> None:
        with refused("ValidationException"):
            imported(cloud, authority.issue(NAME, starts=starts, ends=ends))


class TestReimport:
    def test_keeps_arn_and_tags(self, cloud: Cloud, authority: Authority, issued: Issued) -> None:
        tags: list[TagTypeDef] = [{"Key": "certrail:pipeline", "Value": "shop"}]
        arn = cloud.acm.import_certificate(**issued.material, Tags=tags)["CertificateArn"]
        renewed = authority.issue(NAME)
        answer = cloud.acm.import_certificate(**renewed.material, CertificateArn=arn)
        assert answer["CertificateArn"] == arn
        assert cloud.acm.list_tags_for_certificate(CertificateArn=arn)["Tags"] == tags
        now = cloud.acm.get_certificate(CertificateArn=arn)["Certificate"]
        assert now.encode() == renewed.certificate

    def test_tags(self, cloud: Cloud, issued: Issued) -> None:
        arn = imported(cloud, issued)
        with refused("ValidationException", "Tagging is not permitted on re-import"):
            cloud.acm.import_certificate(
                **issued.material, CertificateArn=arn, Tags=[{"Key": "a", "Value": "b"}]
            )

    def test_an_unknown_arn(self, cloud: Cloud, issued: Issued) -> None:
        arn = imported(cloud, issued)
        cloud.acm.delete_certificate(CertificateArn=arn)
        with refused("ResourceNotFoundException"):
            cloud.acm.import_certificate(**issued.material, CertificateArn=arn)

    @pytest.mark.parametrize("key", ["RSA_2048", "EC_secp384r1"])
    def test_another_key_type_or_size(
        self, cloud: Cloud, authority: Authority, issued: Issued, key: str
    ) -> None:
        arn = imported(cloud, issued)
        changed = authority.issue(NAME, key=key)
        with refused("ValidationException", "key type or key size"):
            cloud.acm.import_certificate(**changed.material, CertificateArn=arn)

    def test_a_key_usage_removed(self, cloud: Cloud, authority: Authority) -> None:
        key = new_key("RSA_2048")
        classic = authority.issue(
            NAME, key=key, usage=usages("digital_signature", "key_encipherment")
        )
        tlsserver = authority.issue(NAME, key=key, usage=usages("digital_signature"))
        arn = imported(cloud, classic)
        with refused("ValidationException", "missing one or more Key Usages"):
            cloud.acm.import_certificate(**tlsserver.material, CertificateArn=arn)
        arn = imported(cloud, tlsserver)
        cloud.acm.import_certificate(**classic.material, CertificateArn=arn)

    def test_key_encipherment_may_leave_an_ecdsa_certificate(
        self, cloud: Cloud, authority: Authority
    ) -> None:
        both = authority.issue(NAME, usage=usages("digital_signature", "key_encipherment"))
        arn = imported(cloud, both)
        cloud.acm.import_certificate(
            **authority.issue(NAME, usage=usages("digital_signature")).material, CertificateArn=arn
        )
        with refused("ValidationException", "missing one or more Key Usages"):
            cloud.acm.import_certificate(
                **authority.issue(NAME, usage=usages("key_agreement")).material, CertificateArn=arn
            )

    def test_client_auth_may_leave_and_server_auth_may_not(
        self, cloud: Cloud, authority: Authority
    ) -> None:
        arn = imported(cloud, authority.issue(NAME, extended=(SERVER, CLIENT)))
        server = authority.issue(NAME, extended=(SERVER,))
        cloud.acm.import_certificate(**server.material, CertificateArn=arn)
        client = authority.issue(NAME, extended=(CLIENT,))
        with refused("ValidationException", "missing one or more Extended Key Usages"):
            cloud.acm.import_certificate(**client.material, CertificateArn=arn)

    def test_one_earlier_name_must_stay(self, cloud: Cloud, authority: Authority) -> None:
        arn = imported(cloud, authority.issue("a.example.com", "b.example.com"))
        one_stays = authority.issue("b.example.com", "c.example.com")
        cloud.acm.import_certificate(**one_stays.material, CertificateArn=arn)
        none_stays = authority.issue("d.example.com")
        with refused("ValidationException", "domain names"):
            cloud.acm.import_certificate(**none_stays.material, CertificateArn=arn)


class TestDescribe:
    @pytest.mark.parametrize(
        ("key", "shown"),
        [
            ("RSA_2048", "RSA-2048"),
            ("EC_prime256v1", "EC-prime256v1"),
            ("EC_secp384r1", "EC-secp384r1"),
        ],
    )
    def test_key_algorithms_are_hyphenated(
        self, cloud: Cloud, authority: Authority, key: str, shown: str
    ) -> None:
        arn = imported(cloud, authority.issue(NAME, key=key))
        assert detail(cloud, arn)["KeyAlgorithm"] == shown
        rows = cloud.acm.list_certificates(
            Includes={"keyTypes": [key]}  # type: ignore[list-item]
        )["CertificateSummaryList"]
        assert [row["KeyAlgorithm"] for row in rows] == [shown]

    def test_every_field_is_the_certificates(self, cloud: Cloud, authority: Authority) -> None:
        issued = authority.issue(
            NAME,
            "*.example.com",
            usage=usages("digital_signature", "key_agreement"),
            extended=(SERVER, CLIENT),
        )
        shown = detail(cloud, imported(cloud, issued))
        digits = f"{issued.parsed.serial_number:x}"
        digits = digits.zfill(len(digits) + len(digits) % 2)
        assert shown["Serial"] == ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))
        assert shown["DomainName"] == NAME
        assert shown["SubjectAlternativeNames"] == [NAME, "*.example.com"]
        assert shown["NotBefore"] == issued.parsed.not_valid_before_utc
        assert shown["NotAfter"] == issued.parsed.not_valid_after_utc
        assert shown["Type"] == "IMPORTED"
        assert shown["Status"] == "ISSUED"
        assert shown["InUseBy"] == []
        assert shown["KeyUsages"] == [{"Name": "DIGITAL_SIGNATURE"}, {"Name": "KEY_AGREEMENT"}]
        assert shown["ExtendedKeyUsages"] == [
            {"Name": "TLS_WEB_SERVER_AUTHENTICATION", "OID": "1.3.6.1.5.5.7.3.1"},
            {"Name": "TLS_WEB_CLIENT_AUTHENTICATION", "OID": "1.3.6.1.5.5.7.3.2"},
        ]


class TestList:
    def test_only_small_rsa_unless_asked(self, cloud: Cloud, authority: Authority) -> None:
        rsa = imported(cloud, authority.issue(NAME, key="RSA_2048"))
        ecdsa = imported(cloud, authority.issue(NAME))
        rows = cloud.acm.list_certificates()["CertificateSummaryList"]
        assert [row["CertificateArn"] for row in rows] == [rsa]
        rows = cloud.acm.list_certificates(Includes={"keyTypes": ["EC_prime256v1", "RSA_2048"]})[
            "CertificateSummaryList"
        ]
        assert {row["CertificateArn"] for row in rows} == {rsa, ecdsa}

    def test_pages(self, cloud: Cloud, authority: Authority) -> None:
        arns = [imported(cloud, authority.issue(NAME)) for _ in range(5)]
        first = cloud.acm.list_certificates(Includes={"keyTypes": ["EC_prime256v1"]}, MaxItems=2)
        assert len(first["CertificateSummaryList"]) == 2
        assert first["NextToken"]
        pages = cloud.acm.get_paginator("list_certificates").paginate(
            Includes={"keyTypes": ["EC_prime256v1"]}, PaginationConfig={"PageSize": 2}
        )
        listed = [row["CertificateArn"] for page in pages for row in page["CertificateSummaryList"]]
        assert listed == arns
        last = cloud.acm.list_certificates(Includes={"keyTypes": ["EC_prime256v1"]}, MaxItems=5)
        assert "NextToken" not in last

    def test_an_unknown_token(self, cloud: Cloud) -> None:
        with refused("ValidationException"):
            cloud.acm.list_certificates(NextToken="nonsense")


class TestUse:
    def test_a_certificate_in_use_is_named_and_kept(
        self, cloud: Cloud, authority: Authority
    ) -> None:
        arn = imported(cloud, authority.issue(NAME))
        balancer = resources.listener(
            "arn:aws:elasticloadbalancing:us-east-1:123456789012:listener/app/web/1111111111111111/"
            "2222222222222222",
            **cloud.at,
        )
        cloud.elbv2.modify_listener(ListenerArn=balancer, Certificates=[{"CertificateArn": arn}])
        distribution = resources.distribution("E1", [NAME], **cloud.at)
        config = cloud.cloudfront.get_distribution_config(Id=distribution)
        submitted = config["DistributionConfig"]
        submitted["ViewerCertificate"] = {
            "ACMCertificateArn": arn,
            "SSLSupportMethod": "sni-only",
            "MinimumProtocolVersion": "TLSv1.2_2021",
        }
        cloud.cloudfront.update_distribution(
            Id=distribution, IfMatch=config["ETag"], DistributionConfig=submitted
        )
        assert detail(cloud, arn)["InUseBy"] == [
            "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/web/1111111111111111",
            "arn:aws:cloudfront::123456789012:distribution/E1",
        ]
        with refused("ResourceInUseException"):
            cloud.acm.delete_certificate(CertificateArn=arn)

    def test_an_unused_certificate_can_go(self, cloud: Cloud, issued: Issued) -> None:
        arn = imported(cloud, issued)
        cloud.acm.delete_certificate(CertificateArn=arn)
        with refused("ResourceNotFoundException"):
            cloud.acm.describe_certificate(CertificateArn=arn)


class TestExport:
    def test_what_acm_issued_to_be_exported(self, cloud: Cloud, issued: Issued) -> None:
        arn = exportable(issued)
        answer = cloud.acm.export_certificate(CertificateArn=arn, Passphrase=b"pass")
        assert answer["Certificate"].encode() == issued.certificate
        assert answer["CertificateChain"].encode() == issued.chain
        key = load_pem_private_key(answer["PrivateKey"].encode(), b"pass")
        form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        assert key.private_bytes(*form) == issued.private_key

    def test_no_import(self, cloud: Cloud, issued: Issued) -> None:
        arn = imported(cloud, issued)
        with refused("ValidationException", "is not a private certificate"):
            cloud.acm.export_certificate(CertificateArn=arn, Passphrase=b"pass")

    @pytest.mark.parametrize("passphrase", [b"abc", b"pa$$", b"100%", b"#one", "ähem".encode()])
    def test_no_passphrase_of_other_letters(
        self, cloud: Cloud, issued: Issued, passphrase: bytes
    ) -> None:
        with refused("ValidationException"):
            cloud.acm.export_certificate(CertificateArn=exportable(issued), Passphrase=passphrase)

    def test_nothing_that_is_not_issued_yet(self, cloud: Cloud) -> None:
        arn = cloud.acm.request_certificate(
            DomainName=NAME, ValidationMethod="DNS", Options={"Export": "ENABLED"}
        )["CertificateArn"]
        with refused("RequestInProgressException"):
            cloud.acm.export_certificate(CertificateArn=arn, Passphrase=b"pass")


class TestRate:
    @pytest.fixture
    def seconds(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """The clock of the limit, in a list so that a test can turn it; a burst of one."""
        now = [0.0]
        monkeypatch.setattr(rules.import_limit, "burst", 1)
        monkeypatch.setattr(rules.import_limit, "clock", lambda: now[0])
        return now

    def test_one_import_a_second(self, cloud: Cloud, issued: Issued, seconds: list[float]) -> None:
        arn = imported(cloud, issued)
        with refused("ThrottlingException", "Rate exceeded"):
            cloud.acm.import_certificate(**issued.material, CertificateArn=arn)
        seconds[0] = 1.0
        cloud.acm.import_certificate(**issued.material, CertificateArn=arn)

    def test_each_region_has_its_own_rate(
        self, cloud: Cloud, issued: Issued, seconds: list[float]
    ) -> None:
        imported(cloud, issued)
        imported(cloud.within("eu-west-1"), issued)

    def test_ten_at_once_by_default(self, cloud: Cloud, issued: Issued) -> None:
        arn = imported(cloud, issued)
        with refused("ThrottlingException"):
            for _ in range(100):
                cloud.acm.import_certificate(**issued.material, CertificateArn=arn)
