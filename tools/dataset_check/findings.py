"""What tools/check_dataset.py has found: problems by kind, the list of repairs, the JSON report.

In: single findings, in any order and number. Out: text, a report, the exit code. An error would stop a run or let it
learn from wrong data; a warning is worth a look and stops nothing.
"""
import json
import reprlib
from collections import Counter, defaultdict

ERROR, WARNING = "error", "warning"
CLEAN, PROBLEMS = 0, 1          # exit codes; 2, cannot be read at all, comes from utils.config.user_errors
PRINTED, REPORTED = 5, 100      # examples of one kind on the screen and in the report

KINDS = {
    # the annotation file
    "empty_list": (ERROR, "a list of the annotation file is empty: take the train split, it has annotations"),
    "bad_record": (ERROR, "records without what they need: a JSON object, an integer id, its keys"),
    "duplicate_id": (ERROR, "ids that occur twice"),
    "bad_size": (ERROR, "sizes that are not [rows, columns] or absurdly large"),
    "bad_file_name": (ERROR, "file names that are none or leave the data folder"),
    "duplicate_file_name": (ERROR, "file names that occur twice"),
    "shared_folder": (ERROR, "videos whose frames lie in another video's folder, or in several"),
    "unknown_video": (ERROR, "annotations of a video that is not listed"),
    "unknown_image": (ERROR, "annotations of an image that is not listed"),
    "unknown_category": (ERROR, "annotations of a category that is not listed"),
    "segmentation_count": (ERROR, "annotations whose segmentations are not one per frame"),
    "bad_segmentation": (ERROR, "segmentations that are malformed"),
    "empty_segmentation": (ERROR, "annotations without any polygon"),
    "mask_size": (ERROR, "masks of another size than their video or image"),
    "few_videos": (ERROR, "classes with too few videos: lower data.shots, add videos, or data.few_videos=repeat"),
    "no_class": (ERROR, "annotation files that leave no class to learn from"),
    # files
    "missing_folder": (ERROR, "folders that do not exist: unpack the data set there"),
    "missing_image": (ERROR, "images that do not exist: unpack or download them again"),
    "missing_mask": (ERROR, "masks that do not exist: unpack or download them again"),
    "empty_file": (ERROR, "files of 0 bytes: unpack or download them again"),
    "truncated_file": (ERROR, "files without an end: unpack or download them again"),
    "unreadable_file": (ERROR, "files that cannot be opened or decoded: unpack or download them again"),
    "corrupt_file": (ERROR, "files that decode with damage: unpack or download them again"),
    "absurd_file": (ERROR, "files beyond the limits, refused before decoding: replace them"),
    "outside_root": (ERROR, "links that leave the data folder: move the files into it"),
    "image_size": (ERROR, "images of another size than their annotations"),
    "decoder_crash": (ERROR, "files that end the decoder: replace them"),
    # MiniVSPW
    "missing_list": (ERROR, "lists that do not exist: tools/make_minivspw_lists.py makes them"),
    "bad_line": (ERROR, "lines of a list that cannot be used"),
    "duplicate_line": (ERROR, "frames that a list names twice, or not in ascending order, video by video"),
    "both_sides": (ERROR, "videos that a fold both trains on and tests"),
    "missing_video": (ERROR, "videos of train.txt or val.txt without masks: unpack VSPW_480p completely"),
    "unknown_label": (ERROR, "masks with labels that VSPW does not have"),
    # warnings
    "published_counts": (WARNING, "counts that differ from the published ones: is this a subset?"),
    "category_name": (WARNING, "categories that YouTube-VIS 2019 calls otherwise"),
    "empty_annotation": (WARNING, "annotations without a single pixel: never used"),
    "empty_mask": (WARNING, "masks without a pixel: read as absent"),
    "unused_category": (WARNING, "categories that no annotation shows"),
    "unannotated_video": (WARNING, "videos without annotations: never used"),
    "length": (WARNING, "videos whose 'length' is not their number of file names: not used"),
    "empty_fold": (WARNING, "folds without a class to train on or to test: they cannot be run"),
    "few_videos_shared": (WARNING, "classes with too few videos: their supports share videos (data.few_videos=repeat)"),
    "missing_optional": (WARNING, "files that training and testing do not need"),
    "frame_without_mask": (WARNING, "images without a mask: never used"),
    "against_the_rule": (WARNING, "listed frames that show no class of the list with more than 100 pixels"),
    "decoder_note": (WARNING, "files that decode with a remark, usually without harm"),
}


class Findings:
    """All problems of one data set; `add` takes them as they come."""

    def __init__(self):
        self.counts, self.examples = Counter(), defaultdict(list)
        self.repairs = {}                  # (action, subject) -> reason, in the order found
        self.drops = defaultdict(set)      # list of the annotation file -> positions to leave out

    def add(self, kind, where, what="", repair=None, drop=None):
        """kind: of KINDS; where, what: words; repair: (leave-out | download, subject); drop: (list, position)"""
        severity, _ = KINDS[kind]
        self.counts[kind] += 1
        if len(self.examples[kind]) < REPORTED:
            self.examples[kind].append(one_line(f"{where}: {what}" if what else where))
        if severity == ERROR:
            if repair:
                self.repairs.setdefault(repair, f"{kind}: {what}" if what else kind)
            if drop:
                self.drops[drop[0]].add(drop[1])

    def total(self, severity):
        """Number of errors, or of warnings."""
        return sum(count for kind, count in self.counts.items() if KINDS[kind][0] == severity)

    def exit_code(self, strict=False):
        return PROBLEMS if self.total(ERROR) or (strict and self.total(WARNING)) else CLEAN

    def problems(self):
        """One dict per kind that occurs, errors first."""
        order = [kind for kind in KINDS if self.counts[kind]]
        return [{"kind": kind, "severity": KINDS[kind][0], "meaning": KINDS[kind][1], "count": self.counts[kind],
                 "examples": self.examples[kind]} for kind in sorted(order, key=lambda kind: KINDS[kind][0] != ERROR)]

    def text(self):
        """The problems as lines to print."""
        lines = []
        for problem in self.problems():
            lines.append(f"{problem['severity'].upper()} {problem['kind']}: {problem['count']} {problem['meaning']}")
            lines += [f"    {example}" for example in problem["examples"][:PRINTED]]
            if problem["count"] > PRINTED:
                lines.append(f"    ... and {problem['count'] - PRINTED} more")
        return "\n".join([*lines, f"{self.total(ERROR)} errors, {self.total(WARNING)} warnings"])

    def write_repairs(self, path):
        """--fix-list: `action <tab> what <tab> reason` per line."""
        with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write("# leave-out: remove from the annotations or lists; download: fetch or unpack this file again\n")
            for (action, subject), reason in self.repairs.items():
                file.write("\t".join(map(one_line, (action, subject, reason))) + "\n")


def one_line(text):
    """Control characters and lone surrogates as escapes: names from files reach a terminal and a list of lines."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(value):
    """Whatever the file holds  ->  a short text without control characters"""
    if isinstance(value, str):
        return repr(value if len(value) <= 200 else value[:200] + "...")
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"       # Python refuses to print very long ones
    return reprlib.repr(value)


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


def write_report(path, report):
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
