"use strict";
// Filters by training category, OOD set and metric, and the search: what does not match is hidden or faded by one style sheet.
(() => {
  const form = document.getElementById("filters");
  const sheet = document.head.appendChild(document.createElement("style"));
  const field = id => document.getElementById(id);
  const value = id => field(id) ? field(id).value : "";
  const state = field("state");
  let lit = null;

  const any = (name, values) => `:is(${values.map(v => `[data-${name}="${CSS.escape(v)}"]`).join(", ")})`;

  function found(query) {
    const named = [...field("names").options].filter(o => o.value.toLowerCase().includes(query));
    const match = detectors => named.filter(o => (o.textContent === "detector") === detectors).map(o => o.value);
    return {model: match(false), detector: match(true)};
  }

  function searched(query, rules) {
    if (!query) return "";
    const {model, detector} = found(query);
    const is = [];
    if (model.length) is.push(any("model", model), any("recipe", model));
    if (detector.length) is.push(any("detector", detector));
    if (!is.length) return `nothing is called “${query}”`;
    const has = [...(model.length ? ["[data-model]", "[data-recipe]"] : []), ...(detector.length ? ["[data-detector]"] : [])];
    const other = `:is(${has.join(", ")}):not(${is.join(", ")})`;
    rules.push(`tr${other} { display: none; }`, `.mark${other} { opacity: 0.06; }`);
    return [...model, ...detector].slice(0, 4).join(", ") + (model.length + detector.length > 4 ? " and more" : "");
  }

  function apply() {
    const rules = [], query = value("search").trim().toLowerCase();
    const category = value("category"), sets = value("dataset") ? JSON.parse(value("dataset")) : null;
    const metric = value("metric");
    const matches = searched(query, rules);
    if (category) {
      const trained = ":is([data-model], [data-recipe])[data-category]";
      rules.push(`:is(tr, .mark)${trained}:not([data-category="${CSS.escape(category)}"]) { display: none; }`);
    }
    if (sets) rules.push(`:is(.mark, :is(.heat, .board) [data-dataset], #data tr)[data-dataset]:not(${any("dataset", sets)}),
      .board [data-mean] { display: none; }`);
    if (metric) rules.push(`[data-metric]:not([data-metric="${CSS.escape(metric)}"]) { display: none; }`);
    sheet.textContent = rules.join("\n");
    const one = lit && lit.kind === "model" ? lit.name : "";
    heat.fill(i => {
      const {models, recipes, categories} = heat.all;
      if (one) return recipes[i] === one || models[i] === one;
      return !category || categories[i] === category;
    }, sets, one ? `of ${one}` : category ? `mean over the models of ${category}` : "mean over all models");
    state.textContent = [lit && `marked: ${lit.name}`, matches].filter(Boolean).join("; ");
  }

  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("reset", () => { highlight.set(null); setTimeout(apply); });
  field("search").addEventListener("keydown", event => {
    if (event.key !== "Enter") return;
    const {model, detector} = found(value("search").trim().toLowerCase());
    const exact = [...model.map(name => ({kind: "model", name})), ...detector.map(name => ({kind: "detector", name}))];
    const best = exact.find(({name}) => name.toLowerCase() === value("search").trim().toLowerCase());
    if (best || exact.length === 1) highlight.set(best || exact[0]);
  });
  document.addEventListener("keydown", event => {
    if (event.key === "Escape" && event.target !== field("search")) return;
    if (event.key === "Escape") { field("search").value = ""; apply(); }
  });
  highlight.watch(chosen => { lit = chosen; apply(); });
  highlight.start();
})();
