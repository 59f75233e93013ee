"""`template.yaml` in the sandbox: transformed as SAM does it, then created by CloudFormation."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from samtranslator.metrics.metrics import (  # type: ignore[import-untyped]
    DummyMetricsPublisher,
    Metrics,
)
from samtranslator.parser.parser import Parser  # type: ignore[import-untyped]
from samtranslator.translator.translator import Translator  # type: ignore[import-untyped]
from samtranslator.utils.py27hash_fix import (  # type: ignore[import-untyped]
    to_py27_compatible_template,
    undo_mark_unicode_str_in_template,
)
from samtranslator.yaml_helper import yaml_parse  # type: ignore[import-untyped]

import fleet.document
from certrail.errors import CertrailError
from sandbox.cloudformation import install

NAME = "certrail"
# The functions run from the source tree, so no code is uploaded; SAM wants to know where it is.
NO_CODE = {"Bucket": "source-tree", "Key": "source-tree"}
# What SAM otherwise asks IAM for: the ARNs of AWS's own policies.
MANAGED_POLICIES = {
    "AWSLambdaBasicExecutionRole": (
        "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"
    )
}


class StackFailed(CertrailError):
    """The template could not be created or updated as it stands."""


@dataclass(frozen=True)
class Stack:
    """A deployed template.

    resources: logical id -> physical id; functions: the same for Lambda functions only, where the
    physical id is the function's name. outputs: the template's Outputs.
    """

    name: str
    region: str
    outputs: Mapping[str, str]
    resources: Mapping[str, str]
    functions: Mapping[str, str]


def deploy(
    template_path: Path,
    endpoint: str,
    parameters: Mapping[str, str],
    *,
    session: boto3.Session,
    name: str = NAME,
) -> Stack:
    """Create the stack, or update the one that is there. Raises StackFailed.

    `endpoint` is moto's server in this process; `session` says the region and has credentials that
    may do everything.
    """
    install()
    template = transform(template_path, parameters, str(session.region_name))
    client = _client(session, endpoint)
    arguments: Any = {
        "StackName": name,
        "TemplateBody": json.dumps(template),
        "Parameters": [
            {"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()
        ],
        "Capabilities": ["CAPABILITY_NAMED_IAM"],
    }
    there = _exists(client, name)
    try:
        (client.update_stack if there else client.create_stack)(**arguments)
    except ClientError as error:
        message = error.response["Error"]["Message"]
        if there and "No updates are to be performed" in message:
            return _read(client, name, str(session.region_name))
        if not there and _exists(client, name):
            client.delete_stack(StackName=name)
        raise StackFailed(
            message, where=str(template_path), next="Correct the template and deploy again"
        ) from error
    return _read(client, name, str(session.region_name))


def delete(endpoint: str, *, session: boto3.Session, name: str = NAME) -> None:
    """Delete the stack and what it created. Raises StackFailed (a bucket must be empty)."""
    try:
        _client(session, endpoint).delete_stack(StackName=name)
    except ClientError as error:
        raise StackFailed(error.response["Error"]["Message"], where=name) from error


def transform(template_path: Path, parameters: Mapping[str, str], region: str) -> dict[str, Any]:
    """The CloudFormation template that a SAM template stands for, without any network.

    Raises StackFailed where the template is not valid SAM.
    """
    template = with_included(yaml_parse(template_path.read_text()))
    sections = [template.get("Globals", {}).get("Function", {})]
    sections += [
        resource["Properties"]
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::Serverless::Function"
    ]
    for section in sections:
        if "CodeUri" in section or section is not sections[0]:
            section["CodeUri"] = NO_CODE
        section.pop("InlineCode", None)
    defaults = {
        key: parameter["Default"]
        for key, parameter in template.get("Parameters", {}).items()
        if "Default" in parameter
    }
    values = {"AWS::Region": region, **defaults, **parameters}
    try:
        # The steps of samtranslator's own transform(), which takes the region from AWS_REGION only.
        to_py27_compatible_template(template, values)
        # Its usage metrics go nowhere; unpublished ones complain on stderr when collected.
        metrics = Metrics("certrail", DummyMetricsPublisher())
        here = boto3.Session(region_name=region)
        translator = Translator(None, Parser(), boto_session=here, metrics=metrics)
        made: dict[str, Any] = undo_mark_unicode_str_in_template(
            translator.translate(
                template, parameter_values=values, get_managed_policy_map=lambda: MANAGED_POLICIES
            )
        )
        metrics.publish()
    except Exception as error:
        # samtranslator collects its faults in exceptions of several kinds.
        causes = getattr(error, "causes", None) or [error]
        reasons = "; ".join(str(getattr(cause, "message", cause)) for cause in causes)
        raise StackFailed(reasons, where=str(template_path)) from error
    return made


# What the build writes, and the template includes.
INCLUDED = {"fleet/document.json": fleet.document.document}


def with_included(part: Any) -> Any:
    """With the files in it that `AWS::Include` names.

    https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/create-reusable-transform-function-snippets-and-add-to-your-template-with-aws-include-transform.html
    """
    match part:
        case {"Fn::Transform": {"Name": "AWS::Include", "Parameters": {"Location": location}}}:
            return INCLUDED[location]()
        case dict():
            return {name: with_included(value) for name, value in part.items()}
        case list():
            return [with_included(value) for value in part]
        case _:
            return part


def _client(session: boto3.Session, endpoint: str) -> Any:
    # A try that failed inside the server has left a stack: trying again would hide the reason.
    config = Config(retries={"total_max_attempts": 1}, read_timeout=120)
    return session.client("cloudformation", endpoint_url=endpoint, config=config)


def _exists(client: Any, name: str) -> bool:
    pages = client.get_paginator("list_stacks").paginate()
    return any(
        stack["StackName"] == name and stack["StackStatus"] != "DELETE_COMPLETE"
        for page in pages
        for stack in page["StackSummaries"]
    )


def _read(client: Any, name: str, region: str) -> Stack:
    stack = client.describe_stacks(StackName=name)["Stacks"][0]
    if not stack["StackStatus"].endswith("_COMPLETE"):
        raise StackFailed(f"the stack is {stack['StackStatus']}", where=name)
    # moto lists resources whose condition is false, too, as entries with nothing in them.
    listed = client.describe_stack_resources(StackName=name)["StackResources"]
    resources = [each for each in listed if "LogicalResourceId" in each]
    return Stack(
        name=name,
        region=region,
        outputs={each["OutputKey"]: each["OutputValue"] for each in stack.get("Outputs", [])},
        resources={each["LogicalResourceId"]: each["PhysicalResourceId"] for each in resources},
        functions={
            each["LogicalResourceId"]: each["PhysicalResourceId"]
            for each in resources
            if each["ResourceType"] == "AWS::Lambda::Function"
        },
    )
