"""Images that anybody may have sent, read by Pillow and written anew.

What is stored is a JPEG of our own, made of the pixels alone: no metadata (the place where a photo was taken), and
nothing that another program could take for a page, a script or an archive. The kind of file is what its content says.
"""

import io
import re
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image
from PIL.Image import Transpose

from identity.domain.kyc_snapshot import CleanImage
from identity.domain.ports import ImagesBusy, InvalidImage

LEAST, MOST_PIXELS = 200, 25_000_000  # of the shorter side; of all (a phone's 12 to 24 megapixels)
LONGEST = 2400  # of the longer side, as stored: a page at 200 dpi
QUALITY = 88
MOST_SCANS = 64  # a progressive JPEG has about ten; each takes a pass over all pixels
WAIT_S = 3.0
SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
UNREADABLE = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, OverflowError, MemoryError, struct.error,
    zlib.error, Image.DecompressionBombError,
)  # fmt: skip

ORIENTATION = 0x0112  # EXIF: how a camera was held
UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90,
}  # fmt: skip

_turns = threading.BoundedSemaphore(1)


@contextmanager
def _a_turn() -> Iterator[None]:
    """An image takes up to 200 MB while it is read: one at a time in each process."""
    if not _turns.acquire(timeout=WAIT_S):
        raise ImagesBusy("many images are being read just now: try again in a moment", retry_after=5)
    try:
        yield
    finally:
        _turns.release()


class PillowCleaner:
    """JPEG and PNG, by their content."""

    def clean(self, raw: bytes) -> CleanImage:
        """Raises `InvalidImage`: `not_an_image`, `too_many_pixels`, `too_few_pixels`, `damaged_image`; `ImagesBusy`."""
        with _a_turn():
            return _cleaned(raw)


def _cleaned(raw: bytes) -> CleanImage:
    try:
        image = Image.open(io.BytesIO(raw), formats=("JPEG", "PNG"))
    except UNREADABLE:
        raise InvalidImage("not_an_image", "send a photo as JPEG or PNG") from None
    with image:
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise InvalidImage("too_many_pixels", f"send an image of at most {MOST_PIXELS:,} pixels")
        if min(width, height) < LEAST:
            raise InvalidImage("too_few_pixels", f"send an image of at least {LEAST} x {LEAST} pixels")
        if len(SCAN.findall(raw)) > MOST_SCANS:
            raise InvalidImage("damaged_image", "the image can't be read: take the photo anew")
        try:
            return _written_anew(image)
        except UNREADABLE:
            raise InvalidImage("damaged_image", "the image can't be read: take the photo anew") from None


def _written_anew(image: Image.Image) -> CleanImage:
    image.draft("RGB", (LONGEST, LONGEST))  # a JPEG is read smaller at once
    image.load()
    turn = _turn(image)
    if image.mode not in {"RGB", "L"}:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image.thumbnail((LONGEST, LONGEST))
    pixels = Image.new("RGB", image.size, "white")  # a new one, for what was read carries its comment along
    pixels.paste(image, mask=image if image.mode == "RGBA" else None)
    pixels = pixels if turn is None else pixels.transpose(turn)
    out = io.BytesIO()
    pixels.save(out, "JPEG", quality=QUALITY)
    return CleanImage(out.getvalue(), *pixels.size)


def _turn(image: Image.Image) -> Transpose | None:
    """What makes it upright. Cameras write EXIF that nobody can read; such a photo stays as it is."""
    try:
        return UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
    except UNREADABLE:
        return None
