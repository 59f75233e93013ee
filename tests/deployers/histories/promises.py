"""What must hold in every history.

After every single write that AWS took, whoever's process made it, and whatever becomes of that
process: `Promises.after_write`. When all is quiet: `Promises.at_rest`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote, urlsplit

from botocore.awsrequest import AWSPreparedRequest
from moto.s3.models import s3_backends
from pydantic import TypeAdapter

from certrail.bundle import Bundle, covers
from certrail.records import Record, Rollout, State
from certrail.store import Current, record_key
from certrail.target import Deployed, Target
from deployers.document import document
from tests.certrail.bundles import NOW
from tests.deployers.cloud import ACCOUNT, REGION
from tests.deployers.contract.worlds import ALB, NLB
from tests.deployers.histories.aws import body_of
from tests.deployers.histories.world import (
    BUCKET,
    EDGE,
    ELSEWHERE,
    GATEWAY,
    SOMETHING_ELSE,
    WAYS,
    Leaf,
    Place,
    World,
)

# The kinds that clients connect to.
SEEN = {"apigateway", "cloudfront", "listener"}
CURRENT, RECORD, ROLLOUT = TypeAdapter(Current), TypeAdapter(Record), TypeAdapter(Rollout)


class Promises:
    """broken: what did not hold, in words; it is asked after each step of a history. changes: how
    many writes said something new."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.broken: list[str] = []
        self.changes = 0
        # The generations that a bundle has been, by pipeline and fingerprint.
        self.generations: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        self.rollbacks: dict[tuple[str, int], Current] = {}
        # The bundles with which all waves have passed, by pipeline.
        self.passed: dict[str, set[str]] = defaultdict(set)
        self.bundles: dict[str, Bundle] = {}
        # What every client of a place has been given, at least.
        self._reached: dict[Place, int] = {}
        # The places where every client has been given a certificate that it accepts.
        self._valid: set[Place] = set()
        self._recorded: dict[str, Record] = {}
        self._rollouts: dict[str, Rollout] = {}

    def newest(self, pipeline: str) -> int:
        """The number of the generation that is current; 0 before the first."""
        return max((max(each) for each in self.generations[pipeline].values()), default=0)

    def fingerprint_of(self, pipeline: str, generation: int) -> str:
        return next(
            fingerprint
            for fingerprint, numbers in self.generations[pipeline].items()
            if generation in numbers
        )

    def import_of(self, pipeline: str, region: str) -> Deployed | None:
        """The one that its record names."""
        record = self._recorded.get(record_key(pipeline, f"acm/{region}"))
        return record.held if record else None

    # After every write

    def after_write(
        self, service: str, operation: str, request: AWSPreparedRequest, ours: bool
    ) -> None:
        if service == "s3":
            if operation == "PutObject" and ours:
                key = unquote(urlsplit(request.url).path).lstrip("/")
                self._after_put(key, dict(request.headers.items()))
        elif service in {"sqs", "eventbridge"}:
            self.no_private_key(body_of(request).decode(), f"a message of {operation}")
        else:
            self.changes += 1
            self._nothing_is_lost()
            self._clients_are_served(ours=ours)

    def _after_put(self, key: str, headers: Mapping[str, Any]) -> None:
        self.world.events.written(key)
        if key.endswith("/privkey.pem"):
            return
        text = s3_backends[ACCOUNT]["aws"].buckets[BUCKET].keys[key].value.decode()
        self.no_private_key(text, key)
        if key.startswith("deployments/"):
            self._is_a_record(key, RECORD.validate_json(text), headers)
        elif key.startswith("rollouts/"):
            self._is_a_rollout(ROLLOUT.validate_json(text), headers)
        elif key.endswith("/current.json"):
            self._is_the_next_generation(CURRENT.validate_json(text))

    def _is_the_next_generation(self, current: Current) -> None:
        before = self.newest(current.pipeline)
        if current.generation != before + 1:
            self._break(f"generation {current.generation} of {current.pipeline} after {before}")
        self.generations[current.pipeline][current.fingerprint].append(current.generation)
        if current.rollback:
            self.rollbacks[current.pipeline, current.generation] = current
            self.world.aws.happened[f"rolled back by {current.rollback.by}"] += 1

    def _is_a_record(self, key: str, record: Record, headers: Mapping[str, Any]) -> None:
        if not ("If-Match" in headers or "If-None-Match" in headers):
            self._break(f"{key} was written whatever was there")
        if key != record_key(record.pipeline, record.address):
            self._break(f"{key} is the record of {record.address}")
        before = self._recorded.get(key)
        if before and before.generation > record.generation:
            self._break(f"{key}: generation {record.generation} after {before.generation}")
        if record.generation not in self.generations[record.pipeline].get(record.fingerprint, []):
            self._break(f"{key}: {record.fingerprint} was never generation {record.generation}")
        if before is None or before.generation < record.generation:
            self._is_its_turn(record, before)
        if (record.state is State.DEPLOYING) != (record.until is not None):
            self._break(f"{key} is {record.state} until {record.until}")
        # A new attempt keeps what the one before failed over.
        failed = record.state is State.FAILED
        if record.state is not State.DEPLOYING and failed != (record.error is not None):
            self._break(f"{key} is {record.state}: {record.error}")
        # That clients were looked at again changes nothing.
        self.changes += before is None or replace(before, check=None) != replace(record, check=None)
        self._recorded[key] = record

    def _is_its_turn(self, record: Record, before: Record | None) -> None:
        """No target gets a generation before the waves before its own have passed; but a rollback
        comes at once to who was given what is left, and to who still has what is gone back to."""
        current = self.rollbacks.get((record.pipeline, record.generation))
        if current and current.rollback:
            held = before.held.fingerprint if before and before.held else ""
            left = before is not None and before.generation == current.rollback.generation
            if left or current.fingerprint in {held, *self.passed[record.pipeline]}:
                return
        wave = self.world.wave(record.pipeline, record.address)
        rollout = self._rollouts.get(record.pipeline)
        passed = rollout.passed if rollout and rollout.generation == record.generation else 0
        if wave > passed:
            self._break(f"{record.address}: generation {record.generation} before its wave")

    def _is_a_rollout(self, rollout: Rollout, headers: Mapping[str, Any]) -> None:
        name = rollout.pipeline
        if not ("If-Match" in headers or "If-None-Match" in headers):
            self._break(f"the rollout of {name} was written whatever was there")
        before = self._rollouts.get(name)
        if before and before.generation > rollout.generation:
            self._break(f"the rollout of {name}: {rollout.generation} after {before.generation}")
        if rollout.done_at:
            self.passed[name].add(rollout.fingerprint)
        self.changes += before is None or _stands(before) != _stands(rollout)
        self._rollouts[name] = rollout

    def _nothing_is_lost(self) -> None:
        """What is not ours stays, and a listener always has a default."""
        for region in (REGION, EDGE):
            strangers = {arn for arn in self.world.strange_imports() if f":{region}:" in arn}
            if lost := strangers - self.world.imports(region).keys():
                self._break(f"the imports {lost} are gone, which are strangers'")
        for arn, strangers in self.world.strangers.items():
            default, *listed = self.world.listener(arn).certificates or [""]
            if not default:
                self._break(f"{arn} has no default")
            if lost := strangers - set(listed):
                self._break(f"{arn} has lost {lost}, which are strangers'")
            ours = self.world.imports_of("shop") if arn == ALB else {}
            if default != self.world.default[arn] and default not in ours:
                self._break(f"the default of {arn} is {default}")

    def _clients_are_served(self, *, ours: bool) -> None:
        """No client is given an older generation than before, nor one that it does not accept where
        it was given one that it does. Edits by hand may do both; what follows them may not."""
        for place, leaves in self._presented():
            known = self.generations[place.pipeline]
            least = self._reached.get(place, 0)
            older = [leaf for leaf in leaves if max(known.get(leaf.fingerprint, [least])) < least]
            if older and ours:
                numbers = [known[leaf.fingerprint] for leaf in older]
                self._break(f"{place}: {numbers} after generation {least}")
            elif older:
                # Put there by hand: from here on it may only become newer again.
                self._reached[place] = min(max(known[leaf.fingerprint]) for leaf in older)
            if all(leaf.fingerprint in known for leaf in leaves) and leaves and not older:
                self._reached[place] = min(
                    min(n for n in known[leaf.fingerprint] if n >= least) for leaf in leaves
                )
            # Who asks for a name takes whatever is valid for it, such as what somebody wrote over
            # an import of ours that a listener is about to be pointed to.
            accepted = bool(leaves) and all(
                covers(leaf.names, place.name) if place.name else leaf.fingerprint in known
                for leaf in leaves
            )
            if place in self._valid and ours and not accepted:
                self._break(f"{place}: {leaves} after a valid certificate")
            (self._valid.add if accepted else self._valid.discard)(place)
        for name in ("shop", "mail"):
            self._is_one_pair(name, self.world.secret(f"tls/{name}/bundle"))

    def _presented(self) -> Iterator[tuple[Place, tuple[Leaf, ...]]]:
        for place in (*WAYS, ELSEWHERE):
            yield place, self.world.presented(place)
        for pipeline in ("shop", "mail"):
            for arn in self.world.imports_of(pipeline):
                yield Place(arn, pipeline), (self.world.imported(arn),)

    def _is_one_pair(self, pipeline: str, value: str | None) -> None:
        """A reader of the secret never sees a certificate with another one's key."""
        if value is None or value == SOMETHING_ELSE:
            return
        held = json.loads(value)
        if held != document(self.bundles[held["fingerprint"]]):
            self._break(f"the secret of {pipeline} holds a mixture")

    def no_private_key(self, text: str, where: str) -> None:
        keys = (bundle.private_key.reveal().splitlines()[1] for bundle in self.bundles.values())
        if "PRIVATE KEY" in text or any(key in text for key in keys):
            self._break(f"{where} has a private key")

    # When all is quiet

    def at_rest(self) -> list[str]:
        """What is not as the newest generations say: first the records, then what AWS shows to
        somebody who asks it."""
        return [
            *self._records_at_rest(),
            *self._rollouts_at_rest(),
            *self._given_at_rest(),
            *self._imports_at_rest(),
            *self._shown(),
        ]

    def _records_at_rest(self) -> Iterator[str]:
        for pipeline in ("shop", "mail"):
            number = self.newest(pipeline)
            for target in self.world.targets(pipeline) if number else ():
                record = self._record(pipeline, target)
                wanted = State.SERVED if target.type in SEEN else State.DEPLOYED
                if record is None or (record.state, record.generation) != (wanted, number):
                    yield f"{pipeline}: {target.address} is not at {number}: {record}"

    def _given_at_rest(self) -> Iterator[str]:
        for place in (*WAYS, *([ELSEWHERE] if self.is_elsewhere() else [])):
            given = {leaf.fingerprint for leaf in self.world.presented(place)}
            if self.newest(place.pipeline) and given != {self._wanted(place.pipeline)}:
                yield f"{place} is given {[each[:12] for each in given]}"

    def is_elsewhere(self) -> bool:
        """Whether somebody put an import of ours where no pipeline says."""
        there = self.world.listener(ELSEWHERE.where).certificates
        return any(arn in there for arn in self.world.imports_of(ELSEWHERE.pipeline))

    def _imports_at_rest(self) -> Iterator[str]:
        """Nothing is left behind: one import in each region in which something needs one."""
        for pipeline in ("shop", "mail"):
            wanted = sum(each.type == "acm" for each in self.world.targets(pipeline))
            imports = self.world.imports_of(pipeline)
            if self.newest(pipeline) and len(imports) != wanted:
                yield f"{pipeline} has the imports {sorted(imports)}"

    def _rollouts_at_rest(self) -> Iterator[str]:
        for pipeline in ("shop", "mail"):
            number = self.newest(pipeline)
            rollout = self._rollouts.get(pipeline)
            if number and (
                rollout is None or rollout.generation != number or rollout.done_at is None
            ):
                yield f"{pipeline}: generation {number} is not served: {rollout}"

    def _shown(self) -> Iterator[str]:
        acm = {region: self.world.console("acm", region) for region in (REGION, EDGE)}
        for pipeline in ("shop", "mail"):
            if not self.newest(pipeline):
                continue
            for target in self.world.targets(pipeline):
                record = self._record(pipeline, target)
                if record is None or record.held is None:
                    continue
                arn = record.held.resource
                match target.type:
                    case "acm":
                        held = acm[arn.split(":")[3]].get_certificate(CertificateArn=arn)
                        yield from self._compare(pipeline, arn, held["Certificate"])
                    case "listener":
                        rows = self.world.console("elbv2").describe_listener_certificates(
                            ListenerArn=ALB if "/app/" in target.address else NLB
                        )["Certificates"]
                        if not any(
                            row["CertificateArn"] == arn and not row["IsDefault"] for row in rows
                        ):
                            yield f"{target.address} does not list {arn}: {rows}"
                    case "apigateway":
                        domain = self.world.console("apigateway").get_domain_name(
                            domainName=GATEWAY
                        )
                        if domain["regionalCertificateArn"] != arn:
                            yield f"{target.address} points to {domain}"
                    case "cloudfront":
                        shown = self.world.console("cloudfront", EDGE).get_distribution(
                            Id=target.address.rpartition("/")[2]
                        )["Distribution"]["DistributionConfig"]["ViewerCertificate"]
                        if shown["ACMCertificateArn"] != arn:
                            yield f"{target.address} points to {shown}"
                    case "secretsmanager":
                        value = self.world.console("secretsmanager").get_secret_value(SecretId=arn)
                        pem = json.loads(value["SecretString"])["certificate"]
                        yield from self._compare(pipeline, target.address, pem)

    def _compare(self, pipeline: str, where: str, pem: str) -> Iterator[str]:
        wanted = self.bundles[self._wanted(pipeline)].certificate
        if pem != wanted:
            yield f"{where} does not show the newest certificate of {pipeline}"

    def _wanted(self, pipeline: str) -> str:
        number = self.newest(pipeline)
        return self.fingerprint_of(pipeline, number) if number else ""

    def _record(self, pipeline: str, target: Target) -> Record | None:
        return self._recorded.get(record_key(pipeline, target.address))

    def _break(self, what: str) -> None:
        if what not in self.broken:
            self.broken.append(what)


def _stands(rollout: Rollout) -> Rollout:
    """Without when it was looked at, and will be again: that changes nothing."""
    return replace(rollout, at=NOW, next=None)
