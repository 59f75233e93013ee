"""What is followed of what was found: whatever AWS has, in whatever order it lists it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certrail.errors import OverLimit
from certrail.keys import KeyType
from certrail.pipelines import Pipeline
from certrail.pipelines.selection import Certificate, Item, Location, Selection
from certrail.records import Found
from certrail.target import Target
from deployers.find import (
    AT_FIRST,
    MORE,
    Followed,
    Look,
    Which,
    over_limit,
    settle,
)
from deployers.kinds.cloudfront import Cloudfront
from deployers.kinds.fleet import Fleet
from deployers.kinds.listener import Listener
from deployers.selections.cloudfront import CloudfrontSelection
from deployers.selections.listener import ListenerSelection
from deployers.selections.secretsmanager import SecretsmanagerSelection
from deployers.view import with_found

NOW = datetime(2026, 12, 1, tzinfo=UTC)
REGION = "eu-central-1"
ACCOUNTS = ("self", "edge")
# Names that one, two or three of the pipelines' certificates cover.
NAMES = ("shop.example.com", "www.example.com", "api.example.com", "mail.example.org")
DOMAINS = {
    "all": ("*.example.com",),
    "shop": ("shop.example.com", "mail.example.org"),
    "www": ("www.example.com", "*.example.org"),
}


def listener_arn(number: int) -> str:
    return f"arn:aws:elasticloadbalancing:{REGION}:111111111111:listener/app/web/1/{number:x}"


def distribution(number: int, aliases: Sequence[str] = (), **tags: str) -> Item:
    return Item(
        f"E{number}",
        f"arn:aws:cloudfront::111111111111:distribution/E{number}",
        {"Id": f"E{number}", "Aliases": {"Items": list(aliases)}, "Tags": tags},
    )


def listener(number: int, *certificates: Sequence[str], **tags: str) -> Item:
    arn = listener_arn(number)
    return Item(
        arn,
        arn,
        {"ListenerArn": arn, "Tags": tags},
        tuple(Certificate(f"arn:{number}:{each}", tuple(each)) for each in certificates),
    )


def pipeline(
    name: str, *selections: Selection, targets: Sequence[Target] = (), entry: str = ""
) -> Pipeline[Any]:
    return Pipeline(
        name=name,
        entry=entry or name,
        domains=DOMAINS.get(name, ("*.example.com",)),
        issuers=(),
        key_type=KeyType.ECDSA_P256,
        targets=tuple(targets),
        selections=selections,
    )


@dataclass(frozen=True)
class World:
    """What AWS has, by location and kind. denied: where nobody may look."""

    items: Mapping[tuple[str, Location], Sequence[Item]]
    denied: frozenset[Location] = frozenset()

    def looks(self, pipelines: Sequence[Pipeline[Any]]) -> dict[Which, Look]:
        found: dict[Which, Look] = {}
        for each in pipelines:
            for selection in each.selections:
                seen = [at for at in selection.locations if at not in self.denied]
                candidates = [
                    candidate
                    for at in seen
                    for candidate in selection.chosen(
                        at, self.items.get((selection.type, at), ()), each.domains
                    )[0]
                ]
                unseen = frozenset(selection.locations) - set(seen)
                found[each.name, selection.key] = Look(tuple(candidates), unseen=unseen)
        return found


def records(followed: Mapping[str, Sequence[Followed]]) -> dict[str, Found]:
    return {
        name: Found(name, tuple(each.as_record(NOW) for each in some))
        for name, some in followed.items()
    }


def addresses(followed: Mapping[str, Sequence[Followed]]) -> dict[str, list[list[str]]]:
    return {
        name: [[target.address for target in each.targets] for each in some]
        for name, some in followed.items()
    }


# Any file, any AWS


teams = st.sampled_from(["shop", "web"])
some_names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=2, unique=True)
some_accounts = st.lists(st.sampled_from(ACCOUNTS), min_size=1, unique=True).map(tuple)


@st.composite
def selections(draw: st.DrawFn) -> Selection:
    looked_for: dict[str, Any] = draw(
        st.one_of(
            st.just({"covers": True}), teams.map(lambda team: {"select": f"[?Tags.team=='{team}']"})
        )
    )
    more = {"accounts": draw(some_accounts), "limit": draw(st.none() | st.integers(1, 4))}
    if draw(st.booleans()):
        return CloudfrontSelection(**looked_for, **more)
    default = {} if "covers" in looked_for else {"default": draw(st.booleans())}
    return ListenerSelection(**looked_for, **more, **default, regions=(REGION,))


@st.composite
def files(draw: st.DrawFn) -> list[Pipeline[Any]]:
    """Of which no two name the same place."""
    free = [Cloudfront(distribution=f"E{number}") for number in range(3)]
    free += [Listener(listener=listener_arn(number), default=True) for number in range(3)]  # type: ignore[misc]
    owners = [draw(st.none() | st.sampled_from(sorted(DOMAINS))) for _ in free]
    made = []
    for name in draw(st.permutations(sorted(DOMAINS))):
        named = [target for target, owner in zip(free, owners, strict=True) if owner == name]
        some = draw(st.lists(selections(), max_size=3, unique_by=lambda each: each.key))
        made.append(pipeline(name, *some, targets=named))
    claims = {target.claim: each.name for each in made for target in each.targets if target.claim}
    return [replace(each, claims=claims) for each in made]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    items: dict[tuple[str, Location], list[Item]] = {}
    for account, first in ((None, 0), ("edge", 20)):
        at = Location(account, "us-east-1")
        items["cloudfront", at] = [
            distribution(number, draw(some_names), team=draw(teams))
            for number in draw(st.sets(st.integers(first, first + 9), max_size=10))
        ]
        at = Location(account, REGION)
        items["listener", at] = [
            listener(number, *draw(st.lists(some_names, min_size=1, max_size=3)), team=draw(teams))
            for number in draw(st.sets(st.integers(first, first + 5), max_size=6))
        ]
    places = [at for _, at in items]
    denied = draw(st.sets(st.sampled_from(places), max_size=1))
    return World(items, frozenset(denied))


@st.composite
def shuffled(draw: st.DrawFn, world: World) -> World:
    return replace(
        world, items={at: draw(st.permutations(some)) for at, some in world.items.items()}
    )


@settings(deadline=None)
@given(st.data())
def test_whatever_is_found(data: st.DataObject) -> None:
    found: dict[str, Found] = {}
    file = data.draw(files())
    for _ in range(data.draw(st.integers(1, 4))):
        if data.draw(st.booleans()):
            file = data.draw(files())
        world = data.draw(worlds())
        looks = world.looks(file)
        followed = settle(file, found, looks, NOW)

        # In another order, the same.
        again = data.draw(shuffled(world))
        assert addresses(settle(file, found, again.looks(file), NOW)) == addresses(followed)

        # The same once more changes nothing; but where one found too much, others may have taken
        # some of that, and what is left it may follow.
        settled = settle(file, records(followed), looks, NOW)
        everything = [one for some in followed.values() for one in some]
        if not any(isinstance(error, OverLimit) for one in everything for error in one.errors):
            assert addresses(settled) == addresses(followed)
            assert not [each for some in settled.values() for one in some for each in one.new]
        for _ in everything:
            settled = settle(file, records(settled), looks, NOW)
        assert addresses(settle(file, records(settled), looks, NOW)) == addresses(settled)

        # Nothing is held twice, and what the file names comes first.
        claims: dict[str, str] = {
            target.claim: each.name for each in file for target in each.targets if target.claim
        }
        for each in file:
            mine = [target for one in followed.get(each.name, ()) for target in one.targets]
            named = {target.address for target in each.targets}
            assert len({target.address for target in mine} - named) == len(mine)
            for target in mine:
                if target.claim:
                    assert claims.setdefault(target.claim, each.name) == each.name

        # The router sees all of it, and nothing else.
        for each in file:
            written = records(followed).get(each.name)
            mine = [target for one in followed.get(each.name, ()) for target in one.targets]
            assert with_found(each, written) == [*each.targets, *mine]

        found = records(followed)


@settings(deadline=None)
@given(st.data())
def test_where_nobody_may_look_all_stays(data: st.DataObject) -> None:
    file, world = data.draw(files()), data.draw(worlds())
    before = settle(file, {}, replace(world, denied=frozenset()).looks(file), NOW)
    everywhere = frozenset(at for _, at in world.items)
    after = settle(file, records(before), World({}, everywhere).looks(file), NOW)
    assert addresses(after) == addresses(before)


@settings(deadline=None)
@given(st.data())
def test_who_was_not_looked_for_keeps_what_he_has(data: st.DataObject) -> None:
    file, world = data.draw(files()), data.draw(worlds())
    before = settle(file, {}, world.looks(file), NOW)
    after = settle(file, records(before), {}, NOW)
    assert addresses(after) == addresses(before)


# The limit


@given(st.integers(0, 200), st.integers(0, 200), st.none() | st.integers(1, 100), st.booleans())
def test_the_limit(count: int, before: int, limit: int | None, first: bool) -> None:
    selection = CloudfrontSelection(covers=True, limit=limit)
    over = over_limit(selection, count, before, first=first)
    if limit is not None:
        assert (over is not None) is (count > limit)
    elif first:
        assert (over is not None) is (count > AT_FIRST)
    else:
        assert (over is not None) is (count > 2 * before + MORE)
    if over:
        assert f"finds {count}" in str(over)
        assert f"`limit: {count}`" in str(over)


HERE = Location(None, "us-east-1")
COVERING = CloudfrontSelection(covers=True)


def distributions(*numbers: int) -> World:
    items = [distribution(number, ["shop.example.com"]) for number in numbers]
    return World({("cloudfront", HERE): items})


class Told:
    """One pipeline that follows what it finds, look after look."""

    def __init__(self, *selections: Selection) -> None:
        self.file = [pipeline("all", *(selections or (COVERING,)))]
        self.found: dict[str, Found] = {}

    def finds(self, *numbers: int) -> Followed:
        return self.sees(distributions(*numbers))

    def sees(self, world: World) -> Followed:
        followed = settle(self.file, self.found, world.looks(self.file), NOW)
        self.found = records(followed)
        return followed["all"][0]


def numbers(followed: Followed) -> list[int]:
    return sorted(int(each.address.removeprefix("cloudfront/E")) for each in followed.targets)


class TestASelectionThatExplodes:
    def test_goes_on_with_what_it_found_before(self) -> None:
        told = Told()
        assert numbers(told.finds(*range(4))) == [0, 1, 2, 3]
        assert numbers(told.finds(*range(11))) == list(range(11))
        exploded = told.finds(*range(100, 130))
        assert numbers(exploded) == list(range(11))
        assert [str(error) for error in exploded.errors] == [
            "cloudfront `covers`: it finds 30 where 11 were found before, and 25 would be the "
            "most. What was found before stays, and nothing new is taken. Look at `certrail plan`; "
            "if all of them are meant, set `limit: 30`"
        ]
        # It does not wear off by itself.
        assert numbers(told.finds(*range(100, 130))) == list(range(11))
        assert numbers(told.finds(*range(25))) == list(range(25))

    def test_the_first_time(self) -> None:
        told = Told()
        for _ in range(2):
            exploded = told.finds(*range(26))
            assert (numbers(exploded), len(exploded.errors)) == ([], 1)
        assert numbers(told.finds(*range(25))) == list(range(25))

    def test_the_first_time_lasts_until_it_could_look_everywhere(self) -> None:
        there = Location("edge", "us-east-1")
        told = Told(CloudfrontSelection(covers=True, accounts=ACCOUNTS))
        few = [distribution(number, ["shop.example.com"]) for number in range(2)]
        many = [distribution(number, ["shop.example.com"]) for number in range(2, 20)]
        world = World({("cloudfront", HERE): few, ("cloudfront", there): many})
        assert numbers(told.sees(replace(world, denied=frozenset({there})))) == [0, 1]
        assert numbers(told.sees(world)) == list(range(20))

    def test_after_it_found_nothing(self) -> None:
        told = Told()
        assert not told.finds().errors
        assert told.finds(*range(4)).errors
        assert numbers(told.finds(*range(3))) == [0, 1, 2]

    def test_a_limit_lets_it(self) -> None:
        told = Told(CloudfrontSelection(covers=True, limit=40))
        assert numbers(told.finds(*range(40))) == list(range(40))
        assert told.finds(*range(41)).errors

    def test_a_limit_that_is_given_later(self) -> None:
        told = Told()
        told.finds(*range(4))
        told.finds(*range(40))
        told.file = [pipeline("all", CloudfrontSelection(covers=True, limit=40))]
        assert numbers(told.finds(*range(40))) == list(range(40))


class TestAnExpressionThatWasChanged:
    def test_takes_over_what_it_found_before(self) -> None:
        told = Told()
        told.finds(*range(10))
        told.file = [pipeline("all", CloudfrontSelection(select="[?Id != 'E1']"))]
        changed = told.finds(*range(60))
        assert (numbers(changed), len(changed.errors)) == (list(range(10)), 1)
        assert numbers(told.finds(*range(12))) == [0, *range(2, 12)]

    def test_not_where_it_does_not_look_any_more(self) -> None:
        told = Told(CloudfrontSelection(covers=True, accounts=("self", "edge")))
        edge = Location("edge", "us-east-1")
        items = [distribution(number, ["shop.example.com"]) for number in range(2)]
        world = World({("cloudfront", HERE): items[:1], ("cloudfront", edge): items[1:]})
        assert numbers(told.sees(world)) == [0, 1]
        told.file = [pipeline("all", COVERING)]
        exploded = told.finds(*range(100, 130))
        assert (numbers(exploded), len(exploded.errors)) == ([0], 1)
        assert exploded.gone == {"cloudfront/E1": "is where the selection does not look any more"}

    def test_of_another_kind_does_not(self) -> None:
        told = Told()
        told.finds(*range(10))
        told.file = [pipeline("all", ListenerSelection(covers=True, regions=(REGION,)))]
        assert not told.finds(*range(10)).targets


def test_what_is_found_no_more_is_told() -> None:
    told = Told()
    told.finds(1, 2)
    followed = told.finds(2)
    assert numbers(followed) == [2]
    assert followed.gone == {"cloudfront/E1": "is found no more"}
    assert told.found["all"].selections[0].gone == ("cloudfront/E1",)


def test_what_the_file_names_now_is_not_gone() -> None:
    told = Told()
    told.finds(1, 2)
    told.file = [pipeline("all", COVERING, targets=[Cloudfront(distribution="E1")])]
    followed = told.finds(1, 2)
    assert (numbers(followed), followed.gone) == ([2], {})


def test_what_the_selection_says_of_its_targets_is_what_it_says_now() -> None:
    told = Told()
    told.finds(1)
    denied = World({}, frozenset({HERE}))
    told.file = [pipeline("all", CloudfrontSelection(covers=True, wave="canary"))]
    (target,) = told.sees(denied).targets
    assert (target.address, target.wave) == ("cloudfront/E1", "canary")


class TestWhoGetsIt:
    WEB = World({("listener", Location(None, REGION)): [listener(1, ["shop.example.com"])]})
    COVERS = ListenerSelection(covers=True, regions=(REGION,))

    def follow(
        self, *file: Pipeline[Any], found: Mapping[str, Found] | None = None, world: World = WEB
    ) -> dict[str, list[Followed]]:
        return settle(file, found or {}, world.looks(file), NOW)

    def targets(self, followed: Mapping[str, Sequence[Followed]]) -> dict[str, list[bool]]:
        """Of the one listener, by pipeline: whether it gets the default."""
        return {
            name: [getattr(target, "default", False) for each in some for target in each.targets]
            for name, some in followed.items()
        }

    def test_who_stands_first(self) -> None:
        first, second = pipeline("shop", self.COVERS), pipeline("all", self.COVERS)
        assert self.targets(self.follow(first, second)) == {"shop": [True], "all": []}
        followed = self.follow(second, first)
        assert self.targets(followed) == {"all": [True], "shop": []}
        assert followed["shop"][0].left == {
            "listener/app/web/1/1": "is covered by pipeline `all`",
        }

    def test_who_has_it_keeps_it(self) -> None:
        first, second = pipeline("shop", self.COVERS), pipeline("all", self.COVERS)
        found = records(self.follow(second))
        assert self.targets(self.follow(first, second, found=found)) == {"shop": [], "all": [True]}

    def test_where_nobody_knows_who_has_it_nobody_gets_it(self) -> None:
        """What the first one found before cannot be read."""
        blind, second = pipeline("shop"), pipeline("all", self.COVERS)
        file = (blind, second)
        before = settle(file, {}, self.WEB.looks(file), NOW, nothing_new=True)
        assert self.targets(before) == {"all": []}
        (left,) = before["all"][0].left.values()
        assert left == "may belong to a pipeline of which nobody can read what it found"
        has_it = records(self.follow(*file))
        followed = settle(file, has_it, self.WEB.looks(file), NOW, nothing_new=True)
        assert self.targets(followed) == {"all": [True]}

    def test_the_secret_of_a_fleet_is_not_found(self) -> None:
        """In another shape its instances could not read it."""
        fleet = Fleet(name="web", region=REGION, instances={"a": "b"}, secret="tls/shop")
        finds = SecretsmanagerSelection(select="[*]", regions=(REGION,), shape="{crt: fullchain}")
        secret = Item("tls/shop", "arn", {"Name": "tls/shop"})
        world = World({("secretsmanager", Location(None, REGION)): [secret]})
        for file in (
            [pipeline("shop", finds, targets=[fleet])],
            [pipeline("shop", targets=[fleet]), pipeline("all", finds)],
        ):
            assert set(map(str, self.targets(self.follow(*file, world=world)).values())) == {"[]"}

    def test_who_names_it_takes_it(self) -> None:
        finds = pipeline("all", self.COVERS)
        found = records(self.follow(finds))
        named = Listener(listener=listener_arn(1), default=True)
        names = pipeline("shop", targets=[named])
        followed = self.follow(finds, names, found=found)
        assert self.targets(followed) == {"all": []}
        assert followed["all"][0].gone == {
            "listener/app/web/1/1": "is covered by pipeline `shop`",
        }

    def test_one_that_covers_something_else_there_goes_into_the_list(self) -> None:
        web = [listener(1, ["shop.example.com"], ["www.example.com"])]
        world = World({("listener", Location(None, REGION)): web})
        names = pipeline("shop", targets=[Listener(listener=listener_arn(1), default=True)])
        followed = self.follow(pipeline("all", self.COVERS), names, world=world)
        assert self.targets(followed) == {"all": [False]}

    def test_two_keys_of_one_entry_stand_side_by_side(self) -> None:
        other = replace(
            pipeline("all.rsa-2048", self.COVERS, entry="all"), key_type=KeyType.RSA_2048
        )
        followed = self.follow(pipeline("all", self.COVERS), other)
        assert self.targets(followed) == {"all": [True], "all.rsa-2048": [False]}

    def test_a_selected_default_that_is_taken_is_left(self) -> None:
        selects = ListenerSelection(select="[*]", regions=(REGION,), default=True)
        names = pipeline("shop", targets=[Listener(listener=listener_arn(1), default=True)])
        followed = self.follow(pipeline("all", selects), names)
        assert self.targets(followed) == {"all": []}
        assert followed["all"][0].left == {
            "listener/app/web/1/1": "belongs to pipeline `shop`",
        }


class TestAListenerThatWasFoundBefore:
    """What certrail put there is there, until the next certificate is."""

    OURS = ListenerSelection(covers=True, regions=(REGION,))

    def becomes(
        self, before: Sequence[str], after: Sequence[str], *there: Sequence[str]
    ) -> list[bool]:
        """Whether it has the default, before and after the pipeline's names changed; `there` are
        the names of the certificates on it."""
        world = World({("listener", Location(None, REGION)): [listener(1, *there)]})
        file = [replace(pipeline("all", self.OURS), domains=tuple(before))]
        found = records(settle(file, {}, world.looks(file), NOW))
        file = [replace(pipeline("all", self.OURS), domains=tuple(after))]
        followed = settle(file, found, world.looks(file), NOW)
        return [getattr(each, "default", False) for each in followed["all"][0].targets]

    def test_stays_when_a_name_is_taken_away(self) -> None:
        names = ["shop.example.com", "www.example.com"]
        assert self.becomes(names, names[:1], names) == [True]

    def test_stays_when_a_wildcard_becomes_names(self) -> None:
        assert self.becomes(["*.example.com"], ["shop.example.com"], ["*.example.com"]) == [True]

    def test_goes_when_all_names_are_others(self) -> None:
        assert self.becomes(["shop.example.com"], ["mail.example.org"], ["shop.example.com"]) == []

    def test_never_takes_a_default_that_has_other_names_too(self) -> None:
        names = ["shop.example.com"]
        assert self.becomes(names, names, ["shop.example.com", "mail.example.org"], names) == [
            False
        ]

    def test_is_none_that_begins_with_some_names(self) -> None:
        told = ["shop.example.com"]
        assert self.becomes(["none.example.com"], told, [*told, "mail.example.org"]) == []


class TestCovers:
    @pytest.mark.parametrize(
        ("certificates", "finds"),
        [
            ([["shop.example.com"]], [True]),
            ([["shop.example.com", "www.example.com"]], [True]),
            ([["mail.example.org"], ["shop.example.com"]], [False]),
            ([["shop.example.com", "mail.example.org"]], []),
            ([["example.com"]], []),
            ([["*.example.com"]], [True]),
            ([[]], []),
        ],
    )
    def test_a_listener(self, certificates: list[list[str]], finds: list[bool]) -> None:
        world = World({("listener", Location(None, REGION)): [listener(1, *certificates)]})
        selection = ListenerSelection(covers=True, regions=(REGION,))
        file = [pipeline("all", selection)]
        followed = settle(file, {}, world.looks(file), NOW)["all"][0]
        assert [getattr(target, "default", None) for target in followed.targets] == finds

    @pytest.mark.parametrize(
        ("aliases", "finds"),
        [
            (["shop.example.com"], [1]),
            (["SHOP.example.com", "*.example.com"], [1]),
            (["shop.example.com", "mail.example.org"], []),
            ([], []),
        ],
    )
    def test_a_distribution(self, aliases: list[str], finds: list[int]) -> None:
        told = Told()
        world = World({("cloudfront", HERE): [distribution(1, aliases)]})
        assert numbers(told.sees(world)) == finds

    def test_what_cannot_be_reached_is_not_looked_at(self) -> None:
        world = World({("listener", Location(None, REGION)): [listener(1, ["shop.example.com"])]})
        selection = ListenerSelection(covers=True, verify=False, regions=(REGION,))
        (found,) = Told(selection).sees(world).targets
        assert isinstance(found, Listener)
        assert not found.verify

    def test_never_a_staging_distribution(self) -> None:
        told = Told()
        item = distribution(1, ["shop.example.com"])
        staging = replace(item, listed={**item.listed, "Staging": True})
        assert not told.sees(World({("cloudfront", HERE): [staging]})).targets
