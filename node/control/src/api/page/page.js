"use strict";
// The status page: asks the node's API once a second, and draws what it says. Text from the node is
// only ever set as text, never as markup.

const POINTS = 300;
const NAME = "weir-token";
const at = (id) => document.getElementById(id);

const state = {
  token: null, status: null, sessions: [], before: new Map(), rates: new Map(),
  up: [], down: [], busy: [], dropping: [], sort: "rate", descending: true, timer: 0,
};

// ---- numbers

function scaled(value, step, units) {
  let unit = 0;
  while (value >= step * 0.9995 && unit + 1 < units.length) { value /= step; unit += 1; }
  const digits = unit === 0 ? 0 : value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return `${value.toFixed(digits)} ${units[unit]}`;
}
const bytes = (count) => scaled(count, 1024, ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]);
const bits = (perSecond) => scaled(8 * perSecond, 1000, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"]);
const whole = (count) => Math.round(count).toLocaleString("en");

function span(seconds) {
  seconds = Math.max(0, Math.floor(seconds));
  const [m, h, d] = [60, 3600, 86400].map((unit) => Math.floor(seconds / unit));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${m} min`;
  if (seconds < 86400) return `${h} h ${m % 60} min`;
  return `${d} d ${h % 24} h`;
}

// Wei are more than a number can hold exactly: the last twelve digits are cut as text.
function coins(wei) {
  const digits = String(wei).padStart(19, "0");
  const cut = `${digits.slice(0, -18)}.${digits.slice(-18, -12)}`;
  return cut.replace(/\.?0+$/, "") || "0";
}

// ---- what the node said, and what that means

function take(status, sessions) {
  const last = state.status;
  const seconds = last ? status.uptime_seconds - last.uptime_seconds : 0;
  const fresh = !(seconds > 0);
  const rate = (now, then) => (fresh || then === undefined ? 0 : Math.max(0, now - then) / seconds);
  if (!fresh) {
    push(state.up, rate(status.bytes_up, last.bytes_up));
    push(state.down, rate(status.bytes_down, last.bytes_down));
  }
  state.busy = status.worker_busy_seconds.map((spent, worker) =>
    Math.min(1, rate(spent, last?.worker_busy_seconds[worker])));
  const old = new Map((last?.drops ?? []).map((drop) => [`${drop.stage} ${drop.reason}`, drop.packets]));
  state.dropping = status.drops.filter((drop) => drop.packets > 0).map((drop) => {
    const what = `${drop.stage} ${drop.reason}`;
    return { what, packets: drop.packets, rate: rate(drop.packets, old.get(what)) };
  }).sort((a, b) => b.rate - a.rate || b.packets - a.packets);
  state.rates = new Map(sessions.map((session) => {
    const then = state.before.get(session.id);
    return [session.id, { up: rate(session.bytes_up, then?.up), down: rate(session.bytes_down, then?.down) }];
  }));
  state.before = new Map(sessions.map((s) => [s.id, { up: s.bytes_up, down: s.bytes_down }]));
  state.status = status;
  state.sessions = sessions;
}

function push(history, value) {
  history.push(value);
  if (history.length > POINTS) history.shift();
}

// ---- drawing

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function shape(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function chart(way) {
  const history = state[way];
  const peak = Math.max(...history, 1);
  const svg = at(`${way}-chart`);
  svg.setAttribute("viewBox", `0 0 ${POINTS - 1} 100`);
  const x = (index) => POINTS - history.length + index;
  const points = history.map((value, index) => `${x(index)},${(97 - 92 * value / peak).toFixed(2)}`);
  const drawn = [25, 50, 75].map((y) => shape("line", { class: "grid", x1: 0, x2: POINTS, y1: y, y2: y }));
  drawn.push(shape("line", { class: "grid", x1: 0, x2: POINTS, y1: 99.5, y2: 99.5 }));
  if (points.length > 1) {
    const floor = `${x(history.length - 1)},100 ${x(0)},100`;
    drawn.push(shape("polygon", { class: "area", points: `${points.join(" ")} ${floor}` }));
    drawn.push(shape("polyline", { class: "curve", points: points.join(" ") }));
  }
  svg.replaceChildren(...drawn);
  at(`${way}-now`).textContent = history.length ? bits(history[history.length - 1]) : "–";
  at(`${way}-peak`).textContent = history.length ? `peak ${bits(Math.max(...history))}` : "";
}

function tile(name, value, className) {
  const made = element("div", undefined, "card tile");
  made.append(element("b", value, className), element("span", name));
  return made;
}

function tiles() {
  const { status, sessions } = state;
  const now = Date.now() / 1000;
  const connected = sessions.filter((s) => s.last_handshake && now - s.last_handshake < 180).length;
  const credit = sessions.reduce((sum, s) => s.credit_bytes === null ? sum
    : sum + Math.max(0, s.credit_bytes - s.bytes_up - s.bytes_down), 0);
  const made = [
    tile(`connected, of ${sessions.length} sessions`, String(connected)),
    tile("billed up", bytes(status.bytes_up), "flow-up"),
    tile("billed down", bytes(status.bytes_down), "flow-down"),
    tile("credit left", sessions.some((s) => s.credit_bytes !== null) ? bytes(credit) : "–"),
    tile("earned, promised by consumers", status.earned_wei === "0" ? "–" : coins(status.earned_wei)),
    tile("used, not yet paid", status.unpaid_bytes ? bytes(status.unpaid_bytes) : "–", status.unpaid_bytes ? "warn" : ""),
    tile("handshakes", whole(status.handshakes)),
    tile("uptime", span(status.uptime_seconds)),
  ];
  at("tiles").replaceChildren(...made);
}

function workers() {
  const made = state.busy.map((busy, worker) => {
    const row = element("div", undefined, "worker");
    const meter = element("meter");
    Object.assign(meter, { min: 0, max: 1, low: 0.9, optimum: 0, value: busy });
    row.append(element("span", `core ${state.status.worker_cores[worker]}`), meter,
      element("span", `${(100 * busy).toFixed(0)} %`, "num"));
    return row;
  });
  at("workers").replaceChildren(...made);
}

function drops() {
  const made = state.dropping.slice(0, 12).map((drop) => {
    const row = element("div", undefined, "drop");
    row.append(element("span", drop.what.replaceAll("_", " ")),
      element("span", drop.rate > 0 ? `${whole(drop.rate)}/s` : "", "num warn"),
      element("span", whole(drop.packets), "num quiet"));
    return row;
  });
  at("drops").replaceChildren(...(made.length ? made : [element("span", "None.", "quiet")]));
}

const total = (s) => s.bytes_up + s.bytes_down;
const rateOf = (s) => { const r = state.rates.get(s.id); return r ? r.up + r.down : 0; };
const left = (s) => s.credit_bytes === null ? Infinity : Math.max(0, s.credit_bytes - total(s));
const COLUMNS = [
  { id: "name", title: "Session", key: (s) => (s.name ?? s.id).toLowerCase() },
  { id: "state", title: "State", key: (s) => s.state },
  { id: "up", title: "Up", key: (s) => state.rates.get(s.id)?.up ?? 0, number: true },
  { id: "down", title: "Down", key: (s) => state.rates.get(s.id)?.down ?? 0, number: true },
  { id: "bytes_up", title: "Total up", key: (s) => s.bytes_up, number: true, later: true },
  { id: "bytes_down", title: "Total down", key: (s) => s.bytes_down, number: true, later: true },
  { id: "total", title: "Total", key: total, number: true },
  { id: "left", title: "Credit left", key: left, number: true, later: true },
  { id: "handshake", title: "Handshake", key: (s) => s.last_handshake ?? 0, number: true, later: true },
];

function columnClass(column) {
  return [column.number ? "num" : "", column.later ? "later" : ""].join(" ").trim();
}

function head() {
  at("head").replaceChildren(...COLUMNS.map((column) => {
    const cell = element("th", undefined, columnClass(column));
    if (state.sort === column.id) cell.setAttribute("aria-sort", state.descending ? "descending" : "ascending");
    const button = element("button", column.title);
    button.type = "button";
    button.addEventListener("click", () => {
      state.descending = state.sort === column.id ? !state.descending : Boolean(column.number);
      state.sort = column.id;
      head();
      table();
    });
    cell.append(button);
    return cell;
  }));
}

function table() {
  const wanted = at("filter").value.trim().toLowerCase();
  // Until a column is chosen: who is busiest, both ways together.
  const column = COLUMNS.find((one) => one.id === state.sort) ?? { key: rateOf };
  const fits = (s) => !wanted || (s.name ?? "").toLowerCase().includes(wanted) || s.id.startsWith(wanted)
    || s.state === wanted;
  const shown = state.sessions.filter(fits).sort((a, b) => {
    const [x, y] = [column.key(a), column.key(b)];
    const order = x < y ? -1 : x > y ? 1 : 0;
    return state.descending ? -order : order;
  });
  const now = Date.now() / 1000;
  // More than anybody reads: the filter finds the others.
  const rows = shown.slice(0, 500).map((session) => {
    const rate = state.rates.get(session.id) ?? { up: 0, down: 0 };
    const row = element("tr");
    const status = element("td", undefined, session.state === "open" ? "good" : "warn");
    status.append(element("span", undefined, "dot"), element("span", session.state, "word"));
    status.title = session.state;
    const name = element("td", session.name ?? session.id, session.name ? "" : "mono");
    name.title = session.id;
    const cells = [name, status,
      element("td", rate.up ? bits(rate.up) : "–", rate.up ? "num flow-up" : "num quiet"),
      element("td", rate.down ? bits(rate.down) : "–", rate.down ? "num flow-down" : "num quiet"),
      element("td", bytes(session.bytes_up), "num later"),
      element("td", bytes(session.bytes_down), "num later"),
      element("td", bytes(total(session)), "num"),
      element("td", session.credit_bytes === null ? "–" : bytes(left(session)), "num later"),
      element("td", session.last_handshake ? `${span(now - session.last_handshake)} ago` : "never", "num later")];
    row.append(...cells);
    return row;
  });
  at("rows").replaceChildren(...rows);
  const all = state.sessions.length;
  at("count").textContent = `${shown.length === all ? all : `${shown.length} of ${all}`}`;
  at("empty").hidden = all > 0;
  at("head").hidden = all === 0;
}

function health(text, className) {
  at("health").textContent = text;
  at("health").className = `badge ${className}`;
}

function draw() {
  const { status } = state;
  at("version").textContent = status.version;
  at("endpoint").textContent = status.endpoint;
  if (status.ledger_age_seconds > 10) health(`ledger not written for ${span(status.ledger_age_seconds)}`, "bad");
  else if (state.busy.some((busy) => busy > 0.9)) health("a worker is at its limit", "warn");
  else if (status.xdp_mode === "off") health("serving, without XDP guard", "warn");
  else health(`serving, XDP ${status.xdp_mode}`, "good");
  chart("up"); chart("down");
  tiles(); workers(); drops(); table();
}

// ---- asking

class Unauthorised extends Error {}

async function ask(path) {
  const headers = { Authorization: `Bearer ${state.token}` };
  const answer = await fetch(path, { headers, cache: "no-store", signal: AbortSignal.timeout(10000) });
  if (answer.status === 401) throw new Unauthorised();
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error?.message ?? `the node answered ${answer.status}`);
  return body;
}

async function refresh() {
  try {
    const [status, list] = await Promise.all([ask("v1/status"), ask("v1/sessions")]);
    sessionStorage.setItem(NAME, state.token);
    take(status, list.sessions);
    at("login").hidden = true;
    at("node").hidden = false;
    at("node").classList.remove("stale");
    at("error").hidden = true;
    draw();
  } catch (error) {
    if (error instanceof Unauthorised) return login("That is not this node's token.");
    health("no answer", "bad");
    at("node").hidden = false;
    at("node").classList.add("stale");
    at("error").hidden = false;
    at("error").textContent = "The node does not answer. Is it running? The numbers are from its last answer; the page keeps trying.";
  }
  const pause = document.hidden ? 5000 : state.sessions.length > 1000 ? 3000 : 1000;
  state.timer = setTimeout(refresh, pause);
}

function login(why) {
  clearTimeout(state.timer);
  sessionStorage.removeItem(NAME);
  state.token = null;
  at("node").hidden = true;
  at("login").hidden = false;
  at("login-error").textContent = why;
  health("token needed", "warn");
  at("token").focus();
}

function start() {
  head();
  at("filter").addEventListener("input", table);
  at("login-form").addEventListener("submit", (event) => {
    event.preventDefault();
    state.token = at("token").value.trim();
    at("token").value = "";
    refresh();
  });
  const named = new URLSearchParams(location.hash.slice(1)).get("token");
  // Not to be left in the address, from where it would get into histories and screenshots.
  if (named) history.replaceState(null, "", location.pathname);
  state.token = named ?? sessionStorage.getItem(NAME);
  if (state.token) refresh(); else login("");
}

start();
