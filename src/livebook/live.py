"""The live explorer: real digits on a page, and a browser that does the mathematics itself."""

import base64
import json
from functools import cache
from pathlib import Path

import torch

import ntk_influence as ni

STATIC = Path(__file__).with_name("static")
DATASET, N_TRAIN, N_TEST = "mnist-5k-7v9", 300, 200
DEPTH = 3  # of the convolutional kernel
SHOWN = (5, 4, 3)  # test images: those with the greatest error, from the middle, with the least
MATHEMATICS = "live.js"


@cache
def digits() -> tuple[ni.datasets.Dataset, list[int]]:
    """The training and test images, and the indices of the test images that the page shows."""
    data = ni.datasets.load(DATASET, N_TRAIN, N_TEST)
    model = ni.fit_kernel_ridge(ni.relu_ntk(data.X), data.y, 1.0)
    error = (model.predict(ni.relu_ntk(data.X_test, data.X)) - data.y_test).abs()
    order = error.argsort(descending=True, stable=True).tolist()
    worst, middle, best = SHOWN
    start = (N_TEST - middle) // 2
    return data, [*order[:worst], *order[start : start + middle], *order[-best:]]


def packed(pixels: bytes) -> str:
    """Bytes in base64; after a zero comes how many there are, up to 255, since most are zero."""
    out, place = bytearray(), 0
    while place < len(pixels):
        if pixels[place]:
            out.append(pixels[place])
            place += 1
            continue
        rest = pixels[place : place + 255]
        zeros = len(rest) - len(rest.lstrip(b"\0"))
        out += bytes((0, zeros))
        place += zeros
    return base64.b64encode(bytes(out)).decode()


def html() -> str:
    """The explorer as it stands on its page: data, mathematics and what is shown."""
    data, tests = digits()
    images = torch.cat([data.images, data.images_test[tests]]).cpu()
    content = {
        "side": images.shape[1],
        "classes": ["seven", "nine"],
        "labels": data.y.int().tolist(),
        "depth": DEPTH,
        "tests": tests,
        "test_labels": data.y_test[tests].int().tolist(),
        "pixels": packed(images.numpy().tobytes()),
    }
    parts = {
        "{{data}}": json.dumps(content, separators=(",", ":")),
        "{{mathematics}}": mathematics(),
        "{{page}}": (STATIC / "live_page.js").read_text(encoding="utf-8"),
    }
    page = (STATIC / "live.html").read_text(encoding="utf-8")
    for mark, part in parts.items():
        page = page.replace(mark, part)
    return page


def mathematics() -> str:
    """The part of the script that computes, which the page also lists."""
    return (STATIC / MATHEMATICS).read_text(encoding="utf-8")
