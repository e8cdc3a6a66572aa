// What a link to an equation, a figure, a statement or a citation leads to, shown beside it:
// under the mouse and in the focus of the keyboard, never at a touch. Escape closes it.
document.addEventListener("DOMContentLoaded", () => {
  const links = new Map(); // each link and what it leads to: a part of the page, or a text
  const here = location.href.split("#")[0], kinds = "div.math, figure, .proof, .exercise";
  for (const link of document.querySelectorAll("article a.reference.internal[href*='#']")) {
    const [page, id] = link.href.split("#");
    const target = page === here && document.getElementById(decodeURIComponent(id));
    if (link.title && link.closest(".bibtex-citation")) {
      links.set(link, link.title);
      link.removeAttribute("title"); // the browser would show it as well, to a mouse alone
    } else if (target && target.matches(kinds) && !target.contains(link)) links.set(link, target);
  }
  const box = document.createElement("div");
  if (!links.size || !box.showPopover) return;
  Object.assign(box, { id: "preview", className: "preview", popover: "manual", role: "tooltip" });
  document.body.append(box);
  const copy = (target) => {
    const shown = target.cloneNode(true);
    shown.querySelectorAll(".headerlink, button, script").forEach((node) => node.remove());
    shown.querySelectorAll("a").forEach((link) => link.replaceWith(...link.childNodes));
    for (const node of [shown, ...shown.querySelectorAll("[id], [tabindex]")]) {
      ["id", "tabindex"].forEach((name) => node.removeAttribute(name));
    }
    return shown;
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
  const show = (wanted) => {
    hide();
    link = wanted;
    link.setAttribute("aria-describedby", box.id);
    box.replaceChildren(links.get(link).nodeType ? copy(links.get(link)) : links.get(link));
    box.showPopover();
    place();
  };
  const later = (what) => [clearTimeout(timer), (timer = setTimeout(what, 200))];
  for (const each of links.keys()) {
    each.addEventListener("pointerenter", (by) => by.pointerType === "mouse" && later(() => show(each)));
    each.addEventListener("focus", () => each.matches(":focus-visible") && show(each));
    each.addEventListener("blur", hide);
  }
  for (const each of [box, ...links.keys()]) each.addEventListener("pointerleave", () => later(hide));
  box.addEventListener("pointerenter", () => clearTimeout(timer)); // one may point at it
  document.addEventListener("keydown", ({ key }) => key === "Escape" && hide());
  window.addEventListener("scroll", place, { passive: true });
});
