"""Hostile and broken input: thousands of mutated files into everything of the project that reads files.

    python -m tools.workshop.fuzz --output output/fuzz --inputs 2800
    python -m tools.workshop.fuzz --output output/fuzz --kinds rle mask --inputs 5000 --seed 7 --processes 8
    python -m tools.workshop.fuzz --replay output/fuzz/failures/rle-17.json

An input is accepted, or refused: by a ValueError or an OSError that names the file. Everything else is a failure:
another exception, an endless message, a process that ends, hangs (--seconds) or takes too much memory (--megabytes), a
file opened outside the input's folder, executed code. Failures are kept in OUTPUT/failures for --replay. Exit code 1 if
there is one. Linux only.

What is fed to whom is in fuzz_targets.py, the correct files are in fuzz_sandbox.py, and how they are mutated in
fuzz_mutations.py, fuzz_images.py, fuzz_yaml.py and fuzz_checkpoints.py. fuzz_worker.py holds the processes,
fuzz_guard.py what they may not do.
"""
import base64
import json
import sys
import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from dataloaders.json_values import is_file_name, shown
from tools.workshop.fuzzing.sandbox import Mutant
from tools.workshop.fuzzing.targets import KINDS, Mutator
from tools.workshop.fuzzing.worker import ENDED, OUTCOMES, run
from utils.command_line import Parser
from utils.config import user_errors


def keep(output, mutant, detail):
    """A failure as a file that --replay reads."""
    file = output / "failures" / f"{mutant.kind.replace(' ', '-')}-{mutant.number}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    content = None if mutant.content is None else base64.b64encode(mutant.content).decode()
    file.write_text(json.dumps(asdict(mutant) | {"content": content, "detail": detail}, indent=1))
    return file


def read_failure(file):
    """A file of `keep`  ->  Mutant"""
    try:
        record = json.loads(Path(file).read_text())
        record.pop("detail")
        content = record.pop("content")
        mutant = Mutant(**record, content=None if content is None else base64.b64decode(content))
        KINDS[mutant.kind]
        if not is_file_name(mutant.file, 0):
            raise ValueError(f"the file {shown(mutant.file)} lies outside")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: no failure that this tool has kept ({type(error).__name__}: {error}).\n"
                         "  Name a file of OUTPUT/failures") from None
    return mutant


def in_short(detail):
    """The line of a traceback that says most."""
    lines = detail.strip().splitlines() or [""]
    return (lines[0] if ENDED in lines[0] else [lines[0], *(line for line in lines if "Error" in line)][-1])[:300]


def table(counts):
    """{kind: Counter}  ->  text"""
    lines = [f"{'kind':<12}{'inputs':>8}" + "".join(f"{name:>10}" for name in OUTCOMES)]
    total = sum(counts.values(), Counter())
    for kind, found in [*counts.items(), ("all", total)]:
        lines.append(f"{kind:<12}{found.total():>8}" + "".join(f"{found[name]:>10}" for name in OUTCOMES))
    return "\n".join(lines)


def parse(arguments):
    parser = Parser(__doc__)
    parser.add_argument("--output", type=Path, default=Path("output/fuzz"), help="folder of failures (output/fuzz)")
    parser.add_argument("--inputs", type=int, default=2800, help="in all, shared evenly among the kinds (2800)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="of input (all)")
    parser.add_argument("--seed", type=int, default=0, help="decides every input")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10, help="one input may compute, or wait (10)")
    parser.add_argument("--megabytes", type=int, default=2048, help="a process may take for its inputs (2048)")
    parser.add_argument("--replay", nargs="+", metavar="FILE", help="kept failures, instead of new inputs")
    args = parser.parse_args(arguments)
    if min(args.inputs, args.processes, args.seconds, args.megabytes) <= 0:
        parser.error("--inputs, --processes, --seconds and --megabytes have to be positive")
    return args


def main(arguments=None):
    args = parse(arguments)
    with user_errors(), tempfile.TemporaryDirectory(prefix="fuzz_") as folder:
        jobs = [read_failure(file) for file in args.replay] if args.replay else [
            (kind, number) for number in range(-(-args.inputs // len(args.kinds))) for kind in args.kinds]
        counts, folder = {kind: Counter() for kind in args.kinds}, Path(folder)
        outcomes = tqdm(run(jobs, args, folder), total=len(jobs), unit=" inputs", desc="fuzz", disable=None)
        for job, outcome, detail in outcomes:
            kind = job.kind if args.replay else job[0]
            counts[kind][outcome] += 1
            if args.replay:
                tqdm.write(f"{kind}-{job.number} ({job.how}): {outcome}\n{detail}")
            elif outcome == "failures":
                mutant = Mutator(folder / "worker0" / "original" / "sandbox", args.seed).mutant(*job)
                tqdm.write(f"{keep(args.output, mutant, detail)} {mutant.how!a}: {in_short(detail)}")
    print(table({kind: found for kind, found in counts.items() if found}))
    return 1 if any(found["failures"] for found in counts.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
