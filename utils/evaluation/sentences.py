"""What the referring task measures beside J and F: overall IoU, and whether it is the sentence that decides.

In: lines of results.jsonl whose "pixels" are [intersection, union] of a mask, all frames together, with its own object
and with each of "other_objects" (test.swap_sentences). Out: shares.
"""
from collections import defaultdict

NAMES = {"jf": "J&F", "f_davis": "F (0.008)", "iou": "overall IoU", "right_object": "right object",
         "right_sentence": "right sentence", "right_category": "right category"}


def sentence_scores(lines, j, f):
    """Lines of a run, their J and F  ->  {key of NAMES: share}; {} of another task

    f_davis: F with the tolerance of DAVIS; iou: sum of all intersections over sum of all unions
    right_object: how often a mask overlaps its own object more than another one of the video, pair by pair
    right_sentence: how often an object is found better with a sentence of its own than with one of another object
    right_category: where one of two objects is of the support's category ("of_class"), how often the mask overlaps that
    one more, whatever the sentence says
    An equal overlap counts one half, so that masks which no sentence changes give 0.5 in right_sentence.
    """
    if not lines or not all("pixels" in line for line in lines):
        return {}
    own = [line["pixels"][0] for line in lines]
    davis = [x for line in lines for x in line.get("f_davis", ())]
    found = {"jf": (j + f) / 2, **({"f_davis": sum(davis) / len(davis)} if davis else {}),
             "iou": _ratio([sum(column) for column in zip(*own, strict=True)])}
    pairs = [(line["pixels"][0], other) for line in lines for other in line["pixels"][1:]]
    for name, compared in (("right_object", pairs), ("right_sentence", list(_swapped(lines))),
                           ("right_category", list(_categories(lines)))):
        if compared:
            found[name] = sum(_wins(*map(_ratio, pair)) for pair in compared) / len(compared)
    return found


def _swapped(lines):
    """Pairs of pixels with the same object: of the mask for its own sentence, of that for another object's sentence"""
    videos = defaultdict(list)
    for line in lines:
        videos[line["run"], line["class_id"], line["frames"][0].partition("/")[0]].append(line)
    for of_video in videos.values():
        for line in of_video:
            for other in of_video:
                if len(other["pixels"]) > 1 and line["object"] in other["other_objects"]:
                    yield line["pixels"][0], other["pixels"][1 + other["other_objects"].index(line["object"])]


def _categories(lines):
    """Pairs of pixels of one mask: with an object of the support's category, with one of another"""
    for line in lines:
        for other, fits in zip(line["pixels"][1:], line.get("of_class", [])[1:], strict=False):
            if fits != line["of_class"][0]:
                yield (other, line["pixels"][0]) if fits else (line["pixels"][0], other)


def _ratio(pixels):
    return pixels[0] / max(pixels[1], 1)


def _wins(one, other):
    return 0.5 + 0.5 * ((one > other) - (one < other))
