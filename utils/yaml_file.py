"""YAML 1.2 from anybody -> plain values, with bounds and one kind of error: the place in the file and what is wrong."""
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

MAX_BYTES = 2 ** 16          # of a file; a config has some thousands
DEEPEST = 50                 # sections and lists in one another
MAX_INTEGER = 2 ** 63 - 1


def read_yaml(path):
    """An existing file  ->  its plain value; ValueError with file and line"""
    size = Path(path).stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path}: {size} bytes, more than {MAX_BYTES}, are no config.\n  Name another file.")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file ({error.reason})") from None
    return parse_yaml(text, path)


def parse_yaml(text, source):
    """Text in YAML 1.2, its name for errors  ->  its value: dicts with text as keys, lists, text, numbers, true, null

    Aliases are refused: a few lines of them stand for billions of values, or for one that holds itself.
    """
    reader, depth = YAML(typ="safe", pure=True), 0
    try:
        for event in reader.parse(text):
            depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
            if depth > DEEPEST:                       # what is deeper takes ruamel a time that grows with the square
                raise RecursionError
            if isinstance(event, AliasEvent):
                raise MarkedYAMLError(problem=f"the alias *{event.anchor[:40]} is not read here; write the value "
                                              "itself", problem_mark=event.start_mark)
        value = reader.load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = str(getattr(error, "problem", None) or error).partition("\n")[0]
        raise ValueError(f"{source}{place}: {problem[:300]}") from None
    except RecursionError:
        raise ValueError(f"{source}: lists or sections lie too deep in one another") from None
    except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError) as error:    # of ruamel's constructors
        raise ValueError(f"{source}: a value does not suit its tag ({type(error).__name__})") from None
    _require_plain(value, source)
    return value


def _require_plain(value, source):
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{source}: the key {shown(key)} is no text")
            _require_plain(key, source)
            _require_plain(inner, source)
    elif isinstance(value, list):
        for inner in value:
            _require_plain(inner, source)
    elif isinstance(value, str):
        if "\0" in value or not value.isprintable() and not is_writable(value):
            raise ValueError(f"{source}: {shown(value)} holds characters that cannot be written")
    elif type(value) is int and abs(value) > MAX_INTEGER:
        raise ValueError(f"{source}: an integer of more than 64 bits")
    elif not isinstance(value, int | float | None):
        raise ValueError(f"{source}: a {type(value).__name__} is no value of a config; put text in quotes")


def is_writable(text):
    """Whether a text can stand in a file: YAML can express half a character."""
    try:
        return bool(text.encode("utf-8") or True)
    except UnicodeEncodeError:
        return False


def shown(value):
    """A value in an error's text, cut where it is long."""
    if value is None:
        return "nothing"
    try:
        text = str(value).lower() if isinstance(value, bool) else repr(value)
    except (ValueError, RecursionError):          # thousands of digits, or of levels
        return f"{type(value).__name__} too long to show"
    return text if len(text) <= 200 else f"{text[:200]}..."
