"use strict";
// Asks the server how the study is and shows it. Whatever a study says becomes text, never markup.

const EVERY_MS = 2000;
const SLOWEST_MS = 15000;
const SVG = "http://www.w3.org/2000/svg";
const KINDS = { front: "front", untouched: "untouched model", dominated: "dominated",
  infeasible: "infeasible" };

let [version, wait] = ["", EVERY_MS];  // what is shown, and how long until it is asked again
let [timer, asking] = [0, false];
let drawn = [];

const byId = (id) => document.getElementById(id);

function say(id, text) {
  const node = byId(id);
  if (node.textContent !== text) node.textContent = text;
}

function element(name, text, kind) {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  if (kind) node.className = kind;
  return node;
}

function shape(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, String(value));
  if (text !== undefined) node.textContent = text;
  return node;
}

// ---- asking -------------------------------------------------------------------------------------

async function get(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(20000) });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${(await answer.text()).trim()}`);
  return answer.json();
}

async function ask() {
  clearTimeout(timer);
  if (asking) return;
  asking = true;
  try {
    const now = await get("/now");
    showNow(now);
    if (now.version !== version) {
      const study = await get("/study");
      if (study.version) showStudy(study);
      version = study.version || now.version;
    }
    wait = EVERY_MS;
  } catch (error) {
    console.warn(error);
    document.body.dataset.state = "unheard";
    say("headline", "No answer from petra watch: what is shown may be out of date.");
    say("spoken", "No answer from petra watch.");
    wait = Math.min(SLOWEST_MS, 1.5 * wait);
  }
  asking = false;
  if (!document.hidden) timer = setTimeout(ask, wait);
}

// ---- what changes from second to second ---------------------------------------------------------

function showNow(now) {
  if (document.body.dataset.state !== now.state) {
    document.body.dataset.state = now.state;
    say("spoken", now.headline);
  }
  document.title = `${now.title}: ${now.state}`;
  for (const id of ["title", "headline", "advice", "progress", "who"]) say(id, now[id]);
  const bar = byId("bar");
  bar.hidden = now.fraction === null;
  if (now.fraction !== null) bar.value = now.fraction;
  say("now-title", now.heading);
  byId("now").hidden = !now.running.length && !now.waiting;
  const more = now.running.length ? " more" : "";
  const waiting = `${now.waiting}${more} ${now.waiting > 1 ? "wait" : "waits"}`;
  say("waiting", now.waiting ? `${waiting} for a worker.` : "");
  const head = ["trial", "doing", "for", "pipeline"];
  table("running", head, now.running, "What the workers have in hand", [1, 3]);
}

// ---- what changes with every trial --------------------------------------------------------------

function showStudy(study) {
  say("place", study.directory);
  say("aims", study.aims);
  byId("tiles").replaceChildren(...study.tiles.map(([value, what]) => {
    const tile = element("div");
    tile.append(element("dt", what), element("dd", value));
    return tile;
  }));
  byId("front").hidden = false;
  say("empty", study.empty && `The front is empty: ${study.empty}.`);
  const last = study.front.columns.length - 1;
  table("members", study.front.columns, study.front.rows, "The front in figures", [last]);
  byId("doubts").replaceChildren(...study.doubts.map((line) => element("p", line, "soft")));
  table("growth", ["trials before", "trial", "after", "hypervolume"], study.growth,
    "Trials that made the hypervolume grow, the last first", []);
  table("latest", ["trial", "ended as", "what came of it", "took", "after", "pipeline"],
    study.latest, "The trials that ended last, the newest first", [2, 5]);
  table("endings", ["how", "why", "trials", "for example"], study.endings,
    "Trials that came to nothing, by reason", [1, 3]);
  byId("growing").hidden = !study.volume.length;
  byId("last").hidden = !study.latest.length;
  byId("lost").hidden = !study.endings.length;
  byId("legend").hidden = !study.plots.length;
  drawn = [];
  figures("plots", study.plots);
  figures("volume", study.volume);
  redraw();
  if (version) announce(study);
}

function announce(study) {
  const [newest] = study.latest;
  const members = study.front.rows.length - 1;
  if (newest) say("spoken", `Trial ${newest[0]}: ${newest[1]}. ${members} models beside the ` +
    "untouched one in the table of the front.");
}

function table(id, columns, rows, caption, wide) {
  const place = byId(id);
  const said = JSON.stringify([columns, rows]);
  if (place.dataset.said === said) return;  // nothing is moved under a reader's hands
  place.dataset.said = said;
  if (!rows.length) { place.replaceChildren(); return; }
  const head = element("tr");
  for (const name of columns) {
    const cell = element("th", name);
    cell.scope = "col";
    head.append(cell);
  }
  const body = element("tbody");
  for (const row of rows) {
    const line = element("tr", undefined, id === "members" && row[0] === "0" ? "untouched" : "");
    row.forEach((text, i) => {
      const cell = element(i ? "td" : "th", text, wide.includes(i) ? "text" : "");
      if (!i) cell.scope = "row";
      line.append(cell);
    });
    body.append(line);
  }
  const top = element("thead");
  top.append(head);
  const made = element("table");
  made.append(element("caption", caption), top, body);
  const frame = place.firstElementChild || element("div", undefined, "scroll");
  frame.tabIndex = 0;
  frame.setAttribute("role", "region");
  frame.setAttribute("aria-label", caption);
  frame.replaceChildren(made);
  if (!frame.isConnected) place.append(frame);
}

// ---- plots --------------------------------------------------------------------------------------

function figures(id, plots) {
  byId(id).replaceChildren(...plots.map((plot) => {
    const figure = element("figure");
    const holder = element("div");
    const left = plot.left_out ? ` ${plot.left_out} earlier ones are not drawn.` : "";
    figure.append(holder, element("figcaption", plot.caption + left));
    drawn.push([holder, plot]);
    return figure;
  }));
}

function redraw() {
  for (const [holder, plot] of drawn) holder.replaceChildren(draw(holder.clientWidth, plot));
}

function draw(room, plot) {
  const width = Math.max(260, room);
  const height = Math.round(Math.min(340, Math.max(230, 0.62 * width)));
  const [left, right, top, bottom] = [66, 14, 22, 44];
  const scaled = (axis, from, to) => (value) =>
    from + (to - from) * (value - axis.low) / (axis.high - axis.low || 1);
  const x = scaled(plot.x, left, width - right);
  const y = scaled(plot.y, height - bottom, top);
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": plot.caption });
  axes(svg, plot, x, y, { width, height, left, right, top, bottom });
  for (const bound of plot.bounds || []) drawBound(svg, bound, x, y, plot);
  for (const line of plot.lines || []) {
    const points = line.map(([at, value]) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`);
    svg.append(shape("polyline", { points: points.join(" "),
      class: plot.points ? "line stairs" : "line" }));
  }
  for (const [at, value, number, kind, words] of plot.points || []) {
    const point = mark(kind, x(at), y(value));
    point.append(shape("title", {}, `trial ${number}, ${KINDS[kind]}: ${words}`));
    svg.append(point);
  }
  number(svg, plot.points || [], x, y, width);
  return svg;
}

function number(svg, points, x, y, width) {
  const taken = [];  // a number is left out where it would cover another
  for (const [at, value, name, kind] of points) {
    if (kind !== "front") continue;
    const size = 8 * String(name).length;
    for (const [dx, dy] of [[8, -6], [8, 15], [-8 - size, -6], [-8 - size, 15]]) {
      const [from, base] = [x(at) + dx, y(value) + dy];
      const meets = ([other, end, line]) =>
        other < from + size && from < end && Math.abs(line - base) < 12;
      if (from < 0 || from + size > width || taken.some(meets)) continue;
      taken.push([from, from + size, base]);
      svg.append(shape("text", { x: from, y: base, class: "number" }, String(name)));
      break;
    }
  }
}

function axes(svg, plot, x, y, box) {
  const { width, height, left, right, top, bottom } = box;
  const crowded = plot.x.ticks.length > 4 && width < 420;
  plot.x.ticks.forEach(([at, text], i) => {
    svg.append(shape("line", { x1: x(at), x2: x(at), y1: top, y2: height - bottom,
      class: "grid" }));
    if (crowded && i % 2) return;
    svg.append(shape("text", { x: x(at), y: height - bottom + 16,
      "text-anchor": x(at) > width - right - 20 ? "end" : "middle" }, text));
  });
  for (const [at, text] of plot.y.ticks) {
    svg.append(shape("line", { x1: left, x2: width - right, y1: y(at), y2: y(at), class: "grid" }));
    svg.append(shape("text", { x: left - 6, y: y(at) + 4, "text-anchor": "end" }, text));
  }
  svg.append(shape("line", { x1: left, x2: width - right, y1: height - bottom,
    y2: height - bottom, class: "edge" }));
  svg.append(shape("line", { x1: left, x2: left, y1: top, y2: height - bottom, class: "edge" }));
  svg.append(shape("text", { x: width - right, y: height - 8, "text-anchor": "end",
    class: "title" }, short(plot.x.title, width)));
  svg.append(shape("text", { x: 2, y: 12, class: "title" }, short(plot.y.title, width)));
}

function short(text, width) {
  const most = Math.floor(width / 7);  // characters of the font, on average narrower
  return text.length > most ? `${text.slice(0, most - 1)}\u2026` : text;
}

function drawBound(svg, bound, x, y, plot) {
  const along = bound.axis === "x";
  const [own, other, at, to] = along ? [plot.x, plot.y, x, y] : [plot.y, plot.x, y, x];
  if (bound.at < own.low || bound.at > own.high) return;
  const [near, far] = [at(bound.at), at(bound.least ? own.low : own.high)];
  const [one, two] = [to(other.low), to(other.high)];
  const box = (a, b) => [Math.min(a, b), Math.abs(b - a)];
  const [[u, du], [v, dv]] = [along, !along].map((o) => o ? box(near, far) : box(one, two));
  svg.append(shape("rect", { x: u, width: du, y: v, height: dv, class: "beyond" }));
  svg.append(shape("line", along ? { x1: near, x2: near, y1: one, y2: two, class: "bound" }
    : { x1: one, x2: two, y1: near, y2: near, class: "bound" }));
  const end = along && near > (x(plot.x.low) + x(plot.x.high)) / 2;
  const spot = along ? { x: near + (end ? -5 : 5), y: two + 13 } : { x: two - 4, y: near - 5 };
  svg.append(shape("text", { ...spot, "text-anchor": along && !end ? "start" : "end",
    class: "bound" }, bound.text));
}

function mark(kind, x, y) {
  const at = (...pairs) => pairs.map(([dx, dy]) => `${x + dx},${y + dy}`).join(" ");
  if (kind === "front") {
    return shape("polygon", { points: at([0, -7], [7, 0], [0, 7], [-7, 0]), class: kind });
  }
  if (kind === "untouched") {
    return shape("rect", { x: x - 6, y: y - 6, width: 12, height: 12, class: kind });
  }
  if (kind === "infeasible") {
    return shape("path", { class: kind,
      d: `M${x - 4},${y - 4}L${x + 4},${y + 4}M${x - 4},${y + 4}L${x + 4},${y - 4}` });
  }
  return shape("circle", { cx: x, cy: y, r: 4, class: kind });
}

function legend() {
  byId("legend").replaceChildren(...Object.entries(KINDS).map(([kind, name]) => {
    const item = element("li");
    const svg = shape("svg", { viewBox: "0 0 16 16" });
    svg.append(mark(kind, 8, 8));
    item.append(svg, document.createTextNode(name));
    return item;
  }));
}

// ---- begin --------------------------------------------------------------------------------------

legend();
let room = 0;
new ResizeObserver(() => {
  if (room !== document.body.clientWidth) redraw();
  room = document.body.clientWidth;
}).observe(document.body);
document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
ask();
