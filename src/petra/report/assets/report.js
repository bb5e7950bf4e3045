/* Sorts and filters the table of all trials. Texts are set as text, never as markup: they are other
   people's. This file and trial.js run as one function. */

const source = document.getElementById("trials-data");
if (!source) return;
const data = JSON.parse(source.textContent);
const STEP = 100; // rows that are shown, and shown more of

/* What cannot be seen, and what turns the direction of writing, is shown escaped. */
function plain(text) {
  return text.replace(/[\p{C}\u2028\u2029]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

const texts = data.texts.map(plain);
const trials = data.rows.map((row) => Object.fromEntries(data.fields.map((f, i) => [f, row[i]])));
const byNumber = new Map(trials.map((trial) => [trial.number, trial]));

/* An element with a class, and children that are elements or texts. */
function make(tag, kind, ...children) {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  element.append(...children);
  return element;
}

function button(kind, text, act) {
  const made = make("button", kind, text);
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}

function heading(scope, kind, ...children) {
  const cell = make("th", kind, ...children);
  cell.scope = scope;
  return cell;
}

function duration(seconds) {
  if (seconds < 59.95) return `${seconds < 9.95 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const whole = Math.round(seconds);
  const two = (n) => String(n).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor(whole / 60) % 60)} min`;
}

/* ---- the table ---- */

const table = document.getElementById("trials");
const titles = [...table.tHead.rows[0].cells];
const form = document.getElementById("filter");
const search = document.getElementById("search");
const boxes = [...form.querySelectorAll("input[name=kind]")];
const keys = [
  (t) => t.number,
  (t) => t.kind,
  ...data.objectives.map((_, i) => (t) => t.values[i]),
  (t) => texts[t.origin],
  (t) => t.seconds,
  (t) => texts[t.words],
];
const more = button("plain more", "", () => {
  shown += STEP;
  drawTable();
});
let shown = STEP;
let sorting = { column: 0, down: false };

function searched(t) {
  const places = [t.reason, t.words, t.origin, ...t.picks, ...t.steps.flat()];
  t.searched ??= [`${t.number}`, data.kinds[t.kind], ...places.map((i) => texts[i])]
    .join("\n")
    .toLowerCase();
  return t.searched;
}

function chosen() {
  const kinds = new Set(boxes.filter((box) => box.checked).map((box) => Number(box.value)));
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const key = keys[sorting.column];
  const sign = sorting.down ? -1 : 1;
  return trials
    .filter((t) => kinds.has(t.kind) && words.every((word) => searched(t).includes(word)))
    .sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      /* What was not measured comes last, whichever way. */
      if (x === null || y === null) return (x === null) - (y === null) || a.number - b.number;
      return sign * (x < y ? -1 : x > y ? 1 : 0) || a.number - b.number;
    });
}

function rowOf(t) {
  const link = make("a", "", String(t.number));
  link.href = `#trial-${t.number}`;
  link.setAttribute("aria-label", `trial ${t.number}`);
  const outcome = make("td", "text", make("b", "", data.kinds[t.kind]));
  for (const pick of t.picks) outcome.append(" ", make("span", "tag", texts[pick]));
  if (texts[t.reason]) outcome.append(make("br"), make("small", "", texts[t.reason]));
  const row = make(
    "tr",
    "",
    heading("row", "", link),
    outcome,
    ...t.texts.map((i) => make("td", "", texts[i])),
    make("td", "words", texts[t.origin]),
    make("td", "", duration(t.seconds)),
    make("td", "text", texts[t.words]),
  );
  row.dataset.number = t.number;
  return row;
}

function drawTable() {
  const found = chosen();
  for (const old of [...table.tBodies]) old.remove();
  table.append(make("tbody", "", ...found.slice(0, shown).map(rowOf)));
  const left = Math.max(0, found.length - shown);
  const part = left ? `, the first ${shown} shown` : "";
  const count = document.getElementById("count");
  count.textContent = `${found.length} of ${trials.length} trials${part}`;
  more.hidden = left === 0;
  more.textContent = `Show ${Math.min(STEP, left)} more`;
}

function sortBy(column) {
  sorting = { column, down: sorting.column === column && !sorting.down };
  shown = STEP;
  showSorting();
  drawTable();
}

function showSorting() {
  const way = sorting.down ? "descending" : "ascending";
  titles.forEach((cell, i) => cell.setAttribute("aria-sort", i === sorting.column ? way : "none"));
}

function prepareTable() {
  titles.forEach((cell, column) => {
    const sorter = button("", "", () => sortBy(column));
    sorter.append(...cell.childNodes);
    cell.append(sorter);
  });
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    shown = STEP;
    drawTable();
  });
  table.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-number]");
    const busy = event.target.closest("a") || String(getSelection());
    if (row && !busy) go(Number(row.dataset.number));
  });
  table.parentElement.after(more);
  showSorting();
  drawTable();
}

prepareTable();
