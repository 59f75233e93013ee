"""What somebody does by hand, at the console or with scripts of his own. AWS's rules hold for him,
too: a default cannot be removed, an import that is in use cannot be deleted."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from tests.deployers.contract.worlds import ALB, NLB
from tests.deployers.histories.world import (
    DISTRIBUTION,
    EDGE,
    ELSEWHERE,
    GATEWAY,
    SOMETHING_ELSE,
    World,
    bundle,
)

EDITS = (
    "our entry removed",
    "another default",
    "a stranger's entry added",
    "another viewer certificate",
    "another certificate of the domain name",
    "our import put elsewhere",
    "an import of ours that was replaced is put back",
    "the secret overwritten",
    "the secret deleted",
    "our import overwritten",
    "our imports deleted",
)


def edit(world: World, what: str, pipeline: str, home: str | None, replaced: Sequence[str]) -> None:
    """what: one of EDITS, of what belongs to the pipeline. home: the ARN of its import beside the
    load balancers, where there is one; replaced: of those whose place it took. Raises ClientError
    where AWS refuses it."""
    arn = ALB if pipeline == "shop" else NLB
    elb = world.console("elbv2")
    match what:
        case "our entry removed":
            ours = world.imports_of(pipeline)
            for entry in [each for each in world.listener(arn).certificates if each in ours]:
                elb.remove_listener_certificates(
                    ListenerArn=arn, Certificates=[{"CertificateArn": entry}]
                )
        case "another default":
            other = sorted(world.strangers[arn])[0]
            world.default[arn] = other
            elb.modify_listener(ListenerArn=arn, Certificates=[{"CertificateArn": other}])
        case "a stranger's entry added":
            other = sorted(world.strangers[NLB if arn == ALB else ALB])[0]
            elb.add_listener_certificates(ListenerArn=arn, Certificates=[{"CertificateArn": other}])
            world.strangers[arn].add(other)
        case "another viewer certificate":
            client = world.console("cloudfront", EDGE)
            answer = client.get_distribution_config(Id=DISTRIBUTION)
            config = answer["DistributionConfig"]
            config["ViewerCertificate"] = {
                "ACMCertificateArn": world.other_viewer_certificate,
                "SSLSupportMethod": "sni-only",
                "MinimumProtocolVersion": "TLSv1.2_2021",
            }
            client.update_distribution(
                Id=DISTRIBUTION, IfMatch=answer["ETag"], DistributionConfig=config
            )
        case "another certificate of the domain name":
            world.console("apigateway").update_domain_name(
                domainName=GATEWAY,
                patchOperations=[
                    {
                        "op": "replace",
                        "path": "/regionalCertificateArn",
                        "value": world.other_domain_certificate,
                    }
                ],
            )
        case "our import put elsewhere":
            if home and pipeline == ELSEWHERE.pipeline:
                elb.add_listener_certificates(
                    ListenerArn=ELSEWHERE.where, Certificates=[{"CertificateArn": home}]
                )
        case "an import of ours that was replaced is put back":
            for entry in replaced[:1]:
                elb.add_listener_certificates(
                    ListenerArn=arn, Certificates=[{"CertificateArn": entry}]
                )
        case "the secret overwritten":
            world.console("secretsmanager").put_secret_value(
                SecretId=f"tls/{pipeline}/bundle", SecretString=SOMETHING_ELSE
            )
        case "the secret deleted":
            world.console("secretsmanager").delete_secret(
                SecretId=f"tls/{pipeline}/bundle", ForceDeleteWithoutRecovery=True
            )
        case "our import overwritten":
            for entry, held in list(world.imports_of(pipeline).items())[:1]:
                rsa = isinstance(held._cert.public_key(), RSAPublicKey)
                own = bundle(pipeline, "rsa" if rsa else "ecdsa", -1)
                world.console("acm", entry.split(":")[3]).import_certificate(
                    CertificateArn=entry,
                    Certificate=own.certificate.encode(),
                    PrivateKey=own.private_key.reveal().encode(),
                    CertificateChain=own.chain.encode(),
                )
        case "our imports deleted":
            for entry in world.imports_of(pipeline):
                with suppress(ClientError):
                    world.console("acm", entry.split(":")[3]).delete_certificate(
                        CertificateArn=entry
                    )
