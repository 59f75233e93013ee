"""Pebble: where it comes from, how it behaves, and that it never outlives us."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread

import psutil
import pytest
import requests
from cryptography import x509

from sandbox import find_pebble
from sandbox.find_pebble import PebbleMissing, Unavailable, find
from sandbox.pebble import PROFILES, Options, Pebble, PebbleFailed
from tests.sandbox.issuance import Issued, account, issue

# Nothing listens there: these tests have Pebble believe every challenge.
NO_DNS = ("127.0.0.1", 9)


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No programs on PATH and an empty cache. Returns the folder that is on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


# Where it comes from.


def test_what_is_found_is_new_enough() -> None:
    assert find_pebble.is_sufficient(find())


def test_pebble_on_path_comes_first(bare_machine: Path) -> None:
    script(bare_machine / "pebble", "echo 'Pebble version: v2.10.1'")
    assert find() == bare_machine / "pebble"


@pytest.mark.parametrize(
    "said", ["Pebble version: v2.4.0", "Pebble version: v2.9.9", "Pebble version: dev", "1.30.0"]
)
def test_an_old_or_other_pebble_on_path_is_not_taken(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    script(bare_machine / "pebble", f"echo '{said}'")
    monkeypatch.setattr(find_pebble, "FETCHES", ())
    with pytest.raises(PebbleMissing, match=r"bin/pebble: not Pebble, or older than 2\.10"):
        find()


@pytest.mark.parametrize(("built", "enough"), [("v2.10.1", True), ("v2.9.0", False)])
def test_go_says_what_it_was_built_from(bare_machine: Path, built: str, enough: bool) -> None:
    module = f"mod\tgithub.com/letsencrypt/pebble/v2\t{built}\th1:x"
    script(bare_machine / "pebble", f"echo 'Pebble version: dev' # {module}")
    assert find_pebble.is_sufficient(bare_machine / "pebble") is enough


def test_the_newest_copy_in_the_cache(tmp_path: Path) -> None:
    for version in ("2.9.0", "2.10.0+ds1-2", "2.11.0"):
        (tmp_path / f"pebble-{version}").mkdir()
        (tmp_path / f"pebble-{version}" / "pebble").touch()
    (tmp_path / "pebble-2.12.0").mkdir()
    assert find_pebble.cached(tmp_path) == tmp_path / "pebble-2.11.0" / "pebble"


def test_go_install_into_the_cache(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pebble = "#!/bin/sh\\necho Pebble version: v2.10.1\\n"
    script(bare_machine / "go", f'test "$1" = install && printf "{pebble}" > "$GOBIN/pebble"')
    found = find()
    assert found == find_pebble.cache_folder() / "pebble-2.10.1" / "pebble"
    assert found.stat().st_mode & 0o111
    (bare_machine / "go").unlink()
    assert find() == found
    # Nothing else stays behind.
    left = sorted(each.name for each in find_pebble.cache_folder().iterdir())
    assert left == ["pebble-2.10.1", "pebble.lock"]


def test_where_nothing_works_all_that_was_tried_is_told(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(bare_machine / "go", "echo 'no such module' >&2; exit 1")
    monkeypatch.setattr(find_pebble.release_binary, "__defaults__", ("http://127.0.0.1:9",))
    with pytest.raises(PebbleMissing) as caught:
        find()
    told = str(caught.value)
    assert "debian_archive: this machine has no apt-get" in told
    assert "go_install: go failed with 1: no such module" in told
    assert "release_binary: http://127.0.0.1:9/v2.10.1: " in told
    assert "Put a `pebble` on PATH" in told


@contextmanager
def releases(folder: Path, digest: str | None, *, content: bytes) -> Iterator[str]:
    """An API of releases with one release, whose archives all hold `content` as the program."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = Thread(target=server.serve_forever, args=[0.05])
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo("pebble-linux-amd64/linux/amd64/pebble")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    archive = packed.getvalue()
    (folder / "archive").write_bytes(archive)
    stated = digest or f"sha256:{hashlib.sha256(archive).hexdigest()}"
    assets = [
        {
            "name": f"pebble-{system}-{machine}.tar.gz",
            "digest": stated,
            "browser_download_url": f"{url}/archive",
        }
        for system in ("linux", "darwin")
        for machine in ("amd64", "arm64")
    ]
    (folder / "v2.10.1").write_text(json.dumps({"assets": assets}))
    try:
        yield url
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_release_binary(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    with releases(tmp_path / "site", None, content=b"pebble itself") as url:
        program, version = find_pebble.release_binary(tmp_path, url)
    assert (program.read_bytes(), version) == (b"pebble itself", "2.10.1")


def test_a_release_binary_with_another_digest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    with (
        releases(tmp_path / "site", "sha256:" + "0" * 64, content=b"x") as url,
        pytest.raises(Unavailable, match="does not have the digest that its release states"),
    ):
        find_pebble.release_binary(tmp_path, url)


# How it behaves.


def certificate(issued: Issued) -> x509.Certificate:
    return x509.load_pem_x509_certificate(issued.chain[0].encode())


def lifetime(issued: Issued) -> timedelta:
    leaf = certificate(issued)
    # Both ends are included (RFC 5280, 4.1.2.5).
    return leaf.not_valid_after_utc - leaf.not_valid_before_utc + timedelta(seconds=1)


def test_chains_and_roots() -> None:
    options = Options(intermediates=3, alternate_roots=1, always_valid=True)
    with Pebble(NO_DNS, options) as ca:
        client = account(ca.directory, ca.ca_bundle)
        issued = issue(client, ["chain.example.com"], lambda name, value: None)
        # As is the way in TLS, the root is not in the chain.
        assert len(issued.chain) == 1 + 3
        assert len(issued.alternatives) == 1
        for number, chain in enumerate([issued.chain, *issued.alternatives]):
            parts = [x509.load_pem_x509_certificate(each.encode()) for each in chain]
            parts.append(x509.load_pem_x509_certificate(ca.root(number).encode()))
            for child, parent in pairwise(parts):
                child.verify_directly_issued_by(parent)
        assert "Generated issuance chain" in ca.log
    assert "Generated issuance chain" in ca.log


def test_profiles() -> None:
    with Pebble(NO_DNS, Options(profiles=PROFILES, always_valid=True)) as ca:
        client = account(ca.directory, ca.ca_bundle)
        for profile, validity in PROFILES.items():
            issued = issue(client, ["p.example.com"], lambda name, value: None, profile=profile)
            assert lifetime(issued) == validity


def test_by_default_there_is_one_profile() -> None:
    with Pebble(NO_DNS, Options(always_valid=True)) as ca:
        client = account(ca.directory, ca.ca_bundle)
        assert set(client.directory.meta.profiles) == {"classic"}
        issued = issue(client, ["p.example.com"], lambda name, value: None)
        assert lifetime(issued) == timedelta(days=90)


def test_blocked_domains() -> None:
    with Pebble(NO_DNS, Options(blocked=("blocked.example",), always_valid=True)) as ca:
        client = account(ca.directory, ca.ca_bundle)
        with pytest.raises(Exception, match="rejectedIdentifier"):
            issue(client, ["www.blocked.example"], lambda name, value: None)


def test_accounts_bound_to_an_external_one() -> None:
    keys = {"kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"}
    with Pebble(NO_DNS, Options(account_bindings=keys)) as ca:
        with pytest.raises(Exception, match="externalAccountRequired"):
            account(ca.directory, ca.ca_bundle)
        account(ca.directory, ca.ca_bundle, binding=("kid-1", keys["kid-1"]))
    assert keys["kid-1"] not in repr(ca.options)


def test_bad_nonces_are_refused_as_often_as_asked() -> None:
    with (
        Pebble(NO_DNS, Options(bad_nonces=100)) as ca,
        pytest.raises(Exception, match="badNonce"),
    ):
        account(ca.directory, ca.ca_bundle)


def test_the_preferred_port_if_it_is_free() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with Pebble(NO_DNS, preferred_port=port) as ca:
            assert ca.directory != f"https://localhost:{port}/dir"
            assert requests.get(ca.directory, verify=str(ca.ca_bundle), timeout=5).ok
    with Pebble(NO_DNS, preferred_port=port) as ca:
        assert ca.directory == f"https://localhost:{port}/dir"


# Its end.


def test_stop_leaves_no_child_and_no_file() -> None:
    ca = Pebble(NO_DNS)
    ca.start()
    assert ca.pid is not None
    child = psutil.Process(ca.pid)
    ca.stop()
    ca.stop()
    assert not child.is_running()
    assert not ca.ca_bundle.exists()


def test_a_pebble_that_ends_at_once_is_told_with_its_last_words(
    bare_machine: Path,
) -> None:
    script(
        bare_machine / "pebble",
        'test "$1" = -version && echo "Pebble version: v2.10.1" && exit; echo "no, thanks"; exit 3',
    )
    ca = Pebble(NO_DNS)
    with pytest.raises(PebbleFailed, match=r"ended with status 3; its last words: no, thanks"):
        ca.start()
    assert ca.pid is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_it_ends_with_its_parent_however_that_ends(tmp_path: Path) -> None:
    program = (
        "import sys; from sandbox.pebble import Pebble\n"
        "ca = Pebble(('127.0.0.1', 9)); ca.start(); print(ca.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # What a killed process cannot remove.
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    with parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
    # Raises TimeoutExpired if it lives on.
    child.wait(10)
