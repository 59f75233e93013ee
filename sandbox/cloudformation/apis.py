"""The services' APIs as CloudFormation calls them.

The calls stay inside the process: botocore builds and checks the request, moto's dispatcher
answers it, and neither the network nor the sandbox's gate sees it.
"""

from typing import Any

import boto3
from botocore.config import Config
from moto.core.botocore_stubber import BotocoreStubber


class Apis:
    """botocore clients whose requests moto answers in this process, each made once."""

    def __init__(self) -> None:
        self._clients: dict[tuple[str, str, str], Any] = {}
        self._session = boto3.Session(
            aws_access_key_id="cloudformation",
            aws_secret_access_key="cloudformation",  # noqa: S106
        )
        self._moto = BotocoreStubber()
        self._moto.enabled = True

    def client(self, service: Any, account: str, region: str) -> Any:
        if (service, account, region) not in self._clients:
            # An endpoint of the caller's environment would send these calls over the network.
            options: dict[str, Any] = {"ignore_configured_endpoint_urls": True}
            config = Config(retries={"total_max_attempts": 1}, **options)
            client: Any = self._session.client(service, region_name=region, config=config)

            def in_account(request: Any, **_: Any) -> None:
                request.headers["x-moto-account-id"] = account

            client.meta.events.register("before-sign", in_account)
            client.meta.events.register("before-send", self._moto)
            self._clients[service, account, region] = client
        return self._clients[service, account, region]


APIS = Apis()
