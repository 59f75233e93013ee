"""IAM: roles, and policies that are put into them."""

import json
from functools import cache

from moto.iam.aws_managed_policies import aws_managed_policies_data
from moto.iam.models import AWSManagedPolicy, iam_backends

from sandbox.cloudformation.resource import Properties, Resource, refuse


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
        for gone in before - inline.keys():
            iam.delete_role_policy(RoleName=self.name, PolicyName=gone)
        for name, document in inline.items():
            iam.put_role_policy(RoleName=self.name, PolicyName=name, PolicyDocument=document)
        attached = self._attached()
        for arn in attached - managed:
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
