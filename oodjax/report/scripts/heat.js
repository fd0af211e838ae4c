"use strict";
// The tables detector x set, filled anew with the mean over the models that are chosen.
const heat = (() => {
  const all = JSON.parse(document.getElementById("numbers").textContent);
  const tables = [...document.querySelectorAll(".heat")];
  for (const table of tables) table.whole = table.querySelector("[data-note]").textContent;

  const mean = values => {
    const known = values.filter(v => v !== null);
    return known.length ? known.reduce((a, b) => a + b, 0) / known.length : null;
  };

  function paint(cell, metric, value) {
    const good = metric.startsWith("fpr") ? 100 - value : 2 * (value - 50);
    cell.textContent = value === null ? "–" : value.toFixed(1);
    cell.dataset.key = value === null ? "" : value;
    cell.removeAttribute("style");
    if (value !== null) cell.style.setProperty(good < 0 ? "--l" : "--h", Math.abs(good).toFixed(0));
  }

  function embolden(rows, falls) {
    for (let column = 1; column < rows[0].cells.length; column++) {
      const keys = rows.map(row => row.cells[column].dataset.key).filter(k => k !== "").map(Number);
      const best = falls ? Math.min(...keys) : Math.max(...keys);
      for (const row of rows) {
        const {key} = row.cells[column].dataset;
        row.cells[column].classList.toggle("best", key !== "" && Number(key) === best);
      }
    }
  }

  // `chosen` says of a model's place whether it counts, `sets` which sets the mean is over; `named` names the choice.
  function fill(chosen, sets, named) {
    const models = all.models.map((_, i) => i).filter(chosen);
    for (const table of tables) {
      const metric = table.dataset.metric, falls = metric.startsWith("fpr");
      const rows = [...table.querySelectorAll("tbody tr")];
      for (const row of rows) {
        const d = all.detectors.indexOf(row.dataset.detector), shown = [];
        for (const cell of row.querySelectorAll("[data-dataset]")) {
          const s = all.sets.indexOf(cell.dataset.dataset);
          const value = mean(models.map(m => all[metric][m][d][s]));
          paint(cell, metric, value);
          if (!sets || sets.includes(cell.dataset.dataset)) shown.push(value);
        }
        paint(row.querySelector("[data-mean]"), metric, mean(shown));
      }
      embolden(rows, falls);
      table.querySelector("[data-note]").textContent = models.length === all.models.length && !sets ? table.whole
        : `${falls ? "Lower is better. " : ""}Percent, ${named}${sets ? `, mean over ${sets.join(", ")}` : ""}.`;
    }
  }
  return {fill, all};
})();
