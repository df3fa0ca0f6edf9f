"""What is said of a segmented video at the end: summary.json, and the last lines."""
import json

from utils.files import atomic_file, fingerprint


def summarise(results, args, names, categories, video, seconds, failure):
    """summary.json, written  ->  its content"""
    said = ("absent", "every", "start", "end", "shots", "object", "category", "threshold", "device", "overrides",
            "text", "support_text")
    summary = results.counts() | {
        "seconds": round(seconds, 3), "fps": round(results.frames / seconds, 2), "complete": failure is None,
        "stopped_by": failure and (str(failure) or type(failure).__name__),
        "video": video.name, "video_fps": video.fps, "supports": names,
        "categories": dict(enumerate(categories, start=1)), "checkpoint": str(args.checkpoint),
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
    judged += "; " * bool(summary["categories"]) + ", ".join(f"{n} {name}" for n, name in summary["categories"].items())
    if summary["absent"] is not None:
        judged += f"; absent in {summary['absent']} frames"
    files = ["masks/", "frames.csv", "summary.json"]
    if film:
        files.insert(1, film if film.endswith(".mp4") else f"{film} (PyAV here has no H.264 encoder)")
    return (f"{summary['frames']} frames of {rows} x {cols} in {summary['seconds']:.1f} s, {summary['fps']:.1f} "
            f"frames/s; {judged}. {output}: {', '.join(files)}")
