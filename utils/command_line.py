"""What all command lines of the project have in common: help with examples, mistakes with a suggestion.

In: the module's docstring, whose indented lines are the examples. Out: an argparse parser. Colours and progress bars
are for people at a terminal: nothing of them is in a file, a pipe or the mail of cron.
"""
import argparse
import difflib
import io
import os
import sys
import time

RED, PLAIN = "\033[31m", "\033[0m"
CONFIG_KEYS = "overrides"            # the positional argument that utils.config.add_config_arguments adds


class Parser(argparse.ArgumentParser):
    """argparse's parser: shows the docstring as it stands, and says what a mistyped option or choice may have meant."""

    def __init__(self, description=None, **options):
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(description=description, **options)
        self.given = []
        for stream in (sys.stdout, sys.stderr):                    # names with letters that a terminal lacks
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")

    def parse_known_args(self, args=None, namespace=None):
        self.given = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def _check_value(self, action, value):
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            near = closest(str(value), map(str, action.choices))
            raise argparse.ArgumentError(action, error.message + did_you_mean(near)) from None

    def error(self, message):
        """Exit status 2; the mistyped option is named even where argparse misses another one first."""
        chosen = self._sub_command()
        hints = [f"{word}: no such option{did_you_mean(near)}" for word in self.given if (near := chosen._meant(word))]
        hint = "".join(f"\n  {line}" for line in hints) + f"\n  All options, and examples: {self.prog} --help"
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: {coloured('error:', RED, sys.stderr)} {message}{hint}\n")

    def _meant(self, word):
        """A word of the command line  ->  the option or config key that it resembles; None where it is one, or none"""
        name, _, value = word.partition("=")
        options = {option.lstrip("-"): option for option in self._option_string_actions if option.startswith("--")}
        bare = name.lstrip("-")
        if not name.startswith("-") or len(name) < 3 or is_number(name):
            return None
        if name.startswith("--") and any(option.startswith(bare) for option in options):
            return None
        key = self._config_key(bare, value) if self._takes_keys() else None
        return key or options.get(bare) or options.get(closest(bare, options))

    def _sub_command(self):
        """The parser of the given sub-command, for which argparse lets its parent complain; itself without one."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                return next((action.choices[word] for word in self.given if word in action.choices), self)
        return self

    def _takes_keys(self):
        return any(action.dest == CONFIG_KEYS for action in self._actions)

    @staticmethod
    def _config_key(name, value):
        """'train.lr' or 'lr'  ->  'train.lr=VALUE': keys of the config are written without dashes"""
        from utils.config import flatten, load_config  # here, since only a mistake needs them: they load the methods
        keys = flatten(load_config())
        found = name if name in keys else next((key for key in keys if key.endswith(f".{name}")), None)
        return found and f"{found}={value or 'VALUE'}"


def closest(word, names):
    """The name that a word resembles most, None where it resembles none"""
    return next(iter(difflib.get_close_matches(word, list(names), n=1)), None)


def did_you_mean(near):
    return f"; did you mean '{near}'?" if near else ""


def is_number(word):
    try:
        float(word)
    except ValueError:
        return False
    return True


def say(text):
    """A line for people who wait, before the logger is there."""
    if os.environ.get("RANK", "0") == "0":
        print(f"{text} ...", file=sys.stderr, flush=True)


class EveryMinute:
    """A line a minute for log files, where a bar is hidden: `if minute.over(): log.info(...)`."""

    def __init__(self, wanted):
        self.wanted, self.shown = wanted, time.monotonic()

    def over(self):
        if not self.wanted or time.monotonic() - self.shown < 60:
            return False
        self.shown = time.monotonic()
        return True


def bar_hidden(main=True):
    """`disable` of tqdm: None lets it hide where standard error is no terminal, True hides it on other processes."""
    return None if main else True


def coloured(text, colour, stream):
    """The text in a colour where a person looks at the stream: a terminal, and no NO_COLOR (https://no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    return f"{colour}{text}{PLAIN}"
