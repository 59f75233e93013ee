"""What the services list, read once however many selections look at it.

Where every call may be one of many thousands, the cheapest is taken that tells the truth: names of
certificates from ACM's list, a thousand at a time, tags of listeners twenty at a time. The tagging
API would give the tags of distributions in one call, but AWS's pages disagree on whether it knows
them, and a tag that says `certrail:ignore` must not be overlooked: so each is asked for its own, if
somebody wants to know.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from certrail.aws import Aws
from certrail.errors import AwsError, CertrailError
from certrail.keys import SECURE
from certrail.pipelines.selection import Certificate, Item, Location
from deployers.ownership import tags_of

if TYPE_CHECKING:
    from types_boto3_acm.literals import KeyAlgorithmType

    from certrail.pipelines import Account

T = TypeVar("T")

# docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_DescribeTags.html
TAGS_AT_ONCE = 20
# What GetDomainNames gives at once.
DOMAINS = 500
# Without them ListCertificates gives RSA keys of up to 2048 bits only.
EVERY_KEY: Sequence[KeyAlgorithmType] = (
    "RSA_1024",
    "RSA_2048",
    "RSA_3072",
    "RSA_4096",
    "EC_prime256v1",
    "EC_secp384r1",
    "EC_secp521r1",
)
# What was listed a moment ago, and is not there any more.
GONE = {"ListenerNotFound", "LoadBalancerNotFound", "NoSuchResource", "ResourceNotFoundException"}


class Inventory:
    """aws: of the account certrail runs in; accounts: of the pipelines file.

    Every answer is kept, a refusal as well. Two threads may use it, each for locations of its own.
    Raises AwsError.
    """

    def __init__(self, aws: Aws, accounts: Mapping[str, Account]) -> None:
        self._aws = aws
        self._accounts = accounts
        self._answers: dict[object, Any] = {}
        self._assuming = threading.Lock()

    def items(self, kind: str, at: Location) -> Sequence[Item]:
        """Everything there that a target of this kind could be. Distributions come without tags."""
        lists = {
            "apigateway": self._domain_names,
            "cloudfront": self._distributions,
            "listener": self._listeners,
            "secretsmanager": self._secrets,
        }
        return self._once((kind, at), lambda: list(lists[kind](at)))

    def tagged(self, at: Location, items: Iterable[Item]) -> list[Item]:
        """The items with their tags; without those that are not there any more."""
        return [
            item if "Tags" in item.listed else replace(item, listed={**item.listed, "Tags": tags})
            for item in items
            if "Tags" in item.listed or (tags := self._tags_of_distribution(at, item)) is not None
        ]

    def with_certificates(self, at: Location, items: Iterable[Item]) -> list[Item]:
        """Distributions, domain names and listeners with their certificates; without those that are
        not there any more."""
        return [
            replace(item, certificates=tuple(self._certificate(at, arn) for arn in arns))
            for item in items
            if (arns := self._arns(at, item)) is not None
        ]

    # The accounts

    def _at(self, at: Location) -> Aws:
        if at.account is None:
            return self._aws
        account = self._accounts[at.account]
        with self._assuming:
            return self._once(
                at.account, lambda: self._aws.acting_as(account.role_arn, account.external_id)
            )

    def _once(self, key: object, ask: Callable[[], T]) -> T:
        if key not in self._answers:
            try:
                self._answers[key] = ask()
            except CertrailError as error:
                self._answers[key] = error
        answer = self._answers[key]
        if isinstance(answer, CertrailError):
            raise answer
        found: T = answer
        return found

    # The services

    def _distributions(self, at: Location) -> Iterator[Item]:
        pages = self._at(at).cloudfront().get_paginator("list_distributions")
        for page in pages.paginate():
            for listed in page["DistributionList"].get("Items", []):
                yield Item(listed["Id"], listed["ARN"], _as_json(listed))

    def _tags_of_distribution(self, at: Location, item: Item) -> Mapping[str, str] | None:
        def ask() -> Mapping[str, str] | None:
            try:
                answer = self._at(at).cloudfront().list_tags_for_resource(Resource=item.arn)
            except AwsError as error:
                if error.code in GONE:
                    return None
                raise
            return tags_of(answer["Tags"].get("Items", []))

        return self._once(("tags", item.arn), ask)

    def _listeners(self, at: Location) -> Iterator[Item]:
        elb = self._at(at).elbv2(at.region)
        balancers: dict[str, dict[str, Any]] = {}
        listeners: dict[str, dict[str, Any]] = {}
        for page in elb.get_paginator("describe_load_balancers").paginate():
            for listed in page["LoadBalancers"]:
                balancers[listed["LoadBalancerArn"]] = _as_json(listed)
        for arn, balancer in balancers.items():
            # Gateway load balancers have no listener with a certificate.
            if balancer["Type"] in {"application", "network"}:
                listeners |= self._listeners_of(at, arn)
        used = {listener["LoadBalancerArn"] for listener in listeners.values()}
        tags = self._tags_of_balancing(at, [*listeners, *sorted(used)])
        for arn, listener in listeners.items():
            its = listener["LoadBalancerArn"]
            if arn in tags and its in tags:
                its_own = {**balancers[its], "Tags": tags[its]}
                yield Item(arn, arn, {**listener, "Tags": tags[arn], "LoadBalancer": its_own})

    def _listeners_of(self, at: Location, balancer: str) -> dict[str, dict[str, Any]]:
        pages = self._at(at).elbv2(at.region).get_paginator("describe_listeners")
        try:
            return {
                listener["ListenerArn"]: _as_json(listener)
                for page in pages.paginate(LoadBalancerArn=balancer)
                for listener in page["Listeners"]
                if listener.get("Protocol") in SECURE
            }
        except AwsError as error:
            if error.code in GONE:
                return {}
            raise

    def _tags_of_balancing(self, at: Location, arns: Sequence[str]) -> dict[str, Mapping[str, str]]:
        """By ARN, without what is not there any more: one of those, and AWS refuses the rest."""
        elb = self._at(at).elbv2(at.region)
        found: dict[str, Mapping[str, str]] = {}
        for first in range(0, len(arns), TAGS_AT_ONCE):
            some = list(arns[first : first + TAGS_AT_ONCE])
            try:
                answer = elb.describe_tags(ResourceArns=some)
            except AwsError as error:
                if error.code not in GONE:
                    raise
                if len(some) > 1:
                    for arn in some:
                        found |= self._tags_of_balancing(at, [arn])
                continue
            for each in answer["TagDescriptions"]:
                found[each["ResourceArn"]] = tags_of(each.get("Tags", []))
        return found

    def _domain_names(self, at: Location) -> Iterator[Item]:
        pages = self._at(at).apigateway(at.region).get_paginator("get_domain_names")
        for page in pages.paginate(PaginationConfig={"PageSize": DOMAINS}):
            for listed in page.get("items", ()):
                tags = listed.get("tags", {})
                yield Item(
                    listed["domainName"],
                    listed.get("domainNameArn", ""),
                    {**_as_json(listed), "Tags": tags},
                )

    def _secrets(self, at: Location) -> Iterator[Item]:
        pages = self._at(at).secretsmanager(at.region).get_paginator("list_secrets")
        for page in pages.paginate(PaginationConfig={"PageSize": 100}):
            for listed in page["SecretList"]:
                tags = tags_of(listed.get("Tags", []))
                yield Item(listed["Name"], listed["ARN"], {**_as_json(listed), "Tags": tags})

    # Certificates

    def _arns(self, at: Location, item: Item) -> Sequence[str] | None:
        """Of the certificates of an endpoint, the default first; None where it is not there any
        more."""
        if "ListenerArn" in item.listed:
            return self._once(("certificates", item.arn), lambda: self._arns_of_listener(at, item))
        if "domainName" in item.listed:
            members = ("regionalCertificateArn", "certificateArn")
            return [arn for each in members if (arn := item.listed.get(each))]
        viewer = item.listed.get("ViewerCertificate", {})
        arn = viewer.get("ACMCertificateArn") or viewer.get("IAMCertificateId")
        return [arn] if arn else []

    def _arns_of_listener(self, at: Location, item: Item) -> Sequence[str] | None:
        pages = self._at(at).elbv2(at.region).get_paginator("describe_listener_certificates")
        try:
            certificates = [
                certificate
                for page in pages.paginate(ListenerArn=item.arn)
                for certificate in page["Certificates"]
            ]
        except AwsError as error:
            if error.code in GONE:
                return None
            raise
        certificates.sort(key=lambda certificate: not certificate.get("IsDefault", False))
        # A default that is in the list as well is there twice.
        return list(dict.fromkeys(certificate["CertificateArn"] for certificate in certificates))

    def _certificate(self, at: Location, arn: str) -> Certificate:
        if not arn.startswith("arn:") or ":acm:" not in arn:
            return Certificate(arn)
        # Of an edge-optimized domain name it is in us-east-1.
        at = Location(at.account, arn.split(":")[3])
        known = self._once(("acm", at), lambda: self._certificates(at))
        return known.get(arn) or self._once(("acm", arn), lambda: self._described(at, arn))

    def _certificates(self, at: Location) -> Mapping[str, Certificate]:
        pages = self._at(at).acm(at.region).get_paginator("list_certificates")
        return {
            listed["CertificateArn"]: Certificate(
                listed["CertificateArn"],
                tuple(listed.get("SubjectAlternativeNameSummaries", ())),
                listed.get("NotAfter"),
                listed.get("Type") == "AMAZON_ISSUED",
            )
            for page in pages.paginate(
                Includes={"keyTypes": EVERY_KEY}, PaginationConfig={"PageSize": 1000}
            )
            for listed in page["CertificateSummaryList"]
            # Of more than a hundred names, the list has the first.
            if not listed.get("HasAdditionalSubjectAlternativeNames")
        }

    def _described(self, at: Location, arn: str) -> Certificate:
        """One that the list has not, or not in full."""
        try:
            described = self._at(at).acm(at.region).describe_certificate(CertificateArn=arn)
        except AwsError as error:
            if error.code in GONE:
                return Certificate(arn)
            raise
        found = described["Certificate"]
        return Certificate(
            arn,
            tuple(found.get("SubjectAlternativeNames", ())),
            found.get("NotAfter"),
            found.get("Type") == "AMAZON_ISSUED",
        )


def _as_json(value: Any) -> dict[str, Any]:
    """What a service answered, as JMESPath knows it: moments become text."""
    found: dict[str, Any] = json.loads(json.dumps(value, default=_text))
    return found


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
