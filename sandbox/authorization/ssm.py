"""Systems Manager: parameters, and the KMS keys that secure ones are encrypted with;
associations and what they run on.

https://docs.aws.amazon.com/service-authorization/latest/reference/list_awssystemsmanager.html
"""

from collections.abc import Mapping
from typing import Any

from moto.ssm.models import ssm_backends

from sandbox.authorization.kms import through
from sandbox.authorization.request import here, modelled, request_context
from sandbox.calls import Call
from sandbox.policies import Need

PARAMETERS = {"DeleteParameter", "GetParameter", "PutParameter"}
TAGGING = {"AddTagsToResource", "ListTagsForResource", "RemoveTagsFromResource"}
# They know no resource.
WHOLE = {
    "DescribeInstanceInformation",
    "DescribeParameters",
    "GetInventory",
    "ListAssociations",
}
ASSOCIATIONS = {"CreateAssociation", "DescribeAssociation", "UpdateAssociation"}


def needs(call: Call, params: Mapping[str, Any]) -> list[Need]:
    modelled(call, PARAMETERS | TAGGING | WHOLE | ASSOCIATIONS | {"PutInventory"})
    context = request_context(call, params.get("Tags"))
    if call.operation in WHOLE:
        return [Need(call.action, "*", context)]
    if call.operation == "PutInventory":
        arn = f"arn:aws:ec2:{call.region}:{call.account}:instance/{params['InstanceId']}"
        return [Need(call.action, arn, context)]
    if call.operation in ASSOCIATIONS:
        return _of_association(call, params)
    if call.operation in TAGGING and params["ResourceType"] == "Association":
        return [Need(call.action, here(call, f"association/{params['ResourceId']}"), context)]
    named = params.get("ResourceId" if call.operation in TAGGING else "Name", "")
    # `/a/b` and `a` are `parameter/a/b` and `parameter/a`
    # (docs.aws.amazon.com/systems-manager/latest/userguide/sysman-paramstore-access.html).
    path = named.partition(":parameter")[2] if named.startswith("arn:") else named
    arn = here(call, f"parameter/{path.removeprefix('/')}")
    found = [Need(call.action, arn, context)]
    about = {"PARAMETER_ARN": arn}
    if call.operation == "GetParameter" and params.get("WithDecryption"):
        parameter = ssm_backends[call.account][call.region].get_parameter(path)
        found += through("ssm", "kms:Decrypt", call, getattr(parameter, "keyid", None), about)
    if call.operation == "PutParameter":
        if params.get("Tags"):
            found.append(Need("ssm:AddTagsToResource", arn, context))
        if params.get("Type") == "SecureString":
            # docs.aws.amazon.com/kms/latest/developerguide/services-parameter-store.html
            advanced = params.get("Tier") == "Advanced"
            action = "kms:GenerateDataKey" if advanced else "kms:Encrypt"
            found += through("ssm", action, call, params.get("KeyId"), about)
    return found


def _of_association(call: Call, params: Mapping[str, Any]) -> list[Need]:
    context = request_context(call, params.get("Tags"))
    association = here(call, f"association/{params.get('AssociationId', '*')}")
    found = []
    if call.operation != "CreateAssociation":
        found.append(Need(call.action, association, context))
    if call.operation != "DescribeAssociation":
        instances = f"arn:aws:ec2:{call.region}:{call.account}:instance/*"
        document = here(call, f"document/{params.get('Name', '*')}")
        found += [Need(call.action, arn, context) for arn in (document, instances)]
    if call.operation == "UpdateAssociation":
        # "You must be granted permission to call DescribeAssociation" (API_UpdateAssociation).
        found.append(Need("ssm:DescribeAssociation", association, context))
    if params.get("Tags"):
        found.append(Need("ssm:AddTagsToResource", association, context))
    return found
