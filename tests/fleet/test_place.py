"""The directory on the machine: who may have put something there, and what is left in it."""

from __future__ import annotations

import fcntl
import grp
import json
import os
import re
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import pkcs12

from tests.certrail.bundles import make_bundle
from tests.deployers.cloud import DOMAINS
from tests.fleet.machine import PEM_FILES, Gate, Machine, Pair, Ran, document, ended_as

ROOT = os.geteuid() == 0
# Debian's, whom nobody is.
SOMEBODY = 65534


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_modes_whatever_the_umask(machine: Machine) -> None:
    machine.publish()
    machine.install(umask=0o077)
    assert {path.name: mode(path) for path in machine.live.iterdir()} == {
        "cert.pem": 0o644,
        "chain.pem": 0o644,
        "fullchain.pem": 0o644,
        "privkey.pem": 0o600,
        "manifest.json": 0o644,
    }
    version = machine.live.resolve()
    for path in (version, version.parent, machine.directory, machine.directory.parent):
        assert mode(path) == 0o755


def test_a_group_may_read_the_key(machine: Machine) -> None:
    machine.publish()
    group = grp.getgrgid(os.getgroups()[0] if not ROOT else SOMEBODY)
    assert machine.install("--group", group.gr_name).outcome == "installed"
    for name in PEM_FILES:
        assert (machine.live / name).stat().st_gid == group.gr_gid
    assert mode(machine.live / "privkey.pem") == 0o640


@pytest.mark.skipif(not ROOT, reason="only root may give files away")
def test_an_owner_may_read_the_key_and_not_replace_it(machine: Machine) -> None:
    machine.publish()
    machine.install()
    assert machine.install("--owner", "nobody", "--format", "haproxy").outcome == "installed"
    for name in PEM_FILES | {"haproxy.pem"}:
        assert (machine.live / name).stat().st_uid == SOMEBODY
    assert mode(machine.live / "haproxy.pem") == 0o600
    assert (machine.live / "manifest.json").stat().st_uid == 0
    assert machine.live.resolve().stat().st_uid == 0
    assert machine.install("--owner", "nobody", "--format", "haproxy").outcome == "unchanged"


def test_nobody_of_that_name(machine: Machine) -> None:
    machine.publish()
    for option in ("--owner", "--group"):
        ran = machine.install(option, "nobody-of-that-name")
        assert (ran.code, ran.outcome) == (1, "refused")
        assert "nobody-of-that-name" in ran.error
    assert machine.versions == []


# A dry run


def test_a_dry_run_makes_nothing(machine: Machine) -> None:
    bundle = machine.publish()
    ran = machine.install("--dry-run")
    assert (ran.code, ran.outcome, ran.said["fingerprint"]) == (0, "would-install", None)
    assert list(machine.folder.iterdir()) == []

    machine.install()
    renewed = machine.publish()
    before = machine.tree()
    ran = machine.install("--dry-run")
    assert (ran.outcome, ran.said["fingerprint"]) == ("would-install", bundle.fingerprint)
    assert machine.tree() == before

    assert machine.install().said["fingerprint"] == renewed.fingerprint
    assert machine.install("--dry-run").outcome == "unchanged"


# The lock


def test_two_at_once_end_well(machine: Machine) -> None:
    """The first is in its reload until the second waits for the lock."""
    bundle = machine.publish()
    gate = Gate(machine.folder)
    first = machine.start("--reload", gate.command)
    gate.wait()
    busy = machine.install("--lock-wait", "0")
    assert (busy.code, busy.outcome) == (3, "busy")
    assert busy.error == f"another run has the lock of {machine.directory}"

    second = machine.start()
    wait_until_it_has_open(second, machine.directory / "lock")
    gate.open()
    ended = [ended_as(each) for each in (first, second)]
    assert [(each.code, each.outcome) for each in ended] == [(0, "installed"), (0, "unchanged")]
    assert machine.fingerprint == bundle.fingerprint


def test_one_that_is_ended_in_the_middle_puts_back(machine: Machine) -> None:
    installed = machine.publish()
    machine.install()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        machine.publish()
        gate = Gate(machine.folder / number.name)
        run = machine.start("--reload", gate.command)
        gate.wait()
        run.send_signal(number)
        # Its way back is a reload, too; another signal does not disturb it.
        gate.wait()
        run.send_signal(number)
        gate.open()
        ended = ended_as(run)
        said = (ended.code, ended.outcome, ended.error)
        assert said == (1, "failed", f"ended by {number.name}")
        assert ended.said["fingerprint"] == machine.fingerprint == installed.fingerprint
    assert machine.versions == [machine.live.resolve().name]


def wait_until_it_has_open(process: subprocess.Popen[str], path: Path) -> None:
    descriptors = Path(f"/proc/{process.pid}/fd")
    while process.poll() is None:
        for each in descriptors.iterdir():
            try:
                if each.readlink() == path:
                    return
            except FileNotFoundError:
                continue
    raise AssertionError(process.communicate())


def test_a_dry_run_waits_for_nobody(machine: Machine) -> None:
    machine.publish()
    machine.install()
    with (machine.directory / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert machine.install("--dry-run", "--lock-wait", "0").outcome == "unchanged"
        assert machine.install("--lock-wait", "0").code == 3


# A full disk


def check_that_nothing_was_touched(machine: Machine, installed: str) -> None:
    assert machine.fingerprint == installed
    assert machine.versions == [machine.live.resolve().name]
    assert {path.name for path in machine.directory.iterdir()} == {"live", "versions", "lock"}


def test_files_that_may_not_become_so_long(machine: Machine) -> None:
    installed = machine.publish()
    machine.install()
    renewed = machine.publish()
    # The file for HAProxy is the longest.
    longest = len(renewed.certificate + renewed.chain) + 1
    done = subprocess.run(
        ["prlimit", f"--fsize={longest}", *machine.command("--format", "haproxy")],
        capture_output=True,
        text=True,
        check=False,
    )
    ran = Ran.of(done.returncode, done.stdout, done.stderr)
    assert (ran.code, ran.outcome) == (1, "failed")
    assert re.fullmatch(r"File too large \(.*/haproxy.pem\)", ran.error)
    check_that_nothing_was_touched(machine, installed.fingerprint)
    assert machine.install().said["fingerprint"] == renewed.fingerprint


FULL = """
set -e
mount -t tmpfs -o "$1,mode=755" tmpfs "$2"
fill=$3 directory=$2 next=$4
shift 4
"$@"
eval "$fill"
"$@" --stage "$next" && exit 9
cmp "$directory"/certrail/web/live/cert.pem "$directory"/certrail/web/versions/000001-*/cert.pem
test "$(ls -A "$directory/certrail/web")" = "$(printf 'live\nlock\nversions')"
test "$(ls -A "$directory/certrail/web/versions" | wc -l)" = 1
rm "$directory"/filler*
"$@" --stage "$next"
"""
MAY_MOUNT = not subprocess.run(
    ["unshare", "-m", "true"], capture_output=True, check=False
).returncode


@pytest.mark.skipif(not MAY_MOUNT, reason="needs to mount; how it fails is shown above, too")
@pytest.mark.parametrize(
    ("size", "fill", "file"),
    [
        ("size=64k", 'cat /dev/zero > "$directory/filler" 2>/dev/null || true', "cert.pem"),
        # The key and what comes after it have no room.
        (
            "size=64k",
            'head -c $((4096 * (16 - 5 - 3))) /dev/zero > "$directory/filler"',
            "privkey.pem",
        ),
        # No inode is left for the link, when all files have theirs.
        ("nr_inodes=24", 'for n in 1 2 3 4 5; do : > "$directory/filler$n"; done', ".live"),
    ],
)
def test_a_full_disk(machine: Machine, size: str, fill: str, file: str) -> None:
    installed = machine.publish()
    machine.put(document(make_bundle(DOMAINS)), VersionStages=["NEXT"])
    done = subprocess.run(
        [
            *("unshare", "-m", "sh", "-c", FULL, "sh", size, machine.folder, fill, "NEXT"),
            *machine.command(),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    machine.check_silent(done.stdout + done.stderr)
    assert done.returncode == 0, done
    first, full, renewed = (json.loads(line) for line in done.stdout.splitlines())
    assert first["outcome"] == renewed["outcome"] == "installed"
    assert (full["outcome"], full["fingerprint"]) == ("failed", installed.fingerprint)
    assert full["error"].startswith("No space left on device")
    assert full["error"].endswith(f"/{file})")


# What others may have put there


def by_a_link(path: Path) -> None:
    elsewhere = path.parents[1] / "elsewhere"
    elsewhere.mkdir()
    path.symlink_to(elsewhere)


def by_a_folder(path: Path) -> None:
    path.mkdir()


def by_a_broken_link(path: Path) -> None:
    path.symlink_to("nowhere")


def by_a_link_to_what_another_wrote(path: Path) -> None:
    other = path.parent / "versions/000009-0123456789abcdef"
    other.mkdir()
    path.symlink_to(other.relative_to(path.parent))


ATTACKS = [
    ("", by_a_link, "certrail/web is no directory"),
    ("versions", by_a_link, "versions is no directory"),
    ("versions", by_a_broken_link, "versions is no directory"),
    ("lock", by_a_link, "lock is no file"),
    ("lock", by_a_broken_link, "lock is no file"),
    ("lock", by_a_folder, "lock is no file"),
    ("live", by_a_link, "which this has not written"),
    ("live", by_a_broken_link, "which this has not written"),
    ("live", by_a_link_to_what_another_wrote, "which this has not written"),
    ("live", by_a_folder, "live is no link"),
]


@pytest.mark.parametrize(("where", "put", "error"), ATTACKS)
def test_what_is_in_the_way_stays(
    machine: Machine, where: str, put: Callable[[Path], None], error: str
) -> None:
    machine.publish()
    machine.directory.parent.mkdir(mode=0o755)
    if where:
        machine.directory.mkdir(mode=0o755)
        if where != "versions":
            (machine.directory / "versions").mkdir(mode=0o755)
    put(machine.directory / where)
    before = inodes(machine)
    ran = machine.install()
    assert (ran.code, ran.outcome) == (1, "refused")
    assert error in ran.error
    # Nothing was written where a link leads, nothing taken away, and no version begun.
    new = inodes(machine).items() - before.items()
    assert before.items() <= inodes(machine).items()
    assert {name for name, _ in new} <= {"certrail/web/lock", "certrail/web/versions"}


def inodes(machine: Machine) -> dict[str, int]:
    return {name: inode for name, (inode, _, _) in machine.tree().items()}


def test_a_link_where_the_next_one_is_made(machine: Machine) -> None:
    """Left by a run that was killed, or put there: it is no way to anywhere."""
    bundle = machine.publish()
    machine.directory.mkdir(parents=True)
    elsewhere = machine.folder / "elsewhere"
    elsewhere.mkdir()
    (machine.directory / ".live").symlink_to(elsewhere)
    assert machine.install().outcome == "installed"
    assert machine.fingerprint == bundle.fingerprint
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("where", ["", "certrail", "certrail/web", "certrail/web/versions"])
def test_a_directory_in_which_others_may_write(machine: Machine, where: str) -> None:
    bundle = machine.publish()
    machine.install()
    machine.publish()
    before = inodes(machine)
    path = machine.folder / where
    # A sticky bit helps only above the directory: in it others could add what is missing.
    sticky = 0o1000 if "web" in where else 0
    path.chmod(0o775 | sticky)
    ran = machine.install()
    assert (ran.code, ran.outcome) == (1, "refused")
    assert ran.error == f"others may write in {path}"
    assert ran.said["next"] == f"chmod go-w {path}"
    assert machine.fingerprint == bundle.fingerprint
    path.chmod(0o755)
    assert inodes(machine) == before
    assert machine.install().outcome == "installed"


@pytest.mark.skipif(not ROOT, reason="only root may give files away")
def test_a_directory_that_is_somebodys(machine: Machine) -> None:
    machine.publish()
    home = machine.folder / "home"
    home.mkdir(mode=0o755)
    os.chown(home, SOMEBODY, -1)
    options = ("--directory", home / "certrail/web")
    refused = machine.install(*options)
    assert refused.error == f"{home} belongs to nobody"
    assert list(home.iterdir()) == []

    # A link above the directory is followed, and what it leads to is looked at as well.
    (machine.folder / "link").symlink_to(home)
    refused = machine.install("--directory", machine.folder / "link/certrail/web")
    assert refused.error == f"{home} belongs to nobody"
    os.chown(home, 0, -1)
    machine.install("--directory", machine.folder / "link/certrail/web")
    assert Pair.read(home / "certrail/web/live").matches


# Other formats


def test_one_file_for_haproxy(machine: Machine) -> None:
    bundle = machine.publish()
    machine.install("--format", "haproxy")
    assert (machine.live / "haproxy.pem").read_text() == (
        bundle.certificate + bundle.chain + bundle.private_key.reveal()
    )
    assert mode(machine.live / "haproxy.pem") == 0o600


@pytest.fixture
def password(machine: Machine) -> Path:
    path = machine.folder / "password"
    path.write_text("first password\n")
    path.chmod(0o600)
    return path


def test_a_pkcs12_keystore(machine: Machine, password: Path) -> None:
    bundle = machine.publish()
    options = ("--format", "pkcs12", "--password-file", password)
    machine.install(*options)
    check_keystore(machine.live / "keystore.p12", b"first password", bundle.fingerprint)
    assert mode(machine.live / "keystore.p12") == 0o600
    assert machine.install(*options).outcome == "unchanged"

    password.write_text("second password\n")
    assert machine.install(*options).outcome == "installed"
    check_keystore(machine.live / "keystore.p12", b"second password", bundle.fingerprint)


def check_keystore(path: Path, password: bytes, fingerprint: str) -> None:
    store = pkcs12.load_pkcs12(path.read_bytes(), password)
    assert store.cert
    assert store.key
    assert store.cert.friendly_name == b"certrail"
    assert store.cert.certificate.fingerprint(SHA256()).hex() == fingerprint
    assert store.cert.certificate.public_key() == store.key.public_key()
    assert len(store.additional_certs) == 1


def test_a_java_keystore(machine: Machine, password: Path) -> None:
    bundle = machine.publish()
    options = ("--format", "jks", "--password-file", password)
    if shutil.which("keytool") is None:
        # Without Java there is nobody to read it, either; that is said.
        ran = machine.install(*options)
        assert (ran.code, ran.outcome) == (1, "failed")
        assert ran.error == "making the Java keystore could not run: there is no keytool"
        assert machine.versions == []
        return
    assert machine.install(*options).outcome == "installed"
    assert {path.name for path in machine.live.iterdir()} == PEM_FILES | {
        "manifest.json",
        "keystore.jks",
    }
    assert mode(machine.live / "keystore.jks") == 0o600
    # Java's own tool reads it, and its key: what comes out is what went in.
    back = machine.folder / "back.p12"
    subprocess.run(
        [
            *("keytool", "-importkeystore", "-noprompt", "-srckeystore", "keystore.jks"),
            *("-srcstoretype", "JKS", "-srcstorepass:file", password),
            *("-destkeystore", back, "-deststoretype", "PKCS12", "-deststorepass:file", password),
        ],
        cwd=machine.live,
        check=True,
        capture_output=True,
    )
    check_keystore(back, b"first password", bundle.fingerprint)


def test_a_keystore_that_cannot_be_made(machine: Machine, password: Path) -> None:
    installed = machine.publish()
    machine.install()
    options = ("--format", "pkcs12", "--password-file")
    ran = machine.install(*options, machine.folder / "nowhere")
    assert (ran.code, ran.error) == (
        1,
        f"No such file or directory ({machine.folder / 'nowhere'})",
    )
    empty = machine.folder / "bin"
    empty.mkdir()
    ran = machine.install(*options, password, environment={"PATH": str(empty)})
    assert ran.error == "making the PKCS#12 keystore could not run: there is no openssl"
    check_that_nothing_was_touched(machine, installed.fingerprint)
