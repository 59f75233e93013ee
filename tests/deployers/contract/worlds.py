"""One world per kind: what it takes to have a target of that kind in an empty cloud."""

from __future__ import annotations

import json
from collections.abc import Callable

from certrail.target import Target
from deployers.kinds.acm import Acm
from deployers.kinds.apigateway import Apigateway
from deployers.kinds.cloudfront import Cloudfront
from deployers.kinds.fleet import Fleet
from deployers.kinds.listener import Listener
from deployers.kinds.parameterstore import Parameterstore
from deployers.kinds.secretsmanager import Secretsmanager
from fleet.document import document
from sandbox import resources
from tests.deployers.cloud import ACCOUNT, DOMAINS, REGION, Cloud

LISTENERS = f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}:listener"
ALB = f"{LISTENERS}/app/shop/50dc6c495c0c9188/f2f7dc8efc522ab2"
NLB = f"{LISTENERS}/net/mail/60dc6c495c0c9188/e2f7dc8efc522ab2"


def acm(cloud: Cloud) -> Target:
    return Acm(region=REGION)


def apigateway(cloud: Cloud) -> Target:
    resources.domain_name(
        DOMAINS[0], session=cloud.session, endpoint=cloud.endpoint, region=REGION, account=ACCOUNT
    )
    return Apigateway(domain_name=DOMAINS[0], region=REGION)


def cloudfront(cloud: Cloud) -> Target:
    resources.distribution(
        "E2QWRUHEXAMPLE", DOMAINS, session=cloud.session, endpoint=cloud.endpoint, account=ACCOUNT
    )
    return Cloudfront(distribution="E2QWRUHEXAMPLE")


def fleet(cloud: Cloud) -> Target:
    cloud.client("ssm").create_document(
        Content=json.dumps(document()), Name="certrail-install", DocumentType="Command"
    )
    return Fleet(name="web", region=REGION, instances={"certrail": "web"}, secret="tls/shop/bundle")


def listener(cloud: Cloud) -> Target:
    resources.listener(ALB, session=cloud.session, endpoint=cloud.endpoint)
    return Listener(listener=ALB, default=True)


def parameterstore(cloud: Cloud) -> Target:
    return Parameterstore(name="/tls/shop/bundle", region=REGION)


def secretsmanager(cloud: Cloud) -> Target:
    return Secretsmanager(name="tls/shop/bundle", region=REGION, replica_regions=("us-east-1",))


WORLDS: dict[str, Callable[[Cloud], Target]] = {
    "acm": acm,
    "apigateway": apigateway,
    "cloudfront": cloudfront,
    "fleet": fleet,
    "listener": listener,
    "parameterstore": parameterstore,
    "secretsmanager": secretsmanager,
}
