/* Opens a trial that is asked for: by its number in the table, a point of a chart, or the page's
   address (#trial-42). */

const dialog = make("dialog", "");
dialog.setAttribute("aria-labelledby", "trial-title");
document.body.append(dialog);

function figuresOf(t) {
  const base = new Map((byNumber.get(0)?.figures ?? []).map(([name, value]) => [name, value]));
  const again = t.figures.some((figure) => figure.length > 2);
  const titles = ["figure", `trial ${t.number}`, "untouched model"];
  const head = [...titles, ...(again ? ["in the search"] : [])];
  const rows = t.figures.map(([name, ...values]) => {
    const cells = [values[0], base.get(name), ...(again ? [values[1]] : [])];
    const shown = cells.map((i) => make("td", "", i === undefined ? "" : texts[i]));
    return make("tr", "", heading("row", "name", texts[name]), ...shown);
  });
  const caption = "In brackets 95% intervals, after ± one standard error";
  const holder = make(
    "div",
    "scroll",
    make(
      "table",
      "",
      make("caption", "", caption),
      make("thead", "", make("tr", "", ...head.map((h, i) => heading("col", i ? "" : "name", h)))),
      make("tbody", "", ...rows),
    ),
  );
  holder.tabIndex = 0;
  holder.setAttribute("role", "region");
  holder.setAttribute("aria-label", `Figures of trial ${t.number}`);
  return holder;
}

function stepOf([spec, trace, ...skipped]) {
  const { stage, params } = JSON.parse(data.texts[spec]);
  const told = Object.entries(params).map(([name, value]) => plain(`${name} = ${value}`));
  const item = make("li", "", make("b", "", plain(stage)));
  const line = (content) => item.append(make("br"), content);
  line(make("small", "", told.join(", ") || "no parameters"));
  if (texts[trace]) line(texts[trace]);
  for (const layer of skipped) line(make("small", "", `left alone: ${texts[layer]}`));
  return item;
}

/* A text to copy; where the page may not write to the clipboard, it is selected. */
function commandOf(told, text) {
  const code = make("code", "", text);
  const copy = button("plain", "Copy", async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      getSelection().selectAllChildren(code);
      document.execCommand("copy");
    }
    copy.textContent = "Copied";
  });
  return [make("p", "", told), make("div", "command", make("pre", "", code), copy)];
}

function commandsOf(t) {
  if (t.exportable) {
    const told = "To copy its file out of the study, with its figures and its card:";
    return commandOf(told, `${data.export}${t.number}`);
  }
  if (!t.number) return [];
  const stages = t.steps.map(([spec]) => data.texts[spec]).join(", ");
  const told = "Only members of the front are exported. To begin another study with this pipeline:";
  return commandOf(told, plain(`space: {initial: [[${stages}]]}`));
}

function pageOf(t) {
  const title = make("h2", "", `Trial ${t.number}: ${data.kinds[t.kind]}`);
  title.id = "trial-title";
  const close = button("plain", "Close", () => dialog.close());
  const inside = make("div", "inside", make("div", "bar", title, close));
  for (const pick of t.picks) inside.append(make("span", "tag", texts[pick]), " ");
  if (texts[t.reason]) inside.append(make("p", "", texts[t.reason]));
  inside.append(...commandsOf(t), make("h3", "", "Pipeline"));
  const steps = t.steps.map(stepOf);
  inside.append(steps.length ? make("ol", "", ...steps) : make("p", "", texts[t.words]));
  if (t.figures.length) inside.append(make("h3", "", "Figures"), figuresOf(t));
  const made = make("p", "soft", `Made by ${texts[t.origin]}; took ${duration(t.seconds)}`);
  if (texts[t.artifact]) made.append("; ", make("code", "", texts[t.artifact]));
  inside.append(made);
  return inside;
}

function open(number) {
  const trial = byNumber.get(number);
  if (!trial) return;
  dialog.replaceChildren(pageOf(trial));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

function go(number) {
  history.replaceState(null, "", `#trial-${number}`);
  open(number);
}

function numberIn(address) {
  const found = /^#trial-(\d+)$/.exec(address ?? "");
  return found ? Number(found[1]) : null;
}

function openByAddress() {
  const number = numberIn(location.hash);
  if (number !== null) open(number);
}

dialog.addEventListener("close", () => {
  history.replaceState(null, "", location.pathname + location.search);
});
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});
document.addEventListener("click", (event) => {
  const number = numberIn(event.target.closest("a")?.getAttribute("href"));
  if (number === null || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  go(number);
});
window.addEventListener("hashchange", openByAddress);

/* ---- the charts: what is near the mouse ---- */

const NEAR = 14; // units of a chart
const PLOTTED = new Set(["untouched model", "on the front", "dominated", "infeasible"]);
const hint = make("div", "");
hint.id = "hint";
hint.hidden = true;
hint.setAttribute("aria-hidden", "true");
document.body.append(hint);

/* Where a trial is on an axis: which objective it is (-1: the number), which values lie where. */
function placeOn([which, low, high, start, end], trial) {
  const value = which < 0 ? trial.number : trial.values[which];
  if (value === null || value < low || value > high) return null;
  return start + ((value - low) / (high - low)) * (end - start);
}

function nearest(chart, points, event) {
  const turned = chart.getScreenCTM().inverse();
  const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(turned);
  let [best, least] = [null, NEAR ** 2];
  for (const [trial, x, y] of points) {
    const far = (x - at.x) ** 2 + (y - at.y) ** 2;
    if (far < least) [best, least] = [trial, far];
  }
  return best;
}

function showHint(trial, event) {
  const picks = trial.picks.map((pick) => texts[pick]).join(", ");
  const title = `trial ${trial.number}, ${data.kinds[trial.kind]}${picks && `: ${picks}`}`;
  const told = data.objectives.map((name, i) => `${name}: ${texts[trial.texts[i]]}`);
  const lines = [texts[trial.words], ...told].map((text) => make("div", "", text));
  hint.replaceChildren(make("b", "", title), ...lines);
  hint.hidden = false;
  const within = (at, size, room) => `${Math.max(4, Math.min(at + 14, room - size - 8))}px`;
  hint.style.left = within(event.clientX, hint.offsetWidth, innerWidth);
  hint.style.top = within(event.clientY, hint.offsetHeight, innerHeight);
}

function prepareChart(chart) {
  const axes = [chart.dataset.x, chart.dataset.y].map((text) => text.split(" ").map(Number));
  const points = trials
    .filter((t) => PLOTTED.has(data.kinds[t.kind]))
    .map((t) => [t, ...axes.map((axis) => placeOn(axis, t))])
    .filter(([, x, y]) => x !== null && y !== null);
  for (const title of chart.querySelectorAll("title")) title.remove(); // the hint is instead
  chart.addEventListener("pointermove", (event) => {
    const trial = nearest(chart, points, event);
    chart.classList.toggle("near", trial !== null);
    hint.hidden = true;
    if (trial) showHint(trial, event);
  });
  chart.addEventListener("pointerleave", () => {
    hint.hidden = true;
  });
  chart.addEventListener("click", (event) => {
    hint.hidden = true;
    const trial = event.detail ? nearest(chart, points, event) : null; // 0: a key, on a link
    if (!trial) return;
    event.preventDefault();
    event.stopPropagation();
    go(trial.number);
  });
}

document.querySelectorAll("svg[data-x]").forEach(prepareChart);

/* ---- on paper ---- */

window.addEventListener("beforeprint", () => {
  for (const closed of document.querySelectorAll(".members details:not([open])")) {
    closed.open = true;
    closed.dataset.closed = "";
  }
  shown = Math.max(shown, 5 * STEP);
  drawTable();
});
window.addEventListener("afterprint", () => {
  for (const opened of document.querySelectorAll("details[data-closed]")) {
    opened.open = false;
    delete opened.dataset.closed;
  }
});
openByAddress();
