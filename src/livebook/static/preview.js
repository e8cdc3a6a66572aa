// What a link to an equation, a figure, a statement, a citation or another page leads to, shown
// beside it: under the mouse and in the focus of the keyboard, never at a touch. Escape closes it.
document.addEventListener("DOMContentLoaded", () => {
  const links = new Map(); // each link and what it leads to: a node or a text; nothing: elsewhere
  const here = location.href.split("#")[0], kinds = "div.math, figure, .proof, .exercise";
  const root = new URL(document.documentElement.dataset.content_root, here).href;
  for (const link of document.querySelectorAll("article a.reference.internal")) {
    const [page, id] = link.href.split("#");
    const target = page === here && id && document.getElementById(decodeURIComponent(id));
    if (link.title && link.closest(".bibtex-citation")) {
      links.set(link, link.title);
      link.removeAttribute("title"); // the browser would show it as well, to a mouse alone
    } else if (target && target.matches(kinds) && !target.contains(link)) links.set(link, target);
    else if (page !== here) links.set(link, null);
  }
  const box = document.createElement("div");
  if (!links.size || !box.showPopover) return;
  Object.assign(box, { id: "preview", className: "preview", popover: "manual", role: "tooltip" });
  document.body.append(box);
  let parts = null; // of the other pages
  const elsewhere = async (link) => {
    parts ??= new Promise((done) => { // a page that was opened as a file may read a script alone
      const script = document.createElement("script");
      script.onload = script.onerror = () => done(window.parts ?? {});
      script.src = `${root}_static/parts.js`;
      document.head.append(script);
    });
    const [page, id = ""] = link.href.split("#");
    const html = (await parts)[page.slice(root.length)]?.[decodeURIComponent(id)];
    const { body, images } = new DOMParser().parseFromString(html ?? "", "text/html");
    for (const image of images) image.src = new URL(image.getAttribute("src"), page);
    if (body.querySelector(".math") && !window.MathJax?.typesetPromise) return null;
    return body.firstElementChild;
  };
  const clean = () => {
    box.querySelectorAll(".headerlink, button, script").forEach((node) => node.remove());
    box.querySelectorAll("a").forEach((link) => link.replaceWith(...link.childNodes));
    for (const node of box.querySelectorAll("[id], [tabindex]")) {
      ["id", "tabindex"].forEach((name) => node.removeAttribute(name));
    }
  };
  const fit = () => { // a tooltip cannot be scrolled, so a formula is made as small as there is room
    for (const formula of box.querySelectorAll("mjx-container:is([display], .wide)")) {
      const share = 0.97 * formula.clientWidth / formula.scrollWidth;
      if (share < 0.97) formula.style.fontSize = `${share * parseFloat(formula.style.fontSize || 100)}%`;
    }
  };
  let link = null, timer = 0;
  const place = () => {
    if (!link) return;
    const at = link.getBoundingClientRect(), size = box.getBoundingClientRect();
    const below = at.bottom + size.height + 12 < innerHeight;
    box.style.left = `${Math.max(8, Math.min(at.left, innerWidth - size.width - 8))}px`;
    box.style.top = `${Math.max(8, below ? at.bottom + 4 : at.top - size.height - 4)}px`;
  };
  const hide = () => {
    clearTimeout(timer);
    link?.removeAttribute("aria-describedby");
    link = null;
    box.hidePopover();
  };
  const show = async (wanted) => {
    hide();
    link = wanted;
    const found = links.get(wanted) ?? await elsewhere(wanted);
    if (link !== wanted || !found) return;
    box.replaceChildren(found.nodeType ? found.cloneNode(true) : found);
    clean();
    box.style.visibility = "hidden"; // until its formulas are there
    box.showPopover();
    if (!links.get(wanted)) await window.MathJax?.typesetPromise?.([box]);
    if (link !== wanted) return;
    clean();
    fit();
    place();
    box.style.visibility = "";
    link.setAttribute("aria-describedby", box.id);
  };
  const later = (what) => [clearTimeout(timer), (timer = setTimeout(what, 200))];
  for (const each of links.keys()) {
    each.addEventListener("pointerenter", (by) => by.pointerType === "mouse" && later(() => show(each)));
    each.addEventListener("focus", () => each.matches(":focus-visible") && show(each));
    each.addEventListener("blur", hide);
  }
  for (const each of [box, ...links.keys()]) each.addEventListener("pointerleave", () => later(hide));
  box.addEventListener("pointerenter", () => clearTimeout(timer)); // one may point at it
  box.addEventListener("load", place, true); // a picture has a size when it is there
  document.addEventListener("keydown", ({ key }) => key === "Escape" && hide());
  window.addEventListener("scroll", place, { passive: true });
});
