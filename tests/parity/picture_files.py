"""Picture files of every kind that oriel decodes, and what Pillow makes of them."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from synthetic_pictures import picture

_ORIENTATION = 0x0112
# Pillow's advice on palettes with alpha; transformers converts them the way it advises against, and so does oriel.
warnings.filterwarnings("ignore", message="Palette images with Transparency")


@dataclass(frozen=True)
class PictureFile:
    path: Path
    may_be_refused: bool = False  # a kind that oriel may name and refuse instead of decoding it

    @property
    def name(self) -> str:
        return self.path.name

    def as_transformers_gets_it(self, *, exif="apply", alpha="drop") -> Image.Image:
        """The picture as Pillow opens it: upright (or as stored), over white (or without its alpha), RGB."""
        with Image.open(self.path) as opened:
            opened.load()
            image = ImageOps.exif_transpose(opened) if exif == "apply" else opened.copy()
        if alpha == "white" and (image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info):
            rgba = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba).convert("RGB")
        return image.convert("RGB")

    @property
    def has_orientation(self) -> bool:
        with Image.open(self.path) as image:
            return image.getexif().get(_ORIENTATION, 1) != 1

    @property
    def has_alpha(self) -> bool:
        with Image.open(self.path) as image:
            return image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info


def _png16_rgb(pixels: np.ndarray) -> bytes:
    """PNG with 16 bits a channel, which Pillow reads (by the high byte) and cannot write."""
    height, width, _ = pixels.shape
    wide = pixels.astype(np.uint16) * 256 + pixels[::-1].astype(np.uint16)  # low bytes that would show if they were used
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in wide)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _with_orientation(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    return exif


class _Writer:
    """Draws a picture of a new size for every file."""

    def __init__(self, directory: Path, draw: np.random.Generator):
        self.directory, self.draw, self.files = directory, draw, []
        self._seed = int(draw.integers(2**31))

    def rgb(self) -> Image.Image:
        self._seed += 1
        height, width = (int(side) for side in np.exp(self.draw.uniform(np.log(9), np.log(190), 2)))
        return Image.fromarray(picture(height, width, self._seed))

    def alpha(self, image: Image.Image) -> Image.Image:
        self._seed += 1
        channel = picture(image.height, image.width, self._seed)[:, :, 0]
        return Image.fromarray(np.where(channel < 60, 0, np.where(channel > 220, 255, channel)).astype(np.uint8))

    def add(self, name: str, image: Image.Image | bytes, *, may_be_refused=False, **options) -> None:
        path = self.directory / name
        if isinstance(image, bytes):
            path.write_bytes(image)
        else:
            image.save(path, **options)
        self.files.append(PictureFile(path, may_be_refused))


def write_pictures(directory: Path, draw: np.random.Generator) -> list[PictureFile]:
    writer = _Writer(directory, draw)
    _write_jpegs(writer)
    _write_pngs(writer)
    _write_webps(writer)
    _write_bmps_and_gifs(writer)
    return writer.files


def _write_jpegs(w: _Writer) -> None:
    w.add("baseline_420.jpg", w.rgb(), quality=85, subsampling="4:2:0")
    w.add("baseline_444.jpg", w.rgb(), quality=92, subsampling="4:4:4")
    w.add("baseline_422.jpg", w.rgb(), quality=70, subsampling="4:2:2")
    w.add("progressive.jpg", w.rgb(), quality=80, progressive=True)
    w.add("grey.jpg", w.rgb().convert("L"), quality=80)
    w.add("cmyk.jpg", w.rgb().convert("CMYK"), quality=90, may_be_refused=True)
    for orientation in range(1, 9):
        w.add(f"orientation_{orientation}.jpg", w.rgb(), quality=85, exif=_with_orientation(orientation))


def _write_pngs(w: _Writer) -> None:
    w.add("rgb.png", w.rgb())
    w.add("grey.png", w.rgb().convert("L"))
    image = w.rgb()
    image.putalpha(w.alpha(image))
    w.add("rgba.png", image)
    grey = w.rgb().convert("L")
    w.add("grey_alpha.png", Image.merge("LA", (grey, w.alpha(grey))))
    w.add("palette.png", w.rgb().quantize(40))
    w.add("palette_one_clear_entry.png", w.rgb().quantize(20), transparency=3)
    w.add("palette_alpha_table.png", w.rgb().quantize(16), transparency=bytes(range(0, 256, 16)))
    w.add("grey_colour_key.png", w.rgb().convert("L").quantize(8).convert("L"), transparency=0)
    image = w.rgb()
    w.add("rgb_colour_key.png", image, transparency=image.getpixel((0, 0)))
    w.add("bits_1.png", w.rgb().convert("1"))
    deep = np.asarray(w.rgb().convert("L")).astype(np.uint16) * 3
    w.add("grey_16.png", Image.fromarray(deep))
    w.add("rgb_16.png", _png16_rgb(np.asarray(w.rgb())), may_be_refused=True)
    w.add("orientation_6.png", w.rgb(), exif=_with_orientation(6))


def _write_webps(w: _Writer) -> None:
    w.add("lossy.webp", w.rgb(), quality=75)
    w.add("lossless.webp", w.rgb(), lossless=True)
    image = w.rgb()
    image.putalpha(w.alpha(image))
    w.add("alpha.webp", image, quality=80)
    image = w.rgb()
    image.putalpha(w.alpha(image))
    w.add("alpha_lossless.webp", image, lossless=True, exact=True)
    w.add("orientation_8.webp", w.rgb(), quality=75, exif=_with_orientation(8))


def _write_bmps_and_gifs(w: _Writer) -> None:
    w.add("rgb.bmp", w.rgb())
    w.add("grey.bmp", w.rgb().convert("L"))
    w.add("palette.bmp", w.rgb().quantize(50))
    w.add("bits_1.bmp", w.rgb().convert("1"))
    w.add("still.gif", w.rgb().quantize(64))
    w.add("clear_index.gif", w.rgb().quantize(32), transparency=5)
    first = w.rgb()
    others = [Image.fromarray(picture(first.height, first.width, i)).quantize(32) for i in range(2)]
    w.add("animated.gif", first.quantize(32), save_all=True, append_images=others, duration=40)


def truncated(source: Path, target: Path, share: float) -> Path:
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def encoded_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
