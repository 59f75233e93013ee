"""The proof of `certrail iam`: roles that are exactly what it prints, one in another account or
those of the stack, are enough for all that happens to the targets there; less any one statement,
action or resource they are not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from certrail.errors import AccessDenied, TargetMissing
from certrail.grants import Scope
from certrail.keys import KeyType
from certrail.pipelines import Pipelines, load
from certrail.target import Target, with_needs
from cli.iam import VERSION, RolePolicies, needed
from deployers import alarms
from deployers.deploy import nodes_of
from deployers.inventory import Inventory
from deployers.job import Role
from deployers.kinds.acm import RETIRE_AFTER
from deployers.kinds.all import KINDS, AnyTarget
from deployers.kinds.cloudfront import Cloudfront
from deployers.kinds.listener import Listener
from deployers.kinds.secretsmanager import Secretsmanager
from fleet.document import document
from sandbox import resources
from sandbox.rules.statemanager import state_manager
from tests.certrail.bundles import NOW, make_bundle
from tests.deployers.cloud import ACCOUNT, DOMAINS, REGION, Cloud, put_alarm
from tests.fleet.instances import instance

EDGE = "222222222222"
# The sample's targets, with all that a target may ask for. `shop` gets its certificates; `old`
# takes over what was there.
FILE = """\
issuers:
  ca: {{directory: "https://ca.example/directory"}}
accounts:
  edge: {{role_arn: "arn:aws:iam::222222222222:role/tls/certrail", external_id: abc}}
defaults: {{region: eu-central-1}}
pipelines:
  - name: shop
    domains: [shop.example.com, "*.shop.example.com"]
    targets:
      - {{type: acm, {account}tags: {{team: web}}}}
      - {{type: apigateway, {account}domain_name: api.shop.example.com}}
      - {{type: cloudfront, {account}distribution: E2QWRUHEXAMPLE}}
      - {{type: listener, {account}listener: "{listener}", default: true}}
      - {{type: parameterstore, {account}name: /tls/new, kms_key: alias/tls}}
      - {{type: secretsmanager, {account}name: tls/new, kms_key: alias/tls,
         readers: ["333333333333"]}}
      - {{type: fleet, {account}name: web, instances: {{certrail: web}}, secret: tls/new}}
  - name: old
    domains: [shop.example.com, "*.shop.example.com"]
    targets:
      - {{type: acm, {account}region: eu-west-1, certificate_arn: "{certificate}",
         tags: {{team: web}}}}
      - {{type: parameterstore, {account}name: /tls/a, kms_key: "{key}"}}
      - {{type: parameterstore, {account}name: /tls/b, kms_key: "{key}",
         shape: "{{a: @, b: @}}"}}
      - {{type: secretsmanager, {account}name: tls/a, kms_key: "{key}"}}
      - {{type: secretsmanager, {account}name: tls/b, kms_key: alias/tls,
         replica_regions: [us-east-1]}}
"""
# What only this sort of domain name needs.
AT_THE_EDGE = """\
issuers:
  ca: {{directory: "https://ca.example/directory"}}
accounts:
  edge: {{role_arn: "arn:aws:iam::222222222222:role/tls/certrail", external_id: abc}}
pipelines:
  - name: shop
    domains: [edge.example.com]
    targets:
      - {{type: apigateway, account: edge, domain_name: edge.example.com, region: eu-central-1,
         endpoint: edge}}
"""
# What is found instead of named, and what is asked before a wave begins.
FOUND = """\
issuers:
  ca: {{directory: "https://ca.example/directory"}}
accounts:
  edge: {{role_arn: "arn:aws:iam::222222222222:role/tls/certrail", external_id: abc}}
defaults: {{region: eu-central-1}}
pipelines:
  - name: shop
    domains: [shop.example.com, "*.shop.example.com"]
    waves: [{{name: first, alarms: ["arn:aws:cloudwatch:eu-west-1:222222222222:alarm:errors"]}}]
    targets:
      - {{type: cloudfront, covers: true, accounts: edge}}
      - {{type: listener, covers: true, accounts: edge}}
      - {{type: secretsmanager, select: "[?starts_with(Name, 'tls/')]", accounts: edge}}
"""
HOME = Scope("aws", ACCOUNT, "certrail-test")
# Of the stack's roles, which Lambda assumes; here the test does.
TRUST = {
    "Effect": "Allow",
    "Action": "sts:AssumeRole",
    "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
}


def alb(account: str) -> str:
    balancer = "listener/app/shop/50dc6c495c0c9188/f2f7dc8efc522ab2"
    return f"arn:aws:elasticloadbalancing:{REGION}:{account}:{balancer}"


def read(text: str, account: str, certificate: str, key: str) -> Pipelines[AnyTarget]:
    filled = text.format(
        account="account: edge, " if account == EDGE else "",
        listener=alb(account),
        certificate=certificate,
        key=key,
    )
    return load(filled, "pipelines.yaml", Pipelines[AnyTarget])


def printed(file: Pipelines[AnyTarget], account: str) -> dict[str, RolePolicies]:
    """By kind, the role that deploys it: elsewhere one for all, in the stack one for each."""
    if account == EDGE:
        (role,) = needed(file, "edge", HOME)
        return dict.fromkeys(KINDS, role)
    roles = {role.role: role for role in needed(file, None, HOME)}
    return {
        kind: roles[name] for kind in KINDS if (name := f"{kind.capitalize()}DeployerRole") in roles
    }


class Account:
    """An account, with what the files name in it, before certrail comes. account: its number."""

    def __init__(self, cloud: Cloud, text: str, account: str = EDGE) -> None:
        self.cloud = cloud
        self.account = account
        resources.distribution(
            "E2QWRUHEXAMPLE",
            DOMAINS,
            session=cloud.session,
            endpoint=cloud.endpoint,
            account=account,
        )
        resources.listener(alb(account), session=cloud.session, endpoint=cloud.endpoint)
        for name in ("api.shop.example.com", "edge.example.com"):
            resources.domain_name(
                name,
                session=cloud.session,
                endpoint=cloud.endpoint,
                region=REGION,
                account=account,
                edge=name.startswith("edge."),
            )
        certificate = resources.imported_certificate(DOMAINS, account=account, region="eu-west-1")
        before = resources.imported_certificate(DOMAINS, account=account, region="eu-west-1")
        self.client("acm", "eu-west-1").add_tags_to_certificate(
            CertificateArn=before,
            Tags=[
                {"Key": "certrail:owner", "Value": HOME.owner},
                {"Key": "certrail:pipeline", "Value": "old"},
            ],
        )
        kms = self.client("kms")
        keys = [kms.create_key()["KeyMetadata"]["Arn"] for _ in range(2)]
        kms.create_alias(AliasName="alias/tls", TargetKeyId=keys[0])
        for name in ("tls/a", "tls/b"):
            self.client("secretsmanager").create_secret(Name=name, SecretString="by hand")
        self.client("ssm").create_document(
            Content=json.dumps(document()), Name="certrail-install", DocumentType="Command"
        )
        state_manager(account, REGION).launch(instance(1, online=False))
        ours = {"certrail:owner": HOME.owner, "certrail:pipeline": "old"}
        self.client("ssm").put_parameter(
            Name="/tls/a",
            Value="by hand",
            Type="SecureString",
            Tags=[{"Key": key, "Value": text} for key, text in ours.items()],
        )
        self.file = read(text, account, certificate, keys[1])

    def client(self, service: str, region: str = REGION) -> Any:
        session: Any = self.cloud.session
        client = session.client(service, endpoint_url=self.cloud.endpoint, region_name=region)

        def there(request: Any, **_: Any) -> None:
            # moto's own way to say whose call this is.
            request.headers["x-moto-account-id"] = self.account

        client.meta.events.register("before-sign", there)
        return client

    def roles(self, without: Removed | None = None) -> dict[str, Role]:
        """By kind, the roles as the command prints them, less what is removed."""
        by_kind = printed(self.file, self.account)
        roles = {each.role: each for each in by_kind.values()}
        made = {name: self._role(role, without) for name, role in roles.items()}
        return {kind: made[role.role] for kind, role in by_kind.items()}

    def _role(self, policies: RolePolicies, without: Removed | None) -> Role:
        iam = self.client("iam")
        arn = policies.role if policies.account else f"arn:aws:iam::{ACCOUNT}:role/{policies.role}"
        path, _, name = arn.partition(":role")[2].rpartition("/")
        trust = policies.trust or {"Version": VERSION, "Statement": [TRUST]}
        iam.create_role(RoleName=name, Path=f"{path}/", AssumeRolePolicyDocument=json.dumps(trust))
        for number, policy in enumerate(policies.policies):
            left = [
                without.of(each) if without and without.role in {None, name} else each
                for each in policy["Statement"]
            ]
            document = {**policy, "Statement": [each for each in left if each]}
            if not document["Statement"]:
                continue
            iam.put_role_policy(
                RoleName=name, PolicyName=f"p{number}", PolicyDocument=json.dumps(document)
            )
        return Role(arn, "abc" if policies.account else None)

    # What happens to the targets

    def run(self, roles: Mapping[str, Role], kinds: set[str]) -> None:
        """First deployments, daily checks, changes by hand, renewals, losses, another type of key,
        and the way back, of these kinds' targets. Raises AccessDenied at the first call that is
        refused."""
        first = make_bundle(DOMAINS)
        for pipeline in ("shop", "old"):
            self.cloud.publish(pipeline=pipeline, bundle=first)
        self.deploy(roles, kinds)
        self.deploy(roles, kinds)
        self.meddle()
        self.deploy(roles, kinds)
        for pipeline in ("shop", "old"):
            self.cloud.publish(pipeline=pipeline)
        self.deploy(roles, kinds)
        self.lose()
        self.deploy(roles, kinds)
        self.cloud.publish(key_type=KeyType.RSA_2048, pipeline="shop")
        self.deploy(roles, kinds & {"acm"})
        self.miss(roles, kinds & {"apigateway", "cloudfront"})
        self.deploy(roles, kinds)
        self.cloud.publish(pipeline="shop", bundle=first)
        self.deploy(roles, kinds)
        self.deploy(roles, kinds, now=datetime.now(UTC) + 2 * RETIRE_AFTER)
        self.shut_out(roles, kinds)

    def deploy(self, roles: Mapping[str, Role], kinds: set[str], *, now: datetime = NOW) -> None:
        for pipeline in self.file.pipelines:
            for target in with_needs(pipeline.targets).values():
                if target.type not in kinds:
                    continue
                role = roles[target.type]
                self.cloud.deploy(target, pipeline=pipeline.name, role=role, now=now)
                current = self.cloud.store.current(pipeline.name)
                assert current
                record = self.cloud.recorded(target, pipeline=pipeline.name)
                assert record.fingerprint == current.fingerprint
                nodes_of(
                    self.cloud.store,
                    target,
                    pipeline.name,
                    record,
                    role=role,
                    aws=self.cloud.aws,
                )

    def miss(self, roles: Mapping[str, Role], kinds: set[str]) -> None:
        """Who is to point to the new import comes an hour after somebody deleted it."""
        self.lose_imports("RSA_2048")
        later = NOW + timedelta(hours=1)
        for target in self.file.pipelines[0].targets:
            if target.type in kinds:
                with pytest.raises(TargetMissing):
                    self.cloud.deploy(target, role=roles[target.type], now=later)

    def shut_out(self, roles: Mapping[str, Role], kinds: set[str]) -> None:
        """The file names no readers any more."""
        for pipeline in self.file.pipelines:
            for target in pipeline.targets:
                if target.type in kinds and isinstance(target, Secretsmanager) and target.readers:
                    alone = target.model_copy(update={"readers": ()})
                    role = roles[target.type]
                    self.cloud.deploy(alone, pipeline=pipeline.name, role=role)

    def meddle(self) -> None:
        """Somebody changes by hand what can be changed."""
        acm, cloudfront = self.client("acm"), self.client("cloudfront")
        everything = acm.list_certificates(Includes={"keyTypes": ["EC_prime256v1"]})
        for certificate in everything["CertificateSummaryList"]:
            acm.remove_tags_from_certificate(
                CertificateArn=certificate["CertificateArn"], Tags=[{"Key": "team"}]
            )
        answer = cloudfront.get_distribution_config(Id="E2QWRUHEXAMPLE")
        config = answer["DistributionConfig"]
        viewer = config["ViewerCertificate"]
        viewer["ACMCertificateArn"] = resources.imported_certificate(DOMAINS, account=self.account)
        for name in ("Certificate", "CertificateSource"):
            viewer.pop(name, None)
        cloudfront.update_distribution(
            Id="E2QWRUHEXAMPLE", IfMatch=answer["ETag"], DistributionConfig=config
        )
        ssm = self.client("ssm")
        for parameter in ssm.describe_parameters()["Parameters"]:
            by_hand = {"Value": "by hand", "KeyId": "alias/aws/ssm", "Overwrite": True}
            ssm.put_parameter(Name=parameter["Name"], Type="SecureString", **by_hand)
        secrets = self.client("secretsmanager")
        for secret in secrets.list_secrets()["SecretList"]:
            secrets.delete_resource_policy(SecretId=secret["ARN"])
            secrets.put_secret_value(SecretId=secret["ARN"], SecretString="by hand")
            secrets.update_secret(SecretId=secret["ARN"], KmsKeyId="alias/aws/secretsmanager")

    def lose(self) -> None:
        """What nobody uses is deleted for good, and records with it."""
        self.lose_imports("EC_prime256v1")
        secrets = self.client("secretsmanager")
        for secret in secrets.list_secrets()["SecretList"]:
            with suppress(secrets.exceptions.InvalidParameterException):
                secrets.remove_regions_from_replication(
                    SecretId=secret["ARN"], RemoveReplicaRegions=["us-east-1"]
                )
            secrets.delete_secret(SecretId=secret["ARN"], ForceDeleteWithoutRecovery=True)
        ssm = self.client("ssm")
        for parameter in ssm.describe_parameters()["Parameters"]:
            ssm.delete_parameter(Name=parameter["Name"])
        s3 = self.cloud.client("s3")
        for key in list(self.cloud.store.keys("deployments/shop/acm/edge:us-east-1")):
            s3.delete_object(Bucket=self.cloud.store.bucket, Key=key)

    def lose_imports(self, algorithm: str) -> None:
        for region in (REGION, "us-east-1"):
            acm = self.client("acm", region)
            there = acm.list_certificates(Includes={"keyTypes": [algorithm]})
            for certificate in there["CertificateSummaryList"]:
                with suppress(acm.exceptions.ResourceInUseException):
                    acm.delete_certificate(CertificateArn=certificate["CertificateArn"])


@dataclass(frozen=True)
class Removed:
    """What is left out: a statement, one of its actions, or one of its resources by its place among
    them. role: of the stack; None elsewhere, where there is one."""

    role: str | None
    sid: str
    action: str | None = None
    resource: int | None = None

    @property
    def whole(self) -> bool:
        return self.action is None and self.resource is None

    def __str__(self) -> str:
        return "-".join(
            str(each)
            for each in (self.role, self.sid, self.action, self.resource)
            if each is not None
        )

    def of(self, statement: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if statement["Sid"] != self.sid:
            return statement
        if self.action:
            left = [each for each in statement["Action"] if each != self.action]
            assert left != statement["Action"]
            return {**statement, "Action": left}
        if self.resource is not None:
            left = list(statement["Resource"])
            del left[self.resource]
            return {**statement, "Resource": left}
        return None


def parts(text: str, account: str = EDGE) -> list[Removed]:
    arn = "arn:aws:{}:{}:{}:{}/12345678-1234-1234-1234-123456789012".format
    certificate = arn("acm", "eu-west-1", account, "certificate")
    roles = printed(read(text, account, certificate, arn("kms", REGION, account, "key")), account)
    found = []
    for name, policies in {each.role: each.policies for each in roles.values()}.items():
        role = name if account == ACCOUNT else None
        for statement in (each for policy in policies for each in policy["Statement"]):
            sid = statement["Sid"]
            found.append(Removed(role, sid))
            if isinstance(statement["Action"], list):
                found += [Removed(role, sid, action=action) for action in statement["Action"]]
            if isinstance(statement["Resource"], list):
                found += [Removed(role, sid, resource=n) for n in range(len(statement["Resource"]))]
    return found


# What is deployed to see that nothing of a kind can be left out: an import in ACM is read and moved
# because of others.
NEEDED = {
    "Acm": {"acm", "apigateway", "cloudfront", "listener"},
    "Apigateway": {"acm", "apigateway"},
    "Cloudfront": {"acm", "cloudfront"},
    "Fleet": {"fleet", "secretsmanager"},
    "Listener": {"acm", "listener"},
    "Parameterstore": {"parameterstore"},
    "Secretsmanager": {"secretsmanager"},
}


def kinds_for(removed: Removed) -> set[str]:
    name = removed.role or removed.sid
    (kinds,) = (kinds for kind, kinds in NEEDED.items() if name.startswith(kind))
    return kinds


def test_every_kind_is_shown(cloud: Cloud, quick: None) -> None:
    file = Account(cloud, FILE).file
    assert {target.type for each in file.pipelines for target in each.targets} == set(KINDS)
    assert set(NEEDED) == {kind.capitalize() for kind in KINDS}


@pytest.mark.parametrize("account", [EDGE, ACCOUNT], ids=["elsewhere", "stack"])
@pytest.mark.parametrize("kinds", NEEDED.values(), ids=NEEDED)
def test_what_it_prints_is_enough(cloud: Cloud, quick: None, kinds: set[str], account: str) -> None:
    there = Account(cloud, FILE, account)
    there.run(there.roles(), kinds)


PARTS = parts(FILE) + parts(FILE, ACCOUNT)


def refused_without(cloud: Cloud, removed: Removed) -> None:
    there = Account(cloud, FILE, ACCOUNT if removed.role else EDGE)
    roles = there.roles(without=removed)
    with pytest.raises(AccessDenied):
        there.run(roles, kinds_for(removed))


@pytest.mark.parametrize("removed", [each for each in PARTS if each.whole], ids=str)
def test_no_statement_can_be_left_out(cloud: Cloud, quick: None, removed: Removed) -> None:
    refused_without(cloud, removed)


@pytest.mark.thorough
@pytest.mark.parametrize("removed", [each for each in PARTS if not each.whole], ids=str)
def test_nothing_of_a_statement_can_be_left_out(
    cloud: Cloud, quick: None, removed: Removed
) -> None:
    refused_without(cloud, removed)


def test_an_edge_optimized_domain_name_needs_one_more(cloud: Cloud, quick: None) -> None:
    first = Account(cloud, AT_THE_EDGE)
    cloud.publish(["edge.example.com"], pipeline="shop")
    first.deploy(first.roles(), {"acm", "apigateway"})
    cloud.reset()
    again = Account(cloud, AT_THE_EDGE)
    cloud.publish(["edge.example.com"], pipeline="shop")
    roles = again.roles(without=Removed(None, "ApigatewayPointAtTheEdge"))
    with pytest.raises(AccessDenied, match="cloudfront:UpdateDistribution"):
        again.deploy(roles, {"acm", "apigateway"})


# What is looked at


def look(elsewhere: Account) -> None:
    """What the finder and the watcher read. Raises AccessDenied."""
    (pipeline,), accounts = elsewhere.file.pipelines, elsewhere.file.accounts
    inventory = Inventory(elsewhere.cloud.aws, accounts)
    for selection in pipeline.selections:
        for at in selection.locations:
            items = inventory.tagged(at, inventory.items(selection.type, at))
            assert items, f"there are no {selection.things}"
            if selection.reads_certificates:
                assert all(each.certificates for each in inventory.with_certificates(at, items))
    names, long_ago = pipeline.waves[0].alarms, datetime.now(UTC) - timedelta(days=1)
    for alarm in alarms.read(names, accounts, elsewhere.cloud.aws, long_ago).values():
        if alarm.unknown:
            raise AccessDenied(alarm.unknown, action="", code="")
        assert alarm.rang_at


def test_what_it_prints_is_enough_to_look_and_to_deploy_what_was_found(
    cloud: Cloud, quick: None
) -> None:
    elsewhere = Account(cloud, FOUND)
    put_alarm(elsewhere.client("cloudwatch", "eu-west-1"), "errors", "ALARM", "OK")
    roles = elsewhere.roles()
    look(elsewhere)
    cloud.publish()
    found: list[Target] = [
        Cloudfront(account="edge", distribution="E2QWRUHEXAMPLE"),
        Listener(account="edge", listener=alb(EDGE), default=True),
        Secretsmanager(account="edge", name="tls/a", region=REGION),
    ]
    for target in with_needs(found).values():
        cloud.deploy(target, role=roles[target.type])


@pytest.mark.parametrize(
    "removed",
    [each for each in parts(FOUND) if each.whole and not each.sid.startswith(tuple(NEEDED))],
    ids=str,
)
def test_nothing_can_be_left_out_to_look(cloud: Cloud, quick: None, removed: Removed) -> None:
    elsewhere = Account(cloud, FOUND)
    put_alarm(elsewhere.client("cloudwatch", "eu-west-1"), "errors", "ALARM", "OK")
    elsewhere.roles(without=removed)
    with pytest.raises(AccessDenied):
        look(elsewhere)


# What it does not allow


def test_it_allows_nothing_else(cloud: Cloud, quick: None) -> None:
    elsewhere = Account(cloud, FILE)
    role = elsewhere.roles()["acm"]
    acting = elsewhere.cloud.aws.acting_as(role.role_arn, role.external_id)
    acm, secrets = acting.acm(REGION), acting.secretsmanager(REGION)
    theirs = resources.imported_certificate(DOMAINS, account=EDGE, region=REGION)
    bundle = make_bundle(DOMAINS)
    certificate: dict[str, Any] = {
        "Certificate": bundle.certificate.encode(),
        "CertificateChain": bundle.chain.encode(),
        "PrivateKey": bundle.private_key.reveal().encode(),
    }
    other: Any = {"Key": "certrail:owner", "Value": "another-bucket"}
    ours: Any = {"Key": "certrail:owner", "Value": HOME.owner}
    key = elsewhere.client("kms").create_key()["KeyMetadata"]["Arn"]
    elsewhere.client("secretsmanager").create_secret(Name="theirs", SecretString="1")
    refused: list[Callable[[], object]] = [
        lambda: acm.import_certificate(**certificate),
        lambda: acm.import_certificate(**certificate, Tags=[other]),
        lambda: acm.import_certificate(**certificate, CertificateArn=theirs),
        lambda: acm.delete_certificate(CertificateArn=theirs),
        lambda: acting.acm("eu-west-2").import_certificate(**certificate, Tags=[ours]),
        lambda: acting.tagging("eu-west-2").get_resources(),
        lambda: acting.cloudfront().get_distribution(Id="E2THEIRS"),
        lambda: acting.elbv2("eu-west-2").describe_listeners(PageSize=1),
        lambda: acting.elbv2(REGION).modify_listener(ListenerArn=f"{alb(EDGE)}0", Port=80),
        lambda: acting.apigateway(REGION).get_domain_name(domainName="edge.example.com"),
        lambda: secrets.get_secret_value(SecretId="tls/a"),
        lambda: secrets.put_secret_value(SecretId="theirs", SecretString="2"),
        lambda: secrets.create_secret(Name="tls/other", SecretString="1"),
        lambda: secrets.create_secret(Name="tls/new", SecretString="1", KmsKeyId=key),
        lambda: secrets.list_secrets(),
        lambda: acting.route53().list_hosted_zones(),
    ]
    for call in refused:
        with pytest.raises(AccessDenied):
            call()
