"""Every error certrail raises, in one tree.

    CertrailError
    ├── PipelinesInvalid       pipelines.yaml has faults, all of them listed
    ├── StateError             the bucket holds something that cannot be used as it is
    │   ├── BundleBroken       a stored or new bundle that must not be deployed
    │   ├── Incomplete         what somebody brings is not all there yet
    │   ├── NothingPushed      the bucket is new: no file, no certificate, nothing to do
    │   ├── Superseded         another writer published first, or something newer
    │   ├── CannotRollBack     there is no way back to that certificate
    │   └── Busy               another run holds the lease; it will finish or expire
    ├── IssueError             no certificate was issued
    │   ├── AcmeRefused        the CA said no, in its own words
    │   ├── OverBudget         the CA's limits leave no room for the order yet
    │   ├── DnsError           no zone for a name, or a record that is not visible
    │   │   └── RecordsLeft    challenge records that could not be removed
    │   └── DeadlinePassed     the time allowed for this run is over
    ├── SelectionError         what a selection finds is not followed
    │   └── OverLimit          it finds far more than before, or than it may
    ├── DeployError            a target does not hold the bundle
    │   ├── NotCovered         a name the target serves is not in the certificate
    │   ├── TargetMissing      the distribution, listener or secret is not there
    │   ├── NotOurs            writing would overwrite what somebody else manages
    │   └── TargetRefused      the service refused the certificate
    │       └── BundleRefused  for what the certificate itself is, wherever it would go
    ├── NotTold                a webhook did not take what was told
    ├── AwsError               an AWS call failed
    │   └── AccessDenied       the role lacks a permission; names the action
    └── FailedTogether         several of the above, from one run
        └── NoIssuer           each of a pipeline's issuers, for its own reason

An error says what happened, where, and what to do next. `retryable` tells whether the same call
may succeed later without anybody changing anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta


class CertrailError(Exception):
    """The root of the tree.

    what: what happened, one sentence without a full stop.
    where: the pipeline, target, file or call it happened in; may be empty.
    next: what the reader should do; may be empty where nothing needs doing.
    """

    retryable = False

    def __init__(
        self, what: str, *, where: str = "", next: str = "", retryable: bool | None = None
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.next = next
        if retryable is not None:
            self.retryable = retryable

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        remedy = f". {self.next}" if self.next else ""
        return f"{place}{self.what}{remedy}"


@dataclass(frozen=True)
class Fault:
    """One thing wrong in a file: `file:line`, what is wrong, what would be right."""

    file: str
    line: int
    what: str
    right: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}" + (f" → {self.right}" if self.right else "")


class PipelinesInvalid(CertrailError):
    """pipelines.yaml cannot be used; `faults` lists every reason, in the order of the file."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(sorted(faults, key=lambda fault: (fault.file, fault.line)))
        count = len(self.faults)
        super().__init__(f"{count} {'fault' if count == 1 else 'faults'} in the pipelines file")

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(f"  {fault}" for fault in self.faults)])


class StateError(CertrailError):
    """Something in the bucket cannot be used as it is."""


class BundleBroken(StateError):
    """A bundle whose files do not belong together, or that does not prove what it should."""


class Incomplete(StateError):
    """What somebody brings is not all there yet, or does not fit together yet: it is waited for.

    retry_at: aware, UTC; when waiting is over.
    """

    retryable = True

    def __init__(self, what: str, *, where: str, next: str, retry_at: datetime) -> None:
        super().__init__(what, where=where, next=next)
        self.retry_at = retry_at


class NothingPushed(StateError):
    """No pipelines file was pushed yet and nothing was published: the bucket of a new stack."""


class Superseded(StateError):
    """Another writer moved `current.json` first, or it holds something newer; nothing was
    overwritten."""

    retryable = True


class CannotRollBack(StateError):
    """There is no way back to that certificate; nothing was changed."""


class Busy(StateError):
    """Another run holds the lease."""

    retryable = True


class IssueError(CertrailError):
    """No certificate was issued; what was there before is still there."""


class AcmeRefused(IssueError):
    """The CA refused; the message carries its problem document's own words (RFC 8555, 6.7).

    type: the last part of the problem's URN, like `rateLimited`; empty where the CA gave none.
    status: of the HTTP answer, None where the problem was part of an order or an authorization.
    retry_at: aware, UTC; the moment before which the CA wants no further try, where it said so.
    name: the one that could not be validated, empty where it is about no single name.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        next: str = "",
        retryable: bool | None = None,
        type: str = "",
        status: int | None = None,
        retry_at: datetime | None = None,
        name: str = "",
    ) -> None:
        super().__init__(what, where=where, next=next, retryable=retryable)
        self.name = name
        self.type = type
        self.status = status
        self.retry_at = retry_at


class OverBudget(IssueError):
    """The CA would refuse the order for its rate limits, so it was not made.

    retry_at: aware, UTC; the moment that is reserved for it.
    """

    retryable = True

    def __init__(self, what: str, *, where: str, next: str, retry_at: datetime) -> None:
        super().__init__(what, where=where, next=next)
        self.retry_at = retry_at


class DnsError(IssueError):
    """The challenge record could not be placed or seen."""


class RecordsLeft(DnsError):
    """Challenge records that could not be removed; the next run tries it again."""


class DeadlinePassed(IssueError):
    """The time allowed for this run is over; the next run starts again."""

    retryable = True


class SelectionError(CertrailError):
    """What a selection finds is not followed; what it found before still is."""


class OverLimit(SelectionError):
    """A selection finds more than it may."""


class DeployError(CertrailError):
    """A target does not hold the bundle; what it held before it still holds."""


class NotCovered(DeployError):
    """A name that the target serves is not covered by the certificate; no call was made."""


class TargetMissing(DeployError):
    """The resource the target names does not exist, or is about to be deleted."""


class NotOurs(DeployError):
    """Writing would overwrite what somebody else manages."""


class TargetRefused(DeployError):
    """The service refused the certificate."""


class BundleRefused(TargetRefused):
    """The service refused the bundle itself: its chain, its key, its form. Another certificate
    would do, so a rollout goes back to the one before."""


class NotTold(CertrailError):
    """A webhook did not take a message. wait: how long it wants to be left alone, where it said."""

    def __init__(
        self, what: str, *, next: str, retryable: bool = False, wait: timedelta | None = None
    ) -> None:
        super().__init__(what, where="webhook", next=next, retryable=retryable)
        self.wait = wait


class AwsError(CertrailError):
    """An AWS call failed. `action` is the IAM name of the call, `code` AWS's error code."""

    def __init__(
        self, what: str, *, action: str, code: str, next: str = "", retryable: bool = False
    ) -> None:
        super().__init__(what, where=action, next=next, retryable=retryable)
        self.action = action
        self.code = code


class AccessDenied(AwsError):
    """The role that made the call lacks a permission."""


class FailedTogether(CertrailError):
    """Several failures of one run, raised when all that could be done is done."""

    def __init__(self, what: str, failures: Iterable[CertrailError]) -> None:
        super().__init__(what)
        self.failures = tuple(failures)
        self.retryable = all(failure.retryable for failure in self.failures)

    def __str__(self) -> str:
        return "\n".join([self.what, *(f"  {failure}" for failure in self.failures)])


class NoIssuer(FailedTogether):
    """None of a pipeline's issuers issued; one that may do it later is enough for a retry."""

    def __init__(self, failures: Iterable[CertrailError]) -> None:
        super().__init__("no issuer issued the certificate", failures)
        self.retryable = any(failure.retryable for failure in self.failures)


def raise_together(what: str, failures: Sequence[CertrailError]) -> None:
    """Raise nothing, the one failure, or all of them as one `FailedTogether`."""
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise FailedTogether(what, failures)
