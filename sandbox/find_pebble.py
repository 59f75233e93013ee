"""The `pebble` program: the one on PATH, the one in the cache, or a copy fetched into the cache.

Nothing is installed, and nothing outside the cache folder ($XDG_CACHE_HOME/certrail) is written.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import platform
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import requests

from certrail.errors import CertrailError

MINIMUM = (2, 10)
RELEASE = "2.10.1"
MODULE = "github.com/letsencrypt/pebble/v2/cmd/pebble"
RELEASES = "https://api.github.com/repos/letsencrypt/pebble/releases/tags"

# What Go writes into a program that `go install` built from a tagged version.
BUILT_FROM = re.compile(rb"github\.com/letsencrypt/pebble/v2\tv(\d+)\.(\d+)")
# A distribution's build says it is version "dev"; this challenge is new in 2.10.
NEW_IN_MINIMUM = b"dns-persist-01"

KEYRINGS = (
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
)
MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
FETCH_TIMEOUT = 300


class PebbleMissing(CertrailError):
    """There is no Pebble that is new enough, and none could be fetched."""


class Unavailable(Exception):
    """One way to fetch Pebble does not work on this machine; the message says why."""


def find() -> Path:
    """A Pebble of at least MINIMUM, fetched the first time. Raises PebbleMissing."""
    reasons = []
    if on_path := shutil.which("pebble"):
        if is_sufficient(Path(on_path)):
            return Path(on_path)
        reasons.append(f"{on_path}: not Pebble, or older than {_dotted(MINIMUM)}")
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with _one_process_at_a_time(cache / "pebble.lock"):
        if found := cached(cache):
            return found
        for fetch in FETCHES:
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                try:
                    program, version = fetch(Path(scratch))
                    return _keep(program, cache / f"pebble-{version}")
                except (Unavailable, OSError, subprocess.SubprocessError) as error:
                    reasons.append(f"{fetch.__name__}: {_reason(error)}")
    raise PebbleMissing(
        f"Pebble {_dotted(MINIMUM)} or newer is needed and could not be found or fetched "
        f"({'; '.join(reasons)})",
        next=(
            f"Put a `pebble` on PATH (`go install {MODULE}@v{RELEASE}`, or the release binary from "
            f"github.com/letsencrypt/pebble/releases) or at {cache}/pebble-{RELEASE}/pebble"
        ),
    )


def cache_folder() -> Path:
    """Where fetched copies are: certrail's folder in the user's cache (XDG base directories)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "certrail"


def cached(cache: Path) -> Path | None:
    """The newest copy in the cache that is new enough."""
    copies = [
        (version, program)
        for program in cache.glob("pebble-*/pebble")
        if (version := _numbers(program.parent.name)) >= MINIMUM
    ]
    return max(copies)[1] if copies else None


def is_sufficient(program: Path) -> bool:
    """Whether this is a Pebble of at least MINIMUM."""
    try:
        said = _run([str(program), "-version"], timeout=10)
    except (Unavailable, OSError, subprocess.SubprocessError):
        return False
    if not said.startswith("Pebble version:"):
        return False
    if stated := _numbers(said):
        return stated >= MINIMUM
    content = program.read_bytes()
    if built := BUILT_FROM.search(content):
        return (int(built[1]), int(built[2])) >= MINIMUM
    return NEW_IN_MINIMUM in content


# Three ways to fetch it. Each gets a folder of its own to work in and returns the program and its
# version, or raises Unavailable.


def debian_archive(scratch: Path, package: str = "pebble") -> tuple[Path, str]:
    """Debian's package, from the mirror this machine uses, checked by apt, unpacked by dpkg. Its
    program has the package's name."""
    for tool in ("apt-get", "dpkg-deb"):
        if not shutil.which(tool):
            raise Unavailable(f"this machine has no {tool}")
    reasons = []
    for number, mirror in enumerate(debian_mirrors()):
        folder = scratch / str(number)
        folder.mkdir()
        try:
            return _from_mirror(mirror, folder, package)
        except (Unavailable, subprocess.SubprocessError) as error:
            reasons.append(f"{mirror}: {_reason(error)}")
    raise Unavailable("; ".join(reasons) or "no Debian archive in this machine's apt sources")


def debian_mirrors() -> list[str]:
    """The repositories in apt's sources that may be Debian's archive, best known first."""
    listing = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(LABEL)"]
    known = [line.split() for line in _run(listing).splitlines()]
    archive = [words[0] for words in known if words[1:] == ["Debian", "Debian"]]
    if not known:
        # A machine that never ran `apt-get update` knows no origins: apt will tell, by signature.
        archive = _run([*listing[:-1], "$(REPO_URI)", "--no-release-info"]).splitlines()
    return list(dict.fromkeys(archive))


def _from_mirror(mirror: str, folder: Path, package: str) -> tuple[Path, str]:
    keyring = next((each for each in KEYRINGS if Path(each).exists()), None)
    signed_by = f"[signed-by={keyring}] " if keyring else ""
    sources = folder / "sources.list"
    sources.write_text(f"deb {signed_by}{mirror} sid main\n")
    for each in ("lists/partial", "cache/archives/partial"):
        (folder / each).mkdir(parents=True)
    settings = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "APT::Default-Release": "",
        # Everything is written into a folder that apt's own user cannot enter.
        "APT::Sandbox::User": "root",
        "APT::Update::Error-Mode": "any",
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
    }
    apt = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in settings.items())]
    _run([*apt, "update"])
    _run([*apt, "download", package], cwd=folder)
    archive = next(iter(folder.glob(f"{package}_*.deb")), None)
    if archive is None:
        raise Unavailable("apt-get downloaded nothing")
    version = _run(["dpkg-deb", "-f", str(archive), "Version"]).strip()
    _run(["dpkg-deb", "-x", str(archive), str(folder / "package")])
    return folder / "package/usr/bin" / package, version


def go_install(scratch: Path) -> tuple[Path, str]:
    """Built from source by Go, which checks it against the checksum database."""
    if not shutil.which("go"):
        raise Unavailable("this machine has no go")
    _run(["go", "install", f"{MODULE}@v{RELEASE}"], env=os.environ | {"GOBIN": str(scratch)})
    return scratch / "pebble", RELEASE


def release_binary(scratch: Path, releases: str = RELEASES) -> tuple[Path, str]:
    """The binary that the Pebble project publishes, checked against the digest that the release
    states (docs.github.com/rest/releases/assets)."""
    machine = MACHINES.get(platform.machine().lower())
    system = platform.system().lower()
    if machine is None or system not in {"linux", "darwin"}:
        raise Unavailable(f"no release for {system} on {platform.machine()}")
    name = f"pebble-{system}-{machine}.tar.gz"
    assets = _get(f"{releases}/v{RELEASE}").json()["assets"]
    asset = next((each for each in assets if each["name"] == name), None)
    if asset is None:
        raise Unavailable(f"release {RELEASE} has no {name}")
    archive = _get(asset["browser_download_url"]).content
    digest = asset.get("digest") or ""
    if digest.startswith("sha256:") and digest != f"sha256:{hashlib.sha256(archive).hexdigest()}":
        raise Unavailable(f"{name} does not have the digest that its release states ({digest})")
    program = scratch / "pebble"
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            if member.isfile() and Path(member.name).name == "pebble":
                content = tar.extractfile(member)
                assert content is not None  # noqa: S101 (it is a file)
                program.write_bytes(content.read())
                return program, RELEASE
    raise Unavailable(f"there is no pebble in {name}")


FETCHES: tuple[Callable[[Path], tuple[Path, str]], ...] = (
    debian_archive,
    go_install,
    release_binary,
)


def _keep(program: Path, folder: Path) -> Path:
    """Move a fetched program to its place in the cache, whole or not at all."""
    program.chmod(0o755)
    if not is_sufficient(program):
        raise Unavailable(f"{folder.name} does not run here, or is older than {_dotted(MINIMUM)}")
    folder.mkdir(exist_ok=True)
    return program.replace(folder / "pebble")


@contextmanager
def _one_process_at_a_time(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    timeout: float = FETCH_TIMEOUT,
) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=env, timeout=timeout, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise Unavailable(f"{Path(command[0]).name} failed with {done.returncode}: {last}")
    return done.stdout


def _get(url: str) -> requests.Response:
    try:
        answer = requests.get(url, timeout=60)
        answer.raise_for_status()
    except requests.RequestException as error:
        raise Unavailable(f"{url}: {_reason(error)}") from error
    return answer


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _numbers(text: str) -> tuple[int, ...]:
    """The first two numbers of the first version in a text: "pebble-2.10.0+ds1-2" -> (2, 10)."""
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else ()


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
