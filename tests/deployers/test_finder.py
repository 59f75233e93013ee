"""The finder, on the sandbox's AWS: what selections find there, and what is written of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest

from certrail.errors import Superseded
from certrail.pipelines import Pipelines, load
from certrail.records import Found
from certrail.store import found_key
from deployers import finder
from deployers.finder import Findings, find, keep
from deployers.inventory import Inventory
from deployers.kinds.all import AnyTarget
from deployers.kinds.cloudfront import Cloudfront
from sandbox import resources
from sandbox.calls import Call
from tests.certrail.bundles import NOW
from tests.deployers.cloud import ACCOUNT, REGION, Cloud
from tests.deployers.queues import Queues, route

EDGE = "222222222222"
HEAD = f"""\
issuers: {{ca: {{directory: https://ca.example/directory}}}}
accounts:
  edge: {{role_arn: "arn:aws:iam::{EDGE}:role/certrail", external_id: abc}}
defaults: {{region: {REGION}}}
pipelines:
"""
SHOP = (
    HEAD + "  - name: shop\n    domains: [shop.example.com, '*.shop.example.com']\n    targets:\n"
)
MAY_LIST = [
    {
        "Effect": "Allow",
        "Action": [
            "acm:DescribeCertificate",
            "acm:ListCertificates",
            "cloudfront:ListDistributions",
            "cloudfront:ListTagsForResource",
            "elasticloadbalancing:DescribeListenerCertificates",
            "elasticloadbalancing:DescribeListeners",
            "elasticloadbalancing:DescribeLoadBalancers",
            "elasticloadbalancing:DescribeTags",
            "secretsmanager:ListSecrets",
        ],
        "Resource": "*",
    }
]


def listener_arn(
    number: int, *, kind: str = "app", balancer: str = "web", account: str = ACCOUNT
) -> str:
    return (
        f"arn:aws:elasticloadbalancing:{REGION}:{account}:"
        f"listener/{kind}/{balancer}/aaaaaaaaaaaaaaaa/{number:016x}"
    )


class Estate:
    """Endpoints that somebody else has made."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.at: Any = {"session": cloud.session, "endpoint": cloud.endpoint}

    def distribution(self, name: str, *aliases: str, account: str = ACCOUNT, **tags: str) -> str:
        resources.distribution(name, aliases, account=account, **self.at)
        if tags:
            self.cloud.client("cloudfront").tag_resource(
                Resource=f"arn:aws:cloudfront::{account}:distribution/{name}",
                Tags={"Items": _tags(tags)},
            )
        return name

    def listener(
        self, arn: str, *names: str, more: Sequence[Sequence[str]] = (), **tags: str
    ) -> str:
        resources.listener(arn, names=names or ("placeholder.invalid",), **self.at)
        elb = self.cloud.client("elbv2")
        for each in more:
            certificate = resources.imported_certificate(each, region=REGION)
            elb.add_listener_certificates(
                ListenerArn=arn, Certificates=[{"CertificateArn": certificate}]
            )
        if tags:
            elb.add_tags(ResourceArns=[arn], Tags=_tags(tags))
        return arn

    def secret(self, name: str, **tags: str) -> None:
        self.cloud.client("secretsmanager").create_secret(
            Name=name, SecretString="x", Tags=_tags(tags)
        )


def _tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key.replace("_", ":"), "Value": value} for key, value in tags.items()]


@pytest.fixture
def estate(cloud: Cloud) -> Estate:
    return Estate(cloud)


def parsed(text: str) -> Pipelines[AnyTarget]:
    return load(text, "pipelines.yaml", Pipelines[AnyTarget])


def look(cloud: Cloud, text: str) -> Findings:
    file = parsed(text)
    return find(cloud.store, Inventory(cloud.aws, file.accounts), file, NOW)


def found(findings: Findings, pipeline: str = "shop") -> list[str]:
    return [target.address for each in findings.followed[pipeline] for target in each.targets]


def errors(findings: Findings, pipeline: str = "shop") -> list[str]:
    return [str(error) for each in findings.followed[pipeline] for error in each.errors]


class TestDistributions:
    def test_by_tag_of_more_than_a_page(self, cloud: Cloud, estate: Estate) -> None:
        for number in range(101):
            estate.distribution(f"E{number}", team="web")
        estate.distribution("ESHOP", team="shop")
        text = SHOP + "      - {type: cloudfront, select: \"[?Tags.team == 'shop']\"}\n"
        with cloud.journal() as calls:
            assert found(look(cloud, text)) == ["cloudfront/ESHOP"]
        made = [call.operation for call in calls]
        assert made.count("ListDistributions") == 2
        # Each has to be asked for its own.
        assert made.count("ListTagsForResource") == 102
        assert len(made) == 104

    def test_by_what_is_listed_only_the_chosen_are_asked_for_tags(
        self, cloud: Cloud, estate: Estate
    ) -> None:
        for number in range(5):
            estate.distribution(f"E{number}")
        text = SHOP + "      - {type: cloudfront, select: \"[?Comment == 'sandbox E3'].Id\"}\n"
        with cloud.journal() as calls:
            assert found(look(cloud, text)) == ["cloudfront/E3"]
        assert [call.operation for call in calls] == ["ListDistributions", "ListTagsForResource"]

    def test_by_alias(self, cloud: Cloud, estate: Estate) -> None:
        estate.distribution("E1", "shop.example.com", "a.shop.example.com")
        estate.distribution("E2", "b.shop.example.com", "example.com")
        estate.distribution("E3")
        text = SHOP + "      - {type: cloudfront, covers: true}\n"
        assert found(look(cloud, text)) == ["cloudfront/E1"]

    def test_what_is_to_be_ignored(self, cloud: Cloud, estate: Estate) -> None:
        estate.distribution("E1", "a.shop.example.com", certrail_ignore="true")
        estate.distribution("E2", "b.shop.example.com", certrail_ignore="no")
        text = SHOP + "      - {type: cloudfront, covers: true}\n"
        findings = look(cloud, text)
        assert found(findings) == ["cloudfront/E2"]
        assert findings.followed["shop"][0].left == {"cloudfront/E1": "has the tag certrail:ignore"}

    def test_one_that_goes_meanwhile(self, cloud: Cloud, estate: Estate) -> None:
        estate.distribution("E1", "a.shop.example.com")
        cloud.refuse("ListTagsForResource", "NoSuchResource", status=404)
        findings = look(cloud, SHOP + "      - {type: cloudfront, covers: true}\n")
        assert (found(findings), errors(findings)) == ([], [])


class TestListeners:
    COVERS = SHOP + "      - {type: listener, covers: true}\n"

    def test_by_certificate(self, cloud: Cloud, estate: Estate) -> None:
        estate.listener(listener_arn(1), "shop.example.com")
        estate.listener(listener_arn(2), "example.com", more=[["a.shop.example.com"]])
        estate.listener(listener_arn(3), "example.com")
        estate.listener(listener_arn(4, kind="net"), "b.shop.example.com", "c.shop.example.com")
        estate.listener(listener_arn(5), "shop.example.com", certrail_ignore="true")
        with cloud.journal() as calls:
            followed = look(cloud, self.COVERS).followed["shop"][0]
        assert {
            target.address.rpartition("/")[2][-1]: getattr(target, "default", None)
            for target in followed.targets
        } == {"1": True, "2": False, "4": True}
        made = [call.operation for call in calls]
        assert {operation: made.count(operation) for operation in made} == {
            "DescribeLoadBalancers": 1,
            "DescribeListeners": 2,
            "DescribeTags": 1,
            "DescribeListenerCertificates": 5,
            "ListCertificates": 1,
        }

    def test_by_tag_of_the_load_balancer(self, cloud: Cloud, estate: Estate) -> None:
        first = estate.listener(listener_arn(1, balancer="one"))
        estate.listener(listener_arn(1, balancer="two"))
        balancer = first.replace(":listener/", ":loadbalancer/").rpartition("/")[0]
        cloud.client("elbv2").add_tags(ResourceArns=[balancer], Tags=_tags({"team": "shop"}))
        text = SHOP + "      - {type: listener, select: \"[?LoadBalancer.Tags.team == 'shop']\"}\n"
        assert found(look(cloud, text)) == [f"listener/{first.partition(':listener/')[2]}"]

    def test_none_of_a_load_balancer_that_is_to_be_ignored(
        self, cloud: Cloud, estate: Estate
    ) -> None:
        first = estate.listener(listener_arn(1, balancer="one"), "a.shop.example.com")
        estate.listener(listener_arn(1, balancer="two"), "b.shop.example.com")
        balancer = first.replace(":listener/", ":loadbalancer/").rpartition("/")[0]
        ignore = _tags({"certrail_ignore": "true"})
        cloud.client("elbv2").add_tags(ResourceArns=[balancer], Tags=ignore)
        assert found(look(cloud, self.COVERS)) == [f"listener/app/two/{'a' * 16}/{1:016x}"]

    def test_of_more_than_a_page_of_load_balancers(self, cloud: Cloud, estate: Estate) -> None:
        for number in range(52):
            estate.listener(listener_arn(1, balancer=f"web-{number}"), team="web")
        estate.listener(listener_arn(1, balancer="web-52"), team="shop")
        text = SHOP + "      - {type: listener, select: \"[?Tags.team == 'shop']\"}\n"
        with cloud.journal() as calls:
            assert found(look(cloud, text)) == [f"listener/app/web-52/{'a' * 16}/{1:016x}"]
        made = [call.operation for call in calls]
        # The sandbox's pages have fifty; of tags, twenty of 53 listeners and 53 load balancers.
        assert {operation: made.count(operation) for operation in made} == {
            "DescribeLoadBalancers": 2,
            "DescribeListeners": 53,
            "DescribeTags": 6,
        }

    def test_names_of_a_certificate_with_more_than_a_hundred(
        self, cloud: Cloud, estate: Estate
    ) -> None:
        many = [f"n{number}.shop.example.com" for number in range(101)]
        estate.listener(listener_arn(1), *many)
        estate.listener(listener_arn(2), *many[:-1], "example.com")
        with cloud.journal() as calls:
            assert len(found(look(cloud, self.COVERS))) == 1
        made = [call.operation for call in calls]
        assert made.count("DescribeCertificate") == 2

    def test_a_certificate_of_iam_is_not_known(self, cloud: Cloud, estate: Estate) -> None:
        listener = estate.listener(listener_arn(1), "shop.example.com")
        certificate, key = resources.throwaway_certificate(["shop.example.com"])
        arn = cloud.client("iam").upload_server_certificate(
            ServerCertificateName="old",
            CertificateBody=certificate.decode(),
            PrivateKey=key.decode(),
        )["ServerCertificateMetadata"]["Arn"]
        cloud.client("elbv2").modify_listener(
            ListenerArn=listener, Certificates=[{"CertificateArn": arn}]
        )
        findings = look(cloud, self.COVERS)
        assert (found(findings), errors(findings)) == ([], [])

    @pytest.mark.parametrize(
        ("operation", "code"),
        [
            ("DescribeListeners", "LoadBalancerNotFound"),
            ("DescribeTags", "ListenerNotFound"),
            ("DescribeListenerCertificates", "ListenerNotFound"),
        ],
    )
    def test_one_that_goes_meanwhile(
        self, cloud: Cloud, estate: Estate, operation: str, code: str
    ) -> None:
        estate.listener(listener_arn(1, balancer="one"), "shop.example.com")
        estate.listener(listener_arn(1, balancer="two"), "shop.example.com")
        cloud.refuse(operation, code, status=400)
        findings = look(cloud, self.COVERS)
        # Tags are asked for again, one by one, and nothing has gone; else one has.
        assert len(found(findings)) == (2 if operation == "DescribeTags" else 1)
        assert errors(findings) == []

    def test_nothing_else_is_asked_for_where_nobody_looks(
        self, cloud: Cloud, estate: Estate
    ) -> None:
        estate.listener(listener_arn(1), "shop.example.com")
        with cloud.journal() as calls:
            look(cloud, SHOP + "      - {type: acm}\n")
        assert calls == []

    def test_a_key_that_an_nlb_cannot_serve(self, cloud: Cloud, estate: Estate) -> None:
        estate.listener(listener_arn(1, kind="net"), "shop.example.com")
        estate.listener(listener_arn(1), "shop.example.com")
        text = self.COVERS.replace("    targets:", "    key_type: rsa-4096\n    targets:")
        findings = look(cloud, text)
        assert found(findings) == [f"listener/app/web/{'a' * 16}/{1:016x}"]
        assert findings.followed["shop"][0].left == {
            f"listener/net/web/{'a' * 16}/{1:016x}": "cannot serve a key of type rsa-4096"
        }


class TestSecrets:
    def test_by_name_and_tag_with_what_the_selection_says(
        self, cloud: Cloud, estate: Estate
    ) -> None:
        for number in range(101):
            estate.secret(f"app/{number}")
        estate.secret("tls/a/bundle", tls="shop")
        text = SHOP + (
            "      - {type: secretsmanager, select: \"[?Tags.tls == 'shop'].Name\", "
            "shape: '{crt: fullchain, key: private_key}'}\n"
        )
        with cloud.journal() as calls:
            (followed,) = look(cloud, text).followed["shop"]
        (target,) = followed.targets
        assert target.model_dump(exclude_defaults=True) == {
            "name": "tls/a/bundle",
            "region": REGION,
            "shape": "{crt: fullchain, key: private_key}",
        }
        assert [call.operation for call in calls] == ["ListSecrets", "ListSecrets"]

    def test_a_copy_gets_what_the_secret_gets(self, cloud: Cloud) -> None:
        cloud.client("secretsmanager").create_secret(
            Name="tls/a/bundle", SecretString="x", AddReplicaRegions=[{"Region": "us-east-1"}]
        )
        text = SHOP + (
            f"      - {{type: secretsmanager, select: '[*]', regions: [{REGION}, us-east-1]}}\n"
        )
        assert found(look(cloud, text)) == [f"secretsmanager/{REGION}/tls/a/bundle"]

    def test_a_name_that_no_target_may_have(self, cloud: Cloud, estate: Estate) -> None:
        estate.secret("shop-online")
        estate.secret("tls/a/bundle")
        findings = look(cloud, SHOP + "      - {type: secretsmanager, select: '[*]'}\n")
        assert found(findings) == [f"secretsmanager/{REGION}/tls/a/bundle"]
        assert errors(findings) == [
            f"secretsmanager `[*]` in self, {REGION}: `shop-online` ends in a hyphen and six "
            "characters, like the end of a secret's ARN. Leave it out with `select`, or tag it "
            "`certrail:ignore` = `true`"
        ]
        cloud.client("secretsmanager").tag_resource(
            SecretId="shop-online", Tags=_tags({"certrail_ignore": "true"})
        )
        findings = look(cloud, SHOP + "      - {type: secretsmanager, select: '[*]'}\n")
        assert errors(findings) == []


class TestExpressions:
    @pytest.mark.parametrize(
        ("expression", "said"),
        [
            ("[?contains(Description, 'tls')]", "cannot be applied (In function contains()"),
            ("[].Tags", 'makes {"team": "shop"}, which is none of the secrets'),
            ("[].VersionIdsToStages || [`1`]", "makes 1, which is none of the secrets"),
        ],
    )
    def test_that_do_not_fit_what_is_there(
        self, cloud: Cloud, estate: Estate, expression: str, said: str
    ) -> None:
        estate.secret("tls/a/bundle", team="shop")
        text = SHOP + f"      - {{type: secretsmanager, select: {json.dumps(expression)}}}\n"
        if expression.startswith("[?contains"):
            # It fits the specimen where there is nothing to apply it to.
            text = text.replace("[?contains(", "[?Tags.team && contains(")
        findings = look(cloud, text)
        assert found(findings) == []
        (error,) = errors(findings)
        assert f"in self, {REGION}: the expression {said}" in error


class TestAccounts:
    TEXT = SHOP + "      - {type: cloudfront, covers: true, accounts: [self, edge]}\n"

    def test_each_through_its_role(self, cloud: Cloud, estate: Estate) -> None:
        cloud.role(EDGE, MAY_LIST)
        estate.distribution("E1", "a.shop.example.com")
        estate.distribution("E2", "b.shop.example.com", account=EDGE)
        (followed,) = look(cloud, self.TEXT).followed["shop"]
        assert [(target.address, target.account) for target in followed.targets] == [
            ("cloudfront/E1", None),
            ("cloudfront/E2", "edge"),
        ]

    def test_one_that_denies_keeps_what_was_found_there(self, cloud: Cloud, estate: Estate) -> None:
        cloud.role(EDGE, MAY_LIST)
        estate.distribution("E1", "a.shop.example.com")
        estate.distribution("E2", "b.shop.example.com", account=EDGE)
        keep(cloud.store, look(cloud, self.TEXT), NOW)
        cloud.forbid(EDGE)
        estate.distribution("E3", "c.shop.example.com")
        estate.distribution("E4", "d.shop.example.com", account=EDGE)
        other = (
            "  - name: other\n    domains: [other.example.com]\n    targets:\n"
            "      - {type: cloudfront, covers: true}\n"
        )
        estate.distribution("E5", "other.example.com")
        findings = look(cloud, self.TEXT + other)
        assert found(findings) == ["cloudfront/E1", "cloudfront/E2", "cloudfront/E3"]
        (error,) = errors(findings)
        assert error.startswith("cloudfront:ListDistributions: User: ")
        assert (found(findings, "other"), errors(findings, "other")) == (["cloudfront/E5"], [])

    def test_one_without_its_role(self, cloud: Cloud, estate: Estate) -> None:
        estate.distribution("E1", "a.shop.example.com")
        findings = look(cloud, self.TEXT)
        assert found(findings) == ["cloudfront/E1"]
        (error,) = errors(findings)
        assert error.startswith("sts:AssumeRole: ")

    def test_many_selections_ask_once(self, cloud: Cloud, estate: Estate) -> None:
        cloud.role(EDGE, MAY_LIST)
        estate.distribution("E1", "a.shop.example.com", account=EDGE)
        text = HEAD + "".join(
            f"  - name: p{number}\n    domains: [p{number}.example.com]\n    targets:\n"
            "      - {type: cloudfront, covers: true, accounts: edge}\n"
            for number in range(20)
        )
        before = len(cloud.server.calls.all())
        look(cloud, text)
        made = [call.operation for call in cloud.server.calls.all()[before:]]
        assert (made.count("AssumeRole"), made.count("ListDistributions")) == (1, 1)


class TestWhatTheCertificateCovers:
    TEXT = SHOP + "      - {type: cloudfront, covers: true}\n"

    def test_not_what_only_the_next_one_will(self, cloud: Cloud, estate: Estate) -> None:
        cloud.publish(["a.shop.example.com"])
        estate.distribution("E1", "a.shop.example.com")
        estate.distribution("E2", "b.shop.example.com")
        assert found(look(cloud, self.TEXT)) == ["cloudfront/E1"]

    def test_nor_what_the_next_one_will_not(self, cloud: Cloud, estate: Estate) -> None:
        cloud.publish(["a.shop.example.com", "old.example.com"])
        estate.distribution("E1", "old.example.com")
        assert found(look(cloud, self.TEXT)) == []


class TestWriting:
    TEXT = SHOP + "      - {type: cloudfront, covers: true}\n"

    def written(self, cloud: Cloud) -> Any:
        return cloud.store.read(found_key("shop"), Found)

    def test_only_what_changed(self, cloud: Cloud, estate: Estate) -> None:
        estate.distribution("E1", "a.shop.example.com")
        keep(cloud.store, look(cloud, self.TEXT), NOW)
        first = self.written(cloud)
        keep(cloud.store, look(cloud, self.TEXT), NOW + timedelta(hours=1))
        assert self.written(cloud) == first
        later = NOW + timedelta(hours=2)
        cloud.refuse("ListDistributions", "AccessDenied", status=403)
        keep(cloud.store, look(cloud, self.TEXT), later)
        (selected,) = self.written(cloud).value.selections
        assert selected.targets == first.value.selections[0].targets
        assert (selected.at, selected.error is None) == (later, False)
        # An error that goes is a change, too.
        keep(cloud.store, look(cloud, self.TEXT), later)
        assert self.written(cloud).value.selections[0].error is None

    def test_somebody_else_was_quicker(self, cloud: Cloud, estate: Estate) -> None:
        estate.distribution("E1", "a.shop.example.com")
        findings = look(cloud, self.TEXT)
        told: list[str] = []
        keep(cloud.store, findings, NOW, told.append)
        first = self.written(cloud)
        # It may have looked for what an earlier file meant, so this one is to look again.
        failures = keep(cloud.store, findings, NOW + timedelta(minutes=1), told.append)
        assert isinstance(failures["shop"], Superseded)
        assert self.written(cloud) == first
        # Who did not write it tells nothing.
        assert told == ["shop"]

    def test_what_was_not_asked_for_is_left_alone(self, cloud: Cloud, estate: Estate) -> None:
        estate.distribution("E1", "a.shop.example.com")
        other = (
            "  - name: other\n    domains: [other.example.com]\n    targets:\n"
            "      - {type: listener, covers: true}\n"
        )
        cloud.refuse("ListDistributions", "AccessDenied", status=403)
        keep(cloud.store, look(cloud, self.TEXT + other), NOW)
        first = self.written(cloud)
        assert first.value.selections[0].error
        file = parsed(self.TEXT + other)
        inventory = Inventory(cloud.aws, file.accounts)
        findings = find(cloud.store, inventory, file, NOW + timedelta(hours=1), {"other"})
        assert findings.followed.keys() == {"other"}
        keep(cloud.store, findings, NOW + timedelta(hours=1))
        assert self.written(cloud) == first

    def test_what_no_selection_looks_for_any_more(self, cloud: Cloud, estate: Estate) -> None:
        estate.distribution("E1", "a.shop.example.com")
        keep(cloud.store, look(cloud, self.TEXT), NOW)
        keep(cloud.store, look(cloud, SHOP + "      - {type: acm}\n"), NOW)
        assert self.written(cloud).value == Found("shop")

    def test_what_cannot_be_read_is_left_alone(self, cloud: Cloud, estate: Estate) -> None:
        estate.distribution("E1", "a.shop.example.com")
        key = found_key("shop")
        cloud.client("s3").put_object(Bucket=cloud.store.bucket, Key=key, Body=b"{")
        findings = look(cloud, self.TEXT)
        assert (found(findings) if "shop" in findings.followed else []) == []
        assert str(findings.failures["shop"]).startswith(f"s3://{cloud.store.bucket}/{key}: ")
        keep(cloud.store, findings, NOW)
        body = cloud.client("s3").get_object(Bucket=cloud.store.bucket, Key=key)["Body"].read()
        assert body == b"{"


class TestTheFunction:
    TEXT = SHOP + "      - {type: cloudfront, covers: true}\n"

    @pytest.fixture(autouse=True)
    def environment(self, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, lambda_logs: None) -> None:
        finder._aws.cache_clear()
        monkeypatch.setenv("CERTRAIL_BUCKET", cloud.store.bucket)

    def counted(self, capsys: pytest.CaptureFixture[str]) -> list[int]:
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return [line["SelectionsFailed"] for line in lines if "SelectionsFailed" in line]

    def test_what_it_finds_is_deployed(
        self, cloud: Cloud, estate: Estate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        estate.distribution("E1", "a.shop.example.com")
        estate.distribution("E2", "b.shop.example.com")
        queues = Queues(cloud, self.TEXT)
        monkeypatch.setenv("CERTRAIL_QUEUES", json.dumps(queues.urls))
        monkeypatch.setenv("CERTRAIL_WATCH_QUEUE", queues.looks)
        current = cloud.publish()
        finder.handle({}, None)
        route(found_key("shop"))
        assert queues.jobs() == ["shop: acm/us-east-1"]
        queues.work(monkeypatch)
        route(found_key("shop"))
        assert queues.jobs() == ["shop: cloudfront/E1", "shop: cloudfront/E2"]
        queues.work(monkeypatch)
        for name in ("E1", "E2"):
            record = cloud.recorded(Cloudfront(distribution=name))
            assert record.held
            assert record.held.fingerprint == current.fingerprint

    def found_and_then_ignored(self, cloud: Cloud, estate: Estate) -> None:
        estate.distribution("E1", "a.shop.example.com")
        cloud.store.put_pipelines_text(self.TEXT)
        finder.handle({}, None)
        cloud.client("cloudfront").tag_resource(
            Resource=f"arn:aws:cloudfront::{ACCOUNT}:distribution/E1",
            Tags={"Items": _tags({"certrail_ignore": "true"})},
        )

    def told(self, cloud: Cloud) -> list[tuple[str, str, str]]:
        """Of each event: its detail type, the target and the reason."""
        puts = [call for call in cloud.calls if call.operation == "PutEvents"]
        entries = [entry for put in puts for entry in (put.params or {})["Entries"]]
        details = [(entry["DetailType"], json.loads(entry["Detail"])) for entry in entries]
        return [(kind, detail["target"], detail["reason"]) for kind, detail in details]

    def test_what_is_gone_is_no_target_and_is_told(
        self, cloud: Cloud, estate: Estate, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.found_and_then_ignored(cloud, estate)
        capsys.readouterr()
        with cloud.journal() as calls:
            finder.handle({}, None)
        assert [call.operation for call in calls] == [
            "ListDistributions",
            "ListTagsForResource",
            "PutEvents",
        ]
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [line["message"] for line in lines if line.get("level") == "WARNING"] == [
            "cloudfront/E1 is no target of cloudfront `covers` any more: it has the tag "
            "certrail:ignore. Nothing there is touched, and the certificate that it has expires "
            "there"
        ]
        seen = cloud.store.read(found_key("shop"), Found)
        assert seen
        assert seen.value.selections[0].targets == ()
        assert seen.value.selections[0].gone == ("cloudfront/E1",)

    def test_what_is_gone_is_told_once(self, cloud: Cloud, estate: Estate) -> None:
        self.found_and_then_ignored(cloud, estate)
        assert self.told(cloud) == []
        for _ in range(2):
            finder.handle({}, None)
        assert self.told(cloud) == [("Target Lost", "cloudfront/E1", "has the tag certrail:ignore")]

    def test_what_a_fleet_reads_by_now_is_not_lost(self, cloud: Cloud) -> None:
        cloud.client("secretsmanager").create_secret(Name="tls/shop", SecretString="{}")
        cloud.store.put_pipelines_text(SHOP + "      - {type: secretsmanager, select: '[*]'}\n")
        finder.handle({}, None)
        fleet = "      - {type: fleet, name: web, instances: {a: b}, secret: tls/shop}\n"
        cloud.store.put_pipelines_text(SHOP + fleet)
        finder.handle({}, None)
        seen = cloud.store.read(found_key("shop"), Found)
        assert seen
        assert seen.value.selections == ()
        assert self.told(cloud) == []

    def test_what_a_removed_selection_found_is_told(self, cloud: Cloud, estate: Estate) -> None:
        estate.distribution("E1", "a.shop.example.com")
        cloud.store.put_pipelines_text(self.TEXT)
        finder.handle({}, None)
        cloud.store.put_pipelines_text(SHOP + "      - {type: acm}\n")
        for _ in range(2):
            finder.handle({}, None)
        why = "was found by one that the file does not have any more"
        assert self.told(cloud) == [("Target Lost", "cloudfront/E1", why)]

    def test_what_was_looked_for_with_an_earlier_file_is_not_kept(
        self, cloud: Cloud, estate: Estate
    ) -> None:
        """The correction of a selection that means too much, pushed while it looks."""
        estate.distribution("E1", "a.shop.example.com")
        cloud.store.put_pipelines_text(self.TEXT)
        narrow = SHOP + "      - {type: acm}\n"

        def meanwhile(call: Call) -> None:
            if call.operation == "ListDistributions":
                cloud.server.before.remove(meanwhile)
                cloud.store.put_pipelines_text(narrow)

        cloud.server.before.append(meanwhile)
        finder.handle({}, None)
        assert meanwhile not in cloud.server.before
        assert cloud.store.read(found_key("shop"), Found) is None

    def test_what_another_pipeline_names_is_not_lost(self, cloud: Cloud, estate: Estate) -> None:
        estate.distribution("E1", "a.shop.example.com")
        cloud.store.put_pipelines_text(self.TEXT)
        finder.handle({}, None)
        names = (
            "  - name: other\n    domains: ['*.shop.example.com']\n    targets:\n"
            "      - {type: cloudfront, distribution: E1}\n"
        )
        cloud.store.put_pipelines_text(self.TEXT + names)
        finder.handle({}, None)
        seen = cloud.store.read(found_key("shop"), Found)
        assert seen
        assert seen.value.selections[0].gone == ("cloudfront/E1",)
        assert self.told(cloud) == []

    def test_counts_what_failed_until_it_is_well(
        self, cloud: Cloud, estate: Estate, capsys: pytest.CaptureFixture[str]
    ) -> None:
        cloud.store.put_pipelines_text(self.TEXT)
        cloud.refuse("ListDistributions", "AccessDenied", status=403)
        finder.handle({}, None)
        finder.handle({}, None)
        assert self.counted(capsys) == [1, 0]

    def test_raises_what_it_cannot_read(
        self, cloud: Cloud, capsys: pytest.CaptureFixture[str]
    ) -> None:
        cloud.store.put_pipelines_text(self.TEXT)
        cloud.client("s3").put_object(Bucket=cloud.store.bucket, Key=found_key("shop"), Body=b"{")
        with pytest.raises(Exception, match="not a valid document"):
            finder.handle({}, None)
        assert self.counted(capsys) == [1]

    def test_a_new_stack_is_quiet(self, cloud: Cloud) -> None:
        assert finder.handle({}, None) == {}
