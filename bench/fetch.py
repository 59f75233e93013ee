"""The peers' programs. They are fetched the first time, into certrail's cache folder; to have newer
ones, delete `lego` and `certbot` there."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.processes import Failed, run
from sandbox.find_pebble import Unavailable, cache_folder, debian_archive

# In lego since 4.19. It also tells that AWS_ENDPOINT_URL is obeyed, which older ones do not.
NEEDED = "--dns.propagation-disable-ans"


def lego() -> Path:
    """The newest of Debian, else the one on PATH. Raises Unavailable."""
    kept = cache_folder() / "lego" / "lego"
    if kept.exists():
        return kept
    reasons = []
    try:
        return _lego_of_debian(kept)
    except (Unavailable, Failed, OSError, subprocess.SubprocessError) as error:
        reasons.append(f"from Debian: {error}")
    if on_path := shutil.which("lego"):
        try:
            return _suitable(Path(on_path))
        except (Unavailable, Failed) as error:
            reasons.append(str(error))
    else:
        reasons.append("there is none on PATH")
    raise Unavailable("; ".join(reasons))


def certbot() -> Path:
    """The newest of PyPI with its Route 53 plugin, in a virtual environment of its own. Raises
    Failed."""
    folder = cache_folder() / "certbot"
    ready = folder / ".ready"
    if not ready.exists():
        shutil.rmtree(folder, ignore_errors=True)
        run([sys.executable, "-m", "venv", folder])
        pip = [str(folder / "bin/python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        run([*pip, "install", "certbot", "certbot-dns-route53"])
        ready.touch()
    return folder / "bin/certbot"


def _lego_of_debian(kept: Path) -> Path:
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        program, _ = debian_archive(Path(scratch), "lego")
        _suitable(program)
        kept.parent.mkdir(exist_ok=True)
        return program.replace(kept)


def _suitable(program: Path) -> Path:
    if NEEDED not in run([program, "--help"]):
        raise Unavailable(f"{program.name} has no option {NEEDED}: not one of 4.19 to 4.x")
    return program
