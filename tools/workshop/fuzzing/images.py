"""Images for tools/workshop/fuzz.py: a correct PNG or JPEG in, a hostile or broken one out, as in fuzz_mutations.py."""
import functools
import io
import struct
import zlib

from PIL import Image

from tools.workshop.fuzzing.mutations import any_bytes


def any_png(rng, data):
    """A PNG of label ids  ->  another header, other chunks, other bytes; checksums are right in two of three"""
    how = rng.choice(("header", "header", "bytes", "bytes in chunks", "chunk", "mode", "bomb", "other format"))
    if how == "bytes":
        return any_bytes(rng, data)
    if how == "other format":
        return other_format(rng)
    if how == "mode":
        return image_mode(rng, "PNG")
    chunks = png_chunks(data)
    if how == "bomb":
        size = rng.choice(((60_000, 60_000), (8000, 8000), (2 ** 31 - 1, 1), (1, 2 ** 31 - 1)))
        rows = zeros(1 << 24)
        chunks = [(b"IHDR", struct.pack(">IIBBBBB", *size, 8, rng.choice((0, 3)), 0, 0, 0)), (b"IDAT", rows),
                  (b"IEND", b"")]
    elif how == "header":
        fields = list(struct.unpack(">IIBBBBB", chunks[0][1]))
        for _ in range(rng.choice((1, 1, 3))):
            field = rng.randrange(7)
            fields[field] = rng.choice((0, 1, 60_000, 2 ** 31 - 1, 2 ** 32 - 1) if field < 2 else range(20))
        chunks[0] = (b"IHDR", struct.pack(">IIBBBBB", *fields))
        how = f"header {fields}"
    elif how == "chunk":
        new = rng.choice(((b"zTXt", b"k\0\0" + zeros(1 << 26)), (b"PLTE", bytes(7)), (b"PLTE",
                                                                                                     bytes(768)),
                          (b"iCCP", b"k\0\0" + zeros(1 << 26)), (b"tRNS", bytes(300)), (b"IEND", b""),
                          (b"acTL", struct.pack(">II", 2 ** 31 - 1, 0)), (b"eXIf", b"MM\0*" + b"\xff" * 20),
                          chunks[0], (b"IDAT", b"")))
        chunks.insert(rng.randrange(len(chunks) + 1), new)
        how = f"one more {new[0].decode()}"
    else:
        number = rng.randrange(len(chunks))
        done, changed = any_bytes(rng, chunks[number][1])
        how, chunks[number] = f"{done} of {chunks[number][0]}", (chunks[number][0], changed)
    return how, png_file(chunks, checksums=rng.random() < 0.67)


@functools.cache
def zeros(count):
    """So many of them, compressed to a thousandth."""
    return zlib.compress(bytes(count), 9)


def png_chunks(data):
    """[(name, content)] of a correct PNG"""
    chunks, place = [], 8
    while place < len(data):
        length, = struct.unpack(">I", data[place:place + 4])
        chunks.append((data[place + 4:place + 8], data[place + 8:place + 8 + length]))
        place += 12 + length
    return chunks


def png_file(chunks, checksums=True):
    body = b"".join(struct.pack(">I", len(content)) + name + content + struct.pack(
        ">I", zlib.crc32(name + content) if checksums or name == b"IEND" else 12345) for name, content in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def any_jpeg(rng, data):
    """A JPEG  ->  another size in its header, other markers, other bytes"""
    how = rng.choice(("size", "size", "bytes", "bytes", "whole bytes", "marker", "mode", "other format"))
    if how == "bytes":
        return any_bytes(rng, data)
    if how == "other format":
        return other_format(rng)
    if how == "mode":
        return image_mode(rng, "JPEG")
    data = bytearray(data)
    if how == "whole bytes":                             # the end marker stays, so that the decoder sees the damage
        done, data = any_bytes(rng, bytes(data[2:-2]))
        return f"within: {done}", b"\xff\xd8" + data + b"\xff\xd9"
    if how == "size":
        frame = data.find(b"\xff\xc0")
        size = rng.choice(((60_000, 60_000), (65_535, 65_535), (0, 0), (1, 65_535), (8000, 8000), (0, 48), (49, 48)))
        data[frame + 5:frame + 9] = struct.pack(">HH", *size)
        if rng.random() < 0.3:
            data[frame + 1] = 0xc2                       # progressive
        return f"size {size}", bytes(data)
    new = rng.choice((b"\xff\xc0\0\x0b\x08\xea\x60\xea\x60\1\1\x11\0", b"\xff\xfe\xff\xff" + bytes(0xfffd), b"\xff\xda",
                      b"\xff\xe1\0\x22Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0",
                      b"\xff\xdd\0\4\0\1",
                      b"\xff\xc0\0\0", b"\xff" * 500, b"\xff\xd9"))
    place = rng.choice((2, 2, 20, len(data) - 2))
    return f"marker {new[:2].hex()} at {place}", bytes(data[:place] + new + data[place:])


def image_mode(rng, form):
    """A whole image of a mode that nobody expects, often of the expected size."""
    mode = rng.choice(("1", "L", "LA", "P", "RGB", "RGBA", "I;16") if form == "PNG" else ("L", "RGB", "CMYK"))
    size = rng.choice(((48, 48), (1, 1), (3000, 1), (64, 48), (48, 64)))
    file = io.BytesIO()
    Image.new(mode, size).save(file, form)
    return f"{form} of mode {mode}, {size}", file.getvalue()


def other_format(rng):
    """An image of a format that no data set has, with a decoder of its own, or the name of one."""
    end = b"\xff\xd9" if rng.random() < 0.7 else b"IEND\xaeB`\x82"
    heads = (b"P6 60000 60000 255\n", b"P5 30000 30000 255\n" + bytes(100), b"P4\n9 9\n", b"GIF89a" + b"\xff" * 10,
             b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, 30_000, 30_000, 1, 24, 0) + bytes(200),
             b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 50, b"#?RADIANCE\n\n-Y 30000 +X 30000\n", b"Pf\n30000 30000\n-1\n",
             b"\x59\xa6\x6a\x95" + struct.pack(">7I", 30_000, 30_000, 24, 0, 1, 0, 0), b"RIFF\xff\xff\xff\x7fWEBPVP8 ",
             b"v/1\x01\2\0\0\0" + bytes(80), b"P7\nWIDTH 30000\nHEIGHT 30000\nDEPTH 3\nMAXVAL 255\nENDHDR\n",
             b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(90), b"<svg xmlns='http://www.w3.org/2000/svg' width='60000'/>")
    head = rng.choice(heads)
    return f"another format, {head[:6]}", head + end
