"""A local AWS, certificate authority and DNS in which `template.yaml` itself runs."""

from sandbox.sandbox import Sandbox

__all__ = ["Sandbox"]
