import inspect
import re

import pytest

from certrail import errors
from certrail.errors import (
    AccessDenied,
    Busy,
    CertrailError,
    FailedTogether,
    Fault,
    NotCovered,
    PipelinesInvalid,
    raise_together,
)


def test_an_error_says_where_what_and_what_next() -> None:
    error = NotCovered("covers no shop.example.com", where="cloudfront/E1", next="Add the name")
    assert str(error) == "cloudfront/E1: covers no shop.example.com. Add the name"
    assert str(CertrailError("it broke")) == "it broke"


def test_faults_are_listed_in_the_order_of_the_file() -> None:
    error = PipelinesInvalid([Fault("p.yaml", 9, "late"), Fault("p.yaml", 2, "early", "this")])
    assert str(error) == (
        "2 faults in the pipelines file\n  p.yaml:2: early → this\n  p.yaml:9: late"
    )


def test_failures_are_raised_together() -> None:
    raise_together("two targets", [])
    with pytest.raises(Busy):
        raise_together("two targets", [Busy("held")])
    with pytest.raises(FailedTogether, match="held\n  gone") as caught:
        raise_together("two targets failed", [Busy("held"), CertrailError("gone")])
    assert not caught.value.retryable
    assert len(caught.value.failures) == 2


def test_an_aws_error_names_the_action() -> None:
    error = AccessDenied("no", action="acm:ImportCertificate", code="AccessDeniedException")
    assert str(error) == "acm:ImportCertificate: no"
    assert not error.retryable


def test_the_drawn_tree_is_the_tree() -> None:
    drawn = re.findall(
        r"([│ ]*)(?:[├└]── )?(\w+Error|[A-Z]\w+) *(?:  .*)?$", str(errors.__doc__), re.M
    )
    names = {name for _, name in drawn}
    classes = {
        name
        for name, value in inspect.getmembers(errors, inspect.isclass)
        if issubclass(value, CertrailError)
    }
    assert classes <= names
