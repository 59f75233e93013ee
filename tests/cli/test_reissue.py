from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from certrail.errors import StateError
from certrail.store import REISSUE_KEY, Store, current_key, order_key
from cli import reissue as reissuing
from cli.workspace import Workspace, issue_here
from issuer.lease import Progress
from issuer.reissue import read
from sandbox import Sandbox
from sandbox.calls import Call
from tests.cli.conftest import BUCKET, Certrail


def generations(store: Store) -> dict[str, int]:
    currents = {name: store.current(name) for name in ("shop", "fleet")}
    return {name: current.generation for name, current in currents.items() if current}


@pytest.mark.parametrize(
    "which",
    [
        [],
        ["--all", "--issuer", "sandbox"],
        ["--all", "--pipeline", "fleet"],
        ["--issuer", "sandbox", "--pipeline", "fleet"],
    ],
)
def test_it_wants_to_know_which(
    certrail: Certrail, file: Path, store: Store, which: list[str]
) -> None:
    assert certrail("push").code == 0
    result = certrail("reissue", *which)
    assert result.code == 2
    assert "say which ones. Give one of --all, --issuer and --pipeline" in result.err
    assert not list(store.keys(REISSUE_KEY))


def test_who_is_not_there_is_not_reissued(certrail: Certrail, file: Path, store: Store) -> None:
    assert certrail("push").code == 0
    unknown = certrail("reissue", "--pipeline", "fleet", "--pipeline", "shpo")
    assert unknown.code == 2
    assert "there is no pipeline `shpo`. There is shop" in unknown.err
    assert "there is no issuer `x`. There is sandbox" in certrail("reissue", "--issuer", "x").err
    nothing = certrail("reissue", "--issuer", "sandbox")
    assert nothing.code == 2
    assert "no current certificate is from `sandbox`" in nothing.err
    assert not list(store.keys(REISSUE_KEY))


def test_it_writes_down_what_is_wanted(certrail: Certrail, file: Path, store: Store) -> None:
    assert certrail("push").code == 0
    assert certrail("apply", "fleet").code == 0
    by_issuer = certrail("reissue", "--issuer", "sandbox", "--no-wait", "--json")
    assert by_issuer.json() == {"asked": ["fleet"]}
    assert "asked for a new certificate" in by_issuer.err
    assert {name: asked.generation for name, asked in read(store).asked.items()} == {"fleet": 1}

    twice = certrail("reissue", *(2 * ["--pipeline", "fleet"]), "--no-wait", "--json")
    assert twice.json() == {"asked": ["fleet"]}

    everything = certrail("reissue", "--all", "--why", "the CA was hacked", "--no-wait")
    assert "asked for 2 new certificates" in everything.err
    asked = read(store).asked
    assert {name: (each.generation, each.why) for name, each in asked.items()} == {
        "shop": (0, "the CA was hacked"),
        "fleet": (1, "the CA was hacked"),
    }
    # What the issuer's function would do, and only once.
    assert certrail("apply", "fleet").code == 0
    assert certrail("apply", "fleet").code == 0
    assert generations(store) == {"fleet": 2}


def test_it_watches_until_all_are_there(
    certrail: Certrail,
    file: Path,
    store: Store,
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert certrail("push").code == 0
    assert certrail("apply", "fleet").code == 0
    monkeypatch.setattr("cli.__main__.POLL", 0.05)
    workspace = Workspace(file, BUCKET)
    asked = threading.Event()

    def hear(call: Call) -> None:
        if call.action == "s3:PutObject" and (call.params or {}).get("Key") == REISSUE_KEY:
            asked.set()

    def issue_both() -> None:
        # What the issuer's function does when the wish wakes it.
        assert asked.wait(60)
        local = workspace.local()
        for pipeline in local.pipelines:
            issue_here(workspace, local, pipeline, timedelta(seconds=60))

    sandbox.server.after.append(hear)
    worker = threading.Thread(target=issue_both)
    worker.start()
    try:
        result = certrail("reissue", "--all")
    finally:
        worker.join()
        sandbox.server.after.remove(hear)
    assert result.code == 0, result.err
    assert result.out == "2 of 2 reissued\n"
    assert generations(store) == {"shop": 1, "fleet": 2}
    # One line for each change, however often it looked.
    progress = [line for line in result.err.splitlines() if "reissued" in line]
    assert progress[0] == "0 of 2 reissued, 2 to come"
    assert progress[-1] == "2 of 2 reissued"
    assert len(progress) == len(set(progress)) <= 3


def test_a_failure_that_needs_a_person_ends_the_watching(
    certrail: Certrail, file: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert certrail("push").code == 0
    workspace = Workspace(file, BUCKET)
    chosen = workspace.chosen(workspace.pushed(), None)
    now = datetime.now(UTC)
    wishes = reissuing.begin(workspace, chosen, "why", now)
    later = now + timedelta(hours=1)

    def fail() -> None:
        for name, permanent in {"shop": True, "fleet": False}.items():
            found = store.read(order_key(name), Progress)
            progress = Progress(
                "x",
                attempts=1,
                error="no zone",
                ended_at=later,
                next_attempt=later,
                permanent=permanent,
            )
            etag = found.etag if found else None
            store.write(order_key(name), progress, Progress, etag)

    states = reissuing.follow(workspace, chosen, wishes, fail)
    assert next(states).as_json() == {
        "done": [],
        "waiting": ["shop", "fleet"],
        "failed": {},
        "next_attempt": None,
    }
    # The one that is tried again is waited for.
    assert next(states).as_json() == {
        "done": [],
        "waiting": ["fleet"],
        "failed": {"shop": "no zone"},
        "next_attempt": later.isoformat(),
    }
    assert certrail("apply", "fleet").code == 0
    (last,) = states
    assert (last.done, last.failed) == (["fleet"], [("shop", "no zone")])


def test_what_cannot_be_read_is_not_asked_for(certrail: Certrail, file: Path, store: Store) -> None:
    assert certrail("push").code == 0
    store._s3.put_object(Bucket=BUCKET, Key=current_key("shop"), Body=b"{}")
    result = certrail("reissue", "--all")
    assert result.code == 1
    assert "certificates/shop/current.json: not a valid document" in result.err
    assert not list(store.keys(REISSUE_KEY))
    with pytest.raises(StateError):
        store.current("shop")
