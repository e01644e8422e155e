"""Writes tests/data/pictures: small pictures of every kind that oriel decodes, and what Pillow makes of them.

    python tests/goldens/make_picture_goldens.py

goldens.safetensors holds for each picture
    NAME|rgb      Image.open(NAME).convert("RGB")                                  [height, width, 3]
    NAME|upright  the same after ImageOps.exif_transpose, where that changes it
    NAME|white    upright, then over white by alpha_composite, where there is transparency
and in its metadata NAME -> "format orientation has_alpha". It also holds alpha|white and alpha|color: alpha_composite
of every (value, alpha) pair, [256 values, 256 alphas, 3].

Pillow compares a PNG colour key of less than 8 or of 16 bits with samples that it has already brought to 8 bits. There
the expectation is computed from the samples themselves, as the PNG standard wants it: see `key_of_raw_samples`.
"""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageOps
from safetensors.numpy import save_file

OUT = Path(__file__).resolve().parents[1] / "data" / "pictures"
RNG = np.random.default_rng(20)

warnings.simplefilter("ignore")


def photo(width, height, channels=3):
    """Smooth colours with some noise: something to compress, and something to get wrong."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [(x * (5 + c) + y * (7 - c) + 40 * np.sin(x / (3 + c)) * np.cos(y / 4)) % 256 for c in range(channels)]
    picture = np.stack(planes, axis=-1) + RNG.integers(-12, 13, (height, width, channels))
    return np.clip(picture, 0, 255).astype(np.uint8)


# --- PNG ---------------------------------------------------------------------------------------------------------

PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pack_row(samples, depth):
    """[width, samples] -> bytes."""
    flat = samples.reshape(-1)
    if depth == 16:
        return flat.astype(">u2").tobytes()
    if depth == 8:
        return flat.astype(np.uint8).tobytes()
    bits = "".join(format(int(v), f"0{depth}b") for v in flat)
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big") if bits else b""


def filter_row(kind, row, above, pixel_bytes):
    left = bytes(pixel_bytes) + row[:-pixel_bytes] if len(row) > pixel_bytes else bytes(len(row))
    above_left = bytes(pixel_bytes) + above[:-pixel_bytes] if len(row) > pixel_bytes else bytes(len(row))

    def estimate(a, b, c):
        if kind == 0:
            return 0
        if kind == 1:
            return a
        if kind == 2:
            return b
        if kind == 3:
            return (a + b) // 2
        p = a + b - c
        return min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]

    return bytes((v - estimate(a, b, c)) % 256 for v, a, b, c in zip(row, left, above, above_left))


def png(samples, depth, color, *, interlaced=False, palette=None, trns=None, before=b"", after=b"", pieces=1, level=9):
    """samples: [height, width, samples of a pixel]. All five filters take turns."""
    height, width, count = samples.shape
    assert count == PNG_SAMPLES[color]
    pixel_bytes = max(1, count * depth // 8)
    raw = b""
    for left, top, step_x, step_y in ADAM7 if interlaced else [(0, 0, 1, 1)]:
        part = samples[top::step_y, left::step_x]
        if part.size == 0:
            continue
        above = None
        for y, line in enumerate(part):
            row = pack_row(line, depth)
            kind = y % 5
            raw += bytes([kind]) + filter_row(kind, row, above or bytes(len(row)), pixel_bytes)
            above = row
    body = zlib.compress(raw, level)
    ihdr = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, int(interlaced))
    out = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", ihdr) + before
    if palette is not None:
        out += png_chunk(b"PLTE", bytes(palette))
    if trns is not None:
        out += png_chunk(b"tRNS", bytes(trns))
    size = -(-len(body) // pieces)
    for i in range(pieces):
        out += png_chunk(b"IDAT", body[i * size : (i + 1) * size])
    return out + after + png_chunk(b"IEND", b"")


def random_samples(width, height, color, depth):
    return RNG.integers(0, 2**depth, (height, width, PNG_SAMPLES[color]))


def key_of_raw_samples(samples, key, rgb):
    """White where all samples equal the key, else the colour."""
    clear = (samples == np.array(key)).all(axis=-1)
    return np.where(clear[..., None], np.uint8(255), rgb)


def png_pictures():
    for color, depth in [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (4, 8), (4, 16), (6, 8), (6, 16)]:
        kind = {0: "grey", 2: "rgb", 4: "grey_alpha", 6: "rgba"}[color]
        yield f"{kind}{depth}.png", png(random_samples(23, 17, color, depth), depth, color)
        yield f"{kind}{depth}_interlaced.png", png(random_samples(19, 13, color, depth), depth, color, interlaced=True)
    # 16-bit greys around the point where Pillow cuts them
    yield "grey16_dark.png", png(RNG.integers(0, 600, (11, 21, 1)), 16, 0)
    for depth in (1, 2, 4, 8):
        entries = 2**depth
        palette = RNG.integers(0, 256, entries * 3).tolist()
        samples = random_samples(21, 15, 3, depth)
        yield f"palette{depth}.png", png(samples, depth, 3, palette=palette)
        yield f"palette{depth}_interlaced.png", png(samples, depth, 3, palette=palette, interlaced=True)
        alphas = RNG.integers(0, 256, max(1, entries - 1)).tolist()
        yield f"palette{depth}_trns.png", png(samples, depth, 3, palette=palette, trns=alphas)
    yield "palette8_one_clear.png", png(
        random_samples(9, 9, 3, 2), 8, 3, palette=RNG.integers(0, 256, 12).tolist(), trns=[255, 0]
    )
    # indices beyond the palette
    yield "palette8_short.png", png(random_samples(17, 9, 3, 8), 8, 3, palette=RNG.integers(0, 256, 30).tolist())
    few = RNG.integers(0, 2, (13, 11, 1)) * 200
    yield "grey8_key.png", png(few, 8, 0, trns=[0, 200])
    yield "grey1_key.png", png(random_samples(13, 11, 0, 1), 1, 0, trns=[0, 1])
    some = RNG.integers(0, 2, (13, 11, 3)) * 77
    yield "rgb8_key.png", png(some, 8, 2, trns=[0, 77, 0, 0, 0, 77])
    # one pixel, one row, one column: passes without pixels
    for width, height in [(1, 1), (1, 9), (9, 1), (3, 2), (5, 5)]:
        yield f"tiny_{width}x{height}.png", png(random_samples(width, height, 2, 8), 8, 2, interlaced=True)
    yield "many_idat.png", png(random_samples(31, 9, 6, 8), 8, 6, pieces=7)
    yield "stored_blocks.png", png(random_samples(31, 9, 2, 8), 8, 2, level=0)
    flat = np.zeros((40, 60, 3), dtype=np.uint8) + np.uint8(90)
    yield "fixed_codes.png", fixed_codes(flat)
    rotated = photo(23, 14, 4)
    for orientation in (3, 5, 6, 8):
        exif = png_chunk(b"eXIf", tiff(orientation, big_endian=orientation % 2 == 0))
        yield f"orientation{orientation}.png", png(rotated, 8, 6, before=exif)
    yield "orientation_after.png", png(rotated, 8, 6, after=png_chunk(b"eXIf", tiff(7)))
    profile = b"\nexif\n%8d\n" % (6 + len(tiff(6))) + (b"Exif\0\0" + tiff(6)).hex().encode() + b"\n"
    text = b"Raw profile type exif\0\0" + zlib.compress(profile)
    yield "orientation_profile.png", png(rotated, 8, 6, before=png_chunk(b"zTXt", text))
    text = b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(8)
    yield "orientation_xmp.png", png(rotated, 8, 6, before=png_chunk(b"iTXt", text))
    frames = [Image.fromarray(photo(20, 12)) for _ in range(3)]
    stream = io.BytesIO()
    frames[0].save(stream, "PNG", save_all=True, append_images=frames[1:])
    yield "animated.png", stream.getvalue()


def fixed_codes(picture):
    """A stream of fixed Huffman codes, which small encoders write."""
    whole = png(picture, 8, 2)
    compressor = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_FIXED)
    rows = b"".join(b"\0" + row.tobytes() for row in picture)
    body = compressor.compress(rows) + compressor.flush()
    return whole[:33] + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def png_keys():
    """(name, file, rgb over white) of colour keys that Pillow compares after bringing samples to 8 bits."""
    for depth in (2, 4, 16):
        samples = random_samples(15, 13, 0, depth)
        key = int(samples[3, 4, 0])
        file = png(samples, depth, 0, trns=struct.pack(">H", key))
        rgb = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
        yield f"grey{depth}_key.png", file, key_of_raw_samples(samples, [key], rgb)
    samples = RNG.integers(0, 2, (13, 15, 3)) * 0x1200 + 0x34
    key = samples[5, 5].tolist()
    file = png(samples, 16, 2, trns=struct.pack(">HHH", *key))
    rgb = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
    yield "rgb16_key.png", file, key_of_raw_samples(samples, key, rgb)


# --- metadata ----------------------------------------------------------------------------------------------------


def tiff(orientation, big_endian=True, kind=3, before=()):
    """A TIFF block with one directory. before: entries (tag, type, count, value) that come first."""
    order = ">" if big_endian else "<"
    entries = [*before, (0x0112, kind, 1, orientation)]
    out = (b"MM" if big_endian else b"II") + struct.pack(order + "HI", 42, 8) + struct.pack(order + "H", len(entries))
    for tag, type_, count, value in entries:
        out += struct.pack(order + "HHI", tag, type_, count)
        out += struct.pack(order + "HH", value, 0) if type_ == 3 else struct.pack(order + "I", value)
    return out + bytes(4)


def xmp(orientation, element=False):
    inside = f"><tiff:Orientation>{orientation}</tiff:Orientation" if element else f' tiff:Orientation="{orientation}"'
    return f'<x:xmpmeta><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/"{inside}/></x:xmpmeta>'.encode()


# --- JPEG --------------------------------------------------------------------------------------------------------


def jpeg(picture, mode="RGB", **options):
    stream = io.BytesIO()
    Image.fromarray(picture, mode).save(stream, "JPEG", **{"quality": 88, **options})
    return stream.getvalue()


def jpeg_segment(marker, data):
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def insert_segments(file, *segments):
    return file[:2] + b"".join(segments) + file[2:]


def jpeg_pictures():
    color = photo(61, 43)
    for name, options in {
        "444": {"subsampling": "4:4:4"},
        "422": {"subsampling": "4:2:2"},
        "420": {"subsampling": "4:2:0"},
        "420_progressive": {"subsampling": "4:2:0", "progressive": True},
        "444_progressive": {"subsampling": "4:4:4", "progressive": True},
        "420_restarts": {"subsampling": "4:2:0", "restart_marker_blocks": 2},
        "420_low": {"subsampling": "4:2:0", "quality": 12, "optimize": True},
        "rgb": {"keep_rgb": True},
    }.items():
        yield f"{name}.jpg", jpeg(color, **options)
    yield "1x1.jpg", jpeg(photo(1, 1))
    yield "17x1.jpg", jpeg(photo(17, 1))
    yield "1x17.jpg", jpeg(photo(1, 17), subsampling="4:2:0")
    yield "grey.jpg", jpeg(photo(37, 29, 1)[..., 0], "L")
    yield "grey_progressive.jpg", jpeg(photo(37, 29, 1)[..., 0], "L", progressive=True)
    cmyk = jpeg(photo(33, 25, 4), "CMYK", subsampling="4:4:4")
    yield "cmyk.jpg", cmyk
    adobe = cmyk.index(b"\xff\xee\x00\x0eAdobe")
    yield "cmyk_no_adobe.jpg", cmyk[:adobe] + cmyk[adobe + 16 :]
    assert cmyk[adobe + 15] == 0
    yield "ycck.jpg", cmyk[: adobe + 15] + b"\x02" + cmyk[adobe + 16 :]
    yield "cmyk_420_progressive.jpg", jpeg(photo(33, 25, 4), "CMYK", subsampling="4:2:0", progressive=True)
    small = jpeg(photo(29, 18), subsampling="4:2:0")
    exif = b"Exif\0\0"
    for orientation in range(1, 9):
        block = exif + tiff(orientation, big_endian=orientation % 2 == 1)
        yield f"orientation{orientation}.jpg", insert_segments(small, jpeg_segment(0xE1, block))
    yield "orientation_long.jpg", insert_segments(small, jpeg_segment(0xE1, exif + tiff(6, False, kind=4)))
    yield "orientation_byte.jpg", insert_segments(small, jpeg_segment(0xE1, exif + tiff(0x06000000, kind=1)))
    yield "orientation_0.jpg", insert_segments(small, jpeg_segment(0xE1, exif + tiff(0)))
    yield "orientation_9.jpg", insert_segments(small, jpeg_segment(0xE1, exif + tiff(9)))
    # a text that lies beyond the end: Pillow stops at a cut one, and passes over one larger than everything
    cut = tiff(6, before=[(0x010F, 2, 20, 30)])
    yield "orientation_behind_cut.jpg", insert_segments(small, jpeg_segment(0xE1, exif + cut))
    huge = tiff(6, before=[(0x010F, 2, 5000, 30)])
    yield "orientation_behind_huge.jpg", insert_segments(small, jpeg_segment(0xE1, exif + huge))
    whole = tiff(3)
    parts = [jpeg_segment(0xE1, exif + whole[:15]), jpeg_segment(0xE1, exif + whole[15:])]
    yield "orientation_two_segments.jpg", insert_segments(small, *parts)
    packet = jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp(8))
    yield "orientation_xmp.jpg", insert_segments(small, packet)
    packet = jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp(5, element=True))
    yield "orientation_xmp_element.jpg", insert_segments(small, packet)
    both = [jpeg_segment(0xE1, exif + tiff(2)), packet]
    yield "orientation_exif_over_xmp.jpg", insert_segments(small, *both)
    # fill bytes and a comment between segments
    yield "fill_bytes.jpg", insert_segments(small, b"\xff\xff\xff", jpeg_segment(0xFE, b"a comment"))


# --- WebP --------------------------------------------------------------------------------------------------------


def webp(picture, mode, **options):
    stream = io.BytesIO()
    Image.fromarray(picture, mode).save(stream, "WEBP", **options)
    return stream.getvalue()


def riff(chunks):
    body = b"WEBP" + b"".join(k + struct.pack("<I", len(d)) + d + bytes(len(d) % 2) for k, d in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def u24(value):
    return struct.pack("<I", value)[:3]


def webp_frame(file, left, top, width, height):
    """The chunks of a still file as an animation frame."""
    at = 12 if file[12:16] != b"VP8X" else 30
    return b"ANMF", u24(left // 2) + u24(top // 2) + u24(width - 1) + u24(height - 1) + u24(100) + b"\0" + file[at:]


def webp_pictures():
    yield "lossy.webp", webp(photo(45, 31), "RGB", quality=70)
    yield "lossless.webp", webp(photo(21, 17), "RGB", lossless=True)
    yield "lossy_alpha.webp", webp(photo(37, 27, 4), "RGBA", quality=70)
    yield "lossless_alpha.webp", webp(photo(21, 17, 4), "RGBA", lossless=True, exact=True)
    yield "lossy_1x1.webp", webp(photo(1, 1), "RGB")
    for orientation in (6, 4):
        exif = b"Exif\0\0" + tiff(orientation)
        yield f"orientation{orientation}.webp", webp(photo(27, 16), "RGB", quality=60, exif=exif)
    yield "orientation_xmp.webp", webp(photo(27, 16, 4), "RGBA", quality=60, xmp=xmp(7))
    frames = [Image.fromarray(photo(26, 18)) for _ in range(3)]
    stream = io.BytesIO()
    frames[0].save(stream, "WEBP", save_all=True, append_images=frames[1:], duration=50, quality=50)
    yield "animated.webp", stream.getvalue()
    for name, mode, flags in [("animated_offset", "RGB", 0x02), ("animated_offset_alpha", "RGBA", 0x12)]:
        frame = webp(photo(13, 9, len(mode)), mode, quality=60)
        extended = bytes([flags, 0, 0, 0]) + u24(30) + u24(19)
        animation = b"\xff\x80\x40\xff\0\0"
        chunks = [(b"VP8X", extended), (b"ANIM", animation), webp_frame(frame, 6, 4, 13, 9)]
        yield f"{name}.webp", riff(chunks)


# --- BMP ---------------------------------------------------------------------------------------------------------


def bmp(width, height, bits, rows, *, header=40, compression=0, palette=b"", masks=(), top_down=False, colors=0, gap=0):
    masks = b"".join(struct.pack("<I", m) for m in masks)
    if header == 12:
        info = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        signed = -height if top_down else height
        info = struct.pack("<IiiHHIIiiII", header, width, signed, 1, bits, compression, len(rows), 0, 0, colors, 0)
        if header > 40:
            info += masks
            info += bytes(header - len(info))
            masks = b""
    offset = 14 + len(info) + len(masks) + len(palette) + gap
    start = b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset)
    return start + info + masks + palette + bytes(gap) + rows


def bmp_rows(lines):
    """Rows padded to four bytes."""
    return b"".join(line + bytes(-len(line) % 4) for line in lines)


def bmp_palette(entries, size=4):
    colors = RNG.integers(0, 256, (entries, 3), dtype=np.uint8)
    return b"".join(c.tobytes() + bytes(size - 3) for c in colors)


def rle8(lines):
    """Runs, literals, ends of lines."""
    out = b""
    for line in lines:
        at = 0
        while at < len(line):
            count = 1
            while at + count < len(line) and line[at + count] == line[at] and count < 255:
                count += 1
            if count == 1 and len(line) - at >= 3:
                out += bytes([0, 3]) + bytes(line[at : at + 3]) + b"\0"
                at += 3
            else:
                out += bytes([count, line[at]])
                at += count
        out += b"\0\0"
    return out + b"\0\1"


def bmp_pictures():
    for bits in (1, 4, 8):
        for width in (13, 32):
            indices = RNG.integers(0, 2**bits, (9, width))
            rows = bmp_rows(pack_row(line, bits) for line in indices)
            yield f"palette{bits}_{width}.bmp", bmp(width, 9, bits, rows, palette=bmp_palette(2**bits))
    indices = RNG.integers(0, 16, (9, 13))
    rows = bmp_rows(pack_row(line, 4) for line in indices)
    yield "os2_palette4.bmp", bmp(13, 9, 4, rows, header=12, palette=bmp_palette(16, 3))
    yield "palette4_top_down.bmp", bmp(13, 9, 4, rows, palette=bmp_palette(16), top_down=True)
    few = RNG.integers(0, 40, (7, 18))
    rows = bmp_rows(pack_row(line, 8) for line in few)
    yield "palette8_few.bmp", bmp(18, 7, 8, rows, palette=bmp_palette(30), colors=30)
    ramp = b"".join(bytes([i, i, i, 0]) for i in range(256))
    rows = bmp_rows(pack_row(line, 8) for line in RNG.integers(0, 256, (7, 18)))
    yield "grey8.bmp", bmp(18, 7, 8, rows, palette=ramp)
    yield "grey8_short.bmp", bmp(18, 7, 8, rows, palette=ramp[:400], colors=100)
    rows = bmp_rows(pack_row(line, 1) for line in RNG.integers(0, 2, (7, 18)))
    yield "bilevel.bmp", bmp(18, 7, 1, rows, palette=b"\0\0\0\0\xff\xff\xff\0")
    yield "bilevel_inverted.bmp", bmp(18, 7, 1, rows, palette=b"\xff\xff\xff\0\0\0\0\0")
    picture = photo(15, 11)
    rows = bmp_rows(line[:, ::-1].tobytes() for line in picture)
    yield "rgb24.bmp", bmp(15, 11, 24, rows)
    yield "rgb24_top_down.bmp", bmp(15, 11, 24, rows, top_down=True)
    yield "rgb24_os2.bmp", bmp(15, 11, 24, rows, header=12)
    yield "rgb24_gap.bmp", bmp(15, 11, 24, rows, gap=10)
    yield "rgb24_v5.bmp", bmp(15, 11, 24, rows, header=124)
    words = RNG.integers(0, 2**16, (11, 15)).astype("<u2")
    rows = bmp_rows(line.tobytes() for line in words)
    yield "rgb16.bmp", bmp(15, 11, 16, rows)
    yield "rgb16_555.bmp", bmp(15, 11, 16, rows, compression=3, masks=(0x7C00, 0x3E0, 0x1F))
    yield "rgb16_565.bmp", bmp(15, 11, 16, rows, compression=3, masks=(0xF800, 0x7E0, 0x1F))
    yield "rgb16_565_v4.bmp", bmp(15, 11, 16, rows, header=108, compression=3, masks=(0xF800, 0x7E0, 0x1F, 0))
    rows = photo(15, 11, 4).tobytes()
    yield "rgb32.bmp", bmp(15, 11, 32, rows)
    all_masks = {
        "bgrx": (0xFF0000, 0xFF00, 0xFF, 0),
        "xbgr": (0xFF000000, 0xFF0000, 0xFF00, 0),
        "bgxr": (0xFF000000, 0xFF00, 0xFF, 0),
        "abgr": (0xFF000000, 0xFF0000, 0xFF00, 0xFF),
        "rgba": (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
        "bgra": (0xFF0000, 0xFF00, 0xFF, 0xFF000000),
        "bgar": (0xFF000000, 0xFF00, 0xFF, 0xFF0000),
        "none": (0, 0, 0, 0),
    }
    for name, masks in all_masks.items():
        yield f"rgb32_{name}.bmp", bmp(15, 11, 32, rows, header=56, compression=3, masks=masks)
    yield "rgb32_masks_after.bmp", bmp(15, 11, 32, rows, compression=3, masks=all_masks["bgrx"])
    lines = np.repeat(RNG.integers(0, 6, (9, 8)), 3, axis=1)
    lines[4] = RNG.integers(0, 256, 24)
    yield "rle8.bmp", bmp(24, 9, 8, rle8(lines.tolist()), compression=1, palette=bmp_palette(256))
    # runs of two colours, a jump, literals of an odd count, a run that leaves its row
    code = b"\x05\x12\x00\x00" + b"\x00\x02\x03\x00" + b"\x00\x05\x12\x34\x50\x00" + b"\x00\x00"
    code += b"\x0b\x7a\x00\x00" * 2 + b"\x20\x9c\x00\x00" + b"\x00\x02\x0b\x03" + b"\x00\x01"
    yield "rle4.bmp", bmp(11, 8, 4, code, compression=2, palette=bmp_palette(16))


# --- GIF ---------------------------------------------------------------------------------------------------------


def gif(picture, **options):
    stream = io.BytesIO()
    picture.save(stream, "GIF", **options)
    return stream.getvalue()


def indexed(width, height, colors):
    image = Image.fromarray(RNG.integers(0, colors, (height, width)).astype(np.uint8), "P")
    image.putpalette(RNG.integers(0, 256, colors * 3).tolist())
    return image


def place(file, left, top, screen):
    """Moves the first frame and sets the size of the screen."""
    data = bytearray(file)
    data[6:10] = struct.pack("<HH", *screen)
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    while data[at] == 0x21:
        at += 2
        while data[at]:
            at += 1 + data[at]
        at += 1
    assert data[at] == 0x2C
    data[at + 1 : at + 5] = struct.pack("<HH", left, top)
    return bytes(data)


def without_palette(file):
    """Indices become greys."""
    size = 3 << (file[10] & 7) + 1
    return file[:10] + bytes([file[10] & 0x7F]) + file[11:13] + file[13 + size :]


def local_palette(file, palette):
    """Gives the first frame a palette of its own."""
    data = bytearray(file)
    at = data.index(0x2C, 13 + (3 << (data[10] & 7) + 1))
    bits = (len(palette) // 3).bit_length() - 1
    data[at + 9] |= 0x80 | (bits - 1)
    return bytes(data[: at + 10]) + bytes(palette) + bytes(data[at + 10 :])


def gif_pictures():
    for colors in (2, 7, 64, 256):
        yield f"colors{colors}.gif", gif(indexed(31, 21, colors), interlace=0)
        yield f"colors{colors}_interlaced.gif", gif(indexed(31, 21, colors), interlace=1)
    for height in (1, 2, 3, 5, 8):
        yield f"interlaced_{height}.gif", gif(indexed(5, height, 16), interlace=1)
    yield "grey.gif", gif(Image.fromarray(photo(23, 19, 1)[..., 0], "L"))
    clear = indexed(23, 19, 16)
    yield "transparent.gif", gif(clear, transparency=5)
    smooth = Image.fromarray((np.arange(60 * 40) // 37 % 256).reshape(40, 60).astype(np.uint8), "P")
    smooth.putpalette(RNG.integers(0, 256, 768).tolist())
    yield "long_strings.gif", gif(smooth)
    noise = indexed(110, 90, 256)
    yield "full_table.gif", gif(noise)
    yield "offset.gif", place(gif(indexed(13, 9, 16)), 5, 3, (24, 17))
    yield "offset_transparent.gif", place(gif(indexed(13, 9, 16), transparency=3), 5, 3, (24, 17))
    yield "larger_than_screen.gif", place(gif(indexed(13, 9, 16)), 2, 4, (10, 20))
    yield "no_palette.gif", without_palette(gif(indexed(13, 9, 256)))
    yield "no_palette_transparent.gif", without_palette(gif(indexed(13, 9, 256), transparency=9))
    local = RNG.integers(0, 256, 48).tolist()
    yield "local_palette.gif", local_palette(gif(indexed(13, 9, 16), interlace=0), local)
    ramp = [i for i in range(16) for _ in range(3)]
    yield "local_ramp.gif", local_palette(gif(indexed(13, 9, 16), interlace=0), ramp)
    frames = [indexed(17, 13, 32) for _ in range(3)]
    yield "animated.gif", gif(frames[0], save_all=True, append_images=frames[1:], duration=40, loop=0, disposal=2)


# --- goldens -----------------------------------------------------------------------------------------------------


def over_white(image):
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))


def has_alpha(image):
    return image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info


def alpha_pairs(background):
    value, alpha = np.mgrid[0:256, 0:256].astype(np.uint8)
    rgba = Image.fromarray(np.stack([value, value, value, alpha], axis=-1), "RGBA")
    under = Image.new("RGBA", rgba.size, (*background, 255))
    return np.asarray(Image.alpha_composite(under, rgba).convert("RGB"))


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    tensors = {"alpha|white": alpha_pairs((255, 255, 255)), "alpha|color": alpha_pairs((0, 37, 200))}
    metadata = {"pillow": PIL.__version__}
    groups = [png_pictures(), jpeg_pictures(), webp_pictures(), bmp_pictures(), gif_pictures()]
    files = [(name, file, None) for group in groups for name, file in group] + list(png_keys())
    for name, file, white in files:
        assert name not in metadata, name
        (OUT / name).write_bytes(file)
        image = Image.open(io.BytesIO(file))
        image.load()
        orientation = image.getexif().get(0x0112, 1)
        orientation = orientation if orientation in range(1, 9) else 1
        format_name, transparent = image.format.lower(), has_alpha(image)
        metadata[name] = f"{format_name} {orientation} {int(transparent)}"
        tensors[f"{name}|rgb"] = np.asarray(image.convert("RGB"))
        upright = ImageOps.exif_transpose(image)
        if orientation != 1:
            tensors[f"{name}|upright"] = np.asarray(upright.convert("RGB"))
        if transparent:
            tensors[f"{name}|white"] = over_white(upright) if white is None else white
    tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    save_file(tensors, str(OUT / "goldens.safetensors"), metadata)
    total = sum(path.stat().st_size for path in OUT.iterdir())
    print(f"{len(files)} pictures, {total} bytes with goldens")


if __name__ == "__main__":
    main()
