"""IAM: roles, and policies that are put into them."""

import json
import re
from functools import cache

from moto.cloudformation.exceptions import ValidationError
from moto.iam.aws_managed_policies import aws_managed_policies_data
from moto.iam.models import AWSManagedPolicy, iam_backends

from sandbox.cloudformation.resource import Properties, Resource, refuse

# Of a managed policy: characters, and versions.
LONGEST = 6_144
MOST_VERSIONS = 5


class Role(Resource):
    type = "AWS::IAM::Role"
    name_property = "RoleName"
    fixed = ("RoleName", "Path")
    attribute_names = ("Arn", "RoleId")

    def put(self, properties: Properties) -> None:
        iam = self.api("iam")
        self.name = self.physical_resource_id = self.name[:64]
        properties.pop("RoleName", None)
        trust = json.dumps(properties.pop("AssumeRolePolicyDocument"))
        inline = {
            policy["PolicyName"]: with_version(policy["PolicyDocument"])
            for policy in properties.pop("Policies", [])
        }
        managed = set(properties.pop("ManagedPolicyArns", []))
        if not self.exists:
            role = iam.create_role(
                RoleName=self.name, AssumeRolePolicyDocument=trust, **properties
            )["Role"]
            self.attributes = {"Arn": role["Arn"], "RoleId": role["RoleId"]}
        else:
            iam.update_assume_role_policy(RoleName=self.name, PolicyDocument=trust)
            iam.update_role(
                RoleName=self.name,
                **{
                    k: properties[k]
                    for k in ("Description", "MaxSessionDuration")
                    if k in properties
                },
            )
        before = {policy["PolicyName"] for policy in self.properties.get("Policies", [])}
        for name in before - inline.keys():
            iam.delete_role_policy(RoleName=self.name, PolicyName=name)
        for name, document in inline.items():
            iam.put_role_policy(RoleName=self.name, PolicyName=name, PolicyDocument=document)
        attached = self._attached()
        # What others attached stays.
        stated = set(self.properties.get("ManagedPolicyArns", []))
        for arn in attached & stated - managed:
            iam.detach_role_policy(RoleName=self.name, PolicyArn=arn)
        for arn in managed - attached:
            know_managed_policy(self.account, self.region, arn)
            iam.attach_role_policy(RoleName=self.name, PolicyArn=arn)

    def remove(self) -> None:
        iam = self.api("iam")
        for name in iam.list_role_policies(RoleName=self.name)["PolicyNames"]:
            iam.delete_role_policy(RoleName=self.name, PolicyName=name)
        for arn in self._attached():
            iam.detach_role_policy(RoleName=self.name, PolicyArn=arn)
        iam.delete_role(RoleName=self.name)

    def _attached(self) -> set[str]:
        attached = self.api("iam").list_attached_role_policies(RoleName=self.name)
        return {policy["PolicyArn"] for policy in attached["AttachedPolicies"]}


class Policy(Resource):
    type = "AWS::IAM::Policy"
    fixed = ("PolicyName", "Roles")

    def put(self, properties: Properties) -> None:
        self.policy = properties.pop("PolicyName")
        self.roles = properties.pop("Roles")
        document = with_version(properties.pop("PolicyDocument"))
        refuse(self.type, properties)
        for role in self.roles:
            self.api("iam").put_role_policy(
                RoleName=role, PolicyName=self.policy, PolicyDocument=document
            )

    def remove(self) -> None:
        for role in self.roles:
            self.api("iam").delete_role_policy(RoleName=role, PolicyName=self.policy)


class ManagedPolicy(Resource):
    """A policy of its own, attached to roles."""

    type = "AWS::IAM::ManagedPolicy"
    fixed = ("Description",)

    def put(self, properties: Properties) -> None:
        iam = self.api("iam")
        description = properties.pop("Description", "")
        roles = properties.pop("Roles", [])
        document = with_version(properties.pop("PolicyDocument"))
        refuse(self.type, properties)
        # docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html: "IAM does not count
        # white space".
        if len(re.sub(r"\s", "", document)) > LONGEST:
            raise ValidationError(message=f"Cannot exceed quota for PolicySize: {LONGEST}")
        if not self.exists:
            made = iam.create_policy(
                PolicyName=self.name[:128], PolicyDocument=document, Description=description
            )
            self.physical_resource_id = made["Policy"]["Arn"]
        else:
            self._another_version(document)
        before = set(self.properties.get("Roles", []))
        for role in before - set(roles):
            iam.detach_role_policy(RoleName=role, PolicyArn=self.physical_resource_id)
        for role in set(roles) - before:
            iam.attach_role_policy(RoleName=role, PolicyArn=self.physical_resource_id)

    def remove(self) -> None:
        for role in self.properties.get("Roles", []):
            self.api("iam").detach_role_policy(RoleName=role, PolicyArn=self.physical_resource_id)
        for version in self._versions():
            self._delete(version)
        self.api("iam").delete_policy(PolicyArn=self.physical_resource_id)

    def _another_version(self, document: str) -> None:
        """A policy has up to five: the oldest makes room."""
        versions = self._versions()
        if len(versions) == MOST_VERSIONS - 1:
            self._delete(versions[0])
        self.api("iam").create_policy_version(
            PolicyArn=self.physical_resource_id, PolicyDocument=document, SetAsDefault=True
        )

    def _versions(self) -> list[str]:
        """Those that are not in force, the oldest first."""
        listed = self.api("iam").list_policy_versions(PolicyArn=self.physical_resource_id)
        return sorted(
            (each["VersionId"] for each in listed["Versions"] if not each["IsDefaultVersion"]),
            key=lambda version: int(version[1:]),
        )

    def _delete(self, version: str) -> None:
        self.api("iam").delete_policy_version(
            PolicyArn=self.physical_resource_id, VersionId=version
        )


def with_version(policy: Properties) -> str:
    """IAM takes a policy without Version (SAM writes some) for 2008-10-17; moto refuses both.

    The later version differs only where a policy has variables.
    """
    return json.dumps({"Version": "2012-10-17", **policy})


@cache
def managed_policies() -> dict[str, Properties]:
    policies: dict[str, Properties] = json.loads(aws_managed_policies_data)
    return policies


def know_managed_policy(account: str, region: str, arn: str) -> None:
    """moto ships AWS's own policies, but would load all 1,500 into every account or none."""
    backend = iam_backends[account]["aws"]
    name = arn.rsplit("/", 1)[-1]
    if arn not in backend.managed_policies and name in managed_policies():
        policy = AWSManagedPolicy.from_data(name, account, region, managed_policies()[name])
        backend.managed_policies[policy.arn] = policy
