"use strict";
// One model (with all its seeds) or one detector stands out in every figure and table; the address keeps which.
const highlight = (() => {
  const sheet = document.head.appendChild(document.createElement("style"));
  const listeners = [];
  let chosen = null; // {kind: "model" or "detector", name}

  const quoted = name => `"${CSS.escape(name)}"`;

  function select({kind, name}) {
    const is = kind === "model"
      ? `:is([data-recipe=${quoted(name)}], [data-model=${quoted(name)}])` : `[data-detector=${quoted(name)}]`;
    const has = kind === "model" ? ":is([data-recipe], [data-model])" : "[data-detector]";
    return {is, has};
  }

  function of(element) {
    const {recipe, model, detector} = element.dataset;
    const alone = heat.all.recipes.every(name => name === heat.all.recipes[0]); // then it is the detectors that differ
    if ((recipe || model) && !(alone && detector)) return {kind: "model", name: recipe || model};
    return detector ? {kind: "detector", name: detector} : null;
  }

  function draw() {
    const {is, has} = chosen ? select(chosen) : {};
    sheet.textContent = chosen ? `
      .mark${has}:not(${is}) { opacity: 0.1; }
      tr${is} > * { box-shadow: inset 0 2px var(--accent), inset 0 -2px var(--accent); }
      tr${is} > :first-child { background: var(--lit); }` : "";
    for (const button of document.querySelectorAll(".pick")) {
      const row = of(button.closest("tr"));
      button.setAttribute("aria-pressed", Boolean(chosen && row && row.kind === chosen.kind && row.name === chosen.name));
    }
    for (const tell of listeners) tell(chosen);
  }

  // The address: #PLACE, #model=NAME, or both as #PLACE&model=NAME.
  function read() {
    const [first, ...rest] = location.hash.slice(1).split("&");
    const named = [first, ...rest].map(part => part.match(/^(model|detector)=(.*)$/)).find(Boolean);
    return {place: first.includes("=") ? "" : first, named: named && {kind: named[1], name: decodeURIComponent(named[2])}};
  }

  function keep(place) {
    const parts = [place, chosen && `${chosen.kind}=${encodeURIComponent(chosen.name)}`].filter(Boolean);
    history.replaceState(null, "", parts.length ? `#${parts.join("&")}` : location.pathname + location.search);
  }

  function set(next) {
    chosen = next;
    draw();
    keep(read().place);
  }

  function toggle(element) {
    const next = of(element);
    if (next) set(chosen && chosen.kind === next.kind && chosen.name === next.name ? null : next);
  }

  document.addEventListener("click", event => {
    const element = event.target.closest(".mark, .pick, tbody tr");
    if (!element || event.target.closest("a") || String(getSelection())) return;
    toggle(element.matches(".pick") ? element.closest("tr") : element);
  });
  document.addEventListener("keydown", event => {
    if (event.key === "Escape" && chosen) set(null);
  });
  addEventListener("hashchange", () => {
    const {place, named} = read();
    if (named) chosen = named;
    draw();
    keep(place); // a link to a place says nothing of the model, which stays
  });
  return {
    set, toggle,
    watch: tell => listeners.push(tell),
    start() {
      const {place, named} = read();
      chosen = named || null;
      draw();
      if (place && named) document.getElementById(place)?.scrollIntoView();
    },
  };
})();
