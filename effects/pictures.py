"""What can be asked of a picture, and what can go wrong with one.

ImageError            its process ended without a word: worth another try
  ImageRefused        the URL leads where it may not, or is none
  ImageUnfetchable    the host gave no picture: worth another try
  ImageTooLarge       too many bytes or pixels, or too much work
  NotAnImage          the content is no whole JPEG, PNG, WebP or GIF
"""

from typing import Literal

Operation = Literal["resize", "compress", "watermark"]


class ImageError(Exception):
    """There is no picture to show; of a URL the texts of these errors hold the host alone."""


class ImageRefused(ImageError):
    """The URL leads where it may not, or is none."""


class ImageUnfetchable(ImageError):
    """The host gave no picture."""


class ImageTooLarge(ImageError):
    """The picture has more bytes or pixels than are taken, or takes more memory or time."""


class NotAnImage(ImageError):
    """The content is no whole JPEG, PNG, WebP or GIF."""
