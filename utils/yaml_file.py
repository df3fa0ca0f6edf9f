"""YAML from anybody -> plain values, with bounds and one kind of error: the place in the file and what is wrong there.

Only what a config needs is read: numbers, words, lists and sections. Aliases are refused, since a few lines of them
stand for billions of values, or for one that holds itself.
"""
import re

import yaml

MAX_BYTES = 2 ** 20          # of a file; a config has some thousands
MAX_INTEGER = 2 ** 63 - 1

# What PyYAML's own constructors raise on values that do not suit their tag; YAMLError has the place already.
UNSUITABLE = (ValueError, LookupError, AttributeError, TypeError, ArithmeticError)


class Loader(yaml.SafeLoader):
    """SafeLoader without duplicate keys and aliases, to which only true and false are booleans (`amp: off` is text)."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            alias = self.peek_event()
            what = f"the alias *{alias.anchor[:40]} is not read here; write the value itself"
            raise yaml.composer.ComposerError(None, None, what, alias.start_mark)
        return super().compose_node(parent, index)

    def construct_object(self, node, deep=False):
        try:
            value = super().construct_object(node, deep)
        except UNSUITABLE:
            raise self._refusal(node, f"{shown(node.value)} is no {node.tag.rpartition(':')[2]}") from None
        if type(value) is int and abs(value) > MAX_INTEGER:
            raise self._refusal(node, "an integer of more than 64 bits")
        if isinstance(value, str) and not is_writable(value):
            raise self._refusal(node, f"{shown(value)} holds characters that cannot be written")
        return value

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = str(self.construct_object(key_node, deep=True))
            if key in seen:
                raise self._refusal(key_node, f"the key '{key[:80]}' stands here twice; delete one")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)

    @staticmethod
    def _refusal(node, what):
        return yaml.constructor.ConstructorError(None, None, what, node.start_mark)


BOOLEAN = "tag:yaml.org,2002:bool"
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != BOOLEAN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()}
Loader.add_implicit_resolver(BOOLEAN, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def read_yaml(path):
    """An existing file  ->  its value; ValueError with file and line"""
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path}: {size} bytes, more than {MAX_BYTES}, are no config.\n  Name another file.")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file ({error.reason})") from None
    return parse_yaml(text, path)


def parse_yaml(text, source):
    """Text, its name for errors  ->  its value"""
    try:
        return yaml.load(text, Loader=Loader)     # a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(f"{source}{_where(error)}") from None
    except RecursionError:
        raise ValueError(f"{source}: lists or sections lie too deep in one another") from None


def shown(value):
    """A value in an error's text, cut where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):          # thousands of digits, or of levels
        return f"{type(value).__name__} too long to show"
    return text if len(text) <= 200 else f"{text[:200]}..."


def is_writable(text):
    """Whether a text can be a file's name and stand in one: YAML can express half a character."""
    try:
        return b"\0" not in text.encode("utf-8")
    except UnicodeEncodeError:
        return False


def _where(error):
    mark = getattr(error, "problem_mark", None)
    place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return f"{place}: {getattr(error, 'problem', None) or error}"
