"""What is said of a segmented video at the end: summary.json, and the last lines."""
import json
from collections import Counter

from utils.files import atomic_file, fingerprint


def summarise(results, args, names, categories, video, seconds, failure, objects=None):
    """summary.json, written  ->  its content; objects: {number: name of its category}, where they have numbers"""
    said = ("absent", "every", "start", "end", "shots", "object", "category", "threshold", "device", "overrides",
            "text", "support_text", "instances", "follow")
    summary = results.counts() | {
        "seconds": round(seconds, 3), "fps": round(results.frames / seconds, 2), "complete": failure is None,
        "stopped_by": failure and (str(failure) or type(failure).__name__),
        "video": video.name, "video_fps": video.fps, "supports": names,
        "categories": dict(enumerate(categories, start=1)), "objects": objects, "checkpoint": str(args.checkpoint),
        "sha256": fingerprint(args.checkpoint) if args.checkpoint else None,
        "settings": {name: getattr(args, name) for name in said}}
    with atomic_file(results.output / "summary.json", "w") as file:
        json.dump(summary, file, indent=1)
    return summary


def sentence(summary, output):
    """The line that is said at the end"""
    rows, cols = summary["size"]
    iou, film = summary["mean_predicted_iou"], summary["film"]
    judged = "no IoUNet" if iou is None else f"mean predicted IoU {iou:.3f}, {summary['remembered']} remembered"
    named = summary["categories"] if summary["objects"] is None else Counter(summary["objects"].values())
    shown = [f"{n} {name}" for n, name in named.items()] if summary["objects"] is None else [
        f"{count} {name}" for name, count in named.items()] or ["no object"]
    judged += "; " * bool(shown) + ", ".join(shown)
    if summary["absent"] is not None:
        judged += f"; absent in {summary['absent']} frames"
    files = ["masks/", "frames.csv", "summary.json"]
    files += ["tracks.json"] * (summary["objects"] is not None)
    if film:
        files.insert(1, film if film.endswith(".mp4") else f"{film} (PyAV here has no H.264 encoder)")
    return (f"{summary['frames']} frames of {rows} x {cols} in {summary['seconds']:.1f} s, {summary['fps']:.1f} "
            f"frames/s; {judged}. {output}: {', '.join(files)}")
