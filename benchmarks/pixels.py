"""Does another version of `image/` give the same pixels? About 2,000 ordinary pictures, decoded by two source trees.

    git worktree add ../before COMMIT
    python benchmarks/pixels.py --before ../before --faces LFW [--cameras FOLDER]

Pictures of LFW's `images.tar` are saved again in many ways by Pillow, OpenCV and cjpeg (Debian's libjpeg-turbo-progs),
and given cameras' metadata by ExifTool (libimage-exiftool-perl, whose source package has files of real cameras with
maker notes for `--cameras`: t/images). The result names every picture whose pixels are not equal to the byte, and how
far each tree's are from Pillow's upright picture: that says which of the two is wrong.
Prints the result as JSON; `--output` also writes it to a file. Progress goes to stderr.
"""

import argparse
import json
import os
import struct
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageOps

import machine
from arcface_api.errors import RequestError
from arcface_api.image import ImageLimits, decode

EACH = 18
"""Pictures of each kind that is not made by ExifTool."""
MAX_PIXELS = 50_000_000
DIFFERS_FROM = 12
"""Mean absolute difference to Pillow's picture, in levels, beyond which a tree's is called wrong.

Pillow turns CMYK to RGB by other rules; pictures that are turned, or other ones, differ by more.
"""
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'/></x:xmpmeta>"

Kind = tuple[str, str, Callable[[Image.Image], bytes]]
"""Name, file suffix, and how a picture is saved."""


# ── pictures ───────────────────────────────────────────────────────────────────────────────────────────────────────


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
    for name, option in {"arithmetic": "-arithmetic", "RGB": "-rgb", "float DCT": "-dct float"}.items():
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


# ── decoding ───────────────────────────────────────────────────────────────────────────────────────────────────────


def decode_each(folder: Path, target: Path) -> None:
    """Decode the files whose names come from stdin with the tree that PYTHONPATH names; a line for each on stdout."""
    for line in sys.stdin:
        name = line.strip()
        try:
            decoded = decode((folder / name).read_bytes(), ImageLimits(MAX_PIXELS))
            np.save(target / f"{name}.npy", getattr(decoded, "image", decoded))
            outcome = "decoded"
        except RequestError as error:
            outcome = type(error).__name__
        print(json.dumps([name, outcome]), flush=True)


def decoded_by(tree: Path, folder: Path, names: list[str], target: Path) -> dict[str, str]:
    """Outcome of each name; decoding goes on in another process where one dies."""
    outcomes: dict[str, str] = {}
    environment = os.environ | {"PYTHONPATH": f"{tree / 'src'}:{Path(__file__).parent}"}
    while rest := [name for name in names if name not in outcomes]:
        command = [sys.executable, __file__, "--decode", folder, target]
        child = subprocess.run(
            command, input="\n".join(rest), env=environment, check=False, capture_output=True, text=True
        )
        outcomes |= dict(json.loads(line) for line in child.stdout.splitlines())
        if child.returncode < 0:
            name = next(name for name in rest if name not in outcomes)
            outcomes[name] = "the process died"
        elif child.returncode:
            raise SystemExit(child.stderr)
    return outcomes


def difference(pixels: Path, content: bytes) -> float | None:
    """Mean absolute difference to Pillow's upright picture, in levels; None where one is missing or sizes differ."""
    try:
        picture = Image.open(BytesIO(content))
        picture = ImageOps.exif_transpose(picture)
        mine = np.load(pixels)
    except (OSError, SyntaxError):
        return None
    wanted = np.asarray(picture.convert("RGB")).astype(int)
    return round(float(np.abs(mine - wanted).mean()), 2) if wanted.shape == mine.shape else None


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="the other source tree")
    parser.add_argument("--faces", type=Path, help="folder that has LFW's images.tar")
    parser.add_argument("--cameras", type=Path, help="folder of cameras' JPEG files")
    parser.add_argument("--output", type=Path, help="write the result as JSON to this file, too")
    parser.add_argument("--decode", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.decode:
        decode_each(*options.decode)
        return
    here = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as scratch:
        folder, before, after = (Path(scratch) / name for name in ("pictures", "before", "after"))
        for each in (folder, before, after):
            each.mkdir()
        made = write_pictures(faces(options.faces), folder, options.cameras)
        print(f"{len(made)} pictures of {len(set(made.values()))} kinds", file=sys.stderr)
        outcomes = {
            target: decoded_by(tree, folder, list(made), target)
            for tree, target in ((options.before, before), (here, after))
        }
        rows = []
        for name, kind in made.items():
            files = [target / f"{name}.npy" for target in (before, after)]
            said = [outcomes[target][name] for target in (before, after)]
            if said[0] == said[1] and (said[0] != "decoded" or files[0].read_bytes() == files[1].read_bytes()):
                continue
            content = (folder / name).read_bytes()
            to_pillow = [difference(file, content) if file.exists() else None for file in files]
            rows.append({"kind": kind, "name": name, "outcomes": said, "difference_to_pillow": to_pillow})
            rows[-1]["wrong"] = [who for who, far in zip(("before", "after"), to_pillow, strict=True) if is_wrong(far)]
    differing = Counter(row["kind"] for row in rows)
    result = {
        "benchmark": "pixels",
        "pictures": len(made),
        "kinds": {
            kind: {"pictures": count, "differing": differing[kind]} for kind, count in Counter(made.values()).items()
        },
        "outcomes": {target.name: dict(Counter(outcomes[target].values())) for target in (before, after)},
        "equal": len(made) - len(rows),
        "differing": rows,
        "before": revision(options.before),
        "machine": machine.describe(),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


def is_wrong(to_pillow: float | None) -> bool:
    """Whether a tree's picture is missing, or another one than Pillow's."""
    return to_pillow is None or to_pillow > DIFFERS_FROM


def revision(tree: Path) -> str:
    """The commit of the other tree."""
    return subprocess.run(
        ["git", "-C", tree, "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()


def faces(folder: Path) -> list[Image.Image]:
    """The first of 500 people."""
    found: dict[str, Image.Image] = {}
    with tarfile.open(folder / "images.tar") as images:
        for member in images:
            person = member.name.split("/")[0]
            file = images.extractfile(member) if person not in found and member.name.endswith(".jpg") else None
            if file is not None:
                found[person] = Image.open(BytesIO(file.read())).convert("RGB")
            if len(found) == 500:
                break
    return list(found.values())


if __name__ == "__main__":
    main()
