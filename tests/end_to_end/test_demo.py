"""The sample file's tour, as a newcomer starts it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_demo_ends_by_itself_with_everything_as_it_should_be() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cli", "demo"], cwd=ROOT, capture_output=True, text=True, timeout=170
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all 13 targets hold the certificate" in done.stdout
    assert "all 4 ACM certificates kept their ARN" in done.stdout
    assert "CloudFront, API Gateway and the listeners took 0 writes" in done.stdout
    assert "the new target holds the certificate" in done.stdout
    assert "✗" not in done.stdout
