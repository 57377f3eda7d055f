"""Ordinary pictures of every kind, for pixels.py: faces saved in many ways, and with cameras' metadata."""

import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageCms

from benchmarks.lib import lfw

EACH = 18
"""Pictures of each kind that is not made by ExifTool."""
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'/></x:xmpmeta>"

Kind = tuple[str, str, Callable[[Image.Image], bytes]]
"""Name, file suffix, and how a picture is saved."""


def pillow(form: str, mode: str = "RGB", **options: Any) -> Callable[[Image.Image], bytes]:
    """Saved by Pillow."""

    def save(picture: Image.Image) -> bytes:
        content = BytesIO()
        in_mode(picture, mode).save(content, form, **options)
        return content.getvalue()

    return save


def in_mode(picture: Image.Image, mode: str) -> Image.Image:
    """Converted; transparency is a ramp, so that a decoder that blends is seen."""
    if mode == "I;16":
        return Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    if mode not in ("RGBA", "LA", "PA"):
        return picture.convert(mode)
    ramp = np.linspace(0, 255, picture.width * picture.height).reshape(picture.height, picture.width)
    picture = picture.convert(mode[:-1])
    picture.putalpha(Image.fromarray(ramp.astype(np.uint8)))
    return picture


def opencv(suffix: str, *options: int, channels: int = 3, is_deep: bool = False) -> Callable[[Image.Image], bytes]:
    """Saved by OpenCV."""

    def save(picture: Image.Image) -> bytes:
        pixels = np.asarray(in_mode(picture, "RGBA" if channels == 4 else "RGB"))
        pixels = pixels.astype(np.uint16) * 257 if is_deep else pixels
        return cv2.imencode(suffix, pixels[..., [2, 1, 0, 3][:channels]], options)[1].tobytes()

    return save


def exif(orientation: int) -> Image.Exif:
    """As a camera's first directory, with some tags before and behind the orientation."""
    data = Image.Exif()
    data.update({0x010F: "Maker", 0x0110: "Model 1", 0x0112: orientation, 0x011A: 72.0, 0x0132: "2025:01:02 03:04:05"})
    return data


def animated(form: str, mode: str = "RGB", **options: Any) -> Callable[[Image.Image], bytes]:
    """Three frames, the picture first."""

    def save(picture: Image.Image) -> bytes:
        first = in_mode(picture, mode)
        others = [first.rotate(angle) for angle in (90, 180)]
        return pillow(form, mode, save_all=True, append_images=others, duration=100, **options)(picture)

    return save


def interlaced(picture: Image.Image) -> bytes:
    """An RGB PNG in Adam7's seven passes; neither Pillow nor OpenCV writes them."""
    pixels, passes = np.asarray(picture.convert("RGB")), []
    for left, top, across, down in (
        (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)
    ):  # fmt: skip
        part = pixels[top::down, left::across]
        passes.append(np.pad(part.reshape(len(part), -1), ((0, 0), (1, 0))).tobytes())  # filter 0 before each row
    header = struct.pack(">IIBBBBB", picture.width, picture.height, 8, 2, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"".join(passes))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*each) for each in chunks)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """With its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(*chunks: tuple[bytes, bytes], mode: str = "RGB") -> Callable[[Image.Image], bytes]:
    """With more chunks before the picture data."""

    def save(picture: Image.Image) -> bytes:
        content = pillow("PNG", mode)(picture)
        at = content.index(b"IDAT") - 4
        return content[:at] + b"".join(png_chunk(*each) for each in chunks) + content[at:]

    return save


def webp_with_prefix(orientation: int) -> Callable[[Image.Image], bytes]:
    """As libvips writes EXIF into WebP: with the prefix that JPEG's has."""

    def save(picture: Image.Image) -> bytes:
        content = pillow("WEBP", exif=exif(orientation))(picture)
        at = content.index(b"EXIF")
        data = b"Exif\0\0" + content[at + 8 : at + 8 + int.from_bytes(content[at + 4 : at + 8], "little")]
        data = content[12:at] + b"EXIF" + struct.pack("<I", len(data)) + data + bytes(len(data) & 1)
        return b"RIFF" + struct.pack("<I", 4 + len(data)) + b"WEBP" + data

    return save


def with_another(picture: Image.Image) -> bytes:
    """A JPEG and a smaller one behind its end, as phones append."""
    return pillow("JPEG")(picture) + pillow("JPEG")(picture.resize((64, 64)))


def by_program(*command: str) -> Callable[[Image.Image], bytes]:
    """Saved by libjpeg-turbo's programs from a PPM."""
    return lambda picture: subprocess.run(command, input=pillow("PPM")(picture), check=True, capture_output=True).stdout


def kinds() -> Iterator[Kind]:
    """Every way to save a picture."""
    jpegs: dict[str, dict[str, Any]] = {f"quality {quality}": {"quality": quality} for quality in (10, 50, 75, 95, 100)}
    jpegs |= {f"subsampling {name}": {"subsampling": name} for name in ("4:4:4", "4:2:2", "4:2:0")}
    jpegs |= {
        "optimized": {"optimize": True},
        "progressive": {"progressive": True},
        "JFIF density": {"dpi": (300, 300)},
    }
    jpegs |= {
        "restart markers": {"restart_marker_blocks": 3},
        "comment": {"comment": b"a comment"},
        "XMP": {"xmp": XMP},
    }
    jpegs |= {"ICC": {"icc_profile": PROFILE}, "ICC in parts": {"icc_profile": PROFILE * 200}}
    for name, options in jpegs.items():
        yield f"JPEG, {name}", "jpg", pillow("JPEG", **options)
    for mode in ("L", "CMYK"):
        yield f"JPEG {mode}", "jpg", pillow("JPEG", mode)
        yield f"JPEG {mode}, progressive", "jpg", pillow("JPEG", mode, progressive=True)
        yield f"JPEG {mode}, ICC and orientation 6", "jpg", pillow("JPEG", mode, icc_profile=PROFILE, exif=exif(6))
    for name in ("411", "440"):
        factor = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{name}")
        yield f"JPEG, sampling {name}", "jpg", opencv(".jpg", cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor)
    yield "JPEG of several pictures (MPF)", "jpg", animated("MPO")
    yield "JPEG, another behind its end", "jpg", with_another
    for name, option in {"RGB": "-rgb", "float DCT": "-dct float"}.items():
        yield f"JPEG, {name}", "jpg", by_program("cjpeg", *option.split())
    for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"):
        yield f"PNG {mode}", "png", pillow("PNG", mode)
    for mode, transparency in {"P": bytes(range(256)), "L": 128, "RGB": (1, 2, 3)}.items():
        yield f"PNG {mode}, tRNS", "png", pillow("PNG", mode, transparency=transparency)
    for channels in (3, 4):
        yield f"PNG of {channels} x 16 bits", "png", opencv(".png", channels=channels, is_deep=True)
    yield "PNG, interlaced", "png", interlaced
    yield "PNG, ICC", "png", pillow("PNG", icc_profile=PROFILE)
    yield "PNG, density", "png", pillow("PNG", dpi=(300, 300))
    yield "PNG, gamma", "png", png_with((b"gAMA", struct.pack(">I", 100_000)), (b"pHYs", bytes(9)))
    yield "PNG, texts", "png", png_with((b"tEXt", b"k\0t"), (b"zTXt", b"k\0\0" + zlib.compress(b"t" * 9000)))
    yield "PNG RGBA, background", "png", png_with((b"bKGD", bytes(6)), mode="RGBA")
    for mode, dispose in (("RGB", 0), ("RGB", 1), ("RGBA", 0), ("RGBA", 2), ("L", 0)):
        yield f"PNG {mode}, animated, dispose {dispose}", "png", animated("PNG", mode, disposal=dispose)
    yield "PNG RGB, animated, another default picture", "png", animated("PNG", default_image=True)
    for name, options in {"lossy": {}, "lossless": {"lossless": True}, "best": {"quality": 100, "method": 6}}.items():
        for mode in ("RGB", "RGBA"):
            yield f"WebP {mode}, {name}", "webp", pillow("WEBP", mode, **options)
            yield f"WebP {mode}, {name}, animated", "webp", animated("WEBP", mode, **options)
    yield "WebP, XMP and ICC", "webp", pillow("WEBP", xmp=XMP, icc_profile=PROFILE)
    for orientation in range(1, 9):
        for form in ("JPEG", "PNG", "WEBP"):
            yield f"{form}, orientation {orientation}", form.lower(), pillow(form, exif=exif(orientation))
        yield f"WebP, orientation {orientation}, EXIF prefix", "webp", webp_with_prefix(orientation)


def write_pictures(images: list[Image.Image], folder: Path, cameras: Path | None) -> dict[str, str]:
    """Write them all; gives the kind of each file's name."""
    made: dict[str, str] = {}
    for number, (kind, suffix, save) in enumerate(kinds()):
        for index in range(EACH):
            name = f"{number:03}-{index:02}.{suffix}"
            (folder / name).write_bytes(save(images[(number * EACH + index) % len(images)]))
            made[name] = kind
    for number, camera in enumerate(sorted(cameras.glob("*.jpg")) if cameras else []):
        name = f"camera-{camera.name}"
        (folder / name).write_bytes(camera.read_bytes())
        made[name] = "JPEG of a camera, as its maker wrote it"
        for suffix, form in (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP")):
            name = f"metadata-{number:03}.{suffix}"
            (folder / name).write_bytes(pillow(form)(images[number]))
            copy = ["exiftool", "-q", "-q", "-m", "-overwrite_original", "-TagsFromFile", camera, "-all:all", "-unsafe"]
            subprocess.run([*copy, folder / name], check=False, capture_output=True)  # some cameras' cannot be copied
            made[name] = f"{form}, a camera's metadata copied by ExifTool"
    for orientation in range(1, 9):
        for suffix, form in (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP")):
            names = [f"exiftool-{orientation}-{index}.{suffix}" for index in range(4)]
            for index, name in enumerate(names):
                (folder / name).write_bytes(pillow(form)(images[orientation * 4 + index]))
                made[name] = f"{form}, orientation {orientation}, thumbnail and XMP by ExifTool"
            thumbnail = folder / "thumbnail"
            thumbnail.write_bytes(pillow("JPEG")(images[0].resize((40, 40))))
            tags = [f"-Orientation#={orientation}", "-XMP:Title=a title", "-Make=Maker", "-Comment=a comment"]
            tags.append(f"-ThumbnailImage<={thumbnail}")
            call = ["exiftool", "-q", "-q", "-m", "-overwrite_original", *tags]
            subprocess.run([*call, *(folder / name for name in names)], check=True, capture_output=True)
            thumbnail.unlink()
    return made


def faces(folder: Path) -> list[Image.Image]:
    """One picture of each of 500 people."""
    names = {name.split("/")[0]: name for name in sorted(lfw.read_labels(folder), reverse=True)}
    pictures = lfw.read_pictures(folder, sorted(names.values())[:500])
    return [Image.open(BytesIO(content)).convert("RGB") for content in pictures.values()]
