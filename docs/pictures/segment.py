"""docs/pictures/segment.jpg from what `make demo` leaves: two supports, six frames, the predicted masks.

    python -m docs.pictures.segment
"""
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dataloaders.own.supports import read_supports
from dataloaders.own.video import open_video
from utils.pictures.overlay import overlay

CLIP, FRAMES = Path("output/demo_clip"), (0, 9, 18, 27, 36, 45)
WIDTH, HEIGHT, TEXT, GAP = 320, 192, 24, 28          # of a tile, of the line above it, between what is given and found


def tile(image, mask):
    """(H, W, 3) uint8, (H, W) bool  ->  the picture with its mask in red, cut to a tile"""
    picture = Image.fromarray(overlay(image, mask))
    picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)))
    return picture.crop((0, 0, WIDTH, HEIGHT))


def main():
    supports, video = read_supports(CLIP / "support"), open_video(next(CLIP.glob("video.*")))
    given = [tile(*pair) for pair in zip(supports.images, supports.masks, strict=True)]
    found = {frame.index: tile(frame.image, np.asarray(Image.open(CLIP / f"result/masks/{frame.index:05d}.png")) > 0)
             for frame in video if frame.index in FRAMES}
    page = Image.new("RGB", (4 * WIDTH + GAP + 12, 2 * (HEIGHT + TEXT)), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(15)
    for n, picture in enumerate(given[:2]):
        draw.text((0, n * (HEIGHT + TEXT) + 3), f"given {n + 1}", "black", font)
        page.paste(picture, (0, n * (HEIGHT + TEXT) + TEXT))
    for n, index in enumerate(FRAMES):
        left, top = WIDTH + GAP + n % 3 * (WIDTH + 6), n // 3 * (HEIGHT + TEXT)
        draw.text((left, top + 3), f"found, frame {index}", "black", font)
        page.paste(found[index], (left, top + TEXT))
    page.save("docs/pictures/segment.jpg", quality=88)


if __name__ == "__main__":
    main()
