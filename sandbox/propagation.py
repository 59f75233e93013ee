"""How long AWS takes until clients get what was changed, and what they get until then.

AWS publishes few figures. CloudFront: a reimport takes up to 24 hours [requirements], a changed
configuration minutes (a distribution is `InProgress`). API Gateway: about 40 minutes until an
edge-optimised domain is ready [edge]. Load balancers: "new requests use the renewed certificate"
[ALB]. So the sandbox serves at once, and a test says how long which service takes.

  requirements  https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/cnames-and-https-requirements.html
  edge          https://docs.aws.amazon.com/apigateway/latest/developerguide/how-to-edge-optimized-custom-domain-name.html
  ALB           https://docs.aws.amazon.com/elasticloadbalancing/latest/application/https-listener-certificates.html

The rules (`sandbox.rules`) say here, just before they write, what will be no more; `sandbox.fronts`
asks here what is still served. Both are in one process with moto, whose state is global, too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, TypeVar

Service = Literal["apigateway", "cloudfront", "elbv2"]
Change = Literal["reimport", "relink"]
T = TypeVar("T")


@dataclass(frozen=True)
class Delay:
    """reimport: until new content of the same ARN is served. relink: until another ARN is."""

    reimport: timedelta = timedelta(0)
    relink: timedelta = timedelta(0)


AT_ONCE = Delay()


class Past(NamedTuple):
    """What something was until then, and how long a change took at the time."""

    until: datetime
    what: Any
    delays: dict[Service, Delay]


class Propagation:
    """delays: by service, set by a test, for changes from then on; a service that is not in it
    serves at once. clock: the time, aware; a test turns it by hand."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """No delays, nothing remembered, the time of the machine."""
        self.clock: Callable[[], datetime] = _now
        self.delays: dict[Service, Delay] = {}
        # By ARN, in order of time.
        self._past: defaultdict[str, list[Past]] = defaultdict(list)

    def replaced(self, arn: str, before: Any) -> None:
        """Say that what this ARN names is about to be something else than `before`."""
        self._past[arn].append(Past(self.clock(), before, dict(self.delays)))

    def served(self, arn: str, now: T, service: Service, change: Change, share: float) -> T:
        """What is served at a place that gets a change after this share of the delay; `now` is what
        the ARN names."""
        return next(self.still_served(arn, now, service, change, share))

    def still_served(
        self, arn: str, now: T, service: Service, change: Change, share: float = 1.0
    ) -> Iterator[T]:
        """What is served there, and what will be one after the other until it is `now`."""
        time = self.clock()
        # A copy, because other requests write while this one looks.
        for past in list(self._past.get(arn, ())):
            delay: timedelta = getattr(past.delays.get(service, AT_ONCE), change)
            if time < past.until + delay * share:
                yield past.what
        yield now

    def arrivals(self, shares: Collection[float]) -> list[datetime]:
        """When what was said to be replaced so far is served no more, at places that get a change
        after these shares of the delay; in order. Between two of them nothing changes."""
        return sorted(
            {
                past.until + time * share
                for pasts in list(self._past.values())
                for past in list(pasts)
                for delay in past.delays.values()
                for time in (delay.reimport, delay.relink)
                for share in shares
            }
        )


def _now() -> datetime:
    return datetime.now(UTC)


propagation = Propagation()
