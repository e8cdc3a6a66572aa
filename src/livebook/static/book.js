// The table of all claims: show one kind, one verdict, or what contains a word.
document.addEventListener("DOMContentLoaded", () => {
  const table = document.querySelector(".claims table");
  if (!table) return;
  const rows = [...table.tBodies[0].rows];
  const kind = (row) => row.cells[0].textContent.trim().split(/\s+/).pop();
  const verdict = (row) => row.cells[3].textContent.trim();
  const form = document.createElement("form");
  form.className = "claims-filter";
  const choose = (name, of) => {
    const label = document.createElement("label");
    const select = document.createElement("select");
    select.name = name;
    select.append(new Option(`every ${name}`, ""));
    for (const value of [...new Set(rows.map(of))].sort()) select.append(new Option(value, value));
    label.append(`${name} `, select);
    form.append(label);
    return select;
  };
  const kinds = choose("kind", kind), verdicts = choose("verdict", verdict);
  const label = document.createElement("label"), word = document.createElement("input");
  word.type = "search";
  label.append("contains ", word);
  const count = document.createElement("output");
  form.append(label, count);
  const show = () => {
    let shown = 0;
    for (const row of rows) {
      const fits = (!kinds.value || kind(row) === kinds.value)
        && (!verdicts.value || verdict(row) === verdicts.value)
        && row.textContent.toLowerCase().includes(word.value.toLowerCase());
      row.hidden = !fits;
      shown += fits;
    }
    count.value = `${shown} of ${rows.length}`;
  };
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  table.before(form);
  show();
});

// Code is shown or folded on the whole site; on a phone it is folded at first.
document.addEventListener("DOMContentLoaded", () => {
  const places = document.querySelectorAll(".cell_input");
  const bar = document.querySelector(".article-header-buttons");
  if (!places.length || !bar) return;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "btn btn-sm code-switch";
  const phone = matchMedia("(max-width: 720px)").matches;
  const put = (state) => {
    document.documentElement.dataset.code = state;
    button.textContent = `code: ${state}`;
    button.setAttribute("aria-pressed", String(state === "shown"));
  };
  put(localStorage.getItem("code") ?? (phone ? "folded" : "shown"));
  button.addEventListener("click", () => {
    const state = document.documentElement.dataset.code === "shown" ? "folded" : "shown";
    localStorage.setItem("code", state);
    put(state);
    window.dispatchEvent(new Event("resize")); // the theme looks again which code scrolls
  });
  bar.prepend(button);
});

// A formula in the text that is wider than its column scrolls, instead of running out of it.
window.addEventListener("load", async () => {
  if (!window.MathJax?.startup?.promise) return;
  await MathJax.startup.promise;
  const formulas = [...document.querySelectorAll("article mjx-container:not([display])")];
  const look = () => {
    for (const formula of formulas) formula.classList.remove("wide");
    const wide = formulas.filter((formula) => {
      const column = formula.closest("p, li, dd, dt, td, th, figcaption, h1, h2, h3, section");
      const room = parseFloat(getComputedStyle(column).paddingRight);
      return formula.getBoundingClientRect().right > column.getBoundingClientRect().right - room + 1;
    });
    for (const formula of wide) {
      formula.classList.add("wide");
      formula.tabIndex = 0; // keys scroll it
    }
  };
  look();
  window.addEventListener("resize", look);
  document.documentElement.dataset.formulas = "placed";
});

// A table that scrolls sideways can be scrolled by keys, as the theme sees to for code.
for (const when of ["load", "resize"]) {
  window.addEventListener(when, () => {
    for (const table of document.querySelectorAll("article table")) {
      if (table.scrollWidth > table.clientWidth + 1) table.tabIndex = 0;
    }
  });
}

// Paper is white: a dark page is printed as a light one.
{
  const root = document.documentElement;
  let before = null;
  const print = (now) => {
    if (now) before ??= root.dataset.theme;
    if (before) root.dataset.theme = now ? "light" : before;
    if (!now) before = null;
  };
  matchMedia("print").addEventListener("change", (event) => print(event.matches));
  window.addEventListener("beforeprint", () => print(true));
  window.addEventListener("afterprint", () => print(false));
}
