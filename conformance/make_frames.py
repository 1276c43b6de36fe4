"""Encodes the drawn pictures, once.

    python conformance/make_frames.py > conformance/frames.json

Needs imagecodecs and Pillow; their versions go into the file. The cases read only the file, so that
a reader is never scored with the encoder of its own decoder's release.
"""

from __future__ import annotations

import base64
import io
import json

import imagecodecs
import numpy as np
import PIL
from pictures import ramp
from PIL import Image


def frames() -> dict[str, bytes]:
    """Codestreams by name: what the oracle is, then the codec."""
    eight, twelve, sixteen = (ramp(bits) for bits in (8, 12, 16))
    deep = {8: eight.astype(np.uint8), 12: twelve, 16: sixteen}
    found = {}
    buffer = io.BytesIO()
    Image.fromarray(deep[8]).save(buffer, "JPEG", quality=100)
    found["jpeg_8"] = buffer.getvalue()
    buffer = io.BytesIO()
    Image.fromarray(deep[8]).convert("RGB").save(buffer, "JPEG", quality=100, subsampling="4:2:2")
    found["jpeg_422"] = buffer.getvalue()
    found["jpeg_12"] = imagecodecs.jpeg8_encode(twelve, level=100, bitspersample=12)
    for bits, picture in deep.items():
        for predictor in (1, 6):
            found[f"lossless{predictor}_{bits}"] = imagecodecs.jpeg8_encode(
                picture, lossless=True, predictor=predictor, bitspersample=bits
            )
        found[f"jpegls_{bits}"] = imagecodecs.jpegls_encode(picture)
        found[f"j2k_{bits}"] = imagecodecs.jpeg2k_encode(
            picture, codecformat="j2k", reversible=True, level=0, bitspersample=bits
        )
        found[f"htj2k_{bits}"] = imagecodecs.htj2k_encode(picture, reversible=True)
    found["jpegls_near_8"] = imagecodecs.jpegls_encode(deep[8], level=1)
    found["jp2_12"] = imagecodecs.jpeg2k_encode(
        twelve, codecformat="jp2", reversible=True, level=0, bitspersample=12
    )
    signed = (twelve.astype(np.int32) - 2048).astype(np.int16)
    found["j2k_signed_12"] = imagecodecs.jpeg2k_encode(
        signed, codecformat="j2k", reversible=True, level=0, bitspersample=12
    )
    found["j2k_lossy_12"] = imagecodecs.jpeg2k_encode(
        twelve, codecformat="j2k", reversible=False, level=90, bitspersample=12
    )
    return found


def main() -> None:
    """Print them as JSON."""
    encoders = f"imagecodecs {imagecodecs.__version__}, Pillow {PIL.__version__}"
    coded = {name: base64.b64encode(frame).decode() for name, frame in frames().items()}
    print(json.dumps({"encoders": encoders, "frames": coded}, indent=1))


if __name__ == "__main__":
    main()
