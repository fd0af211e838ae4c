"use strict";
// Runs beside the page's own scripts, does what a reader would do, and writes down what is then to be seen.
addEventListener("load", async () => {
  const found = {errors: []};
  addEventListener("error", event => found.errors.push(event.message));
  const all = selector => [...document.querySelectorAll(selector)];
  const shown = element => getComputedStyle(element).display !== "none" && element.getClientRects().length > 0;
  const clear = element => Number(getComputedStyle(element).opacity) > 0.15; // some are drawn faint
  const tip = document.getElementById("tip");
  const key = (name, target) => target.dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true}));
  const choose = (id, value) => {
    const field = document.getElementById(id);
    field.value = value;
    field.dispatchEvent(new Event("input", {bubbles: true}));
  };
  const marks = () => all(".mark[data-model]");
  const heat = () => Object.fromEntries(all("#heat-auroc tbody tr").map(
    row => [row.dataset.detector, [...row.cells].slice(1).filter(shown).map(cell => cell.textContent)]));
  const models = rows => [...new Set(rows.map(row => row.dataset.model))].sort();
  const click = element => element.dispatchEvent(new MouseEvent("click", {bubbles: true}));

  try {
    // Headings and first columns stay while a table scrolls.
    const box = document.querySelector("#heat-auroc .scroll");
    box.style.width = box.style.height = "120px";
    box.scrollTo(60, 40);
    const edge = box.getBoundingClientRect(), corner = box.querySelector("th").getBoundingClientRect();
    const last = box.querySelector("tbody tr:last-child th").getBoundingClientRect();
    found.sticky = [box.scrollLeft, box.scrollTop, corner.left - edge.left, corner.top - edge.top, last.left - edge.left];
    box.removeAttribute("style");

    // Sorting.
    for (const part of all("details")) part.open = true;
    found.tables = all("table.sortable").map(table => [...table.tHead.rows[0].cells].map((header, i) => {
      const states = [0, 1].map(() => {
        header.querySelector("button").focus();
        document.activeElement.click();
        return {sort: header.getAttribute("aria-sort"), marked: table.querySelectorAll("[aria-sort]").length,
                keys: [...table.tBodies[0].rows].map(row => row.cells[i].dataset.key)};
      });
      return {numeric: header.classList.contains("n"), states};
    }));

    // Hovering, focusing, arrow keys.
    const first = marks().find(m => m.dataset.label);
    first.dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
    found.hover = {label: first.dataset.label, tip: tip.textContent, hidden: tip.hidden};
    document.querySelector("h1").dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
    found.left = tip.hidden;
    document.querySelector('.term[href="#term-ood"]').focus();
    found.term = tip.textContent;
    document.querySelector("#heat-auroc .pick").focus();
    found.detector = [document.activeElement.textContent, tip.textContent];
    const drawing = all(".drawing").find(d => d.querySelectorAll(".mark[data-model]").length > 3);
    const [one, two] = drawing.querySelectorAll(".mark[data-label]");
    drawing.focus();
    key("ArrowRight", drawing);
    found.arrows = [one.dataset.label === tip.textContent];
    key("ArrowRight", drawing);
    found.arrows.push(two.dataset.label === tip.textContent);
    key("Enter", drawing);
    found.entered = location.hash;
    key("Escape", drawing);
    found.escaped = [location.hash, tip.hidden, marks().every(clear)];

    // Marking a model.
    found.before = heat();
    const point = marks().find(m => m.dataset.model === "mixup");
    click(point);
    found.marked = {
      hash: location.hash,
      bright: models(marks().filter(clear)),
      dim: models(marks().filter(m => !clear(m))),
      rows: models(all("tr[data-model]").filter(row => getComputedStyle(row.cells[0]).boxShadow !== "none")),
      heat: heat(),
      state: document.getElementById("state").textContent,
    };
    click(point);
    found.unmarked = [location.hash, marks().every(clear)];
    all("#tables tr[data-model=simclr] .pick")[0].click();
    found.picked = {hash: location.hash, bright: models(marks().filter(clear)),
                    pressed: all('.pick[aria-pressed="true"]').map(b => b.textContent)};
    document.getElementById("clear").click();
    await new Promise(done => setTimeout(done));
    found.cleared = [location.hash, marks().every(clear)];

    // Filters.
    choose("category", "augmentation");
    found.category = {marks: models(marks().filter(shown)), rows: models(all("#tables tr[data-model]").filter(shown)), heat: heat()};
    choose("category", "");
    choose("dataset", JSON.stringify(["china"]));
    found.dataset = {columns: all("#heat-auroc thead th[data-dataset]").filter(shown).map(th => th.dataset.dataset), heat: heat(),
                     marks: [...new Set(all(".mark[data-dataset]").filter(shown).map(m => m.dataset.dataset))]};
    choose("dataset", "");
    choose("metric", "fpr95");
    found.metric = [...new Set(all("[data-metric]").filter(shown).map(e => e.dataset.metric))];
    choose("metric", "");

    // Searching.
    choose("search", "MIX");
    found.search = {rows: models(all("#tables tr[data-model]").filter(shown)), bright: models(marks().filter(clear)),
                    detectors: all("#heat-auroc tbody tr").filter(shown).length};
    choose("search", "vim");
    found.searched = all("#heat-auroc tbody tr").filter(shown).map(row => row.dataset.detector);
    choose("search", "nobody");
    found.nothing = [document.getElementById("state").textContent, all("#heat-auroc tbody tr").filter(shown).length];
    choose("search", "mixup");
    key("Enter", document.getElementById("search"));
    found.enter = location.hash;
    key("Escape", document.getElementById("search"));
    found.after = [location.hash, heat()];
  } catch (error) {
    found.errors.push(`${error.stack}`);
  }

  found.remote = performance.getEntriesByType("resource").map(e => e.name).filter(n => !/^(file|data):/.test(n));
  found.drawings = all(".drawing > svg, .drawing > img").length;
  const result = document.createElement("pre");
  result.id = "probe";
  result.textContent = JSON.stringify(found);
  document.body.append(result);
});
