// What the live explorer shows and what a reader does to it; the mathematics is in live.js.
(() => {
  const root = document.querySelector(".lv"), at = (name) => root.querySelector(`.lv-${name}`);
  const data = JSON.parse(at("json").textContent), { side, classes } = data;
  const n = data.labels.length, tests = data.test_labels.length, columns = 24, most = 6;
  const train = [...Array(n).keys()];
  const state = { test: 0, flipped: new Set(), removed: new Set(), selected: new Set() };

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
  const pixels = live.compact(bytes, side * side);
  const k = live.kernel(pixels, [...Array(tests).keys()].map((t) => n + t), train);

  // The models: at the end from a Cholesky factor, before it from an eigendecomposition.
  const took = {};
  const timed = (name, work) => {
    const before = performance.now(), result = work();
    took[name] = performance.now() - before;
    return result;
  };
  const once = (name, work) => { // for the same images
    const kept = new Map();
    return (images) => {
      const key = images.join();
      if (!kept.has(key) && kept.size > 3) kept.clear();
      if (!kept.has(key)) kept.set(key, timed(name, () => work(images)));
      return kept.get(key);
    };
  };
  const gram = once("kernel", (images) => live.kernel(pixels, images, images));
  const spectrum = once("eigen", (images) => live.eigen(gram(images), images.length));
  const unit = live.largest(gram(train), n);
  const solve = (flipped, removed, ridge, time) => {
    const kept = train.filter((i) => !removed.has(i)), m = kept.length;
    const y = Float64Array.from(kept, (i) => data.labels[i] * (flipped.has(i) ? -1 : 1));
    const ks = data.test_labels.map((_, t) => Float64Array.from(kept, (i) => k[t * n + i]));
    const model = { kept, y, ks }, A = gram(kept);
    if (time < Infinity) {
      const parts = spectrum(kept);
      return Object.assign(model, timed("flow", () => live.atTime(parts, m, ridge, y, ks, time, state.test)));
    }
    model.P = timed("factor", () => live.inverse(live.cholesky(A, m, ridge), m));
    return Object.assign(model, timed("rest", () => live.atTheEnd(model.P, m, ridge, y, ks)));
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
    const step = +at("time").value;
    const last = step === +at("time").max, power = 10 ** (step / 4);
    return {
      ridge: 10 ** (+at("ridge").value / 20 - 2),
      time: last ? Infinity : power / unit,
      text: last ? "end of training" : `${power.toPrecision(3)} / λₘₐₓ`,
    };
  };

  const untouched = { key: "" };
  const show = () => {
    const { ridge, time, text } = setting(), { test, flipped, removed, selected } = state;
    const key = [ridge, time, test].join();
    if (untouched.key !== key) Object.assign(untouched, { key, model: solve(new Set(), new Set(), ridge, time) });
    const changed = flipped.size + removed.size;
    const model = changed ? solve(flipped, removed, ridge, time) : untouched.model;
    const { f, change } = model.shown[test], label = data.test_labels[test], residual = f - label;
    const influence = change.map((d) => (residual + d / 2) * d); // equation (8)
    for (const [name, value, words] of [["ridge", ridge, short(ridge)], ["time", time, text]]) {
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
    make("span", at("now"), {}, `Test image ${data.tests[test]} is a ${named(label)} (label ${label > 0 ? "+1" : "−1"}). The model of ${model.kept.length} images predicts `);
    make("strong", at("now"), { class: "lv-f", "data-value": f }, long(f));
    make("span", at("now"), {}, `, which is ${f * label > 0 ? "right" : "wrong"}; loss ${long(residual ** 2 / 2)}.` +
      (changed ? ` With the images and labels as they came it is ${long(untouched.model.shown[test].f)}.` : ""));

    const order = [...model.kept.keys()].sort((i, j) => influence[j] - influence[i]);
    const first = (places, sign) => places.filter((p) => sign * influence[p] > 0).slice(0, most).map((p) => model.kept[p]);
    row(at("helpful"), first(order, 1), model, influence);
    row(at("harmful"), first(order.reverse(), -1), model, influence);
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
    say(model, f, time);
    times(model, time);
  };

  const say = (model, f, time) => {
    const { selected, removed, flipped } = state, group = [...selected].filter((i) => !removed.has(i));
    at("said").replaceChildren();
    make("span", at("said"), {}, selected.size ? `${selected.size} selected.` : "Select images above or below, then:");
    if (group.length && group.length < model.kept.length && time === Infinity) {
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

  const times = (model, time) => {
    const ms = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`, m = model.kept.length;
    const values = (m * tests).toLocaleString("en");
    const parts = time < Infinity
      ? [took.kernel, took.eigen, took.flow] : [took.kernel, took.factor, took.rest];
    const [whole, ...each] = [parts.reduce((a, b) => a + b), ...parts].map(ms);
    at("took").dataset.whole = parts.reduce((a, b) => a + b);
    at("took").textContent = `Computed in this browser, from pixels to influence, in ${whole}: Gram matrix ${each[0]}, once for these images; ` +
      (time < Infinity ? `eigendecomposition ${each[1]}, as well; all leverages, and the influences on this test image, ${each[2]}.`
        : `Cholesky factor and inverse ${each[1]}; ${values} leave-one-out predictions and ${m} leverages ${each[2]}.`);
  };

  const act = (name, change) => at(name).addEventListener("click", () => { change([...state.selected]); show(); });
  act("flip", (chosen) => chosen.forEach((i) => state.flipped.delete(i) || state.flipped.add(i)));
  act("remove", (chosen) => { chosen.forEach((i) => state.removed.add(i)); state.selected.clear(); });
  act("restore", (chosen) => chosen.forEach((i) => { state.flipped.delete(i); state.removed.delete(i); }));
  act("clear", () => state.selected.clear());
  act("reset", () => ["flipped", "removed", "selected"].forEach((name) => state[name].clear()));
  for (const name of ["ridge", "time"]) at(name).addEventListener("input", show);
  [at("ridge").value, at("time").value] = [40, 17];
  show();
  at("body").hidden = false;
  at("wait").remove();
})();
