"""IAM policy documents, evaluated: what a set of statements says about one permission.

Sources:
  elements    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements.html
  operators   .../reference_policies_elements_condition_operators.html
  set keys    .../reference_policies_condition-single-vs-multi-valued-context-keys.html
  variables   .../reference_policies_variables.html
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

# A key with one value is a string; a key that may have several is a tuple, even of one.
Context = Mapping[str, str | tuple[str, ...]]


@dataclass(frozen=True)
class Need:
    """One permission that a call needs.

    resource: an ARN, or "*" where the action knows no resources.
    context: the condition keys of the request, as the service authorization reference spells them.
    implied: a service asks for it in the caller's name (S3 for a KMS key).
    """

    action: str
    resource: str = "*"
    context: Context = field(default_factory=dict)
    implied: bool = False


@dataclass(frozen=True)
class Verdict:
    """`allowed` is None where no statement applies: nobody said yes, nobody said no.

    near: statements that name action and resource and fail by their condition.
    """

    allowed: bool | None
    why: str
    near: tuple[str, ...] = ()


class Unsupported(ValueError):
    """A policy says something that the sandbox cannot judge."""


def document(text: str | bytes | Mapping[str, Any]) -> Mapping[str, Any]:
    """A policy document as moto keeps it: JSON, a mapping, or the repr of a mapping."""
    if isinstance(text, bytes):
        text = text.decode()
    if isinstance(text, str):
        try:
            text = json.loads(text)
        except ValueError:
            # moto's CloudFormation stores str(document) for policies inside a role.
            text = ast.literal_eval(str(text))
    if not isinstance(text, Mapping):
        raise Unsupported(f"a policy document is a JSON object, not {type(text).__name__}")
    return text


def evaluate(
    documents: Iterable[Mapping[str, Any]], need: Need, principals: Iterable[str] | None = None
) -> Verdict:
    """An explicit Deny wins, then any Allow.

    `principals` are the names the caller answers to; given for a resource's own policy, whose
    statements have a Principal, and None for the policies of a role.
    """
    allowed: str | None = None
    near: list[str] = []
    names = None if principals is None else frozenset(principals)
    for title, statement in _statements(documents):
        if not _names(statement, need, names):
            continue
        unmet = _unmet(statement.get("Condition", {}), need.context)
        if unmet:
            near.append(f"{title}: {unmet}")
        elif statement["Effect"] == "Deny":
            return Verdict(False, f"{title} denies it")
        else:
            allowed = allowed or f"{title} allows it"
    if allowed:
        return Verdict(True, allowed)
    return Verdict(None, "no statement allows it", tuple(near))


def _statements(
    documents: Iterable[Mapping[str, Any]],
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for policy in documents:
        for number, statement in enumerate(_listed(policy.get("Statement", ())), 1):
            yield f"statement {statement.get('Sid', number)}", statement


def _names(statement: Mapping[str, Any], need: Need, names: frozenset[str] | None) -> bool:
    """Whether the statement is about this action, this resource and this principal."""
    action = _one_of(statement, "Action", lambda p: matches(p.lower(), need.action.lower()))
    resource = names is not None and not {"Resource", "NotResource"} & set(statement)
    resource = resource or _one_of(
        statement, "Resource", lambda p: matches(_filled(p, need.context), need.resource)
    )
    return action and resource and (names is None or _principal(statement, names))


def _one_of(statement: Mapping[str, Any], element: str, fits: Callable[[str], bool]) -> bool:
    if element in statement:
        return any(fits(pattern) for pattern in _listed(statement[element]))
    excepted = f"Not{element}"
    return excepted in statement and not any(fits(each) for each in _listed(statement[excepted]))


def _principal(statement: Mapping[str, Any], names: frozenset[str]) -> bool:
    if "NotPrincipal" in statement:
        raise Unsupported("NotPrincipal")
    stated = statement.get("Principal")
    if stated == "*":
        return True
    if not isinstance(stated, Mapping):
        return False
    return any(
        each in names or (kind == "AWS" and each == "*")
        for kind, several in stated.items()
        for each in _listed(several)
    )


def _unmet(condition: Mapping[str, Mapping[str, Any]], context: Context) -> str:
    """The first condition that does not hold, in words; empty if all do."""
    keys = {key.lower(): value for key, value in context.items()}
    for operator, tests in condition.items():
        for key, expected in tests.items():
            actual = keys.get(key.lower())
            wanted = [_filled(_text(each), context) for each in _listed(expected)]
            if not _holds(operator, actual, wanted):
                shown = "absent" if actual is None else repr(actual)
                return f"{operator} {key} {wanted} is not met, it is {shown}"
    return ""


def _holds(operator: str, actual: str | tuple[str, ...] | None, wanted: list[str]) -> bool:
    quantifier, _, plain = operator.rpartition(":")
    if plain == "Null":
        return (actual is None or actual == ()) == (wanted[0].lower() == "true")
    if_exists = plain.endswith("IfExists")
    plain = plain.removesuffix("IfExists")
    negated, test = _test(plain)

    def passes(value: str) -> bool:
        found = any(test(value, each) for each in wanted)
        return found != negated

    if quantifier == "ForAllValues":
        return all(passes(value) for value in _several(actual))
    if quantifier == "ForAnyValue":
        if actual is None and if_exists:
            return True
        return any(passes(value) for value in _several(actual))
    if quantifier:
        raise Unsupported(f"condition operator {operator}")
    if actual is None:
        return if_exists or negated
    # A key with several values needs a set operator; without one AWS matches nothing.
    return isinstance(actual, str) and passes(actual)


def _several(actual: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if actual is None:
        return ()
    return (actual,) if isinstance(actual, str) else actual


def _test(operator: str) -> tuple[bool, Callable[[str, str], bool]]:
    """Whether the operator is a negation, and how it compares what is with what is wanted."""
    if operator in TESTS:
        return False, TESTS[operator]
    positive = operator.replace("Not", "", 1)
    if "Not" in operator and positive in TESTS:
        return True, TESTS[positive]
    raise Unsupported(f"condition operator {operator}")


def _like(actual: str, wanted: str) -> bool:
    return matches(wanted, actual)


def _arn_like(actual: str, wanted: str) -> bool:
    """Each of an ARN's six parts by itself: a `*` does not reach over a colon."""
    is_parts, wanted_parts = actual.split(":", 5), wanted.split(":", 5)
    return len(is_parts) == len(wanted_parts) == 6 and all(
        matches(pattern, part) for pattern, part in zip(wanted_parts, is_parts, strict=True)
    )


TESTS: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda actual, wanted: actual == wanted,
    "StringEqualsIgnoreCase": lambda actual, wanted: actual.lower() == wanted.lower(),
    "StringLike": _like,
    "ArnEquals": _arn_like,
    "ArnLike": _arn_like,
    "Bool": lambda actual, wanted: actual.lower() == wanted.lower(),
    "NumericEquals": lambda actual, wanted: float(actual) == float(wanted),
    "NumericLessThan": lambda actual, wanted: float(actual) < float(wanted),
    "NumericLessThanEquals": lambda actual, wanted: float(actual) <= float(wanted),
    "NumericGreaterThan": lambda actual, wanted: float(actual) > float(wanted),
    "NumericGreaterThanEquals": lambda actual, wanted: float(actual) >= float(wanted),
}


def matches(pattern: str, text: str) -> bool:
    """IAM's wildcards: `*` is any characters, `?` is one; everything else is itself."""
    return _compiled(pattern).fullmatch(text) is not None


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    # A variable that stands for a literal wildcard: ${*}, ${?}, ${$}.
    pieces = re.split(r"(\$\{[*?$]\}|\*|\?)", pattern)
    wild = {"*": ".*", "?": "."}
    return re.compile(
        "".join(
            wild.get(piece) or re.escape(piece[2] if piece.startswith("${") else piece)
            for piece in pieces
        ),
        re.DOTALL,
    )


def _filled(pattern: str, context: Context) -> str:
    """Policy variables replaced by what the request says; an unknown one matches nothing."""
    if "${" not in pattern:
        return pattern
    keys = {key.lower(): value for key, value in context.items()}

    def value(found: re.Match[str]) -> str:
        named = keys.get(found[1].lower())
        return named if isinstance(named, str) else found[0]

    return re.sub(r"\$\{([^}*?$][^}]*)\}", value, pattern)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
