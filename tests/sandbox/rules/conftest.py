"""One moto server with every rule installed; each test starts from an empty cloud."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

from sandbox import rules
from sandbox.propagation import propagation
from sandbox.rules import acm as acm_rules
from tests.sandbox.rules.issuance import Authority

if TYPE_CHECKING:
    from types_boto3_acm import ACMClient
    from types_boto3_apigateway import APIGatewayClient
    from types_boto3_cloudfront import CloudFrontClient
    from types_boto3_cloudwatch import CloudWatchClient
    from types_boto3_elbv2 import ElasticLoadBalancingv2Client
    from types_boto3_route53 import Route53Client
    from types_boto3_s3 import S3Client
    from types_boto3_secretsmanager import SecretsManagerClient
    from types_boto3_ssm import SSMClient


class Cloud:
    """boto3 clients of the test server. Nothing is retried: a refusal is seen as it comes."""

    def __init__(self, session: boto3.Session, endpoint: str, region: str = "us-east-1") -> None:
        self.at: Any = {"session": session, "endpoint": endpoint}
        self.region = region
        self.elsewhere: dict[str, Cloud] = {}

    def client(self, service: Any) -> Any:
        session: boto3.Session = self.at["session"]
        return session.client(
            service,
            region_name=self.region,
            endpoint_url=self.at["endpoint"],
            config=Config(retries={"total_max_attempts": 1, "mode": "standard"}),
        )

    def within(self, region: str) -> "Cloud":
        """The same cloud in another region."""
        return self.elsewhere.setdefault(region, Cloud(**self.at, region=region))

    @cached_property
    def acm(self) -> "ACMClient":
        client: ACMClient = self.client("acm")
        return client

    @cached_property
    def apigateway(self) -> "APIGatewayClient":
        client: APIGatewayClient = self.client("apigateway")
        return client

    @cached_property
    def cloudwatch(self) -> "CloudWatchClient":
        client: CloudWatchClient = self.client("cloudwatch")
        return client

    @cached_property
    def cloudfront(self) -> "CloudFrontClient":
        client: CloudFrontClient = self.client("cloudfront")
        return client

    @cached_property
    def elbv2(self) -> "ElasticLoadBalancingv2Client":
        client: ElasticLoadBalancingv2Client = self.client("elbv2")
        return client

    @cached_property
    def route53(self) -> "Route53Client":
        client: Route53Client = self.client("route53")
        return client

    @cached_property
    def s3(self) -> "S3Client":
        client: S3Client = self.client("s3")
        return client

    @cached_property
    def secretsmanager(self) -> "SecretsManagerClient":
        client: SecretsManagerClient = self.client("secretsmanager")
        return client

    @cached_property
    def ssm(self) -> "SSMClient":
        client: SSMClient = self.client("ssm")
        return client


@contextmanager
def refused(code: str, text: str = "", status: int | None = None) -> Iterator[None]:
    """The call inside ends in this AWS error code, with `text` in its message."""
    with pytest.raises(ClientError) as caught:
        yield
    response = caught.value.response
    assert response["Error"]["Code"] == code, response["Error"]
    assert text in response["Error"]["Message"]
    if status is not None:
        assert response["ResponseMetadata"]["HTTPStatusCode"] == status


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="session")
def every_cloud() -> Iterator[Cloud]:
    """The server and its clients, kept for the whole run: making a client costs 50 ms."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    rules.install()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    session = boto3.Session(aws_access_key_id="testing", aws_secret_access_key="testing")
    yield Cloud(session, f"http://{host}:{port}")
    server.stop()


@pytest.fixture
def cloud(every_cloud: Cloud) -> Cloud:
    reset = f"{every_cloud.at['endpoint']}/moto-api/reset"
    with urlopen(Request(reset, method="POST")) as answer:  # noqa: S310
        assert answer.status == 200
    acm_rules.import_limit.refill()
    propagation.reset()
    return every_cloud
