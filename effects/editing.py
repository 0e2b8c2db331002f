"""Decode a picture, apply operations to it, encode it again, all within `editing_process`."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Final, NamedTuple

import PIL.WebPImagePlugin  # noqa: F401 (or the first WebP has Pillow import forty others, for 40 ms)
from PIL import Image, ImageDraw, ImageFont, ImageOps

from effects.pictures import ImageError, ImageTooLarge, NotAnImage, Operation

# Pixels, by format or mode, so that the worst order fits into editing_process.MAX_MEMORY: libwebp
# holds a picture four times while it reads it and up to eleven times while it writes a transparent
# one, libjpeg a progressive CMYK four times; to choose 256 colours takes it three and a half times.
MAX_PIXELS: Final[Mapping[str, int]] = {
    "JPEG": 16_000_000,
    "CMYK": 10_000_000,
    "PNG": 12_000_000,
    "GIF": 12_000_000,
    "WEBP": 4_000_000,
}
MAX_SOURCE_SIDE: Final = 16_384  # pixels; libpng and libjpeg hold several lines
MAX_RESULT: Final = 32 * 1024 * 1024  # bytes
MAX_SIDE: Final = 1024  # pixels, after resize
WATERMARK: Final = "processed"
OPACITY: Final = 160  # of 255

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF")

# How Pillow writes each format, and how `compress` has it written.
ENCODING: Final[Mapping[str, Mapping[str, object]]] = {
    "JPEG": {"quality": 90},
    "WEBP": {"quality": 90},
    "PNG": {},
    "GIF": {},
}
SMALLER: Final[Mapping[str, Mapping[str, object]]] = {
    "JPEG": {"quality": 70, "optimize": True, "progressive": True},
    "WEBP": {"quality": 70},
    "PNG": {"optimize": True},
    "GIF": {"optimize": True},
}

# White and black, in the modes whose pixels can be mixed.
INKS: Final[Mapping[str, tuple[float | tuple[int, ...], float | tuple[int, ...]]]] = {
    "L": (255, 0),
    "LA": ((255, 255), (0, 255)),
    "RGB": ((255, 255, 255), (0, 0, 0)),
    "RGBA": ((255, 255, 255, 255), (0, 0, 0, 255)),
    "CMYK": ((0, 0, 0, 0), (0, 0, 0, 255)),
    "I;16": (65535, 0),
}

# Pillow's own guard, before a WebP's decoder takes memory: it warns from here, raises at twice.
Image.MAX_IMAGE_PIXELS = max(MAX_PIXELS.values()) // 2


class Picture(NamedTuple):
    """What passes from one operation to the next, which may draw on the image it is given."""

    image: Image.Image
    format: str
    saving: Mapping[str, object] = {}


def process(data: bytes, operations: Sequence[Operation]) -> tuple[bytes, str]:
    """Apply each operation once, in order; return the picture and its extension, as in "jpeg".

    The format stays the source's; of an animation the first frame is kept. The picture is turned
    the way its EXIF says, and of all metadata only the colour profile is kept. Raises ImageTooLarge
    over MAX_PIXELS, MAX_SOURCE_SIDE or MAX_RESULT, and where memory ends; NotAnImage for what
    cannot be read to its end.
    """
    steps = [OPERATIONS[operation] for operation in dict.fromkeys(operations)]
    try:
        picture = _decode(data)
        for step in steps:
            picture = step(picture)
        return _encode(picture), picture.format.lower()
    except ImageError:
        raise
    except Image.DecompressionBombError:
        most = max(MAX_PIXELS.values())
        raise ImageTooLarge(f"the picture has more than {most} pixels") from None
    except MemoryError:
        raise ImageTooLarge("the picture takes more memory than one may have") from None
    # A broken file makes Pillow raise anything, and as late as when it is written again.
    except Exception as error:
        why = "the content is no whole JPEG, PNG, WebP or GIF, or takes too much memory"
        raise NotAnImage(why) from error


def _decode(data: bytes) -> Picture:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        source = Image.open(BytesIO(data), formats=FORMATS)  # reads no more than the header
    # A photo of several pictures calls itself MPO; its first one is an ordinary JPEG.
    kind = "JPEG" if source.format == "MPO" else str(source.format)
    most = min(MAX_PIXELS[kind], MAX_PIXELS.get(source.mode, MAX_PIXELS[kind]))
    if source.width * source.height > most or max(source.size) > MAX_SOURCE_SIDE:
        size = f"{source.width} x {source.height} pixels"
        raise ImageTooLarge(f"{size} are too many for {kind} {source.mode}")
    source.load()
    if source.mode == "P" and source.palette is None:
        raise NotAnImage("the palette is missing")
    image = _upright(source)
    del source
    if image.mode == "RGB" and "transparency" in image.info:
        image = image.convert("RGBA")  # here, where nobody else holds the one that it replaces
    return Picture(image, kind)


def _encode(picture: Picture) -> bytes:
    buffer, image = BytesIO(), picture.image
    saving = picture.saving or ENCODING[picture.format]
    image.save(buffer, picture.format, icc_profile=image.info.get("icc_profile"), **saving)
    if buffer.tell() > MAX_RESULT:
        raise ImageTooLarge(f"the result has {buffer.tell()} bytes")
    return buffer.getvalue()


def _upright(image: Image.Image) -> Image.Image:
    """Turn a copy, which unlike the image that was opened keeps no decoder in memory."""
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF is no reason to refuse a whole picture
        image = image.copy()
    # EXIF with its GPS position, XMP, comments and texts would follow it into some of the formats.
    kept = {"icc_profile", "transparency"} & image.info.keys()
    image.info = {key: image.info[key] for key in kept}
    return image


def _mixable(image: Image.Image) -> Image.Image:
    """Bring a palette, a bitmap or a transparent colour to a mode whose pixels can be mixed."""
    if image.mode == "I;16" or (image.mode in INKS and "transparency" not in image.info):
        return image
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image.convert("L" if image.mode == "1" else "RGB")


def resize(picture: Picture) -> Picture:
    """Fit the picture within 1024 x 1024 pixels; never enlarge it."""
    if max(picture.image.size) <= MAX_SIDE:
        return picture
    image = _mixable(picture.image)
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    return picture._replace(image=image)


def compress(picture: Picture) -> Picture:
    """Choose the smaller encoding: lossy for JPEG and WebP, 256 colours for PNG."""
    image = picture.image
    if picture.format == "PNG" and image.mode in ("RGB", "RGBA"):
        image = image.quantize(256)
    return picture._replace(image=image, saving=SMALLER[picture.format])


def watermark(picture: Picture) -> Picture:
    """Write a half-transparent text, light with a dark edge, into the lower right corner."""
    image = _mixable(picture.image)
    white, black = INKS[image.mode]
    for ink, mask in zip((black, white), _lettering(image.size), strict=True):
        corner = (image.width - mask.width, image.height - mask.height)
        image.paste(ink, corner, mask)
    return picture._replace(image=image)


def _lettering(size: tuple[int, int]) -> list[Image.Image]:
    """Draw the text as two masks, with its edge and without, no larger than the picture."""
    height = max(14, min(size) // 16)
    font = ImageFont.load_default(height)
    edge = max(1, height // 10)
    ruler = ImageDraw.Draw(Image.new("L", (1, 1)))
    _, _, right, bottom = ruler.textbbox((edge, edge), WATERMARK, font, stroke_width=edge)
    masks = [Image.new("L", (int(right) + 2 * edge, int(bottom) + 2 * edge)) for _ in range(2)]
    for mask, width in zip(masks, (edge, 0), strict=True):
        ImageDraw.Draw(mask).text((edge, edge), WATERMARK, OPACITY, font, stroke_width=width)
        mask.thumbnail(size)
    return masks


OPERATIONS: Final[Mapping[Operation, Callable[[Picture], Picture]]] = {
    "resize": resize,
    "compress": compress,
    "watermark": watermark,
}
