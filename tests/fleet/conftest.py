"""The sandbox's AWS, as the deployers' tests have it, and a machine to install on."""

from pathlib import Path

import pytest

from tests.deployers.cloud import Cloud
from tests.deployers.conftest import cloud, one_cloud
from tests.fleet.machine import Machine

__all__ = ["cloud", "machine", "one_cloud"]


@pytest.fixture
def machine(cloud: Cloud, tmp_path: Path) -> Machine:
    # Nobody else may write above what the installer writes, and everybody may look.
    tmp_path.chmod(0o755)
    return Machine(cloud, tmp_path)
