"""ELBv2 refuses what AWS refuses; beside each refusal, the legal variant that passes."""

from datetime import timedelta
from typing import Any

import pytest
from moto.core.utils import utcnow

from sandbox import resources
from tests.sandbox.rules.conftest import Cloud, refused
from tests.sandbox.rules.issuance import Authority, Issued, new_key

NAME = "www.example.com"
WHERE = "arn:aws:elasticloadbalancing:us-east-1:123456789012:listener"
ALB = f"{WHERE}/app/web/aaaaaaaaaaaaaaaa/bbbbbbbbbbbbbbbb"
ALB_SECOND = f"{WHERE}/app/web/aaaaaaaaaaaaaaaa/cccccccccccccccc"
NLB = f"{WHERE}/net/mail/dddddddddddddddd/eeeeeeeeeeeeeeee"


@pytest.fixture(params=[ALB, NLB], ids=["ALB", "NLB"])
def listener(request: pytest.FixtureRequest, cloud: Cloud) -> str:
    return resources.listener(request.param, **cloud.at)


@pytest.fixture
def alb(cloud: Cloud) -> str:
    return resources.listener(ALB, **cloud.at)


@pytest.fixture(scope="module")
def issued(authority: Authority) -> Issued:
    return authority.issue(NAME)


def imported(cloud: Cloud, issued: Issued) -> str:
    return cloud.acm.import_certificate(**issued.material)["CertificateArn"]


def add(cloud: Cloud, listener: str, *arns: str) -> Any:
    return cloud.elbv2.add_listener_certificates(
        ListenerArn=listener, Certificates=[{"CertificateArn": arn} for arn in arns]
    )


def remove(cloud: Cloud, listener: str, *arns: str) -> None:
    cloud.elbv2.remove_listener_certificates(
        ListenerArn=listener, Certificates=[{"CertificateArn": arn} for arn in arns]
    )


def modify(cloud: Cloud, listener: str, *arns: str, **more: Any) -> Any:
    return cloud.elbv2.modify_listener(
        ListenerArn=listener, Certificates=[{"CertificateArn": arn} for arn in arns], **more
    )


def default(cloud: Cloud, listener: str) -> str:
    rows = cloud.elbv2.describe_listeners(ListenerArns=[listener])["Listeners"][0]["Certificates"]
    assert len(rows) == 1
    return rows[0]["CertificateArn"]


def served(cloud: Cloud, listener: str) -> list[tuple[str, bool]]:
    rows = cloud.elbv2.describe_listener_certificates(ListenerArn=listener)["Certificates"]
    return [(row["CertificateArn"], row["IsDefault"]) for row in rows]


class TestModify:
    def test_the_list_stays(self, cloud: Cloud, listener: str, issued: Issued) -> None:
        first, second = imported(cloud, issued), imported(cloud, issued)
        add(cloud, listener, first)
        answer = modify(cloud, listener, second)
        assert answer["Listeners"][0]["Certificates"] == [{"CertificateArn": second}]
        assert default(cloud, listener) == second
        assert served(cloud, listener) == [(second, True), (first, False)]

    def test_exactly_one(self, cloud: Cloud, listener: str, issued: Issued) -> None:
        first, second = imported(cloud, issued), imported(cloud, issued)
        with refused("ValidationError"):
            modify(cloud, listener, first, second)
        modify(cloud, listener, first)

    def test_is_default_is_not_an_input(self, cloud: Cloud, listener: str, issued: Issued) -> None:
        arn = imported(cloud, issued)
        certificates: Any = [{"CertificateArn": arn, "IsDefault": True}]
        for call in (
            cloud.elbv2.modify_listener,
            cloud.elbv2.add_listener_certificates,
            cloud.elbv2.remove_listener_certificates,
        ):
            with refused("ValidationError", "IsDefault"):
                call(ListenerArn=listener, Certificates=certificates)

    def test_what_is_not_named_stays(self, cloud: Cloud, listener: str, issued: Issued) -> None:
        before = cloud.elbv2.describe_listeners(ListenerArns=[listener])["Listeners"][0]
        modify(cloud, listener, imported(cloud, issued))
        after = cloud.elbv2.describe_listeners(ListenerArns=[listener])["Listeners"][0]
        for field in ("Port", "Protocol", "SslPolicy", "DefaultActions", "LoadBalancerArn"):
            assert after.get(field) == before.get(field)
        cloud.elbv2.modify_listener(
            ListenerArn=listener, SslPolicy="ELBSecurityPolicy-TLS13-1-2-2021-06"
        )
        last = cloud.elbv2.describe_listeners(ListenerArns=[listener])["Listeners"][0]
        assert last["Certificates"] == after["Certificates"]

    def test_protocols_with_and_without_certificates(
        self, cloud: Cloud, alb: str, issued: Issued
    ) -> None:
        arn = imported(cloud, issued)
        with refused("ValidationError", "cannot be specified"):
            modify(cloud, alb, arn, Protocol="HTTP")
        cloud.elbv2.modify_listener(ListenerArn=alb, Protocol="HTTP")
        assert served(cloud, alb) == []
        with refused("ValidationError", "must be specified"):
            cloud.elbv2.modify_listener(ListenerArn=alb, Protocol="HTTPS")
        modify(cloud, alb, arn, Protocol="HTTPS")

    def test_an_unknown_listener(self, cloud: Cloud, issued: Issued) -> None:
        with refused("ListenerNotFound"):
            modify(cloud, ALB, imported(cloud, issued))


class TestCreate:
    @pytest.mark.parametrize(("where", "protocol"), [(ALB, "HTTPS"), (NLB, "TLS")])
    def test_exactly_one_certificate(
        self, cloud: Cloud, issued: Issued, where: str, protocol: Any
    ) -> None:
        listener = resources.listener(where, **cloud.at)
        shown = cloud.elbv2.describe_listeners(ListenerArns=[listener])["Listeners"][0]
        arns = [imported(cloud, issued), imported(cloud, issued)]
        rest: Any = {
            "LoadBalancerArn": shown["LoadBalancerArn"],
            "DefaultActions": shown["DefaultActions"],
            "Protocol": protocol,
            "Port": 8443,
        }
        with refused("ValidationError", "must be specified"):
            cloud.elbv2.create_listener(**rest)
        with refused("ValidationError"):
            cloud.elbv2.create_listener(
                **rest, Certificates=[{"CertificateArn": arn} for arn in arns]
            )
        with refused("ValidationError", "IsDefault"):
            cloud.elbv2.create_listener(
                **rest, Certificates=[{"CertificateArn": arns[0], "IsDefault": True}]
            )
        cloud.elbv2.create_listener(**rest, Certificates=[{"CertificateArn": arns[0]}])

    def test_none_for_http(self, cloud: Cloud, alb: str, issued: Issued) -> None:
        shown = cloud.elbv2.describe_listeners(ListenerArns=[alb])["Listeners"][0]
        rest: Any = {
            "LoadBalancerArn": shown["LoadBalancerArn"],
            "DefaultActions": shown["DefaultActions"],
            "Protocol": "HTTP",
            "Port": 80,
        }
        with refused("ValidationError", "cannot be specified"):
            cloud.elbv2.create_listener(
                **rest, Certificates=[{"CertificateArn": imported(cloud, issued)}]
            )
        cloud.elbv2.create_listener(**rest)


class TestList:
    def test_adding_twice_adds_once(self, cloud: Cloud, listener: str, issued: Issued) -> None:
        arn = imported(cloud, issued)
        before = default(cloud, listener)
        add(cloud, listener, arn)
        add(cloud, listener, arn)
        assert served(cloud, listener) == [(before, True), (arn, False)]

    def test_one_in_each_call(self, cloud: Cloud, listener: str, issued: Issued) -> None:
        first, second = imported(cloud, issued), imported(cloud, issued)
        with refused("ValidationError"):
            add(cloud, listener, first, second)
        with refused("ValidationError"):
            remove(cloud, listener, first, second)

    def test_the_default_can_be_in_it_too(
        self, cloud: Cloud, listener: str, issued: Issued
    ) -> None:
        arn = default(cloud, listener)
        add(cloud, listener, arn)
        assert served(cloud, listener) == [(arn, True), (arn, False)]

    def test_the_default_cannot_be_removed(
        self, cloud: Cloud, listener: str, issued: Issued
    ) -> None:
        before = default(cloud, listener)
        with refused("OperationNotPermitted", "Default certificate cannot be removed"):
            remove(cloud, listener, before)
        add(cloud, listener, before)
        with refused("OperationNotPermitted"):
            remove(cloud, listener, before)
        modify(cloud, listener, imported(cloud, issued))
        remove(cloud, listener, before)
        assert before not in [arn for arn, _ in served(cloud, listener)]

    def test_a_removed_certificate_is_free(
        self, cloud: Cloud, listener: str, issued: Issued
    ) -> None:
        arn = imported(cloud, issued)
        add(cloud, listener, arn)
        with refused("ResourceInUseException"):
            cloud.acm.delete_certificate(CertificateArn=arn)
        remove(cloud, listener, arn)
        cloud.acm.delete_certificate(CertificateArn=arn)

    def test_twenty_five_beside_the_defaults(self, cloud: Cloud, authority: Authority) -> None:
        listeners = [resources.listener(arn, **cloud.at) for arn in (ALB, ALB_SECOND)]
        # Certificates of the load balancer, wherever they are; imports are not what is tested.
        arns = [resources.imported_certificate([NAME]) for _ in range(26)]
        for arn, listener in zip(arns[:25], listeners * 13, strict=False):
            add(cloud, listener, arn)
        with refused("TooManyCertificates"):
            add(cloud, listeners[0], arns[25])
        add(cloud, listeners[0], arns[0])
        remove(cloud, listeners[0], arns[0])
        add(cloud, listeners[0], arns[25])

    def test_pages(self, cloud: Cloud, listener: str, issued: Issued) -> None:
        arns = [imported(cloud, issued) for _ in range(4)]
        for arn in arns:
            add(cloud, listener, arn)
        first = cloud.elbv2.describe_listener_certificates(ListenerArn=listener, PageSize=2)
        assert len(first["Certificates"]) == 2
        assert first["NextMarker"]
        pages = cloud.elbv2.get_paginator("describe_listener_certificates").paginate(
            ListenerArn=listener, PaginationConfig={"PageSize": 2}
        )
        rows = [row for page in pages for row in page["Certificates"]]
        assert [row["CertificateArn"] for row in rows[1:]] == arns
        assert [row["IsDefault"] for row in rows] == [True, False, False, False, False]


class TestCertificate:
    def refused_everywhere(self, cloud: Cloud, listener: str, arn: str, code: str) -> None:
        with refused(code, status=400):
            add(cloud, listener, arn)
        with refused(code, status=400):
            modify(cloud, listener, arn)

    def test_one_that_is_gone(self, cloud: Cloud, listener: str, issued: Issued) -> None:
        arn = imported(cloud, issued)
        cloud.acm.delete_certificate(CertificateArn=arn)
        self.refused_everywhere(cloud, listener, arn, "CertificateNotFound")

    def test_one_that_has_expired(
        self, cloud: Cloud, listener: str, issued: Issued, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        arn = imported(cloud, issued)
        monkeypatch.setattr("moto.acm.models.utcnow", lambda: utcnow() + timedelta(days=90))
        self.refused_everywhere(cloud, listener, arn, "UnsupportedCertificate")

    def test_one_of_another_region(self, cloud: Cloud, listener: str, issued: Issued) -> None:
        arn = imported(cloud.within("eu-west-1"), issued)
        self.refused_everywhere(cloud, listener, arn, "CertificateNotFound")

    def test_one_of_another_account(self, cloud: Cloud, listener: str, issued: Issued) -> None:
        arn = imported(cloud, issued).replace("123456789012", "210987654321")
        self.refused_everywhere(cloud, listener, arn, "CertificateNotFound")

    def test_rsa_4096_on_an_nlb(self, cloud: Cloud, authority: Authority) -> None:
        arn = imported(cloud, authority.issue(NAME, key=new_key("RSA_4096")))
        nlb, alb = (resources.listener(where, **cloud.at) for where in (NLB, ALB))
        self.refused_everywhere(cloud, nlb, arn, "UnsupportedCertificate")
        add(cloud, alb, arn)

    def test_rsa_1024_on_an_alb(self, cloud: Cloud, authority: Authority) -> None:
        arn = imported(cloud, authority.issue(NAME, key=new_key("RSA_1024")))
        nlb, alb = (resources.listener(where, **cloud.at) for where in (NLB, ALB))
        self.refused_everywhere(cloud, alb, arn, "UnsupportedCertificate")
        add(cloud, nlb, arn)


class TestTags:
    def test_at_most_twenty_at_once(self, cloud: Cloud) -> None:
        arns = [f"{ALB[:-2]}{number:02}" for number in range(21)]
        for arn in arns:
            resources.listener(arn, **cloud.at)
        cloud.elbv2.add_tags(ResourceArns=arns[:1], Tags=[{"Key": "team", "Value": "shop"}])
        with refused("ValidationError", "20"):
            cloud.elbv2.describe_tags(ResourceArns=arns)
        found = cloud.elbv2.describe_tags(ResourceArns=arns[:20])["TagDescriptions"]
        assert [each["ResourceArn"] for each in found] == arns[:20]
        assert [each["Tags"] for each in found[:2]] == [[{"Key": "team", "Value": "shop"}], []]

    def test_one_that_is_gone_refuses_all(self, cloud: Cloud, listener: str) -> None:
        with refused("ListenerNotFound"):
            cloud.elbv2.describe_tags(ResourceArns=[listener, listener[:-1] + "0"])
        balancer = listener.replace(":listener/", ":loadbalancer/").rpartition("/")[0]
        assert cloud.elbv2.describe_tags(ResourceArns=[balancer, listener])["TagDescriptions"]
        with refused("LoadBalancerNotFound"):
            cloud.elbv2.describe_tags(ResourceArns=[listener, balancer[:-1] + "0"])


class TestStatedAddress:
    def test_a_listener_at_its_arn(self, cloud: Cloud) -> None:
        where = ALB.replace("us-east-1", "eu-west-1")
        resources.listener(where, **cloud.at)
        shown = cloud.within("eu-west-1").elbv2.describe_listeners(ListenerArns=[where])
        balancer = where.replace(":listener/", ":loadbalancer/").rpartition("/")[0]
        assert shown["Listeners"][0]["LoadBalancerArn"] == balancer
        found = cloud.within("eu-west-1").elbv2.describe_load_balancers(LoadBalancerArns=[balancer])
        assert found["LoadBalancers"][0]["Type"] == "application"
        rows = cloud.within("eu-west-1").elbv2.describe_listeners(LoadBalancerArn=balancer)
        assert [row["ListenerArn"] for row in rows["Listeners"]] == [where]


class TestDescribeAccountLimits:
    def test_says_the_quota_that_is_enforced(self, cloud: Cloud) -> None:
        pages = cloud.elbv2.get_paginator("describe_account_limits")
        found = [
            limit
            for page in pages.paginate(PaginationConfig={"PageSize": 3})
            for limit in page["Limits"]
        ]
        limits = {limit["Name"]: limit["Max"] for limit in found}
        assert len(limits) == len(found)
        assert limits["certificates-per-application-load-balancer"] == "25"
        assert limits["certificates-per-network-load-balancer"] == "25"

    def test_of_a_page_size(self, cloud: Cloud) -> None:
        with refused("ValidationError"):
            cloud.elbv2.describe_account_limits(PageSize=401)
