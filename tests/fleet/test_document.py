"""What the installer must be to travel in a document and to run on an old image."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from fleet import certrail_install
from fleet.document import LIMIT, document

VERMIN = Path(sys.executable).with_name("vermin")


def newest_that_it_needs(source: Path) -> str:
    done = subprocess.run(
        [VERMIN, "--target=3.8-", "--no-tips", "-vv", source],
        capture_output=True,
        text=True,
        check=False,
    )
    met = done.returncode == 0 and "Minimum required versions: 3." in done.stdout
    return "3.8 at most" if met else done.stdout + done.stderr


def test_it_needs_no_newer_python() -> None:
    assert newest_that_it_needs(Path(certrail_install.__file__)) == "3.8 at most"


def test_the_check_sees_what_is_newer(tmp_path: Path) -> None:
    newer = tmp_path / "newer.py"
    newer.write_text("'certrail'.removeprefix('cert')\n")
    assert "'str.removeprefix' member requires !2, 3.9" in newest_that_it_needs(newer)


def test_it_needs_nothing_but_python() -> None:
    alone = subprocess.run(
        [sys.executable, "-I", "-S", certrail_install.__file__, "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert alone.returncode == 0, alone.stderr


def test_a_document_has_room_for_it() -> None:
    # Three thousand characters are for whoever mends it next.
    assert len(json.dumps(document())) < LIMIT - 3_000
