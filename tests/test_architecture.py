"""Arrows point one way: certrail ← issuer, deployers ← cli, sandbox."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "certrail": set(),
    "issuer": {"certrail"},
    "deployers": {"certrail"},
    "fleet": set(),
    "sandbox": {"certrail", "issuer", "deployers", "fleet"},
    "cli": {"certrail", "issuer", "deployers", "fleet", "sandbox"},
    "bench": {"certrail", "issuer", "deployers", "fleet", "cli", "sandbox"},
}


def imported(source: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}: relative imports hide where an arrow points"
            names.add(str(node.module).partition(".")[0])
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_arrows_point_down(package: str) -> None:
    forbidden = MAY_IMPORT.keys() - MAY_IMPORT[package] - {package}
    modules = sorted((ROOT / package).rglob("*.py"))
    assert modules
    wrong = {
        str(module.relative_to(ROOT)): found
        for module in modules
        if (found := imported(module) & forbidden)
    }
    assert wrong == {}


def test_nothing_is_called_utils() -> None:
    names = {path.stem for package in MAY_IMPORT for path in (ROOT / package).rglob("*")}
    assert names.isdisjoint({"utils", "util", "helpers", "common", "misc"})
