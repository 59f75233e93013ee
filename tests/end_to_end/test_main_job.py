"""What the whole promises, shown on the template's own functions."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from certrail.errors import Busy
from certrail.records import Found
from certrail.store import Current, found_key
from sandbox import resources
from tests.end_to_end.conftest import World

KINDS = ["acm", "cloudfront", "elasticloadbalancing", "secretsmanager"]


def test_a_pushed_file_is_all_it_takes(world: World) -> None:
    text = world.everything()
    world.furnish(text)
    world.push(text)
    assert set(world.held().values()) == {world.current.fingerprint}
    status = world.status()
    assert status.state == "served"
    assert {target.address.partition("/")[0]: target.state for target in status.targets} == {
        "acm": "deployed",
        "apigateway": "served",
        "cloudfront": "served",
        "listener": "served",
        "secretsmanager": "deployed",
    }
    assert not status.failed
    assert world.sandbox.functions.failures == []


def test_a_pushed_selection_finds_its_targets(world: World) -> None:
    listener = world.listener
    resources.listener(
        listener,
        names=[world.domain],
        session=world.sandbox.session(),
        endpoint=world.sandbox.endpoint,
    )
    resources.distribution(
        world.distribution,
        [world.domain],
        session=world.sandbox.session(),
        endpoint=world.sandbox.endpoint,
    )
    text = world.text("- {type: listener, covers: true}\n- {type: cloudfront, covers: true}")
    world.furnish(text)
    world.push(text)
    assert world.held() == dict.fromkeys(
        [
            "acm/eu-central-1",
            f"listener/{listener.partition(':listener/')[2]}",
            "acm/us-east-1",
            f"cloudfront/{world.distribution}",
        ],
        world.current.fingerprint,
    )
    assert not world.status().failed
    assert world.sandbox.functions.failures == []
    # The next renewal goes there, too, and what was found is not written again.
    found = world.store.read(found_key(world.name), Found)
    renewed = world.renew()
    world.sandbox.functions.invoke("Finder", {})
    world.settle()
    assert set(world.held().values()) == {renewed.fingerprint}
    assert world.store.read(found_key(world.name), Found) == found


@pytest.mark.parametrize("count", [1, 4])
def test_a_renewal_writes_once_for_each_import_and_secret(world: World, count: int) -> None:
    listeners = [
        f"{world.listener.rpartition('/')[0]}/{number:016x}" for number in range(1, count + 1)
    ]
    distributions = [f"{world.distribution}{number}" for number in range(count)]
    text = world.text(
        "\n".join(
            [
                *(f"- {{type: listener, listener: '{arn}'}}" for arn in listeners),
                *(f"- {{type: cloudfront, distribution: {each}}}" for each in distributions),
                f"- {{type: secretsmanager, name: {world.secret}}}",
            ]
        ),
    )
    # Two distributions never share an alias, so only the first has one.
    for each, aliases in zip(distributions, [[world.domain], *[[]] * (count - 1)], strict=True):
        resources.distribution(
            each,
            aliases,
            session=world.sandbox.session(),
            endpoint=world.sandbox.endpoint,
        )
    world.furnish(text)
    world.push(text)
    before = world.current
    mark = world.sandbox.server.calls.mark()
    renewed = world.renew()
    world.settle()
    assert renewed.generation == before.generation + 1
    assert set(world.held().values()) == {renewed.fingerprint}
    writes = [call.action for call in world.sandbox.server.calls.writes(*KINDS, since=mark)]
    # Two regions have an import: that of the listeners, and us-east-1 for CloudFront.
    assert sorted(writes) == [
        "acm:ImportCertificate",
        "acm:ImportCertificate",
        "secretsmanager:PutSecretValue",
        "secretsmanager:TagResource",
    ]


def test_every_event_three_times(world: World) -> None:
    text = world.everything()
    world.furnish(text)
    mark = world.sandbox.server.calls.mark()
    world.sandbox.events.disturb(duplicate=3)
    world.push(text)
    assert set(world.held().values()) == {world.current.fingerprint}
    count = world.sandbox.server.calls.count(since=mark)
    assert count["acm:ImportCertificate"] == 2
    assert count["secretsmanager:CreateSecret"] == 1
    assert count["cloudfront:UpdateDistribution"] == 1
    assert world.current.generation == 1


def test_late_and_in_any_order_the_newest_generation_wins(world: World) -> None:
    text = world.everything()
    world.furnish(text)
    world.push(text)
    events = world.sandbox.events
    events.disturb(hold=True)
    generations: list[Current] = [world.renew() for _ in range(3)]
    held = list(events.held)
    assert len(held) >= 3
    random.Random(7).shuffle(held)  # noqa: S311 (an order, not a secret)
    events.disturb()
    events.release(held)
    world.settle()
    newest = generations[-1]
    assert set(world.held().values()) == {newest.fingerprint}
    # And once more, the oldest last.
    events.release(held)
    world.settle()
    assert set(world.held().values()) == {newest.fingerprint}
    assert {world.record(address).generation for address in world.held()} == {newest.generation}


def test_events_that_never_come_are_made_up_for_by_the_schedule(world: World) -> None:
    text = world.everything()
    world.furnish(text)
    world.push(text)
    world.sandbox.events.disturb(hold=lambda delivery: "current.json" in delivery.key)
    renewed = world.renew()
    world.settle()
    assert world.held()["acm/eu-central-1"] != renewed.fingerprint
    world.sandbox.functions.fire_schedule("RouterHourly")
    world.settle()
    assert set(world.held().values()) == {renewed.fingerprint}


def test_the_daily_run_repairs_what_was_changed_by_hand(world: World) -> None:
    text = world.everything()
    world.furnish(text)
    world.push(text)
    world.client("secretsmanager").put_secret_value(SecretId=world.secret, SecretString="by hand")
    cloudfront = world.client("cloudfront")
    answer = cloudfront.get_distribution_config(Id=world.distribution)
    config = answer["DistributionConfig"]
    viewer = config["ViewerCertificate"]
    viewer["ACMCertificateArn"] = resources.imported_certificate([world.domain])
    del viewer["Certificate"], viewer["CertificateSource"]
    cloudfront.update_distribution(
        Id=world.distribution, IfMatch=answer["ETag"], DistributionConfig=config
    )
    held = world.held()
    assert held[f"cloudfront/{world.distribution}"] != world.current.fingerprint
    assert held[f"secretsmanager/eu-central-1/{world.secret}"] != world.current.fingerprint
    world.sandbox.functions.fire_schedule("RouterDaily")
    world.settle()
    assert set(world.held().values()) == {world.current.fingerprint}


def test_two_first_runs_at_once_make_one_of_each(world: World) -> None:
    text = world.everything()
    world.furnish(text)
    mark = world.sandbox.server.calls.mark()
    world.sandbox.events.disturb(hold=True)
    world.push(text, wait=False)
    start = Barrier(3)

    def run(who: int) -> object:
        start.wait()
        if who == 2:
            world.sandbox.functions.fire_schedule("IssuerHourly")
            return None
        try:
            return world.renew()
        except Busy as error:
            return error

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(run, range(3)))
    world.sandbox.events.calm()
    world.settle()
    assert world.current.generation == 1
    assert len(list(world.store.keys("accounts/"))) == 1
    count = world.sandbox.server.calls.count(since=mark)
    assert count["acm:ImportCertificate"] == 2, "one in each of the two regions"
    assert set(world.held().values()) == {world.current.fingerprint}
