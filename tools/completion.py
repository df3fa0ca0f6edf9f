"""Tab completion for bash: options, choices, sub-commands and config keys of every command of the project.

    python tools/completion.py --output .venv/completion.bash

Then `source .venv/completion.bash`, once per shell or in ~/.bashrc. It completes what follows `python train.py` or
`python tools/check_dataset.py`, also after `torchrun` and `.venv/bin/python`; a key such as train.amp= completes to its
values. What the file knows is written into it, so that a Tab starts no Python: train.py alone imports for seconds.
Run the command again after an update. Without --output the text is printed.
"""
import argparse
import runpy
import sys
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from utils.checkpoint import atomic_file  # noqa: E402  (the project root has to be on the path first)
from utils.command_line import CONFIG_KEYS, Parser  # noqa: E402
from utils.config import CHOICES, SCHEMA, flatten, load_config, user_errors  # noqa: E402

COMMANDS = ("python", "python3", ".venv/bin/python", "torchrun", ".venv/bin/torchrun")
HOOKS = ("parse_args", "parse_intermixed_args")

FUNCTION = """\
# Written by tools/completion.py. Source it: . FILE
declare -gA _vipmt_words _vipmt_values
{tables}
_vipmt() {{
    local cur="${{COMP_WORDS[COMP_CWORD]}}" prev="${{COMP_WORDS[COMP_CWORD-1]}}" place="" word key="" i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${{COMP_WORDS[i]##*/}}"
        if [[ -z $place && -n ${{_vipmt_words[$word]}} ]]; then place="$word"
        elif [[ -n $place && -n ${{_vipmt_words["$place ${{COMP_WORDS[i]}}"]}} ]]; then place+=" ${{COMP_WORDS[i]}}"; fi
    done
    [[ -z $place ]] && return
    # bash takes = for a word of its own
    if [[ $cur == "=" ]]; then key="$prev"; cur=""
    elif [[ $prev == "=" ]]; then key="${{COMP_WORDS[COMP_CWORD-2]}}"; fi
    if [[ -n $key ]]; then COMPREPLY=($(compgen -W "${{_vipmt_values["=$key"]}}" -- "$cur")); return; fi
    if [[ $prev == -* && -v _vipmt_values["$place $prev"] ]]; then
        COMPREPLY=($(compgen -W "${{_vipmt_values["$place $prev"]}}" -- "$cur")); return
    fi
    COMPREPLY=($(compgen -W "${{_vipmt_words[$place]}}" -- "$cur"))
    [[ ${{#COMPREPLY[@]}} -eq 1 && ${{COMPREPLY[0]}} == *= ]] && compopt -o nospace 2>/dev/null
    return 0
}}
complete -o default -F _vipmt {commands}
"""


class Found(Exception):
    """Carries a parser out of the script that made it."""


def scripts():
    """Every file of the project that is a command and reads its command line."""
    files = [ROOT / "train.py", ROOT / "test.py", ROOT / "segment.py", *sorted((ROOT / "tools").glob("*.py"))]
    return [path for path in files if path.is_file() and '__name__ == "__main__"' in (text := path.read_text())
            and any(f".{hook}(" in text for hook in HOOKS)]


def parser_of(script):
    """The parser of a script, which is run up to the point where it would read its command line."""
    def stop(parser, *_, **__):
        raise Found(parser)
    with mock.patch.multiple(argparse.ArgumentParser, **dict.fromkeys(HOOKS, stop)), \
            mock.patch.object(sys, "argv", [str(script)]):
        try:
            runpy.run_path(str(script), run_name="__main__")
        except Found as found:
            return found.args[0]
    raise ValueError(f"{script}: reads no command line")


def sub_commands(parser):
    """{name: parser} of the sub-commands, {} where there are none"""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return groups[0].choices if groups else {}


def describe(place, parser, words, values):
    """Fill words {place: what may stand there} and values {place and option: its choices, '' for a file}."""
    own = []
    for action in parser._actions:
        if action.help == argparse.SUPPRESS:
            continue
        choices = " ".join(map(str, action.choices or ()))
        if not action.option_strings:
            own += choices.split() if action.dest != CONFIG_KEYS else [f"{key}=" for key in config_values()]
        own += action.option_strings
        if action.nargs != 0:
            values.update({f"{place} {option}": choices for option in action.option_strings})
    words[place] = " ".join(own)
    for name, sub in sub_commands(parser).items():
        describe(f"{place} {name}", sub, words, values)


def config_values():
    """{key of the config: its values as text, '' where they are not listed}"""
    keys = flatten(load_config([SCHEMA]))
    return {key: "true false" if isinstance(value, bool) else " ".join(CHOICES.get(key, ()))
            for key, value in keys.items()}


def completion(parsers):
    """{file name: parser}  ->  the text to be sourced by bash"""
    words, values = {}, {f"={key}": text for key, text in config_values().items() if text}
    for name, parser in parsers.items():
        describe(name, parser, words, values)
    tables = [f"{table}[{quoted(key)}]={quoted(text)}" for table, entries in (
        ("_vipmt_words", words), ("_vipmt_values", values)) for key, text in entries.items()]
    return FUNCTION.format(tables="\n".join(tables), commands=" ".join(COMMANDS))


def quoted(text):
    """In quotes for bash: names of options and choices hold no quotes of their own, but who knows"""
    return "'" + text.replace("'", "'\\''") + "'"


def main(arguments=None):
    parser = Parser(__doc__)
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: print it")
    args = parser.parse_args(arguments)
    text = completion({script.name: parser_of(script) for script in scripts()})
    if args.output is None:
        print(text, end="")
        return
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(args.output, "w") as file:
        file.write(text)
    print(f"source {args.output}")


if __name__ == "__main__":
    with user_errors():
        main()
