"""What tools/check_dataset.py has found: problems by kind, the list of repairs, the JSON report.

In: single findings, in any order and number. Out: text, a report, the exit code. An error would stop a run or let it
learn from wrong data; a warning is worth a look and stops nothing.
"""
from collections import Counter, defaultdict

import msgspec

from dataloaders.json_values import read_typed
from utils.files import atomic_file

ERROR, WARNING = "error", "warning"
CLEAN, PROBLEMS = 0, 1          # exit codes; 2, cannot be read at all, comes from utils.config.user_errors
PRINTED, REPORTED = 5, 100      # examples of one kind on the screen and in the report

ERRORS = {
    "empty_list": "lists of the annotation file without a record",
    "bad_record": "records that are not what they should be",
    "duplicate_id": "ids that occur twice",
    "duplicate_name": "categories of one name: give them different names, or make them one",
    "duplicate_file_name": "images that two records name",
    "shared_folder": "videos whose frames lie in another video's folder",
    "unknown_video": "annotations of a video that is not listed, or cannot be used",
    "unknown_image": "annotations of an image that is not listed, or cannot be used",
    "unknown_category": "annotations of a category that is not listed, or cannot be used",
    "bad_segmentation": "masks that are malformed or do not fit their video or image",
    "few_videos": "classes with too few videos: lower data.shots, add videos, or data.few_videos=repeat",
    "no_class": "annotation files that leave no class to learn from",
    "missing_folder": "folders that do not exist: unpack the data set there",
    "missing_file": "images and masks that do not exist: unpack or download them again",
    "bad_file": "images and masks that a run refuses: unpack, download or replace them",
    "corrupt_file": "files that decode with damage: unpack or download them again",
    "decoder_crash": "files that end the decoder: replace them",
    "missing_list": "lists that do not exist: tools/make_minivspw_lists.py makes them",
    "bad_line": "lines of a list that cannot be used",
    "duplicate_line": "frames that a list names twice, or not in ascending order, video by video",
    "both_sides": "videos that a fold both trains on and tests",
    "missing_video": "videos of train.txt or val.txt without masks: unpack VSPW_480p completely",
    "unknown_label": "masks with labels that VSPW does not have"}
WARNINGS = {
    "published_counts": "counts that differ from the published ones: is this a subset?",
    "category_name": "categories that YouTube-VIS 2019 calls otherwise",
    "empty_annotation": "annotations without a single pixel: never used",
    "empty_mask": "masks without a pixel: read as absent",
    "unused_category": "categories that no annotation shows",
    "unannotated_video": "videos without annotations: never used",
    "empty_fold": "folds without a class to train on or to test: they cannot be run",
    "few_videos_shared": "classes with too few videos: their supports share videos (data.few_videos=repeat)",
    "missing_optional": "files that training and testing do not need",
    "against_the_rule": "listed frames that show no class of the list with more than 100 pixels",
    "decoder_note": "files that decode with a remark, usually without harm"}
KINDS = ERRORS | WARNINGS


class Findings:
    """All problems of one data set; `add` takes them as they come, and is the `fault` of the data sets' readers."""

    def __init__(self):
        self.counts, self.examples = Counter(), defaultdict(list)
        self.repairs = {}                  # (leave-out | download, subject) -> reason, in the order found
        self.drops = defaultdict(set)      # list of the annotation file -> positions to leave out
        self.left = defaultdict(set)       # the same -> ids

    def add(self, kind, where, what="", drop=None, left=None, download=None):
        """kind: of KINDS; where, what: words; drop: (list, position); left: (list, id); download: a file"""
        self.counts[kind] += 1
        if len(self.examples[kind]) < REPORTED:
            self.examples[kind].append(one_line(f"{where}: {what}" if what else where))
        if kind in ERRORS and (drop or left or download):
            repair = ("download", download) if download else ("leave-out", where)
            self.repairs.setdefault(repair, f"{kind}: {what}" if what else kind)
            for found, place in ((drop, self.drops), (left, self.left)):
                if found:
                    place[found[0]].add(found[1])

    def add_line(self, kind, where, what):
        """As `fault` of the readers of lists: the line is to be left out."""
        self.add(kind, where, what, left=("lines", where))

    def total(self, kinds):
        """Number of findings among these kinds: ERRORS or WARNINGS."""
        return sum(count for kind, count in self.counts.items() if kind in kinds)

    def exit_code(self, strict=False):
        return PROBLEMS if self.total(KINDS if strict else ERRORS) else CLEAN

    def problems(self):
        """One dict per kind that occurs, errors first."""
        return [{"kind": kind, "severity": ERROR if kind in ERRORS else WARNING, "meaning": KINDS[kind],
                 "count": self.counts[kind], "examples": self.examples[kind]} for kind in KINDS if self.counts[kind]]

    def text(self):
        """The problems as lines to print."""
        lines = []
        for problem in self.problems():
            lines.append(f"{problem['severity'].upper()} {problem['kind']}: {problem['count']} {problem['meaning']}")
            lines += [f"    {example}" for example in problem["examples"][:PRINTED]]
            if problem["count"] > PRINTED:
                lines.append(f"    ... and {problem['count'] - PRINTED} more")
        return "\n".join([*lines, f"{self.total(ERRORS)} errors, {self.total(WARNINGS)} warnings"])

    def write_repairs(self, path):
        """--fix-list: `action <tab> what <tab> reason` per line."""
        lines = ["\t".join(map(one_line, (*repair, reason))) for repair, reason in self.repairs.items()]
        head = "# leave-out: remove from the annotations or lists; download: fetch or unpack this file again"
        path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")

    def write_clean(self, source, target, references):
        """The annotation file without what is to be left out, and without annotations of that  ->  records left out

        references: {list: the annotations' key that names its ids}
        """
        document = read_typed(source, dict[str, msgspec.Raw], lambda path, what: ValueError(f"{path}: {what}"))
        ids, gone = {}, 0
        for name in (*references, "annotations"):
            keys = references if name == "annotations" else {}
            kind = msgspec.defstruct("Record", [(key, int) for key in ("id", *keys.values())])
            raws = msgspec.json.decode(document[name], type=list[msgspec.Raw])
            kept = [(raw, msgspec.json.decode(raw, type=kind)) for i, raw in enumerate(raws)
                    if i not in self.drops[name]]
            kept = [(raw, record) for raw, record in kept if record.id not in self.left[name]
                    and all(getattr(record, key) in ids[other] for other, key in keys.items())]
            document[name], ids[name] = [raw for raw, _ in kept], {record.id for _, record in kept}
            gone += len(raws) - len(kept)
        with atomic_file(target) as file:
            file.write(msgspec.json.encode(document))
        return gone


def one_line(text):
    """Control characters and lone surrogates as escapes: names from files reach a terminal and a list of lines."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def table(rows):
    """[dict] of equal keys  ->  an aligned text table; None is an empty cell"""
    cells = [list(rows[0]), *([one_line("" if v is None else str(v)) for v in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numeric = [all(isinstance(row[key], int | None) for row in rows) for key in rows[0]]
    return "\n".join("  ".join(cell.rjust(w) if right else cell.ljust(w)
                               for cell, w, right in zip(line, widths, numeric, strict=True)).rstrip()
                     for line in cells)


def compare_published(rows, findings):
    """[(what, here, published or None)]  ->  rows of the table of counts; differences become warnings"""
    for what, here, published in rows:
        if published is not None and here != published:
            findings.add("published_counts", what, f"{here} here, {published} published")
    return [{"count": what, "here": here, "published": published} for what, here, published in rows]


def check_class_sizes(rows, shots, rule, findings, unit="videos"):
    """Classes too small for K shots: supports and query come from different videos, so that a class needs K + 1.

    rows: dicts with class, id, videos, perhaps fold and side; rule: data.few_videos, error | repeat
    """
    for row in rows:
        if row["videos"] <= shots:
            kind = "few_videos" if rule == "error" or row["videos"] == 0 else "few_videos_shared"
            side = "".join(f", {key} {row[key]}" for key in ("fold", "side") if key in row)
            findings.add(kind, f"{row['class']} (id {row['id']}{side})",
                         f"{row['videos']} usable {unit}, {shots} shots need {shots + 1}")
