"""The sandbox's AWS and DNS, and what a test of the challenge records makes there."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from certrail.aws import Aws
from certrail.nameservers import Server
from certrail.pipelines.model import Account
from certrail.pipelines.zones import AnyZone
from issuer.clock import Clock
from issuer.dns import Token, challenge_name
from issuer.dns.challenges import Dns
from sandbox import Sandbox, resources
from sandbox.sandbox import ACCOUNT, REGION

OTHER_ACCOUNT = "222222222222"
EXTERNAL_ID = "abc"


@dataclass
class World:
    """zone: the name of a fresh public zone in the own account."""

    sandbox: Sandbox
    aws: Aws
    zone: str

    def dns(
        self,
        *zones: AnyZone,
        accounts: Mapping[str, Account] | None = None,
        nameservers: Sequence[Server] | None = None,
    ) -> Dns:
        """A new one, as each run of the issuer has; it asks the sandbox's name server."""
        asked = nameservers or [Server(*self.sandbox.dns)]
        return Dns(self.aws, zones, accounts, asked)

    def hosted_zone(self, name: str, account: str = ACCOUNT, *, private: bool = False) -> str:
        """Returns the zone's id."""
        return resources.hosted_zone(
            name,
            private,
            session=self.sandbox.session(),
            endpoint=self.sandbox.endpoint,
            account=account,
        )

    def zone_id(self, name: str, account: str = ACCOUNT) -> str:
        zones = self._route53(account).list_hosted_zones_by_name(DNSName=name)["HostedZones"]
        return str(zones[0]["Id"]).rpartition("/")[2]

    def record(
        self, name: str, kind: str, *values: str, zone: str = "", account: str = ACCOUNT
    ) -> None:
        """Somebody else's record set, in the test's zone if no other is named."""
        records = [{"Value": value} for value in values]
        record = {"Name": name, "Type": kind, "TTL": 60, "ResourceRecords": records}
        self._route53(account).change_resource_record_sets(
            HostedZoneId=self.zone_id(zone or self.zone, account),
            ChangeBatch={"Changes": [{"Action": "CREATE", "ResourceRecordSet": record}]},
        )

    def texts(self, zone: str = "", account: str = ACCOUNT) -> list[str]:
        """The names of the TXT record sets of an account, in zones whose name ends so."""
        route53 = self._route53(account)
        return [
            record["Name"]
            for page in route53.get_paginator("list_hosted_zones").paginate()
            for each in page["HostedZones"]
            for record in route53.list_resource_record_sets(HostedZoneId=each["Id"])[
                "ResourceRecordSets"
            ]
            if record["Type"] == "TXT" and record["Name"].endswith(f"{zone or self.zone}.")
        ]

    def drop_zone(self, name: str) -> None:
        """Delete a zone with all that is in it."""
        route53, zone_id = self._route53(ACCOUNT), self.zone_id(name)
        records = route53.list_resource_record_sets(HostedZoneId=zone_id)["ResourceRecordSets"]
        changes = [
            {"Action": "DELETE", "ResourceRecordSet": record}
            for record in records
            if record["Type"] not in ("NS", "SOA")
        ]
        if changes:
            route53.change_resource_record_sets(
                HostedZoneId=zone_id, ChangeBatch={"Changes": changes}
            )
        route53.delete_hosted_zone(Id=zone_id)

    def secret(self, text: str) -> str:
        """Returns the ARN."""
        client = self.sandbox.session().client("secretsmanager")
        return str(client.create_secret(Name=uuid.uuid4().hex, SecretString=text)["ARN"])

    def parameter(self, text: str) -> str:
        """Returns the ARN."""
        name = f"/certrail/{uuid.uuid4().hex}"
        self.sandbox.session().client("ssm").put_parameter(
            Name=name, Value=text, Type="SecureString"
        )
        return f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter{name}"

    def role(self, account: str, *statements: Mapping[str, Any]) -> Account:
        """A role that the own account may assume with EXTERNAL_ID, and which may do this."""
        iam = self.sandbox.session(account=account).client("iam")
        trust = {
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
            "Condition": {"StringEquals": {"sts:ExternalId": EXTERNAL_ID}},
        }
        role = iam.create_role(RoleName="certrail-dns", AssumeRolePolicyDocument=_policy(trust))[
            "Role"
        ]
        iam.put_role_policy(
            RoleName="certrail-dns", PolicyName="dns", PolicyDocument=_policy(*statements)
        )
        return Account(role_arn=role["Arn"], external_id=EXTERNAL_ID)

    def _route53(self, account: str) -> Any:
        return self.sandbox.session(account=account).client("route53")


def _policy(*statements: Mapping[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def token(name: str, value: str = "a") -> Token:
    return Token(challenge_name(name), value.ljust(43, "x"))


def within(seconds: float) -> Clock:
    return Clock(
        lambda: datetime.now(UTC), time.sleep, datetime.now(UTC) + timedelta(seconds=seconds)
    )
