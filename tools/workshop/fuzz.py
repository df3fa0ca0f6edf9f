"""Hostile and broken input: thousands of mutated files into everything of the project that reads files.

    python -m tools.workshop.fuzz --output output/fuzz --inputs 2800
    python -m tools.workshop.fuzz --output output/fuzz --kinds rle mask --inputs 5000 --seed 7
    python -m tools.workshop.fuzz --replay output/fuzz/failures/rle-17.json

An input is accepted, or refused: by a ValueError or an OSError that names the file. Everything else is a failure:
another exception, an endless message, a process that ends, hangs (--seconds) or takes too much memory (--megabytes), a
file opened outside the input's folder, executed code. Failures are kept in OUTPUT/failures for --replay. Exit code 1 if
there is one. Linux only.

Hypothesis draws the inputs from a seed (fuzzing/strategies.py); what is fed to whom is in fuzzing/targets.py, the
correct files are in fuzzing/sandbox.py, the process that reads in fuzzing/worker.py, and what it may not do in
fuzzing/guard.py.
"""
import sys
from pathlib import Path

from utils.command_line import Parser, say
from utils.config import user_errors

NAMES = ("train.json", "rle", "coco", "jpeg", "mask", "list", "config", "override", "checkpoint", "resume", "episodes",
         "results", "check ytvis", "check coco", "check vspw", "support", "cache")


def parse(arguments=None):
    parser = Parser(__doc__)
    parser.add_argument("--output", type=Path, default=Path("output/fuzz"), help="folder of failures (output/fuzz)")
    parser.add_argument("--inputs", type=int, default=2800, help="in all, shared evenly among the kinds (2800)")
    parser.add_argument("--kinds", nargs="+", choices=NAMES, default=NAMES, help="of input (all)")
    parser.add_argument("--seed", type=int, default=0, help="decides every input")
    parser.add_argument("--seconds", type=float, default=10, help="one input may compute (10), or wait six times")
    parser.add_argument("--megabytes", type=int, default=2048, help="the process may take for its inputs (2048)")
    parser.add_argument("--replay", nargs="+", metavar="FILE", help="kept failures, instead of new inputs")
    args = parser.parse_args(arguments)
    if min(args.inputs, args.seconds, args.megabytes) <= 0:
        parser.error("--inputs, --seconds and --megabytes have to be positive")
    return args


if __name__ == "__main__":
    parsed = parse()
    say("loading PyTorch")

# Only now, since it takes seconds: help and mistakes on the command line answer at once.
import base64
import json
import tempfile
from collections import Counter
from pathlib import PurePosixPath

from hypothesis import HealthCheck, Phase, given, seed, settings
from tqdm import tqdm

from tools.workshop.fuzzing.targets import KINDS, Mutant, mutants
from tools.workshop.fuzzing.worker import ENDED, OUTCOMES, Worker


def keep(output, mutant, number, detail):
    """A failure as a file that --replay reads."""
    file = output / "failures" / f"{mutant.kind.replace(' ', '-')}-{number}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    raw = isinstance(mutant.content, bytes)
    file.write_text(json.dumps(vars(mutant) | {
        "content": base64.b64encode(mutant.content).decode() if raw else mutant.content, "bytes": raw,
        "detail": detail}, indent=1))
    return file


def read_failure(file):
    """A file of `keep`  ->  Mutant"""
    try:
        record = json.loads(Path(file).read_text())
        kind, name, content = (record[key] for key in ("kind", "file", "content"))
        path = PurePosixPath(name)
        if kind not in KINDS or path.is_absolute() or ".." in path.parts:
            raise ValueError(f"no such kind, or the file {name[:80]!r} lies outside")
        return Mutant(kind, name, base64.b64decode(content) if record["bytes"] else str(content))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: no failure that this tool has kept ({type(error).__name__}: {error}).\n"
                         "  Name a file of OUTPUT/failures") from None


def in_short(detail):
    """The line of a traceback that says most."""
    lines = detail.strip().splitlines() or [""]
    return (lines[0] if ENDED in lines[0] else [lines[0], *(line for line in lines if "Error" in line)][-1])[:300]


def table(counts):
    """{kind: Counter}  ->  text"""
    lines = [f"{'kind':<12}{'inputs':>8}" + "".join(f"{name:>10}" for name in OUTCOMES)]
    for kind, found in [*counts.items(), ("all", sum(counts.values(), Counter()))]:
        lines.append(f"{kind:<12}{found.total():>8}" + "".join(f"{found[name]:>10}" for name in OUTCOMES))
    return "\n".join(lines)


def feed_kind(kind, count, worker, args, progress):
    """`count` inputs of a kind, which follow from the seed  ->  Counter of outcomes"""
    found = Counter()

    @seed(args.seed)
    @settings(max_examples=count, phases=[Phase.generate], database=None, deadline=None,
              suppress_health_check=list(HealthCheck))
    @given(mutants(kind, worker.original))
    def feed(mutant):
        outcome, detail = worker.feed(mutant)
        found[outcome] += 1
        progress.update()
        if outcome == "failures":
            progress.write(f"{keep(args.output, mutant, found.total(), detail)}: {in_short(detail)}")
    feed()
    return found


def replay(files, worker):
    """Kept failures once more  ->  {kind: Counter}"""
    counts = {}
    for file in files:
        mutant = read_failure(file)
        outcome, detail = worker.feed(mutant)
        counts.setdefault(mutant.kind, Counter())[outcome] += 1
        print(f"{file}: {outcome}\n{detail}")
    return counts


def main(args):
    with user_errors(), tempfile.TemporaryDirectory(prefix="fuzz_") as folder:
        worker = Worker(Path(folder), args.seconds, args.megabytes)
        each = -(-args.inputs // len(args.kinds))
        try:
            with tqdm(total=each * len(args.kinds), unit=" inputs", desc="fuzz", disable=None) as progress:
                counts = replay(args.replay, worker) if args.replay else {
                    kind: feed_kind(kind, each, worker, args, progress) for kind in args.kinds}
        finally:
            worker.end()
    print(table(counts))
    return 1 if any(found["failures"] for found in counts.values()) else 0


if __name__ == "__main__":
    sys.exit(main(parsed))
