"""Images as phones and attackers send them."""

import io
import struct
import zlib
from typing import Any

from PIL import Image


def a_photo(size: tuple[int, int] = (640, 480), kind: str = "JPEG", mode: str = "RGB", **saved: Any) -> bytes:
    """A picture with a dark left half and a grey foot, so that turning it shows."""
    image = Image.new("RGB", size, "white")
    image.paste(Image.new("RGB", (size[0] // 2, size[1]), "black"), (0, 0))
    image.paste(Image.new("RGB", (size[0], size[1] // 8), "grey"), (0, size[1] - size[1] // 8))
    out = io.BytesIO()
    image = image.convert("L").convert(mode) if mode == "I;16" else image.convert(mode)
    image.save(out, kind, **saved)
    return out.getvalue()


def with_gps(*, orientation: int = 1) -> bytes:
    """A photo whose EXIF says where and with what it was taken, with an XMP packet and a comment as well."""
    exif = Image.Exif()
    exif[0x010F] = "CANARY-MAKER"
    exif[0x0112] = orientation
    gps = exif.get_ifd(0x8825)
    gps[1], gps[2], gps[29] = "S", (1.0, 17.0, 11.0), "CANARY-DAY"
    return a_photo(exif=exif, comment=b"CANARY-COMMENT", xmp=b"<x:xmpmeta>CANARY-XMP</x:xmpmeta>")


def a_png_bomb(width: int = 30_000, height: int = 30_000) -> bytes:
    """900 megapixels in under a megabyte: the header says so, the rest is one long run of zeros."""
    rows = zlib.compress(bytes(10**6), 9)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, data)
        for kind, data in (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
            (b"IDAT", rows),
            (b"IEND", b""),
        )
    )


def a_text_bomb() -> bytes:
    """A small PNG with a compressed text of 200 MB."""
    plain = a_photo(kind="PNG")
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(200_000_000), 9))
    return plain[:33] + bomb + plain[33:]


def a_scan_bomb(scans: int = 3000) -> bytes:
    """A progressive JPEG that repeats its last scan: each repetition is a pass over all pixels."""
    plain = a_photo((4000, 3000), progressive=True)
    last = plain.rindex(b"\xff\xda")
    return plain[:last] + plain[last:-2] * scans + plain[-2:]


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
