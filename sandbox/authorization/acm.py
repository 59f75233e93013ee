"""ACM: certificates."""

from collections.abc import Mapping
from typing import Any

from moto.acm.models import acm_backends

from sandbox.authorization.request import here, modelled, request_context, tagged
from sandbox.calls import Call
from sandbox.policies import Need

WHOLE = {"ListCertificates", "GetAccountConfiguration", "PutAccountConfiguration"}
ONE = {
    "AddTagsToCertificate",
    "DeleteCertificate",
    "DescribeCertificate",
    "ExportCertificate",
    "GetCertificate",
    "ImportCertificate",
    "ListTagsForCertificate",
    "RemoveTagsFromCertificate",
    "RenewCertificate",
    "RequestCertificate",
}


def needs(call: Call, params: Mapping[str, Any]) -> list[Need]:
    context = request_context(call, params.get("Tags"))
    if call.operation in WHOLE:
        return [Need(call.action, "*", context)]
    modelled(call, ONE)
    arn = params.get("CertificateArn")
    if arn:
        context |= tagged(_tags_of(call, arn))
    # Without an ARN the certificate does not exist yet, and the request is for any.
    found = [Need(call.action, arn or here(call, "certificate/*"), context)]
    if params.get("Tags") and call.operation in {"ImportCertificate", "RequestCertificate"}:
        found.append(Need("acm:AddTagsToCertificate", found[0].resource, context))
    return found


def _tags_of(call: Call, arn: str) -> Any:
    bundle = acm_backends[call.account][call.region]._certificates.get(arn)
    return {key: value or "" for key, value in bundle.tags.items()} if bundle else {}
