"""A YAML file as plain data that remembers the line of every key and list item.

YAML here is the part of it people write by hand: mappings, lists, text, numbers, yes and no. A key
given twice is a fault. Aliases, merge keys and tags are refused: what they save is saved by
`defaults`, and without them every fault has one line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.constructor import SafeConstructor
from yaml.reader import ReaderError
from yaml.resolver import Resolver

from certrail.errors import Fault, PipelinesInvalid

# Keys and list positions from the top of the file.
Path = tuple[str | int, ...]

# The C parser is ten times as fast and in every wheel of PyYAML; a build from source may lack it.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

TAG = "tag:yaml.org,2002:"
# What a plain value may turn out to be. A date or a lone `=`, which YAML 1.1 knows too, is text.
SCALARS = {TAG + kind for kind in ("int", "float", "bool", "null")}
USED = SCALARS | {TAG + kind for kind in ("str", "seq", "map")}

# The file needs seven levels.
DEPTH_LIMIT = 20
TOO_DEEP = "the file is nested too deeply", "no key of it is that deep"
WHAT_LIMIT = 300


@dataclass
class Source:
    """data: mappings, lists and scalars. lines: of each key and item, from 1."""

    file: str
    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def fault(self, path: Path, what: str, right: str = "") -> Fault:
        """A fault at `path`, or at the nearest thing around it that the file has."""
        while path and path not in self.lines:
            path = path[:-1]
        return Fault(self.file, self.lines.get(path, 1), printable(what), printable(right))


def printable(text: str) -> str:
    """Text from the file on one line, without what would move a terminal's cursor."""
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return text if len(text) <= WHAT_LIMIT else text[:WHAT_LIMIT] + "…"


def parse(text: str | bytes, file: str) -> Source:
    """Raises PipelinesInvalid where the text is not YAML, or uses what is refused."""
    reader = _Reader(Source(file))
    try:
        if isinstance(text, bytes):
            text = text.decode()
        reader.read(yaml.parse(text, Loader=LOADER))
    except (yaml.YAMLError, UnicodeError) as error:
        reader.refused.append(_syntax_fault(error, text, file))
    if reader.refused:
        raise PipelinesInvalid(reader.refused)
    return reader.source


class _Reader:
    """Reads the parser's events in one pass.

    refused: faults after which the rest of the data is not worth checking.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.refused: list[Fault] = []
        self.resolver = Resolver()
        self.constructor = SafeConstructor()

    def read(self, events: Iterator[yaml.Event]) -> None:
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    what = "the file has a second YAML document"
                    self.refuse(event, what, "remove the line `---`")
                    return
                self.source.data = self.value(next(events), events, ())

    def refuse(self, event: yaml.Event, what: str, right: str) -> None:
        self.refused.append(
            Fault(self.source.file, _line(event), printable(what), printable(right))
        )

    def value(self, event: yaml.Event, events: Iterator[yaml.Event], path: Path) -> Any:
        self.source.lines.setdefault(path, _line(event))
        tag = getattr(event, "tag", None)
        if tag is not None and tag not in USED | {"!"}:
            self.refuse(event, f"the YAML tag `{tag}` is not read here", "remove the tag")
        if isinstance(event, yaml.MappingStartEvent):
            return self.mapping(events, path)
        if isinstance(event, yaml.SequenceStartEvent):
            return [
                self.value(item, events, (*path, index))
                for index, item in enumerate(self.inside(events, yaml.SequenceEndEvent, path))
            ]
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event)
        if isinstance(event, yaml.AliasEvent):
            what = f"`*{event.anchor}` is a YAML alias, which is not read here"
            right = f'write the value out; a wildcard is in quotes: "*.{event.anchor}"'
            self.refuse(event, what, right)
        return None

    def inside(
        self, events: Iterator[yaml.Event], end: type[yaml.Event], path: Path
    ) -> Iterator[yaml.Event]:
        """The events that start something in the list or mapping at `path`, up to its end."""
        for event in events:
            if isinstance(event, end):
                return
            if len(path) >= DEPTH_LIMIT:
                self.refuse(event, *TOO_DEEP)
                raise PipelinesInvalid(self.refused)
            yield event

    def mapping(self, events: Iterator[yaml.Event], path: Path) -> dict[str, Any]:
        lines = self.source.lines
        data: dict[str, Any] = {}
        for number, event in enumerate(self.inside(events, yaml.MappingEndEvent, path)):
            if not isinstance(event, yaml.ScalarEvent):
                self.value(event, events, (*path, "?", number))
                self.value(next(events), events, (*path, "?", number))
                if not isinstance(event, yaml.AliasEvent):
                    what = "a list or a mapping cannot be a key"
                    self.refuse(event, what, "keys are plain words")
                continue
            # Keys are names: `on:` and `12:` too are just their text.
            key = event.value
            if key == "<<" and event.implicit[0]:
                self.refuse(event, "`<<` is not read here", "write the keys out, or use `defaults`")
            if key in data:
                what = f"`{key}` is given twice, first on line {lines[(*path, key)]}"
                fault = Fault(
                    self.source.file, _line(event), printable(what), "keep one of the two"
                )
                self.source.faults.append(fault)
                self.value(next(events), events, (*path, "?", number))
                continue
            lines[(*path, key)] = _line(event)
            data[key] = self.value(next(events), events, (*path, key))
        return data

    def scalar(self, event: yaml.ScalarEvent) -> Any:
        tag = event.tag
        if tag is None or tag == "!":
            tag = self.resolver.resolve(yaml.ScalarNode, event.value, event.implicit)  # type: ignore[no-untyped-call]
        if tag not in SCALARS:
            return event.value
        try:
            return self.constructor.construct_object(yaml.ScalarNode(tag, event.value))
        except (ValueError, KeyError):
            # `0x_`, `!!bool maybe`, a number of ten thousand digits: a value by its look only.
            return event.value


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _syntax_fault(error: Exception, text: str | bytes, file: str) -> Fault:
    if isinstance(error, UnicodeDecodeError):
        line = error.object.count(b"\n", 0, error.start) + 1
        return Fault(file, line, "this is not UTF-8 text", "save the file as UTF-8")
    if isinstance(error, UnicodeError):
        return Fault(file, 1, "the text has characters that UTF-8 cannot hold")
    assert isinstance(text, str)  # noqa: S101  what follows comes after decoding
    if isinstance(error, ReaderError):
        line = _line_of_character(text, error)
        return Fault(file, line, "there is a control character in the text", "remove the character")
    lines = text.splitlines() or [""]
    if not isinstance(error, yaml.MarkedYAMLError):
        return Fault(file, 1, f"this is not YAML: {printable(str(error))}")
    mark = error.problem_mark or error.context_mark
    if mark and error.context_mark and mark.line >= len(lines):
        mark = error.context_mark  # what is not closed, rather than the end of the file
    number = min(mark.line, len(lines) - 1) if mark else 0
    indentation = lines[number][: len(lines[number]) - len(lines[number].lstrip())]
    problem = str(error.problem or error.context)
    if "nesting depth" in problem:  # PyYAML's own limit, since 6.0.4, is met before ours
        what, right = TOO_DEEP
    elif "\t" in indentation:
        what, right = "a tab indents this line", "YAML indents with spaces only"
    elif "alias" in f"{error.context} {problem}":
        what = "a wildcard must be in quotes"
        right = 'without them `*` means something else to YAML: write "*.example.com"'
    else:
        what = f"this is not YAML: {printable(problem)}"
        right = "look at the indentation, quotes and colons up to here"
    return Fault(file, number + 1, what, right)


def _line_of_character(text: str, error: ReaderError) -> int:
    """The position PyYAML tells is in characters or in bytes, as its reader is Python or C; the
    first occurrence of the character is in both."""
    character = error.character
    found = text.find(character if isinstance(character, str) else chr(character))
    return text.count("\n", 0, max(found, 0)) + 1
