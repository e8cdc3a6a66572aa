// What the live explorer shows and what a reader does to it; the mathematics is in live.js.
(() => {
  const root = document.querySelector(".lv"), at = (name) => root.querySelector(`.lv-${name}`);
  const data = JSON.parse(at("json").textContent), { side, classes } = data;
  const n = data.labels.length, tests = data.test_labels.length, columns = 24, most = 6;
  const train = [...Array(n).keys()];
  const places = [...Array(tests).keys()].map((t) => n + t), { depth } = data;
  const state = { kernel: "two-layer", test: 0, flipped: new Set(), removed: new Set(), selected: new Set() };

  const decode = (text, length) => { // after a zero comes how many there are
    const raw = atob(text), bytes = new Uint8Array(length);
    for (let k = 0, place = 0; k < raw.length; k++) {
      const value = raw.charCodeAt(k);
      if (value) bytes[place++] = value;
      else place += raw.charCodeAt(++k);
    }
    return bytes;
  };
  const bytes = decode(data.pixels, (n + tests) * side * side);

  // The kernels, each with what is kept of it. The models: at the end from a Cholesky factor, before
  // it from an eigendecomposition.
  const timed = (took, name, work) => {
    const before = performance.now(), result = work();
    took[name] = performance.now() - before;
    return result;
  };
  const once = (took, name, work) => { // for the same images
    const kept = new Map();
    return (images) => {
      const key = images.join();
      if (!kept.has(key) && kept.size > 3) kept.clear();
      if (!kept.has(key)) kept.set(key, timed(took, name, () => work(images)));
      return kept.get(key);
    };
  };
  const known = (K, k, took) => {
    const gram = (images) => live.part(K, n, images);
    const spectrum = once(took, "eigen", (images) => live.eigen(gram(images), images.length));
    const mean = train.reduce((sum, i) => sum + K[i * n + i], 0) / n;
    return { gram, k, took, spectrum, mean, unit: live.largest(K, n) };
  };
  const kernels = {}, took = {};
  const pixels = live.compact(bytes, side * side);
  const K = timed(took, "kernel", () => live.kernel(pixels, train, train));
  kernels["two-layer"] = known(K, live.kernel(pixels, places, train), took);

  const solve = (kernel, flipped, removed, ridge, power) => {
    const { gram, k, took, spectrum, unit } = kernel;
    const kept = train.filter((i) => !removed.has(i)), m = kept.length;
    const y = Float64Array.from(kept, (i) => data.labels[i] * (flipped.has(i) ? -1 : 1));
    const ks = data.test_labels.map((_, t) => Float64Array.from(kept, (i) => k[t * n + i]));
    const model = { kept, y, ks };
    if (power < Infinity) {
      const parts = spectrum(kept), at = () => live.atTime(parts, m, ridge, y, ks, power / unit, state.test);
      return Object.assign(model, timed(took, "flow", at));
    }
    model.P = timed(took, "factor", () => live.inverse(live.cholesky(gram(kept), m, ridge), m));
    return Object.assign(model, timed(took, "rest", () => live.atTheEnd(model.P, m, ridge, y, ks)));
  };

  const convolutional = async () => {
    const before = performance.now(), took = {}, pair = live.convolution(bytes, side, depth);
    const report = (share) => { at("progress").value = share; };
    at("wait-kernel").hidden = false;
    at("status").textContent = "Computing the convolutional kernel; until then the two-layer one is shown.";
    const K = await live.inPieces(live.rowByRow(pair, train, train), report);
    took.kernel = performance.now() - before;
    const k = await live.inPieces(live.rowByRow(pair, places, train), report);
    kernels.convolutional = known(K, k, took);
    at("wait-kernel").hidden = true;
    at("status").textContent = "";
    show();
  };

  // Drawing
  const make = (tag, parent, attributes = {}, text = "") => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.textContent = text;
    parent.append(node);
    return node;
  };
  const rows = Math.ceil((n + tests) / columns);
  const sheet = (() => {
    const canvas = document.createElement("canvas"), context = canvas.getContext("2d");
    [canvas.width, canvas.height] = [columns * side, rows * side];
    for (let i = 0; i < n + tests; i++) {
      const tile = context.createImageData(side, side);
      for (let p = 0; p < side * side; p++) {
        tile.data.fill(255 - bytes[i * side * side + p], 4 * p, 4 * p + 3);
        tile.data[4 * p + 3] = 255;
      }
      context.putImageData(tile, (i % columns) * side, Math.floor(i / columns) * side);
    }
    return `url(${canvas.toDataURL()})`;
  })();
  const image = (parent, place) => {
    const share = (part, of) => (100 * part) / (of - 1), node = make("span", parent, { class: "lv-im" });
    Object.assign(node.style, {
      backgroundImage: sheet,
      backgroundSize: `${100 * columns}% ${100 * rows}%`,
      backgroundPosition: `${share(place % columns, columns)}% ${share(Math.floor(place / columns), rows)}%`,
    });
  };
  const minus = (text) => text.replaceAll("-", "−");
  const short = (value) => minus(Math.abs(value) < 1e-3 && value ? value.toExponential(1) : value.toPrecision(3));
  const long = (value) => minus(value.toFixed(6));
  const named = (label) => classes[label > 0 ? 0 : 1];
  const marks = (i) => `${state.flipped.has(i) ? ", label flipped" : ""}${state.removed.has(i) ? ", removed" : ""}`;
  const toggle = (i) => { if (!state.selected.delete(i)) state.selected.add(i); show(); };
  const mark = (node, i) => {
    node.setAttribute("aria-pressed", String(state.selected.has(i)));
    node.classList.toggle("lv-flipped", state.flipped.has(i));
    node.classList.toggle("lv-gone", state.removed.has(i));
  };

  const row = (parent, indices, model, values) => {
    const focused = parent.contains(document.activeElement) ? document.activeElement.dataset.index : null;
    parent.replaceChildren();
    for (const i of indices) {
      const place = model.kept.indexOf(i), gone = place < 0;
      const value = gone ? "gone" : short(Math.abs(values[place]));
      const leverage = gone ? "" : model.leverage[place].toFixed(2);
      const node = make("button", parent, {
        type: "button", "data-index": i,
      });
      if (!gone) Object.assign(node.dataset, { value: values[place], leverage: model.leverage[place] });
      image(node, i);
      const lines = [value, named(data.labels[i]) + (state.flipped.has(i) ? " ↔" : "")];
      if (!gone) lines.push(`h ${leverage}`);
      for (const line of lines) make("span", node, {}, line).after(" ");
      node.setAttribute("aria-label", `${lines.join(" ")}, training image ${i}${marks(i)}`);
      mark(node, i);
      node.addEventListener("click", () => toggle(i));
      if (String(i) === focused) node.focus();
    }
    if (!indices.length) make("span", parent, {}, "none");
  };

  const choices = data.test_labels.map((label, t) => {
    const box = make("label", at("tests"));
    const input = make("input", box, { type: "radio", name: "lv-test", value: t });
    input.checked = !t;
    input.addEventListener("change", () => { state.test = t; show(); });
    image(box, n + t);
    return [make("span", box), make("span", box), input];
  });
  const all = train.map((i) => {
    const node = make("button", at("all"), { type: "button", "data-index": i, tabindex: i ? -1 : 0 });
    image(node, i);
    node.addEventListener("click", () => toggle(i));
    return node;
  });
  at("all").addEventListener("keydown", (event) => {
    const here = all.indexOf(document.activeElement);
    const wide = getComputedStyle(at("all")).gridTemplateColumns.split(" ").length;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -wide, ArrowDown: wide }[event.key];
    if (here < 0 || !step || !all[here + step]) return;
    event.preventDefault();
    all[here].tabIndex = -1;
    all[here + step].tabIndex = 0;
    all[here + step].focus();
  });

  const setting = () => {
    const step = +at("time").value, last = step === +at("time").max, power = 10 ** (step / 4);
    const shown = kernels[state.kernel] ? state.kernel : "two-layer";
    return {
      shown,
      kernel: kernels[shown],
      ridge: 10 ** (+at("ridge").value / 20 - 2),
      power: last ? Infinity : power,
      text: last ? "end of training" : `${power.toPrecision(3)} / λₘₐₓ`,
    };
  };

  const influenceOf = ({ f, change }) => { // equation (8)
    const residual = f - data.test_labels[state.test];
    return change.map((d) => (residual + d / 2) * d);
  };
  const lists = ({ kept }, influence) => { // the most helpful and the most harmful images
    const order = [...kept.keys()].sort((i, j) => influence[j] - influence[i]);
    const first = (places, sign) => places.filter((p) => sign * influence[p] > 0).slice(0, most).map((p) => kept[p]);
    return [first(order, 1), first(order.reverse(), -1)];
  };

  const untouched = { key: "" };
  const show = () => {
    const { shown: name, kernel, ridge, power, text } = setting(), { test, flipped, removed, selected } = state;
    const key = [name, ridge, power, test].join();
    if (untouched.key !== key) {
      Object.assign(untouched, { key, model: solve(kernel, new Set(), new Set(), ridge, power) });
    }
    const changed = flipped.size + removed.size;
    const model = changed ? solve(kernel, flipped, removed, ridge, power) : untouched.model;
    const { f } = model.shown[test], label = data.test_labels[test], residual = f - label;
    const influence = influenceOf(model.shown[test]);
    root.dataset.kernel = name;
    const share = `${short(ridge)} (${short(ridge / kernel.mean)} of mean Kᵢᵢ)`;
    for (const [name, value, words] of [["ridge", ridge, share], ["time", power / kernel.unit, text]]) {
      at(`${name}-text`).textContent = words;
      at(`${name}-text`).dataset.value = value;
      at(name).setAttribute("aria-valuetext", words);
    }
    choices.forEach(([shown, moved, input], t) => {
      const value = model.shown[t].f, by = value - untouched.model.shown[t].f;
      shown.textContent = minus(value.toFixed(3));
      shown.dataset.value = value;
      shown.className = value * data.test_labels[t] > 0 ? "" : "lv-wrong";
      moved.textContent = changed ? minus((by < 0 ? "" : "+") + by.toFixed(3)) : "";
      const words = [shown, moved].map((node) => node.textContent).join(" ").trim();
      input.setAttribute("aria-label", `${words}, test image ${data.tests[t]}, ${named(data.test_labels[t])}`);
    });
    at("now").replaceChildren();
    make("span", at("now"), {}, `Test image ${data.tests[test]} is a ${named(label)} (label ${label > 0 ? "+1" : "−1"}). The ${name} model of ${model.kept.length} images predicts `);
    make("strong", at("now"), { class: "lv-f", "data-value": f }, long(f));
    make("span", at("now"), {}, `, which is ${f * label > 0 ? "right" : "wrong"}; loss ${long(residual ** 2 / 2)}.` +
      (changed ? ` With the images and labels as they came it is ${long(untouched.model.shown[test].f)}.` : ""));

    const [helpful, harmful] = lists(model, influence);
    row(at("helpful"), helpful, model, influence);
    row(at("harmful"), harmful, model, influence);
    row(at("changed"), [...new Set([...flipped, ...removed])], model, influence);
    at("mine").hidden = !changed;
    const greatest = Math.max(...influence.map(Math.abs)), place = new Map(model.kept.map((i, p) => [i, p]));
    all.forEach((node, i) => {
      const p = place.get(i), value = p === undefined ? 0 : influence[p];
      const strength = greatest ? Math.round(100 * Math.sqrt(Math.abs(value) / greatest)) : 0;
      node.style.borderColor = `color-mix(in srgb, var(--lv-${value < 0 ? "bad" : "good"}) ${strength}%, transparent)`;
      node.setAttribute("aria-label", `training image ${i}, ${named(data.labels[i])}${marks(i)}, ${value < 0 ? "harmful" : "helpful"} ${short(Math.abs(value))}`);
      mark(node, i);
    });
    say(model, f, power);
    compare(name, ridge / kernel.mean, power, [helpful, harmful]);
    times(model, kernel.took, power);
  };

  const compare = (name, share, power, here) => { // with the other kernel, at the same share and time
    const [other, kernel] = Object.entries(kernels).find(([key]) => key !== name) ?? [];
    at("shared").hidden = !kernel;
    if (!kernel) return;
    const model = solve(kernel, state.flipped, state.removed, share * kernel.mean, power);
    const there = lists(model, influenceOf(model.shown[state.test]));
    const both = here.map((images, kind) => images.filter((i) => there[kind].includes(i)).length);
    at("shared").dataset.value = both.join();
    at("shared").textContent = `By the ${other} kernel, with a ridge of the same share of its mean Kᵢᵢ, ` +
      `${both[0]} of these ${here[0].length} helpful and ${both[1]} of these ${here[1].length} harmful images are among the first ${most} as well.`;
  };

  const say = (model, f, power) => {
    const { selected, removed, flipped } = state, group = [...selected].filter((i) => !removed.has(i));
    at("said").replaceChildren();
    make("span", at("said"), {}, selected.size ? `${selected.size} selected.` : "Select images above or below, then:");
    if (group.length && group.length < model.kept.length && power === Infinity) {
      const places = group.map((i) => model.kept.indexOf(i));
      const without = f + live.withoutGroup(model.P, model.kept.length, model.y, model.ks[state.test], places);
      make("span", at("said"), {}, " Without the selection the prediction would be ");
      make("strong", at("said"), { class: "lv-without", "data-value": without }, long(without));
      make("span", at("said"), {}, ": the closed form says so before the removal.");
    }
    for (const name of ["flip", "clear"]) at(name).disabled = !selected.size;
    at("remove").disabled = !group.length || group.length > model.kept.length - 2;
    at("restore").disabled = ![...selected].some((i) => removed.has(i) || flipped.has(i));
    at("reset").disabled = !(selected.size || removed.size || flipped.size);
  };

  const times = (model, took, power) => {
    const ms = (value) => (value < 1e3 ? `${value < 10 ? value.toFixed(1) : Math.round(value)} ms` : `${(value / 1e3).toFixed(1)} s`);
    const m = model.kept.length;
    const values = (m * tests).toLocaleString("en");
    const parts = power < Infinity
      ? [took.kernel, took.eigen, took.flow] : [took.kernel, took.factor, took.rest];
    const [whole, ...each] = [parts.reduce((a, b) => a + b), ...parts].map(ms);
    at("took").dataset.whole = parts.reduce((a, b) => a + b);
    at("took").textContent = `Computed in this browser, from pixels to influence, in ${whole}: Gram matrix ${each[0]}, once for all images; ` +
      (power < Infinity ? `eigendecomposition ${each[1]}, as well; all leverages, and the influences on this test image, ${each[2]}.`
        : `Cholesky factor and inverse ${each[1]}; ${values} leave-one-out predictions and ${m} leverages ${each[2]}.`);
  };

  const act = (name, change) => at(name).addEventListener("click", () => { change([...state.selected]); show(); });
  act("flip", (chosen) => chosen.forEach((i) => state.flipped.delete(i) || state.flipped.add(i)));
  act("remove", (chosen) => { chosen.forEach((i) => state.removed.add(i)); state.selected.clear(); });
  act("restore", (chosen) => chosen.forEach((i) => { state.flipped.delete(i); state.removed.delete(i); }));
  act("clear", () => state.selected.clear());
  act("reset", () => ["flipped", "removed", "selected"].forEach((name) => state[name].clear()));
  for (const name of ["ridge", "time"]) at(name).addEventListener("input", show);
  at("kernel").addEventListener("change", () => {
    const first = at("kernel").value === "convolutional" && !kernels.convolutional && at("wait-kernel").hidden;
    state.kernel = at("kernel").value;
    if (first) convolutional();
    else show();
  });
  [at("ridge").value, at("time").value, at("kernel").value] = [40, 17, "two-layer"];
  show();
  at("body").hidden = false;
  at("wait").remove();
})();
