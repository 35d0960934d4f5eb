// The page over many runs: filter, sort, choose columns, compare what is ticked. No library, no request.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const colours = ["#2f66b3", "#d1772b", "#26805b", "#a2398f", "#c4372c", "#5b8fd9", "#8a7a1f", "#1f97a8"];
  const state = { words: "", key: "date", down: true, columns: data.headlines.slice(0, 8), chosen: [], log: {} };
  data.runs.forEach((run, i) => { run.id = i; run.text = [run.name, run.data, run.date, "seed " + run.seed,
    ...Object.entries(run.changes).map(([k, v]) => k + "=" + v)].join(" ").toLowerCase(); });

  // what is shown stands in the address, so that it can be kept and passed on
  const asked = new URLSearchParams(location.hash.slice(1));
  if (asked.has("q")) state.words = asked.get("q");
  if (asked.has("sort")) { state.key = asked.get("sort").replace(/^-/, ""); state.down = asked.get("sort").startsWith("-"); }
  if (asked.has("columns")) state.columns = asked.get("columns").split(",").filter(name => name in data.metrics);
  if (asked.has("runs")) state.chosen = asked.getAll("runs").map(name => data.runs.findIndex(run => run.name === name)).filter(i => i >= 0).slice(0, 8);
  const remember = () => {
    const now = new URLSearchParams();
    if (state.words) now.set("q", state.words);
    now.set("sort", (state.down ? "-" : "") + state.key);
    now.set("columns", state.columns.join(","));
    for (const id of state.chosen) now.append("runs", data.runs[id].name);
    try { history.replaceState(null, "", "#" + now); } catch { /* a page without an address of its own */ }
  };

  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (value !== false && value !== null) node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children);
    return node;
  };
  const broken = text => text.split(/(?<=[_.])/).flatMap(part => [part, make("wbr")]);  // long names break after _ and . alone
  const number = value => {
    if (value === undefined || value === null) return "";
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e5)) return value.toExponential(1);
    return String(Number(value.toPrecision(3)));
  };
  const title = name => data.metrics[name].title;
  const value = (run, key) => key in data.metrics ? run.last[key] : run[key];
  const shared = key => new Set(data.runs.map(run => run.changes[key])).size === 1;  // what all runs have tells none apart
  const telling = new Set(data.runs.flatMap(run => Object.keys(run.changes)).filter(key => key !== "seed" && !shared(key)));
  const brief = run => Object.entries(run.changes).filter(([k]) => telling.has(k)).map(([k, v]) => k.split(".").pop() + " " + v).join(", ");

  // every word must occur; "-word" must not; "name<0.3" compares a metric or a column
  const matches = run => state.words.toLowerCase().split(/\s+/).filter(Boolean).every(word => {
    const test = word.match(/^([\w/.]+)([<>])(-?[\d.e]+)$/);
    if (test) {
      const key = Object.keys(data.metrics).find(k => k.toLowerCase() === test[1] || k.split("/")[1] === test[1]) || test[1];
      const v = value(run, key);
      return v !== undefined && v !== null && (test[2] === "<" ? v < +test[3] : v > +test[3]);
    }
    return word.startsWith("-") && word.length > 1 ? !run.text.includes(word.slice(1)) : run.text.includes(word);
  });
  const order = (a, b) => {
    const x = value(a, state.key), y = value(b, state.key);
    const lacks = v => v === undefined || v === null || v === "";
    if (lacks(x) || lacks(y)) return lacks(x) - lacks(y) || a.id - b.id;  // what has no value stands last, either way
    const way = typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
    return (state.down ? -way : way) || a.id - b.id;
  };

  const app = document.getElementById("app");
  const count = make("span", { class: "count", "aria-live": "polite" });
  const search = make("input", { type: "search", placeholder: "filter: words, -without, probe_z_r2>0.9", "aria-label": "filter runs",
    oninput: () => { state.words = search.value; list(); } });
  search.value = state.words;
  const columns = make("select", { "aria-label": "add or remove a column", onchange: () => {
    const name = columns.value;
    if (name) state.columns = state.columns.includes(name) ? state.columns.filter(other => other !== name) : [...state.columns, name];
    list(); } });
  const clear = make("button", { onclick: () => { state.chosen = []; list(); compare(); } }, "clear the comparison");
  const box = make("div", { class: "runs", tabindex: "0", role: "region", "aria-label": "runs" });
  const below = make("div", { id: "compare" });
  app.append(make("div", { class: "bar" }, search, columns, clear, count), box, below);

  const heading = (key, words, text, help, kind = "") => {
    const sorted = state.key === key;
    const sort = () => {
      const low = key in data.metrics && data.metrics[key].better === "low";
      if (sorted) state.down = !state.down; else { state.key = key; state.down = !(text && key !== "date") && !low; }
      list();
    };
    const button = make("button", { onclick: sort, title: help || "" }, words + (sorted ? (state.down ? " ↓" : " ↑") : ""));
    const cell = make("th", { scope: "col", class: `${text ? "text" : ""} ${kind}`.trim() || false, "aria-sort": sorted ? (state.down ? "descending" : "ascending") : "none" }, button);
    return cell;
  };

  function list() {
    remember();
    const shown = data.runs.filter(matches).sort(order);
    count.textContent = shown.length === data.runs.length ? `${shown.length} runs` : `${shown.length} of ${data.runs.length} runs`;
    const options = names => names.map(name => make("option", { value: name }, name));
    columns.replaceChildren(make("option", { value: "" }, "columns"),
      make("optgroup", { label: "add" }, ...options(Object.keys(data.metrics).filter(name => !state.columns.includes(name)))),
      make("optgroup", { label: "remove" }, ...options(state.columns)));
    clear.hidden = !state.chosen.length;
    const best = {};
    for (const name of state.columns) {
      const all = shown.map(run => run.last[name]).filter(v => v !== undefined);
      if (all.length > 1 && data.metrics[name].better) best[name] = (data.metrics[name].better === "low" ? Math.min : Math.max)(...all);
    }
    const head = make("tr", {}, make("th", {}, ""), heading("name", "run", true), heading("date", "date", true, "", "date"), heading("steps", "steps"),
      heading("seed", "seed"), ...state.columns.map(name => heading(name, title(name), false, `${name}: ${data.metrics[name].meaning}`)));
    const rows = shown.map(run => {
      const at = state.chosen.indexOf(run.id);
      const tick = make("input", { type: "checkbox", "aria-label": "compare " + run.name, onchange: () => choose(run.id) });
      tick.checked = at >= 0;
      const label = run.report ? make("a", { href: run.report }, run.name) : run.name;
      return make("tr", { class: at >= 0 ? "on" : false },
        make("td", { class: "text" }, tick, at >= 0 ? make("span", { class: "dot", style: `background:${colours[at % colours.length]};margin:0 0 0 7px` }) : ""),
        make("td", { class: "text name", title: run.name + "\n" + brief(run) }, label, make("small", {}, brief(run) || (data.runs.length > 1 ? "–" : ""))),
        make("td", { class: "text date" }, run.date),
        make("td", { title: run.asked && run.steps < run.asked ? "not finished" : "" }, run.asked && run.steps < run.asked ? `${run.steps} of ${run.asked}` : String(run.steps)),
        make("td", {}, run.seed === null ? "" : String(run.seed)),
        ...state.columns.map(name => make("td", { class: run.last[name] !== undefined && run.last[name] === best[name] ? "best" : false }, number(run.last[name]))));
    });
    box.replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
  }

  function choose(id) {
    state.chosen = state.chosen.includes(id) ? state.chosen.filter(other => other !== id) : [...state.chosen, id].slice(-colours.length);
    list(); compare();
  }

  const svg = (tag, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, v] of Object.entries(attributes)) node.setAttribute(key, v);
    return node;
  };
  function chart(name, runs) {
    const curves = runs.map((run, i) => [run.curves[name], colours[i % colours.length], run]).filter(([curve]) => curve);
    const all = curves.flatMap(([curve]) => curve[1]), last = Math.max(...curves.flatMap(([curve]) => curve[0]));
    let low = Math.min(...all), high = Math.max(...all);
    const log = low > 0 && high / low > 20, place = v => log ? Math.log(v) : v;
    const span = (place(high) - place(low)) || 1;
    if (curves.every(([curve]) => curve[0].length === 1)) return bars(name, curves);
    const picture = svg("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img", "aria-label": name });
    for (const [[steps, values], colour, run] of curves) {
      const points = steps.map((s, i) => `${(100 * s / (last || 1)).toFixed(2)},${(100 - 100 * (place(values[i]) - place(low)) / span).toFixed(2)}`);
      const line = svg("path", points.length > 1 ? { d: "M" + points.join("L"), stroke: colour } : { d: `M${points[0]}h.01`, stroke: colour, class: "one" });
      line.append(svg("title", {})); line.firstChild.textContent = `${run.name}: ${number(values[values.length - 1])}`;
      picture.append(line);
    }
    const better = data.metrics[name].better;
    return make("figure", {}, make("figcaption", { title: data.metrics[name].meaning }, make("b", {}, title(name)),
      make("small", {}, (log ? "log, " : "") + (better ? (better === "low" ? "lower is better" : "higher is better") : ""))), picture,
      make("div", { class: "axis" }, make("span", {}, `${number(low)} to ${number(high)}`), make("span", {}, `step ${last}`)));
  }

  // measured once a run: a curve would be a dot, so bars
  function bars(name, curves) {
    const top = Math.max(...curves.map(([curve]) => Math.abs(curve[1][0]))) || 1;
    const better = data.metrics[name].better;
    const rows = curves.map(([curve, colour, run]) => make("div", { class: "hbar", title: run.name },
      make("i", { style: `width:${(84 * Math.abs(curve[1][0]) / top).toFixed(1)}%;background:${colour}` }), number(curve[1][0])));
    return make("figure", {}, make("figcaption", { title: data.metrics[name].meaning }, make("b", {}, title(name)),
      make("small", {}, better ? (better === "low" ? "lower is better" : "higher is better") : "")), ...rows);
  }

  function differing(runs, table) {
    const keys = [...new Set(runs.flatMap(run => Object.keys(table(run))))].sort();
    return keys.filter(key => new Set(runs.map(run => String(table(run)[key]))).size > 1);
  }
  const dots = runs => runs.map((run, i) => make("th", { scope: "col" }, make("span", { class: "dot", style: `background:${colours[i % colours.length]}` }), run.name.split("/").pop()));
  function differences(words, runs, table) {
    const keys = differing(runs, table);
    const part = make("div", {}, make("h3", {}, words));
    if (!keys.length) { part.append(make("p", { class: "none" }, "No difference.")); return part; }
    const rows = keys.map(key => make("tr", {}, make("td", { class: "mono" }, ...broken(key)),
      ...runs.map(run => make("td", { class: "mono" }, ...broken(table(run)[key] === undefined ? "–" : String(table(run)[key]))))));
    part.append(make("div", { class: "scroll" }, make("table", { class: "plain differs" },
      make("thead", {}, make("tr", {}, make("th", {}, ""), ...dots(runs))), make("tbody", {}, ...rows))));
    return part;
  }
  const routing = run => Object.fromEntries([...Object.entries(run.reach).map(([loss, groups]) => [loss + " moves", groups.join(", ") || "nothing"]),
    ...run.cut.map(edge => [edge, "cut or narrowed"])]);

  function compare() {
    const runs = state.chosen.map(id => data.runs[id]);
    if (!runs.length) {
      below.replaceChildren(make("p", { class: "none" }, `Tick up to ${colours.length} runs to compare their curves, routing and settings.`));
      return;
    }
    const names = Object.keys(data.metrics).filter(name => runs.some(run => run.curves[name]));
    const key = make("div", { class: "legend" }, ...runs.map((run, i) => make("span", {}, make("span", { class: "dot", style: `background:${colours[i % colours.length]}` }), make("b", {}, run.name))));
    const advice = runs.filter(run => run.advice.length).map(run => make("p", { class: "warn" }, `${run.name}: ${run.advice.join(" ")}`));
    const metrics = names.filter(name => state.columns.includes(name)), rest = names.filter(name => !state.columns.includes(name));
    const more = make("details", {}, make("summary", {}, `${rest.length} more curves`));
    more.addEventListener("toggle", () => { if (more.open && more.children.length === 1) more.append(make("div", { class: "grid" }, ...rest.map(name => chart(name, runs)))); });
    below.replaceChildren(make("h2", {}, "Comparison"), key, ...advice, make("div", { class: "grid" }, ...metrics.map(name => chart(name, runs))), rest.length ? more : "",
      ...(runs.length > 1 ? [differences("Routing that differs", runs, routing), differences("Settings that differ", runs, run => run.config)]
        : [make("p", { class: "none" }, "Tick a second run to see what differs.")]));
  }
  list(); compare();
})();
