"""boto3 clients of a running sandbox server, for the tests of the server itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.loaders import create_loader
from botocore.session import Session

from sandbox import permissions
from sandbox.server import Server

# Reading a service's model is most of the cost of making a client.
LOADER = create_loader()
ACCOUNT = "123456789012"
REGION = "eu-central-1"
TRUSTS_LAMBDA = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "lambda.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}


class Aws:
    """Clients with one set of credentials; nothing is retried."""

    def __init__(
        self,
        server: Server,
        credentials: tuple[str, str, str | None] = ("test", "test", None),
        account: str | None = None,
    ) -> None:
        self.server = server
        self.account = account
        key, secret, token = credentials
        core = Session()
        core.register_component("data_loader", LOADER)
        self.session = boto3.Session(key, secret, token, REGION, botocore_session=core)
        self.made: dict[tuple[str, str], Any] = {}

    def __call__(self, service: Any, region: str = REGION) -> Any:
        if (service, region) not in self.made:
            client = self.session.client(
                service,
                endpoint_url=self.server.endpoint,
                region_name=region,
                config=Config(retries={"total_max_attempts": 1, "mode": "standard"}),
            )
            client.meta.events.register("before-sign", self._in_account)
            self.made[(service, region)] = client
        return self.made[(service, region)]

    def _in_account(self, request: Any, **_: Any) -> None:
        if self.account:
            request.headers["x-moto-account-id"] = self.account


class World:
    """An administrator, and roles made to order."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.admin = Aws(server)
        self.roles = 0

    def role(
        self,
        *statements: dict[str, Any],
        trust: dict[str, Any] | None = None,
        account: str = ACCOUNT,
    ) -> str:
        """A role with one inline policy of these statements; its ARN."""
        self.roles += 1
        name = f"role-{self.roles}"
        iam = Aws(self.server, account=account)("iam")
        arn: str = iam.create_role(
            RoleName=name, AssumeRolePolicyDocument=json.dumps(trust or TRUSTS_LAMBDA)
        )["Role"]["Arn"]
        if statements:
            iam.put_role_policy(
                RoleName=name,
                PolicyName="inline",
                PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": statements}),
            )
        return arn

    def acting(self, *statements: dict[str, Any]) -> Aws:
        """Clients with the credentials of a new role that has these statements."""
        return Aws(self.server, permissions.session(self.role(*statements)))


def allow(action: str | list[str], resource: str | list[str] = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(action: str | list[str], resource: str | list[str] = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Deny", "Action": action, "Resource": resource, **more}


@contextmanager
def refused(code: str, text: str = "", status: int | None = None) -> Iterator[None]:
    """The call inside ends in this AWS error code, with `text` in its message."""
    with pytest.raises(ClientError) as caught:
        yield
    response = caught.value.response
    assert response["Error"]["Code"] == code, response["Error"]
    assert text in response["Error"].get("Message", ""), response["Error"]
    if status is not None:
        assert response["ResponseMetadata"]["HTTPStatusCode"] == status
