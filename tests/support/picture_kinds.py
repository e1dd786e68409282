"""One photograph in the kinds of files that phones, scanners and editors write, made here."""

import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image


def _saved(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def _turned(orientation: int, back: Image.Transpose, form: str) -> Callable[[Image.Image], bytes]:
    """Store the picture such that its EXIF orientation brings it upright again."""

    def make(image: Image.Image) -> bytes:
        exif = Image.Exif()
        exif[0x0112] = orientation
        return _saved(image.transpose(back), form, exif=exif, **({"quality": 95} if form == "JPEG" else {}))

    return make


def _deep(image: Image.Image, suffix: str, mode: str) -> bytes:
    """Write 16 bits a channel, as scanners do and Pillow cannot."""
    import cv2

    pixels = np.asarray(image.convert(mode)).astype(np.uint16) * 257
    _, content = cv2.imencode(suffix, pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    return content.tobytes()


def _followed(form: str, **options) -> Callable[[Image.Image], bytes]:
    """Let two black pictures follow the photograph."""

    def make(image: Image.Image) -> bytes:
        black = [Image.new("RGB", image.size, (value, value, value)) for value in (0, 9)]
        return _saved(image, form, save_all=True, append_images=black, **options)

    return make


def _heic(image: Image.Image) -> bytes:
    import pillow_heif

    pillow_heif.register_heif_opener()
    return _saved(image, "HEIF", quality=90)


def _see_through(image: Image.Image) -> bytes:
    """Hide a corner of the photograph, whose pixels are still there."""
    alpha = np.full((image.height, image.width), 255, dtype=np.uint8)
    alpha[:20, :20] = 0
    image = image.copy()
    image.putalpha(Image.fromarray(alpha))
    return _saved(image, "PNG")


TURN = Image.Transpose
KINDS: Mapping[str, Callable[[Image.Image], bytes]] = {
    "plain.png": lambda image: _saved(image, "PNG"),
    "phone.heic": _heic,
    "phone.HEIF": _heic,
    "renamed-heic.jpg": _heic,
    "new.avif": lambda image: _saved(image, "AVIF", quality=90),
    "camera.mpo": lambda image: _saved(image, "MPO", save_all=True, append_images=[image], quality=95),
    "print.cmyk.jpg": lambda image: _saved(image.convert("CMYK"), "JPEG", quality=95),
    "print.cmyk.tif": lambda image: _saved(image.convert("CMYK"), "TIFF"),
    "scan.16bit.png": lambda image: _deep(image, ".png", "RGB"),
    "scan.16bit.tif": lambda image: _deep(image, ".tif", "RGB"),
    "scan.gray16.png": lambda image: _deep(image, ".png", "L"),
    "gray.jpg": lambda image: _saved(image.convert("L"), "JPEG", quality=95),
    "moving.gif": _followed("GIF", duration=100),
    "moving.webp": _followed("WEBP", duration=100, quality=95),
    "moving.png": _followed("PNG", duration=100),
    "pages.tiff": _followed("TIFF"),
    "exif2.jpg": _turned(2, TURN.FLIP_LEFT_RIGHT, "JPEG"),
    "exif3.png": _turned(3, TURN.ROTATE_180, "PNG"),
    "exif6.jpg": _turned(6, TURN.ROTATE_90, "JPEG"),
    "exif8.webp": _turned(8, TURN.ROTATE_270, "WEBP"),
    "alpha.png": _see_through,
    "palette.png": lambda image: _saved(image.quantize(256), "PNG"),
    "web.jfif": lambda image: _saved(image, "JPEG", quality=95),
    "wavelet.jp2": lambda image: _saved(image, "JPEG2000"),
    "old.tga": lambda image: _saved(image, "TGA"),
    "web.webp": lambda image: _saved(image, "WEBP", quality=95),
    "plain.bmp": lambda image: _saved(image, "BMP"),
}
"""How each kind is made of an RGB photograph, by the name of its file."""

SEVERAL = ("moving.gif", "moving.webp", "moving.png", "pages.tiff")
"""Files that hold other pictures behind the photograph."""


def as_seen(name: str, image: Image.Image) -> np.ndarray:
    """Return what is to be seen of a kind, (H, W, 3) in 0..255: gray where it has no color, black where hidden."""
    pixels = np.asarray(image.convert("L").convert("RGB") if "gray" in name else image).astype(float)
    if name == "alpha.png":
        pixels[:20, :20] = 0
    return pixels
