"""The live explorer: whatever a reader does, the browser computes what the library computes."""

import math
from functools import cache

import numpy as np
import pytest
import test_site
import torch
from test_site import PHONE, SITE, number

import ntk_influence as ni
from livebook import live

address, browser, visit = test_site.address, test_site.browser, test_site.visit
ACCURACY, MOST = 1e-6, 6
STEPS = {"flip": 0.3, "remove": 0.2, "restore": 0.1, "ridge": 0.2, "test": 0.1, "time": 0.1}


@cache
def kernels(name):
    """Gram matrix of all training images, and the kernel of the test images that are shown."""
    data, tests = live.digits()
    X, X_test = data.X, data.X_test[tests]
    if name == "two-layer":
        return ni.relu_ntk(X), ni.relu_ntk(X_test, X)
    images, others = (part.reshape(-1, 28, 28) for part in (X, X_test))
    how = {"depth": live.DEPTH, "kernel_size": 3}
    return ni.conv_ntk(images, **how), ni.conv_ntk(others, images, **how)


class Reader:
    """Acts on the page, and keeps what the page should show after it."""

    def __init__(self, root, seed):
        self.root, self.random = root, np.random.default_rng(seed)
        self.data, self.tests = live.digits()
        self.flipped, self.removed, self.test, self.ridge, self.time = set(), set(), 0, 40, 17
        self.kernel, self.used = "two-layer", {"two-layer"}

    def drag(self, name, value):
        """Move a slider as a browser does."""
        script = "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', {bubbles: true})) }"
        self.root.locator(f".lv-{name}").evaluate(script, str(value))
        setattr(self, name, value)

    def choose(self, kernel):
        """Another kernel, and wait until the page has it."""
        self.root.locator(".lv-kernel").select_option(kernel)
        self.root.page.wait_for_selector(f".lv[data-kernel={kernel}]", timeout=120_000)
        self.kernel = kernel
        self.used.add(kernel)
        self.check()

    def select(self, images):
        """Select images where all of them are shown."""
        for i in images:
            self.root.locator(f".lv-all button[data-index='{i}']").click()

    def some(self, count, among=None):
        """A few training images at random, half of the time from the list of the harmful ones."""
        if among is None and self.random.random() < 0.5:
            tiles = self.root.locator(".lv-harmful button").all()
            among = [int(tile.get_attribute("data-index")) for tile in tiles]
        among = range(live.N_TRAIN) if among is None else sorted(among)
        return self.random.choice(among, min(count, len(among)), replace=False).tolist()

    def act(self, what):
        """One action of the kind, of random size."""
        if what in ("ridge", "time"):
            self.drag(what, int(self.random.integers(0, 81 if what == "ridge" else 18)))
        elif what == "test":
            self.test = int(self.random.integers(len(self.tests)))
            self.root.locator(".lv-tests label").nth(self.test).click()
        elif what == "flip":
            chosen = self.some(2)
            self.select(chosen)
            self.check_selection(set(chosen))
            self.root.locator(".lv-flip").click()
            self.flipped ^= set(chosen)
        elif what == "remove":
            chosen = [i for i in self.some(4) if i not in self.removed]
            self.select(chosen)
            self.check_selection(set(chosen))
            if chosen:
                self.root.locator(".lv-remove").click()
            self.removed |= set(chosen)
        elif self.flipped | self.removed:
            chosen = self.some(1, self.flipped | self.removed)
            self.select(chosen)
            self.root.locator(".lv-restore").click()
            self.flipped, self.removed = self.flipped - set(chosen), self.removed - set(chosen)
        if self.root.locator(".lv-clear").is_enabled():
            self.root.locator(".lv-clear").click()
        self.check()

    def problem(self, name=None):
        """Images that are kept, their Gram matrix, labels, test kernel and ridge."""
        kept = [i for i in range(live.N_TRAIN) if i not in self.removed]
        y = self.data.y.clone()
        y[sorted(self.flipped)] *= -1
        K, k = kernels(name or self.kernel)
        ridge = 10 ** (self.ridge / 20 - 2)
        if name:  # the same share of the mean diagonal
            ridge *= float(K.diagonal().mean() / kernels(self.kernel)[0].diagonal().mean())
        return kept, K[kept][:, kept], y[kept], k[:, kept], ridge

    def expected(self, name=None):
        """Predictions, influences on the chosen test image and leverages, from the library."""
        kept, K, y, k, ridge = self.problem(name)
        y_test = self.data.y_test[self.tests]
        if self.time == 17:
            model = ni.fit_kernel_ridge(K, y, ridge)
            influence = ni.loo_influence(model, k, y_test)[:, self.test]
            return kept, model.predict(k), influence, model.leverage
        largest = float(torch.linalg.eigvalsh(kernels(name or self.kernel)[0])[-1])
        t, flow = 10 ** (self.time / 4) / largest, ni.fit_kernel_flow(K, y, ridge)
        influence = flow.loo_influence([t], k, y_test)[0, :, self.test]
        fitted = -torch.expm1(-flow.a * t) / flow.a
        leverage = flow.U.square() @ ((flow.a - ridge) * fitted)
        return kept, flow.predict([t], k)[0], influence, leverage

    def check(self):
        """All numbers on the screen against the library."""
        kept, f, influence, leverage = self.expected()
        label, loss = float(self.data.y_test[self.tests[self.test]]), self.root.locator(".lv-now")
        said = loss.inner_text()
        assert f"Test image {self.tests[self.test]} is a {'seven' if label > 0 else 'nine'}" in said
        assert f"The {self.kernel} model of {len(kept)} images" in said
        assert ("right" in said) == (float(f[self.test]) * label > 0)
        shown = number(self.root.locator(".lv-f").inner_text())
        assert shown == pytest.approx(float(f[self.test]), abs=ACCURACY)
        written = number(said.partition("; loss ")[2].split(" ")[0].rstrip("."))
        assert written == pytest.approx((float(f[self.test]) - label) ** 2 / 2, abs=ACCURACY)
        cells = self.root.locator(".lv-tests label span[data-value]").all()
        assert len(cells) == len(self.tests)
        for cell, value in zip(cells, f.tolist(), strict=True):
            assert float(cell.get_attribute("data-value")) == pytest.approx(value, abs=ACCURACY)
            assert number(cell.inner_text()) == pytest.approx(value, abs=6e-4)
        for kind, sign in (("helpful", 1), ("harmful", -1)):
            self.check_list(kind, sign * influence, kept, leverage)
        self.check_shared(influence)

    def check_while(self, kernel):
        """All numbers, unless the page goes over to another kernel while they are read."""
        try:
            self.check()
        except AssertionError:
            if self.root.get_attribute("data-kernel") == kernel:
                raise

    def check_shared(self, influence):
        """How many of both lists are in those of the other kernel, once it is there."""
        said = self.root.locator(".lv-shared")
        others = self.used - {self.kernel}
        assert said.is_visible() == bool(others)
        for name in others:
            there, counts = self.expected(name)[2], []
            for sign in (1, -1):
                lists = [(sign * v).topk(MOST).indices.tolist() for v in (influence, there)]
                counts.append(len(set(lists[0]) & set(lists[1])))
            assert said.get_attribute("data-value") == f"{counts[0]},{counts[1]}"
            assert f"By the {name} kernel" in said.inner_text()

    def check_list(self, kind, influence, kept, leverage):
        """One of the two lists: the greatest values, in order, below the right images."""
        tiles = self.root.locator(f".lv-{kind} button").all()
        greatest = influence.topk(MOST).values
        assert len(tiles) == MOST
        for tile, most in zip(tiles, greatest.tolist(), strict=True):
            place = kept.index(int(tile.get_attribute("data-index")))
            value = abs(float(tile.get_attribute("data-value")))
            assert value == pytest.approx(float(influence[place]), rel=ACCURACY)
            assert value == pytest.approx(most, rel=ACCURACY)
            text, _, h = tile.locator("span").all_inner_texts()[1:]
            assert number(text.replace("e", " · 10")) == pytest.approx(value, rel=6e-2)
            at = float(leverage[place])
            assert float(tile.get_attribute("data-leverage")) == pytest.approx(at, abs=ACCURACY)
            assert float(h.removeprefix("h ")) == pytest.approx(at, abs=6e-3)

    def check_selection(self, chosen):
        """What the page foretells of the selection, at the end of training."""
        chosen -= self.removed
        if self.time < 17 or not chosen:
            return
        kept, K, y, k, ridge = self.problem()
        group = [kept.index(i) for i in sorted(chosen)]
        without = ni.leave_group_out(ni.fit_kernel_ridge(K, y, ridge), k, group)[self.test]
        shown = number(self.root.locator(".lv-without").inner_text())
        assert shown == pytest.approx(float(without), abs=ACCURACY)

    def walk(self, steps):
        """That many random actions."""
        for what in self.random.choice(list(STEPS), steps, p=list(STEPS.values())):
            self.act(str(what))


@pytest.mark.parametrize("seed", [0, 1])
def test_after_random_actions_the_page_shows_what_the_library_computes(visit, seed):
    reader = Reader(visit("explorer.html").locator(".lv"), seed)
    reader.check()
    reader.walk(14)
    reader.drag("time", 9)  # half-way, with images gone and labels flipped
    reader.check()
    reader.root.locator(".lv-reset").click()
    reader.flipped, reader.removed = set(), set()
    reader.check()
    assert visit.faults == []


@pytest.mark.parametrize("seed", [2, 3])
def test_the_same_holds_for_the_convolutional_kernel(visit, seed):
    page = visit("explorer.html")
    reader = Reader(page.locator(".lv"), seed)
    reader.act("flip")
    reader.root.locator(".lv-kernel").focus()
    page.keyboard.press("ArrowDown")  # computed while the page goes on
    reader.drag("ridge", 30)
    reader.check_while("two-layer")
    reader.choose("convolutional")
    reader.walk(10)
    reader.drag("time", 9)
    reader.check()
    reader.choose("two-layer")
    assert visit.faults == []


def test_the_two_kernels_list_mostly_the_same_images_and_fewer_at_a_weak_ridge():
    """What the page says of both, as a mean over its test images."""
    data, tests = live.digits()
    common = []
    for share in (0.02, 2.0):
        firsts = []
        for name in ("two-layer", "convolutional"):
            K, k = kernels(name)
            model = ni.fit_kernel_ridge(K, data.y, share * float(K.diagonal().mean()))
            influence = ni.loo_influence(model, k, data.y_test[tests])
            firsts.append([(s * influence).topk(MOST, dim=0).indices.T.tolist() for s in (1, -1)])
        both = [
            len(set(one) & set(other))
            for kinds in zip(*firsts, strict=True) for one, other in zip(*kinds, strict=True)
        ]  # fmt: skip
        common.append(sum(both) / len(both))
    assert MOST / 2 < common[0] < common[1] - 0.5


def test_the_pictures_are_those_of_the_data(visit):
    """The sprite is drawn from the pixels; its tiles are read back, one by one."""
    root = visit("explorer.html").locator(".lv")
    data, tests = live.digits()
    read = """async (tile) => {
      const style = tile.style, image = new Image();
      image.src = style.backgroundImage.slice(5, -2);
      await image.decode();
      const canvas = document.createElement("canvas"), context = canvas.getContext("2d");
      [canvas.width, canvas.height] = [image.width, image.height];
      context.drawImage(image, 0, 0);
      const [across, down] = style.backgroundSize.split(" ").map((v) => Math.round(parseFloat(v) / 100));
      const [x, y] = style.backgroundPosition.split(" ").map(parseFloat);
      const left = 28 * Math.round(x / 100 * (across - 1)), top = 28 * Math.round(y / 100 * (down - 1));
      return [...context.getImageData(left, top, 28, 28).data].filter((_, k) => k % 4 === 0);
    }"""  # noqa: E501
    shown = [(f".lv-all button[data-index='{i}'] .lv-im", data.images[i]) for i in (0, 57, 299)]
    for t, index in enumerate(tests):
        shown.append((f".lv-tests label:nth-child({t + 1}) .lv-im", data.images_test[index]))
    for selector, image in shown:
        pixels = root.locator(selector).evaluate(read)
        assert pixels == (255 - image.int()).flatten().tolist()


def test_keys_and_fingers_do_what_the_mouse_does(visit):
    page = visit("explorer.html", PHONE, color_scheme="dark", has_touch=True)
    reader = Reader(page.locator(".lv"), 0)
    root = reader.root
    root.locator(".lv-all button").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    assert root.locator(".lv-all [aria-pressed=true]").get_attribute("data-index") == "13"
    root.locator(".lv-flip").focus()
    page.keyboard.press("Enter")
    reader.flipped = {13}
    reader.check()
    root.locator(".lv-clear").tap()
    tile = root.locator(".lv-helpful button").first
    chosen = int(tile.get_attribute("data-index"))
    tile.tap()
    root.locator(".lv-remove").tap()
    reader.removed = {chosen}
    reader.check()
    root.locator(".lv-ridge").press("ArrowLeft")
    reader.ridge = 39
    reader.check()
    root.locator(".lv-tests label").nth(2).tap()
    reader.test = 2
    reader.check()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert visit.faults == []


def test_what_is_heard_contains_what_is_seen(visit):
    page = visit("explorer.html")
    root = page.locator(".lv")
    root.locator(".lv-harmful button").first.click()
    root.locator(".lv-flip").click()
    for tile in root.locator(".lv-sheet button").all():
        seen = " ".join(tile.inner_text().split())
        assert tile.get_attribute("aria-label").startswith(seen)
    for label in root.locator(".lv-tests label").all():
        seen = " ".join(label.inner_text().split())
        assert label.locator("input").get_attribute("aria-label").startswith(seen)
    assert root.locator(".lv-all button:not([aria-label])").count() == 0


def test_the_time_of_a_whole_computation_is_measured_where_it_is_read(visit):
    root = visit("explorer.html").locator(".lv")
    took = root.locator(".lv-took")
    assert "Gram matrix" in took.inner_text()
    assert 0 < float(took.get_attribute("data-whole")) < 2000
    root.locator(".lv-time").press("ArrowLeft")
    assert "eigendecomposition" in took.inner_text()
    assert math.isfinite(float(took.get_attribute("data-whole")))


def test_the_live_explorer_is_small():
    assert len(live.html().encode()) < 150 * 1024


def tour(root, kernel):
    """A flip, a removal, a ridge and a time."""
    reader = Reader(root, 3)
    if kernel != reader.kernel:
        reader.choose(kernel)
    for what in ("ridge", "flip", "remove", "test", "time"):
        reader.act(what)


WRONG = {
    "leverage forgotten": ("(-v * dual[i]) / P[i * n + i]", "-v * dual[i]"),
    "no ridge": ("(i === j ? ridge : 0)", "0"),
    "labels stay": ("(flipped.has(i) ? -1 : 1)", "1"),
    "wrong leverage": ("1 - ridge * P[i * n + i]", "ridge * P[i * n + i]"),
    "first order": ("(residual + d / 2) * d", "residual * d"),
    "group of the wrong sign": ("return -dot(", "return dot("),
    "wrong contour": ("change[i] -= wx * ur - wy * ui", "change[i] -= wx * ur + wy * ui"),
    "nothing leaves": ("filter((i) => !removed.has(i)), m", "filter(() => true), m"),
    "twice the kernel": ("/ (2 * Math.PI)", "/ Math.PI"),
}
WRONG_CONVOLUTIONS = {
    "mean over what lies in the image": (
        "(across[p - wide] + across[p] + across[p + wide]) / 9",
        "(across[p - wide] + across[p] + across[p + wide])"
        " / ((p % wide === 1 || p % wide === side ? 2 : 3)"
        " * (p < 2 * wide || p >= side * wide ? 2 : 3))",
    ),
    "no zeros between rows": ("const wide = side + 2", "const wide = side"),
    "no diagonal": ("(same ? r + 1 : columns.length)", "(same ? r : columns.length)"),
    "one layer too few": ("layer < depth", "layer < depth - 1"),
    "half at every layer": ("/ (2 * side ** 2)", "/ (2 ** depth * side ** 2)"),
    "read-out not trained": (
        "both.reduce((sum, v) => sum + v)",
        "both.reduce((sum, v, p) => sum + v - after[p], 0)",
    ),
    "slopes forgotten": ("slope * tangent[p]", "tangent[p]"),
    "sine without its root": ("Math.sqrt((1 - u) * (1 + u))", "(1 - u) * (1 + u)"),
    "variance for deviation": ("variance.map(Math.sqrt)", "variance.map((v) => v)"),
    "pixels not stretched": ("side / Math.sqrt(dot(", "1 / Math.sqrt(dot("),
    "the same ridge for the other kernel": ("share * kernel.mean", "share"),
}
CASES = [("two-layer", name, *pair) for name, pair in WRONG.items()]
CASES += [("convolutional", name, *pair) for name, pair in WRONG_CONVOLUTIONS.items()]


@pytest.mark.parametrize(
    ("kernel", "old", "new"),
    [(kernel, old, new) for kernel, _, old, new in CASES],
    ids=[name for _, name, _, _ in CASES],
)
def test_wrong_mathematics_on_the_page_is_noticed(visit, kernel, old, new):
    page = visit("explorer.html")
    html = (SITE / "explorer.html").read_text()
    assert html.count(old) == 1
    wrong = html.replace(old, new)
    page.route("**/wrong.html", lambda route: route.fulfill(body=wrong, content_type="text/html"))
    page.goto(page.url.replace("explorer.html", "wrong.html"))
    with pytest.raises(AssertionError):
        tour(page.locator(".lv"), kernel)
