"""Systems Manager: parameters, and the KMS keys that secure ones are encrypted with."""

from collections.abc import Mapping
from typing import Any

from moto.ssm.models import ssm_backends

from sandbox.authorization.kms import through
from sandbox.authorization.request import here, modelled, request_context
from sandbox.calls import Call
from sandbox.policies import Need


def needs(call: Call, params: Mapping[str, Any]) -> list[Need]:
    modelled(call, {"DeleteParameter", "GetParameter", "PutParameter"})
    named = params.get("Name", "")
    # `/a/b` and `a` are `parameter/a/b` and `parameter/a`
    # (docs.aws.amazon.com/systems-manager/latest/userguide/sysman-paramstore-access.html).
    path = named.partition(":parameter")[2] if named.startswith("arn:") else named
    arn = here(call, f"parameter/{path.removeprefix('/')}")
    found = [Need(call.action, arn, request_context(call))]
    about = {"PARAMETER_ARN": arn}
    if call.operation == "GetParameter" and params.get("WithDecryption"):
        parameter = ssm_backends[call.account][call.region].get_parameter(path)
        found += through("ssm", "kms:Decrypt", call, getattr(parameter, "keyid", None), about)
    if call.operation == "PutParameter" and params.get("Type") == "SecureString":
        found += through("ssm", "kms:Encrypt", call, params.get("KeyId"), about)
    return found
