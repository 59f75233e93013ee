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

from certrail.errors import Fault, PipelinesInvalid

# Keys and list positions from the top of the file.
Path = tuple[str | int, ...]

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

TAG = "tag:yaml.org,2002:"
SCALARS = {TAG + kind for kind in ("str", "int", "float", "bool", "null")}
# Text in which YAML 1.1 sees more than people mean: a date, `=`.
PLAIN = {TAG + "timestamp", TAG + "value"}
USED = SCALARS | PLAIN | {TAG + "map", TAG + "seq"}

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
    try:
        if isinstance(text, bytes):
            text = text.decode()
        node = yaml.compose(text, Loader=LOADER)
    except (yaml.YAMLError, UnicodeError, RecursionError) as error:
        raise PipelinesInvalid([_syntax_fault(error, text, file)]) from None
    source = Source(file)
    if node is not None:
        if refused := list(_refused(node, text, file)):
            raise PipelinesInvalid(refused)
        source.data = _read(node, (), source)
    return source


def _syntax_fault(error: Exception, text: str | bytes, file: str) -> Fault:
    if isinstance(error, RecursionError):
        return Fault(file, 1, "the file is nested too deeply", "four levels are all it needs")
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
    if "\t" in indentation:
        what, right = "a tab indents this line", "YAML indents with spaces only"
    elif "alias" in f"{error.context} {problem}":
        what = "a wildcard must be in quotes"
        right = 'without them `*` means something else to YAML: write "*.example.com"'
    elif "another document" in problem:
        what, right = "the file has a second YAML document", "remove the line `---`"
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


def _refused(root: yaml.Node, text: str, file: str) -> Iterator[Fault]:
    """Aliases, merge keys and tags. Only where there are any is the text read again."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            break
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
        if node.tag not in USED:
            break
    else:
        return
    for event in yaml.parse(text, Loader=LOADER):
        if event.start_mark is None:
            continue
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            yield Fault(
                file,
                line,
                f"`*{event.anchor}` is a YAML alias, which is not read here",
                f'write the value out; a wildcard is in quotes: "*.{event.anchor}"',
            )
        elif isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]:
            yield Fault(
                file, line, "`<<` is not read here", "write the keys out, or use `defaults`"
            )
        elif (tag := getattr(event, "tag", None)) is not None and tag not in USED:
            yield Fault(file, line, f"the YAML tag `{tag}` is not read here", "remove the tag")


def _read(node: yaml.Node, path: Path, source: Source) -> Any:
    source.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _read_mapping(node, path, source)
    if isinstance(node, yaml.SequenceNode):
        return [_read(item, (*path, index), source) for index, item in enumerate(node.value)]
    if node.tag not in SCALARS:
        return node.value
    try:
        return SafeConstructor().construct_object(node)
    except (ValueError, KeyError):  # `0x_`, `!!bool maybe`: a number or boolean by its tag only
        return node.value


def _read_mapping(node: yaml.MappingNode, path: Path, source: Source) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            what = "a list or a mapping cannot be a key"
            source.faults.append(Fault(source.file, line, what, "keys are plain words"))
            continue
        # Keys are names: `on:` and `12:` too are just their text.
        key = str(key_node.value)
        if key in data:
            first = source.lines[(*path, key)]
            what = printable(f"`{key}` is given twice, first on line {first}")
            source.faults.append(Fault(source.file, line, what, "keep one of the two"))
            continue
        source.lines[(*path, key)] = line
        data[key] = _read(value_node, (*path, key), source)
    return data
