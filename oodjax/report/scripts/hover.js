"use strict";
// What a point, a word or a detector's name stands for, beside it: under the pointer, at the focus, or by arrow keys.
const hover = (() => {
  const tip = document.getElementById("tip");
  const SHOWN = ".mark[data-label], .term, [data-says]";
  let spot = null;

  function says(element) {
    if (element.matches(".mark")) return element.dataset.label;
    if (element.dataset.says) return element.dataset.says;
    const entry = document.getElementById(element.getAttribute("href").slice(1));
    return entry ? entry.querySelector("dd").textContent : "";
  }

  function show(element) {
    const text = says(element);
    if (!text) return;
    hide();
    spot = element;
    spot.classList.add("spot");
    if (!spot.closest("svg")) spot.setAttribute("aria-describedby", "tip");
    tip.textContent = text;
    tip.hidden = false;
    const box = spot.getBoundingClientRect(), own = tip.getBoundingClientRect();
    const width = document.documentElement.clientWidth;
    const left = Math.max(8, Math.min(box.left + box.width / 2 - own.width / 2, width - own.width - 8));
    const above = box.top - own.height - 8;
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${(above > 0 ? above : box.bottom + 8) + scrollY}px`;
  }

  function hide() {
    tip.hidden = true;
    if (!spot) return;
    spot.classList.remove("spot");
    spot.removeAttribute("aria-describedby");
    spot = null;
  }

  const at = event => event.target instanceof Element ? event.target.closest(SHOWN) : null;
  document.addEventListener("pointerover", event => at(event) ? show(at(event)) : hide());
  document.addEventListener("focusin", event => at(event) ? show(at(event)) : hide());
  document.addEventListener("focusout", hide);

  // In a drawing the arrow keys go from point to point, Enter marks the point's model.
  document.addEventListener("keydown", event => {
    if (event.key === "Escape") return hide();
    const drawing = event.target instanceof Element ? event.target.closest(".drawing") : null;
    if (!drawing) return;
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
    if (step) {
      const marks = [...drawing.querySelectorAll(".mark[data-label]")].filter(m => m.getClientRects().length);
      if (!marks.length) return;
      event.preventDefault();
      const before = marks.indexOf(spot);
      const next = before < 0 ? (step > 0 ? 0 : marks.length - 1) : (before + step + marks.length) % marks.length;
      show(marks[next]);
      tip.setAttribute("role", "status");
    } else if (event.key === "Enter" && spot && drawing.contains(spot)) {
      highlight.toggle(spot);
    }
  });
  return {hide};
})();
