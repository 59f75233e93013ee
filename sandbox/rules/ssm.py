"""Parameter Store: what PutParameter enforces of names, values and tiers.

Sources:
  put    https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_PutParameter.html
  tiers  https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-advanced-parameters.html

moto already has right: Tags together with Overwrite, a parameter that is there already, names that
begin with aws or ssm, and the label that keeps the oldest of 100 versions. The tests hold it to
that. It does not say a parameter's ARN where AWS does, in DescribeParameters.
"""

import re
from collections.abc import Callable
from threading import RLock
from typing import Any

from moto.core.exceptions import JsonRESTError
from moto.ssm.exceptions import ValidationException
from moto.ssm.models import Parameter, SimpleSystemManagerBackend

BYTES = {"Standard": 4_096, "Advanced": 8_192}
NAME = re.compile(r"(/?[A-Za-z0-9_.-]+)(/[A-Za-z0-9_.-]+)*")
LEVELS = 15
# With the ARN that stands before it.
NAME_LENGTH = 1_011
OWN_KEY = "alias/aws/ssm"

_one_at_a_time = RLock()


# The rules.


def valid_name(name: str, arn: str) -> None:
    """Put: a-zA-Z0-9_.- and slashes, one in front of a hierarchy, fifteen levels."""
    if not NAME.fullmatch(name) or ("/" in name and not name.startswith("/")):
        raise ValidationException(
            "Parameter name must be a fully qualified name. If formed as a path, it can consist of "
            "sub-paths divided by slash symbol; each sub-path can be formed as a mix of letters, "
            "numbers and the following 3 symbols .-_"
        )
    if len(arn) > NAME_LENGTH:
        raise ValidationException(f"Parameter ARN can be {NAME_LENGTH} characters at most.")
    if name.count("/") > LEVELS:
        raise JsonRESTError(
            "HierarchyLevelLimitExceededException",
            f"A parameter hierarchy can have a maximum of {LEVELS} levels.",
        )


def no_other_parameter(value: str) -> None:
    """Put: values can't be nested, `{{}}` or `{{ssm:name}}`."""
    if re.search(r"\{\{.*\}\}", value, re.DOTALL):
        raise ValidationException(
            "Parameter value: can't contain {{}}: parameters can't be referenced or nested in the "
            "values of other parameters."
        )


def same_type(before: Parameter | None, parameter_type: str | None) -> None:
    if before is not None and parameter_type and parameter_type != before.parameter_type:
        raise JsonRESTError(
            "HierarchyTypeMismatchException",
            "Parameter Store does not support changing a parameter type in a hierarchy.",
        )


def never_back(before: Parameter | None, tier: str | None) -> None:
    """Tiers: an advanced parameter does not become a standard one."""
    if before is not None and before.tier == "Advanced" and tier == "Standard":
        raise ValidationException(
            "This parameter uses the advanced-parameter tier. You can't downgrade a parameter from "
            "the advanced-parameter tier to the standard-parameter tier."
        )


def small_enough(value: str, tier: str) -> None:
    """Tiers: 4 KB, or 8 KB."""
    if len(value.encode()) > BYTES[tier]:
        raise ValidationException(
            f"{tier} tier parameters support a maximum parameter value of {BYTES[tier]} characters."
        )


# The operations.


_moto_put = SimpleSystemManagerBackend.put_parameter


def put_parameter(
    self: SimpleSystemManagerBackend,
    name: str,
    description: str,
    value: str,
    parameter_type: str,
    allowed_pattern: str,
    keyid: str | None,
    overwrite: bool,
    tags: list[dict[str, str]],
    data_type: str,
    tier: str | None,
    policies: str | None,
) -> Parameter:
    """Put: a SecureString for which no key is named gets AWS's own, whichever it had before."""
    path = name.removeprefix("/")
    arn = f"arn:aws:ssm:{self.region_name}:{self.account_id}:parameter/{path}"
    valid_name(name, arn)
    no_other_parameter(value)
    with _one_at_a_time:
        # A look that makes no entry, as moto's own does.
        versions = dict.get(self._parameters, name) or []
        before = versions[-1] if versions else None
        if before is not None and overwrite:
            same_type(before, parameter_type)
            never_back(before, tier)
        small_enough(value, tier or (before.tier if before else None) or "Standard")
        secure = (parameter_type or getattr(before, "parameter_type", "")) == "SecureString"
        made = _moto_put(
            self,
            name,
            description,
            value,
            parameter_type,
            allowed_pattern,
            keyid or (OWN_KEY if secure else keyid),  # type: ignore[arg-type]
            overwrite,
            tags,
            data_type,
            tier,
            policies,
        )
        vars(made)["arn"] = arn
        return made


_moto_metadata = Parameter.describe_response_object


def describe_response_object(
    self: Parameter, decrypt: bool = False, include_labels: bool = False
) -> dict[str, Any]:
    return _moto_metadata(self, decrypt, include_labels) | {"ARN": vars(self).get("arn", "")}


REPLACED: dict[type, dict[str, Callable[..., Any]]] = {
    Parameter: {"describe_response_object": describe_response_object},
    SimpleSystemManagerBackend: {"put_parameter": put_parameter},
}
