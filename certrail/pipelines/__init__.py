"""pipelines.yaml: which certificates there are, and where each one goes."""

from certrail.pipelines.load import load
from certrail.pipelines.model import Account, Opaque
from certrail.pipelines.resolved import Issuer, Pipeline, Pipelines

__all__ = ["Account", "Issuer", "Opaque", "Pipeline", "Pipelines", "load"]
