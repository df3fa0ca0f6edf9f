"""results.jsonl: its one reader, what a test's numbers depend on (test.json), and how a test is continued.

In: files that a test wrote, or anybody. Out: lines whose known keys have their types, each key once.
"""
import json
from pathlib import Path
from typing import Annotated

import msgspec

from utils.config import Affects, affected, differences, settings
from utils.distributed import is_main, rank, wait_for_all, world_size
from utils.files import atomic_file, fingerprint
from utils.logger import get_logger
from utils.records import JsonLines, changed_data

MAX_BYTES = 2 ** 30          # of a file; five runs of a fold of YouTube-VIS have some ten million
Share = Annotated[float, msgspec.Meta(ge=-1e-6, le=1 + 1e-6)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]


class Result(msgspec.Struct):
    """What a line says: a video of one run, its scores per frame (J, F) and per window (VC). Methods may add keys."""
    run: int
    class_id: int
    class_: Text = msgspec.field(name="class")
    video: Text
    j: Annotated[list[Share], msgspec.Meta(min_length=1)]
    f: list[Share]
    vc: list[Share | None]
    vc_variant: Text
    vc_window: Annotated[int, msgspec.Meta(ge=1)]
    vc_possible: Annotated[int, msgspec.Meta(ge=0)] | None = None        # windows in which the truth has a common pixel
    fold: int | None = None
    frames: list[Text] | None = None
    support_frames: list[Text] = []
    text: Text | None = None
    supports_share_video: bool = False
    f_davis: list[Share] | None = None
    true_iou: list[Share] | None = None
    swapped_class: Text | None = None          # these of test.swap_supports, see listening.py
    swapped_frames: list[Text] = []
    shows_both: list[bool] | None = None
    j_swapped: list[Share] | None = None
    overlap: list[Share] | None = None
    seconds: Seconds = 0
    data_seconds: Seconds = 0

    def __post_init__(self):
        if len({x is None for x in (self.shows_both, self.j_swapped, self.overlap)}) > 1:
            raise ValueError("shows_both, j_swapped and overlap belong together")
        for key in ("f", "frames", "f_davis", "shows_both", "j_swapped", "overlap"):
            values = getattr(self, key)
            if values is not None and len(values) != len(self.j):
                raise ValueError(f"{len(values)} values of {key} for {len(self.j)} of j")


KNOWN = frozenset(Result.__struct_encode_fields__)


def read_results(*paths):
    """results.jsonl, and that of each process while a test runs  ->  list of dict, each video once a run

    Each has the keys of a Result and those of its method.
    A second line of a video is left out with one warning for all. A last line that is cut off is no line.
    FileNotFoundError; ValueError for a line that is no result, or of another fold or definition of VC than the others.
    """
    lines, left_out = _sorted_out(paths)
    if left_out:
        get_logger().warning("%s: %d of %d lines are left out, the first is %s", paths[0], len(left_out),
                             len(lines) + len(left_out), left_out[0][0])
    return lines


def _sorted_out(paths, wanted=None):
    """results.jsonl and the same of each process  ->  lines, each key once; [(what is wrong, line)] of the others

    wanted: the keys that may be there, None: any
    """
    lines, left_out = {}, []
    for path in paths:
        for number, line in typed_lines(path, Result, "no result of a test", "the same test.py command measures its "
                                                                             "video again"):
            key = key_of(line)
            own = wanted is None or key in wanted
            if not own or lines.setdefault(key, line) != line:
                left_out.append((f"line {number} ({'a second' if own else 'no'} result of this test: run {key[0]}, "
                                 f"class {key[1]}, video {key[2]!r})", line))
    for key in ("fold", "vc_variant", "vc_window", "average"):
        values = {str(line.get(key)) for line in lines.values()}
        if len(values) > 1:
            raise ValueError(f"{paths[0]}: its lines are of several tests ({key}: {', '.join(sorted(values))[:300]}).\n"
                             "  Test again with another --output")
    return list(lines.values()), left_out


def typed_lines(path, kind, wrong, then):
    """JSON lines  ->  yields (number, dict) of every whole one; the keys that the Struct `kind` has are checked

    wrong, then: the words of the error for a line that is something else, and what happens once it is deleted
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; it appears with the first line of a run")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: {path.stat().st_size} bytes, more than {MAX_BYTES}: {wrong}")
    with open(path, "rb") as file:
        for number, text in enumerate(file, 1):
            if not text.endswith(b"\n"):
                return
            try:
                line = msgspec.json.decode(text)
                msgspec.convert(line, kind)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}: {wrong}: {error}.\n  Delete the line: {then}") from None
            yield number, line


def per_frame(line):
    """What a method says of every frame beside its mask  ->  {key: one number, bool or None per frame}"""
    return {key: values for key, values in line.items() if key not in KNOWN and isinstance(values, list)
            and len(values) == len(line["j"]) and all(x is None or isinstance(x, int | float) for x in values)}


def open_results(output, header, keys):
    """results.jsonl of a test, continued if it is of the same test  ->  (JsonLines, lines already there)

    header: what the numbers depend on, from `describe_test`. It is kept in test.json beside them.
    keys: all (run, class id, video) of the test, in order. What else is there goes to results.left_out.jsonl.
    ValueError if the folder holds results of something else.
    """
    output = Path(output)
    note, lines = output / "test.json", output / "results.jsonl"
    if is_main():
        _refuse_another_test(note, lines, header, output)
        output.mkdir(parents=True, exist_ok=True)
        with atomic_file(note, "w") as file:
            json.dump(header, file, indent=1)
        JsonLines(lines).close()
    done = collect_results(output, keys)
    wait_for_all()
    return JsonLines(lines if world_size() == 1 else output / f"results.rank{rank()}.jsonl"), done


def collect_results(output, keys):
    """Once every process has written its lines: all of them that are of the test, each once, also in results.jsonl

    keys: as in open_results; a single process would have come upon them in this order
    """
    wait_for_all()
    if is_main():
        _collect(Path(output), {key: position for position, key in enumerate(keys)})
    wait_for_all()
    return read_results(Path(output) / "results.jsonl")


def key_of(line):
    """What identifies a line: (run, class id, video)"""
    return line["run"], line["class_id"], line["video"]


def _collect(output, order):
    """The lines of all processes into results.jsonl, in order; those that are not of the test beside it."""
    parts, whole = sorted(output.glob("results.rank*.jsonl")), output / "results.jsonl"
    lines, left_out = _sorted_out([whole, *parts], order)
    if left_out:
        aside = output / "results.left_out.jsonl"
        get_logger().warning("%s: %d lines are left out and moved to %s, the first is %s", whole, len(left_out),
                             aside.name, left_out[0][0])
        with JsonLines(aside) as file:
            for _, line in left_out:
                file.append(line)
    if left_out or parts:
        with atomic_file(whole, "w") as file:
            file.writelines(json.dumps(line) + "\n" for line in sorted(lines, key=lambda line: order[key_of(line)]))
    for part in parts:
        part.unlink()


def _refuse_another_test(note, lines, header, output):
    if (output / "log.jsonl").is_file():
        raise ValueError(f"{output} holds a training.\n  Choose another --output")
    if note.is_file() and lines.is_file():
        try:
            changed = _changed(json.loads(note.read_text()), header)
        except (ValueError, RecursionError, AttributeError, LookupError, TypeError) as error:
            raise ValueError(f"{note}: damaged, so nobody knows what {lines.name} was measured with ({error}).\n"
                             f"  Choose another --output, or delete {output}") from None
        if changed:
            raise ValueError(f"{lines} belongs to another test: {'; '.join(changed)}.\n"
                             f"  Choose another --output, or delete {output}")
    elif lines.is_file():
        raise ValueError(f"{lines} has no test.json beside it, so nobody knows what it was measured with.\n"
                         f"  Choose another --output, or delete {output}")


def describe_test(checkpoint, cfg, split, episodes=None, data=None):
    """What the numbers of a test depend on, as plain values; episodes: the file of a list that is replayed; data: the
    identity of the data.

    Of the config these are the keys that affect a test; where one names a file, its content counts and not its place.
    """
    config = {key: f"sha256 {fingerprint(value)}" if isinstance(value, str) and Path(value).is_file() else value
              for key, value in settings(cfg, Affects.TEST).items()}
    return {"checkpoint": str(checkpoint), "sha256": fingerprint(checkpoint) if checkpoint else None, "fold": split,
            "episodes": fingerprint(episodes) if episodes else None, "config": config, "data": data}


def warn_of_other_config(trained, cfg, source):
    """Log the keys in which a checkpoint's config differs so that the same weights compute something else."""
    keys = affected(cfg, Affects.WEIGHTS)
    for key, (then, now) in differences(trained, cfg).items():
        if key in keys:
            get_logger().warning("%s: trained with %s %s, tested with %s", source, key, then, now)


def _changed(old, new):
    """What differs between two headers, in words."""
    changed = []
    if old.get("sha256") != new["sha256"]:
        changed.append(f"checkpoint {old.get('checkpoint')} (another content than {new['checkpoint']})")
    if old.get("fold") != new["fold"]:
        changed.append(f"fold {old.get('fold')}, not {new['fold']}")
    if old.get("episodes") != new.get("episodes"):
        lists = [f"a list (SHA-256 {x['episodes']:.12}...)" if x.get("episodes") else "drawn" for x in (old, new)]
        changed.append(f"episodes were {lists[0]}, are {lists[1]}")
    changed += changed_data(old.get("data"), new["data"])
    before, now = old.get("config", {}), new["config"]
    keys = [key for key in before | now if before.get(key) != now.get(key)]
    changed += [f"{key} was {before.get(key)}, is {now.get(key)}" for key in keys[:5]]
    return changed + ([f"{len(keys) - 5} more keys"] if len(keys) > 5 else [])
