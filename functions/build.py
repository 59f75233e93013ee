"""Build the folder that becomes a Lambda function: what its modules import, and nothing else.

    build.py --architecture arm64 --python 3.13 --into DIR issuer.handler
    build.py --architecture arm64 --python 3.13 --into DIR --extra lexicon issuer.handler
    build.py --architecture arm64 --python 3.13 --pin MODULE …

Our modules and the packages they need are found by following the imports. The packages' wheels are
chosen for the function's runtime and architecture, so any Python from 3.11 on builds for any
function, without Docker. Which versions: `requirements.txt`, which `--pin` renews.

What no module imports comes with `--extra`, by its name in pyproject.toml: DNS providers are loaded
by name, and most people need none of them.

Installed packages are kept in .cache/functions/ and shared by the functions that need the same.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PINS = HERE / "requirements.txt"
CACHE = ROOT / ".cache" / "functions"
OURS = ("certrail", "issuer", "deployers")
# Packages whose import has another name.
DISTRIBUTION = {"dns": "dnspython", "yaml": "pyyaml"}
MACHINE = {"arm64": "aarch64", "x86_64": "x86_64"}
# Amazon Linux 2023 has glibc 2.34
# (docs.aws.amazon.com/linux/al2023/ug/compare-with-al2.html).
GLIBC_MINOR = range(17, 35)
# Where Lambda puts the folder: the paths that tracebacks show.
TASK = "/var/task"


@dataclass(frozen=True)
class Runtime:
    architecture: str
    python: str


@dataclass(frozen=True)
class Reached:
    """What a function's modules import, themselves among it.

    files: ours. packages: top-level names of others. services: of AWS, as botocore names them.
    """

    files: frozenset[Path]
    packages: frozenset[str]
    services: frozenset[str]


def main() -> None:
    parser = argparse.ArgumentParser(description="Build a Lambda function's folder.")
    parser.add_argument("--architecture", choices=MACHINE, required=True)
    parser.add_argument("--python", required=True, metavar="X.Y")
    parser.add_argument("--into", type=Path, metavar="DIR")
    parser.add_argument("--pin", action="store_true")
    parser.add_argument("--extra", action="append", default=[], choices=extras(), dest="extras")
    parser.add_argument("modules", nargs="+")
    options = parser.parse_args()
    if options.pin == bool(options.into):
        parser.error("either --into or --pin")
    runtime = Runtime(options.architecture, options.python)
    reached = follow(options.modules)
    if options.pin:
        pin(reached, runtime, options.extras)
    else:
        build(reached, runtime, options.into, options.extras)


def build(reached: Reached, runtime: Runtime, folder: Path, extras: Iterable[str] = ()) -> None:
    shutil.copytree(packages(reached, runtime, extras), folder, dirs_exist_ok=True)
    for file in reached.files:
        there = folder / file.relative_to(ROOT)
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, there)
    precompile(folder, runtime, OURS)
    if interpreter(runtime.python) is None:
        sys.stderr.write(
            f"No Python {runtime.python} here, so no .pyc files in {folder}: it works, but "
            "takes longer to start.\n"
        )


# What is needed


def follow(modules: Iterable[str]) -> Reached:
    """Start at `modules` and follow every import that runs, inside functions too."""
    files: set[Path] = set()
    others: set[str] = set()
    services: set[str] = set()
    waiting = set(modules)
    seen: set[str] = set()
    while waiting:
        module = waiting.pop()
        seen.add(module)
        top = module.partition(".")[0]
        if top not in OURS:
            others.add(top)
            continue
        file = _file(module)
        if file is None:
            raise SystemExit(f"there is no module {module} in {ROOT}")
        files.add(file)
        tree = ast.parse(file.read_text(), file)
        services |= set(_services(tree))
        waiting |= {*_imports(tree), *_parents(module)} - seen
    return Reached(
        frozenset(files), frozenset(others - sys.stdlib_module_names), frozenset(services)
    )


def _file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)


def _parents(module: str) -> Iterator[str]:
    while "." in module:
        module = module.rpartition(".")[0]
        yield module


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in _running(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            # `from package import module` and `from module import name` look the same.
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name for name in names if name.startswith(OURS) and _file(name))


def _services(tree: ast.AST) -> Iterator[str]:
    """The first arguments of `_client("acm")`, which is how certrail.aws makes every client."""
    for node in _running(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(attr="_client"), args=[ast.Constant(value=str(service)), *_]
            ):
                yield service


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only type checkers see."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)


def requirements(packages: Set[str], extras: Iterable[str] = ()) -> list[str]:
    """The lines of pyproject.toml for what is imported, and for the extras. What is imported but
    not there (botocore) must come along with something that is; `_complete` looks."""
    project = _project()
    wanted = {DISTRIBUTION.get(name, name) for name in packages}
    imported = (
        line
        for line in project["dependencies"]
        if re.split(r"[^A-Za-z0-9._-]", line)[0].lower() in wanted
    )
    asked_for = (line for extra in extras for line in project["optional-dependencies"][extra])
    return sorted({*imported, *asked_for})


def extras() -> list[str]:
    """What a function may be given: the others are for people who work on certrail."""
    return sorted(_project()["optional-dependencies"].keys() - {"dev", "sandbox"})


@cache
def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project


# Installing it


def packages(reached: Reached, runtime: Runtime, extras: Iterable[str]) -> Path:
    """A folder of installed packages, from the cache where the same was asked for before."""
    lines = requirements(reached.packages, extras)
    about = [
        *(lines, sorted(reached.services), runtime.architecture, runtime.python),
        *(interpreter(runtime.python), PINS.read_text(), Path(__file__).read_text()),
    ]
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
    kept = CACHE / key
    if not kept.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        # Another build may be at the same: each works for itself, the first one done is kept.
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            fresh = Path(scratch) / "packages"
            install([*lines, "--constraint", str(PINS)], runtime, fresh)
            trim(fresh, reached.services)
            _complete(fresh, reached.packages)
            precompile(fresh, runtime, (".",))
            if not kept.exists():
                fresh.replace(kept)
    return kept


def install(arguments: list[str], runtime: Runtime, folder: Path) -> None:
    machine = MACHINE[runtime.architecture]
    platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in GLIBC_MINOR]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # What is installed beside the Python that runs this is no concern of the function's.
    chosen = ["--no-compile", "--no-warn-conflicts", "--only-binary=:all:", "--implementation=cp"]
    # pip takes 3.13 for 3.13.0. Lambda has the newest patch release, and no package minds more.
    chosen += [f"--python-version={runtime.python}.99", *platforms, f"--target={folder}"]
    _run([*pip, *chosen, *arguments])


def trim(folder: Path, services: Set[str]) -> None:
    """Leave out what no function reads: commands, packages' own tests, type stubs, and the AWS
    services that certrail does not call, which are most of the size."""
    junk = [folder / "bin", folder / "boto3" / "examples", *folder.rglob("tests")]
    for directory in junk:
        shutil.rmtree(directory, ignore_errors=True)
    for pattern in ("*.pyi", "examples-1.json*"):
        for file in folder.rglob(pattern):
            file.unlink()
    data = folder / "botocore" / "data"
    missing = services - {entry.name for entry in data.iterdir()}
    if missing:
        raise SystemExit(f"botocore has no service {', '.join(sorted(missing))}")
    for service in (entry for entry in data.iterdir() if entry.is_dir()):
        # botocore takes the newest version of an API unless told otherwise.
        versions = sorted(service.iterdir())
        for version in versions[:-1] if service.name in services else versions:
            shutil.rmtree(version)
        if not any(service.iterdir()):
            service.rmdir()


def _complete(folder: Path, packages: Set[str]) -> None:
    there = {path.name.partition(".")[0] for path in folder.iterdir()}
    missing = packages - there
    if missing:
        raise SystemExit(
            f"imported, but not installed: {', '.join(sorted(missing))}; add it to the dependencies"
            " in pyproject.toml, and to functions/build.py where its import has another name"
        )


def precompile(folder: Path, runtime: Runtime, parts: Iterable[str]) -> None:
    """Add .pyc files: Lambda's folder cannot be written to, so each cold start would compile
    everything again. Without times in them, so that the same input makes the same folder."""
    python = interpreter(runtime.python)
    if python is None:
        return
    compile_all = [python, "-m", "compileall", "-q", "--invalidation-mode=unchecked-hash"]
    where = [str(folder / part) for part in parts if (folder / part).exists()]
    _run([*compile_all, "-s", str(folder), "-p", TASK, *where])


@cache
def interpreter(version: str) -> str | None:
    """A Python of the runtime's version: this one, or one on the path."""
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    for candidate in (sys.executable, f"python{version}"):
        found = shutil.which(candidate)
        if found is None:
            continue
        # A version manager's stand-in is on the path for versions that it does not run.
        answer = subprocess.run([found, "-c", ask], capture_output=True, text=True, check=False)
        if answer.stdout.strip() == version:
            return found
    return None


def pin(reached: Reached, runtime: Runtime, extras: Iterable[str]) -> None:
    """Write the versions that are installed beside this Python: those the tests run with."""
    with tempfile.TemporaryDirectory() as scratch:
        tested, folder = Path(scratch) / "tested.txt", Path(scratch) / "packages"
        tested.write_text(_freeze("--exclude-editable"))
        arguments = [*requirements(reached.packages, extras), "--constraint", str(tested)]
        install(arguments, runtime, folder)
        versions = _freeze("--path", str(folder))
    PINS.write_text(
        "# The versions that go into the functions: those the tests ran with.\n"
        f"# Renew: make pins\n{versions}"
    )


def _freeze(*options: str) -> str:
    freeze = [sys.executable, "-m", "pip", "freeze", "--disable-pip-version-check", *options]
    versions = subprocess.run(freeze, capture_output=True, text=True, check=True).stdout
    return versions.strip() + "\n"


def _run(command: list[str]) -> None:
    done = subprocess.run(command, check=False)
    if done.returncode:
        raise SystemExit(f"this failed: {' '.join(command)}")


if __name__ == "__main__":
    main()
