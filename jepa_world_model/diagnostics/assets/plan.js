// Pick a start and a goal, watch the plan. All data are in the page; the address keeps what is shown.
"use strict";
const D = JSON.parse(document.getElementById("data").textContent);
const NS = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);
const planners = Object.keys(D.routes);
const state = { start: D.start, goal: D.goal, planner: planners[0], t: 0, picking: "start" };
let timer = 0;

function make(tag, attributes, parent) {
  const node = document.createElementNS(NS, tag);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  if (parent) parent.appendChild(node);
  return node;
}

// What the chosen planner wants, and what the world makes of it.
function route() {
  const way = D.routes[state.planner][state.start][state.goal];
  const actions = way === null ? [] : Array.from(way, (c) => parseInt(c, 36));
  const cells = [state.start], blocked = [];
  for (const action of actions) {
    const here = cells[cells.length - 1], there = D.after[here][action];
    blocked.push(there === here && action !== D.noop);
    cells.push(there);
  }
  return { found: way !== null, actions, cells, blocked };
}

function believed(found) {
  const points = [D.pose[state.start]];
  for (let i = 0; i < found.actions.length; i++) {
    const last = points[points.length - 1], add = D.increments[found.actions[i]];
    points.push(D.believes[state.planner] ? [last[0] + add[0], last[1] + add[1]] : D.pose[found.cells[i + 1]]);
  }
  return points;
}

function path(points) { return points.map((p, i) => (i ? "L" : "M") + p[0].toFixed(2) + " " + p[1].toFixed(2)).join(""); }

// The two drawings are built once; `draw` moves what changes.
const world = $("world"), map = $("map"), parts = {};

function name(k) { return "(" + D.cells[k][0] + ", " + D.cells[k][1] + ")"; }

function build() {
  const [width, height] = D.size;
  world.setAttribute("viewBox", "0 0 " + width + " " + height);
  make("image", { href: D.picture, width, height, style: "image-rendering:pixelated" }, world);
  parts.veil = make("g", {}, world);
  D.pixel.forEach((at, k) => {
    if (!D.seen[k]) make("rect", { class: "unseen", x: at[0] - D.side / 2, y: at[1] - D.side / 2, width: D.side, height: D.side }, parts.veil);
  });
  parts.way = make("path", { class: "way" }, world);
  parts.done = make("path", { class: "done" }, world);
  parts.bumps = make("g", {}, world);
  parts.goal = make("rect", { class: "goal", width: D.side - 1, height: D.side - 1, rx: 1 }, world);
  parts.start = make("rect", { class: "start", width: D.side - 1, height: D.side - 1, rx: 1 }, world);
  parts.agent = make("circle", { class: "agent", r: D.side * 0.36 }, world);
  const hits = make("g", {}, world);
  D.pixel.forEach((at, k) => {
    const hit = make("rect", { class: "hit", x: at[0] - D.side / 2, y: at[1] - D.side / 2, width: D.side, height: D.side }, hits);
    make("title", {}, hit).textContent = name(k) + (D.seen[k] ? "" : ", never visited by the data");
    hit.addEventListener("click", () => pick(k));
  });
  const xs = D.pose.map((p) => p[0]), ys = D.pose.map((p) => p[1]);
  const low = [Math.min(...xs), Math.min(...ys)], high = [Math.max(...xs), Math.max(...ys)];
  const pad = 0.08 * Math.max(high[0] - low[0], high[1] - low[1]);
  map.setAttribute("viewBox", [low[0] - pad, low[1] - pad, high[0] - low[0] + 2 * pad, high[1] - low[1] + 2 * pad].join(" "));
  const unit = (Math.max(high[0] - low[0], high[1] - low[1]) + 2 * pad) / 100;
  parts.unit = unit;
  const seenWays = make("g", { class: "ways", "stroke-width": 0.35 * unit }, map);
  D.after.forEach((row, k) => row.forEach((to) => {
    if (to > k) make("path", { d: path([D.pose[k], D.pose[to]]), class: D.seen[k] && D.seen[to] ? "known" : "hidden" }, seenWays);
  }));
  D.pose.forEach((at, k) => {
    const dot = make("circle", { cx: at[0], cy: at[1], r: 1.25 * unit, class: D.seen[k] ? "dot" : "dot new", "stroke-width": 0.4 * unit }, map);
    make("title", {}, dot).textContent = name(k);
    dot.addEventListener("click", () => pick(k));
  });
  parts.mapWay = make("path", { class: "way", "stroke-width": 0.8 * unit }, map);
  parts.mapDone = make("path", { class: "done", "stroke-width": 1.1 * unit }, map);
  parts.mapGoal = make("circle", { class: "goal", r: 2.4 * unit, "stroke-width": 0.8 * unit }, map);
  parts.mapStart = make("circle", { class: "start", r: 2.4 * unit, "stroke-width": 0.8 * unit }, map);
  parts.mapAgent = make("circle", { class: "agent", r: 1.9 * unit }, map);
  for (const planner of planners) {
    const label = document.createElement("label"), input = document.createElement("input");
    input.type = "radio"; input.name = "planner"; input.value = planner;
    input.addEventListener("change", () => { state.planner = planner; state.t = 0; draw(); });
    label.append(input, planner);
    $("planners").appendChild(label);
  }
}

function put(node, k) {
  node.setAttribute("x", D.pixel[k][0] - D.side / 2 + 0.5);
  node.setAttribute("y", D.pixel[k][1] - D.side / 2 + 0.5);
}

function centre(node, at) { node.setAttribute("cx", at[0]); node.setAttribute("cy", at[1]); }

function draw() {
  const found = route(), points = believed(found);
  state.t = Math.max(0, Math.min(state.t, found.actions.length));
  const at = state.t, pixels = found.cells.map((k) => D.pixel[k]);
  parts.way.setAttribute("d", path(pixels));
  parts.done.setAttribute("d", path(pixels.slice(0, at + 1)));
  parts.bumps.replaceChildren();
  found.blocked.forEach((stopped, i) => {
    if (stopped) make("circle", { class: "bump", cx: pixels[i][0], cy: pixels[i][1], r: D.side * 0.3 }, parts.bumps);
  });
  put(parts.start, state.start); put(parts.goal, state.goal);
  centre(parts.agent, pixels[at]);
  parts.mapWay.setAttribute("d", path(points));
  parts.mapDone.setAttribute("d", path(points.slice(0, at + 1)));
  centre(parts.mapStart, D.pose[state.start]); centre(parts.mapGoal, D.pose[state.goal]);
  centre(parts.mapAgent, points[at]);
  for (const input of document.querySelectorAll("input[name=planner]")) input.checked = input.value === state.planner;
  const range = $("range");
  range.max = Math.max(found.actions.length, 1); range.value = at; range.disabled = !found.actions.length;
  range.setAttribute("aria-valuetext", "step " + at + " of " + found.actions.length);
  $("play").disabled = !found.actions.length;
  $("play").textContent = timer ? "Pause" : "Play";
  $("step").textContent = at + " / " + found.actions.length;
  $("words").innerHTML = words(found);
  $("pair").textContent = "from " + name(state.start) + (D.seen[state.start] ? "" : " (never visited)") +
    " to " + name(state.goal) + (D.seen[state.goal] ? "" : " (never visited)");
  $("picking").textContent = state.picking === "start" ? "Pick a start." : "Now pick a goal.";
  $("actions").textContent = found.actions.map((a, i) => (i === at - 1 ? "[" + D.actions[a] + "]" : D.actions[a])).join("  ");
  const hash = "#start=" + state.start + "&goal=" + state.goal + "&planner=" + encodeURIComponent(state.planner) + "&t=" + at;
  if (location.hash !== hash) history.replaceState(null, "", hash);
}

function plain(text) { const node = document.createElement("p"); node.textContent = text; return node.innerHTML; }

function words(found) {
  const best = D.optimal[state.start][state.goal], end = found.cells[found.cells.length - 1];
  if (!found.found) return '<b class="bad">No way found</b>: ' + plain(D.why[state.planner] || "the planner gave none") + ". The world's own best is " + best + " moves.";
  const moves = found.actions.length, bumps = found.blocked.filter(Boolean).length;
  const arrived = end === state.goal;
  let text = arrived ? '<b class="good">Arrives</b> in ' + moves + (moves === 1 ? " move" : " moves") + "; the best is " + best + "."
    : '<b class="bad">Misses</b>: after ' + moves + " moves it stands at " + name(end) + ", " + D.optimal[end][state.goal] + " from the goal.";
  if (bumps) text += " It runs into a wall " + (bumps === 1 ? "once." : bumps + " times.");
  return text;
}

function pick(k) {
  stop();
  if (state.picking === "start") { state.start = k; state.picking = "goal"; }
  else { state.goal = k; state.picking = "start"; }
  state.t = 0;
  draw();
}

function stop() { clearInterval(timer); timer = 0; }

function play() {
  if (timer) { stop(); draw(); return; }
  const length = route().actions.length;
  if (state.t >= length) state.t = 0;
  timer = setInterval(() => { state.t += 1; if (state.t >= length) stop(); draw(); }, 330);
  draw();
}

function random() {
  stop();
  const want = $("unseen").checked ? D.cells.map((_, k) => k).filter((k) => !D.seen[k]) : D.cells.map((_, k) => k);
  const one = () => want[Math.floor(Math.random() * want.length)];
  do { state.start = one(); state.goal = one(); } while (want.length > 1 && D.optimal[state.start][state.goal] <= 0);
  state.t = 0; state.picking = "start";
  draw();
}

function read() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const key of ["start", "goal", "t"]) {
    const value = parseInt(given.get(key), 10), most = key === "t" ? 1e6 : D.cells.length - 1;
    if (value >= 0 && value <= most) state[key] = value;
  }
  if (planners.includes(given.get("planner"))) state.planner = given.get("planner");
}

build();
read();
draw();
$("play").addEventListener("click", play);
$("back").addEventListener("click", () => { stop(); state.t -= 1; draw(); });
$("next").addEventListener("click", () => { stop(); state.t += 1; draw(); });
$("random").addEventListener("click", random);
$("swap").addEventListener("click", () => { stop(); [state.start, state.goal] = [state.goal, state.start]; state.t = 0; draw(); });
$("range").addEventListener("input", (event) => { stop(); state.t = parseInt(event.target.value, 10); draw(); });
window.addEventListener("hashchange", () => { stop(); read(); draw(); });
// Arrow keys move the cell that is to be picked; Enter goes on from start to goal.
world.addEventListener("keydown", (event) => {
  const key = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[event.key];
  if (event.key === "Enter") { state.picking = state.picking === "start" ? "goal" : "start"; draw(); return; }
  if (!key) return;
  event.preventDefault();
  const [x, y] = D.cells[state[state.picking]];
  const k = D.cells.findIndex((c) => c[0] === x + key[0] && c[1] === y + key[1]);
  if (k >= 0) { stop(); state[state.picking] = k; state.t = 0; draw(); }
});
