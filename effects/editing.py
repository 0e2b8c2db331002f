"""Read a picture's bytes, apply operations to it, encode it again.

ImageError
  ImageRefused        the URL leads where it may not, or is none
  ImageUnfetchable    the host gave no picture: worth another try
  ImageTooLarge       too many bytes, or too many pixels
  NotAnImage          the content is no whole JPEG, PNG, WebP or GIF
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Final, Literal

from PIL import Image, ImageDraw, ImageFont, ImageOps

Operation = Literal["resize", "compress", "watermark"]

MAX_PIXELS: Final = 40_000_000  # 160 MB once decoded with four channels
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

# Pillow's own guard, which warns from here and raises at twice as much; _decode refuses from here on.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS


class ImageError(Exception):
    """There is no picture to show; of a URL the texts of these errors hold the host alone."""


class ImageRefused(ImageError):
    """The URL leads where it may not, or is none."""


class ImageUnfetchable(ImageError):
    """The host gave no picture."""


class ImageTooLarge(ImageError):
    """The picture has more bytes or more pixels than are taken."""


class NotAnImage(ImageError):
    """The content is no whole JPEG, PNG, WebP or GIF."""


@dataclass(frozen=True)
class Picture:
    """What passes from one operation to the next, which may draw on the image it is given."""

    image: Image.Image
    format: str
    saving: Mapping[str, object] = field(default_factory=dict)


def process(data: bytes, operations: Sequence[Operation]) -> tuple[bytes, str]:
    """Apply operations in their order; return the picture and its extension, such as "jpeg".

    Blocks for as long as the picture is large: call it in a thread. The format stays the source's; of an animation
    the first frame is kept. The picture is turned the way its EXIF says, and of all metadata only the colour profile
    is kept. Raises ImageTooLarge over 40 megapixels, NotAnImage for what cannot be read to its end.
    """
    steps = [OPERATIONS[operation] for operation in operations]
    try:
        picture = _decode(data)
        for step in steps:
            picture = step(picture)
        return _encode(picture), picture.format.lower()
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageTooLarge(f"the picture has more than {MAX_PIXELS} pixels") from None
    except Exception as error:  # a broken file makes Pillow raise anything, and as late as when it is written again
        raise NotAnImage("the content is no whole JPEG, PNG, WebP or GIF") from error


def _decode(data: bytes) -> Picture:
    image = Image.open(BytesIO(data), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise ImageTooLarge(f"the picture has {image.width} x {image.height} pixels")
    image.load()
    # A photo of several pictures calls itself MPO; its first one is an ordinary JPEG.
    return Picture(_upright(image), "JPEG" if image.format == "MPO" else str(image.format))


def _encode(picture: Picture) -> bytes:
    buffer = BytesIO()
    saving = picture.saving or ENCODING[picture.format]
    picture.image.save(buffer, picture.format, icc_profile=picture.image.info.get("icc_profile"), **saving)
    return buffer.getvalue()


def _upright(image: Image.Image) -> Image.Image:
    with contextlib.suppress(Exception):  # broken EXIF is no reason to refuse a whole picture
        ImageOps.exif_transpose(image, in_place=True)
    # EXIF with its GPS position, XMP, comments and texts would follow the picture into some of the formats.
    image.info = {key: image.info[key] for key in ("icc_profile", "transparency") if key in image.info}
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
    return replace(picture, image=image)


def compress(picture: Picture) -> Picture:
    """Choose the smaller encoding: lossy for JPEG and WebP, 256 colours for PNG."""
    image = picture.image
    if picture.format == "PNG" and image.mode in ("RGB", "RGBA"):
        image = _mixable(image).quantize(256)
    return replace(picture, image=image, saving=SMALLER[picture.format])


def watermark(picture: Picture) -> Picture:
    """Write a half-transparent text, light with a dark edge, into the lower right corner."""
    image = _mixable(picture.image)
    white, black = INKS[image.mode]
    for ink, mask in zip((black, white), _lettering(image.size), strict=True):
        corner = (image.width - mask.width, image.height - mask.height)
        image.paste(ink, corner, mask)
    return replace(picture, image=image)


def _lettering(size: tuple[int, int]) -> list[Image.Image]:
    """Draw the text as two masks of one size, with its edge and without, no larger than the picture."""
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
