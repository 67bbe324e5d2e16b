// Asks the service how it stands, every two seconds, and shows it. What it is told is text, never markup.
"use strict";

const EVERY = 2000, PATIENCE = 10000, SLOWEST = 15000; // milliseconds
const TELLING = 30; // datapoints, fewer of which say little
const SHOWN = 100, FETCHED = 20000, A_REQUEST = 10000, TASKS_EVERY = 10000; // tasks; milliseconds
const KEY = "metaleader-token";
const $ = (id) => document.getElementById(id);
let told = null, before = null, askedAt = 0, tasks = [], tasksOf = "", tasksAt = 0, pause = EVERY, timer = 0, round = 0;

// ---- words

const whole = (n) => n.toLocaleString("en");
const number = (x, digits = 4) => x === null || x === undefined ? "–" : x !== 0 && (Math.abs(x) >= 1e7 || Math.abs(x) < 1e-4)
  ? x.toExponential(2) : x.toLocaleString("en", { maximumSignificantDigits: Math.abs(x) >= 1000 ? 6 : digits });
const brief = (x) => number(x, 3);
const percent = (share) => share > 0 && share < 0.005 ? "< 1 %" : `${Math.round(100 * share)} %`;
const count = (n, what) => `${whole(n)} ${what}${n === 1 ? "" : "s"}`;
const clock = (seconds) => new Date(1000 * seconds).toLocaleTimeString("en-GB");
const day = (seconds) => new Date(1000 * seconds).toLocaleDateString("en-GB", { day: "numeric", month: "short" });
const ms = (seconds) => (1000 * seconds).toLocaleString("en", { maximumSignificantDigits: 3 });

function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 100) return `${s} s`;
  if (s < 6000) return `${Math.round(s / 60)} min`;
  return s < 172800 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} days`;
}

function ages(first) { // the doubling that begins with this number of datapoints
  const last = first < 3 ? first : 2 * (first - 1);
  return first === last ? String(first) : `${whole(first)}–${whole(last)}`;
}

// A number and a string of digits are different tasks. Control characters, and those that turn text around, are told.
const named = (task) => (typeof task === "string" && (/^\s*-?\d*\s*$/.test(task) || task.trim() !== task) ? JSON.stringify(task)
  : String(task)).replace(/[\p{Cc}\u202a-\u202e\u2066-\u2069]/gu, (sign) => `\\u${sign.charCodeAt(0).toString(16).padStart(4, "0")}`);

// ---- elements

const text = (id, value) => { if ($(id).textContent !== value) $(id).textContent = value; };

function element(name, value, kind) {
  const made = document.createElement(name);
  if (value !== undefined) made.textContent = value;
  if (kind) made.className = kind;
  return made;
}

function table(id, heads, rows) { // the first cell of a row is its heading
  const head = element("tr"), body = document.createElement("tbody"), top = document.createElement("thead");
  for (const value of heads) head.append(Object.assign(element("th", value), { scope: "col" }));
  for (const row of rows) {
    const line = element("tr");
    row.forEach((value, i) => line.append(value instanceof Node ? value : element("td", value, i ? "" : "name")));
    body.append(line);
  }
  top.append(head);
  $(id).replaceChildren(top, body);
}

// ---- charts

function drawn(svg, name, attributes, value) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, its] of Object.entries(attributes)) made.setAttribute(key, its);
  if (value !== undefined) made.textContent = value;
  svg.append(made);
  return made;
}

function steps(low, high, most) { // round numbers that cover an interval
  const raw = (high - low) / most, size = 10 ** Math.floor(Math.log10(raw));
  const step = size * ([1, 2, 2.5, 5, 10].find((m) => m * size >= raw * 0.999) || 10), found = [];
  for (let i = Math.floor(low / step + 1e-9); i * step < high + step * 0.999; i++) found.push(i * step);
  return found;
}

// points: {x, y}; marks: {x, text, sub} below the axis; all: a dashed line at this height
function chart(id, { points, marks, from, to, axis, unit, all, dots, label }) {
  const svg = $(id), width = svg.clientWidth || 480, height = svg.clientHeight || 272;
  svg.replaceChildren();
  svg.setAttribute("aria-label", label);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const heights = [...points.map((p) => p.y), ...(all === null ? [] : [all])];
  let low = Math.min(...heights), high = Math.max(...heights);
  if (low > 0 && low < 0.6 * high) low = 0;
  if (high - low < 1e-12 * Math.max(1, Math.abs(high))) [low, high] = [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
  const ticks = steps(low, high, 5), [bottom, top] = [ticks[0], ticks[ticks.length - 1]];
  const words = ticks.map((y) => number(Number(y.toPrecision(6))));
  const left = 14 + 7 * Math.max(...words.map((word) => word.length)), right = width - 26, floor = height - 56, roof = 24;
  const X = (x) => left + 12 + (right - left - 12) * (to === from ? 0.5 : (x - from) / (to - from));
  const Y = (y) => floor - (floor - roof) * (y - bottom) / (top - bottom);
  drawn(svg, "text", { x: 2, y: 12, class: "sub" }, unit);
  ticks.forEach((y, i) => {
    drawn(svg, "line", { x1: left, x2: right + 12, y1: Y(y), y2: Y(y), class: "grid" });
    drawn(svg, "text", { x: left - 6, y: Y(y) + 4, "text-anchor": "end" }, words[i]);
  });
  if (all !== null) {
    drawn(svg, "line", { x1: left, x2: right + 12, y1: Y(all), y2: Y(all), class: "all" });
    drawn(svg, "text", { x: right + 12, y: Y(all) - 5, "text-anchor": "end", class: "sub" }, "all datapoints");
  }
  const taken = []; // from where to where there are words; the ends of the axis come first
  for (const { x, text: word, sub } of [marks[0], ...marks.slice(1).reverse()]) {
    const wide = 3.5 * Math.max(word.length, (sub || "").length) + 6, middle = Math.min(X(x), width - wide);
    if (taken.some(([a, b]) => middle - wide < b && a < middle + wide)) continue;
    taken.push([middle - wide, middle + wide]);
    drawn(svg, "text", { x: middle, y: floor + 17, "text-anchor": "middle" }, word);
    if (sub) drawn(svg, "text", { x: middle, y: floor + 32, "text-anchor": "middle", class: "sub" }, sub);
  }
  drawn(svg, "text", { x: (left + right) / 2, y: height - 6, "text-anchor": "middle", class: "sub" }, axis);
  drawn(svg, "polyline", { points: points.map((p) => `${X(p.x).toFixed(1)},${Y(p.y).toFixed(1)}`).join(" "), class: "line" });
  for (const p of dots ? points : points.slice(-1)) drawn(svg, "circle", { cx: X(p.x), cy: Y(p.y), r: 4, class: "dot" });
}

// ---- what is shown

function scores(status) { // names, those that the learner is judged by first
  const declared = [status.problem?.scores ?? []].flat().filter((score) => score && score.name);
  const known = new Set([...Object.keys(status.score.overall.values), ...Object.keys(status.score.recent.values)]);
  return { names: [...new Set([...declared.map((score) => score.name), ...known])].filter((name) => known.has(name)),
    higher: new Set(declared.filter((score) => score.higher_is_better).map((score) => score.name)) };
}

function chosen(status) {
  const { names, higher } = scores(status), select = $("score"), now = select.value;
  if ([...select.options].map((option) => option.value).join("\n") !== names.join("\n")) {
    select.replaceChildren(...names.map((name) => Object.assign(element("option", name), { value: name })));
    if (names.includes(now)) select.value = now;
  }
  return { name: select.value, higher: higher.has(select.value) };
}

function compared(first, last, higher) { // by how much the last is better
  if (first === 0 || !Number.isFinite(last / first)) return "";
  const change = (last - first) / Math.abs(first), better = higher ? change > 0 : change < 0;
  if (Math.abs(change) < 0.005) return "the same";
  return `${Math.abs(change) < 2 ? percent(Math.abs(change)) : `${number(last / first, 2)} times as much,`} ${better ? "better" : "worse"}`;
}

function showScore(status) {
  const { overall, recent } = status.score;
  $("judged").hidden = overall.datapoints === 0;
  if (overall.datapoints === 0) {
    text("recent-name", "Recent");
    text("recent", "–");
    text("recent-note", "nothing was judged yet");
    return;
  }
  const { name, higher } = chosen(status), all = overall.values[name] ?? null, newest = recent.values[name] ?? null;
  text("better", `${higher ? "higher" : "lower"} is better`);
  text("recent-name", `Recent ${name}`);
  text("recent", brief(newest));
  text("recent-note", `newest ${whole(recent.datapoints)}${all === null ? "" : `; of all: ${brief(all)}`}`);
  showAges(status.score, name, higher);
  showTime(status, name, higher);
}

function showAges({ overall, by_age: byAge }, score, higherScore) {
  // A score of a whole set has no value for each number of datapoints: there, the loss stands in for it.
  const name = Object.values(byAge).some((mean) => (mean.values[score] ?? null) !== null) ? score : "loss";
  const all = overall.values[name] ?? null, higher = name === score && higherScore;
  const groups = Object.entries(byAge).map(([age, mean]) => ({ age: Number(age), n: mean.datapoints, y: mean.values[name] ?? null }))
    .sort((a, b) => a.age - b.age), judged = groups.reduce((sum, group) => sum + group.n, 0);
  const seen = groups.filter((group) => group.y !== null), first = seen[0];
  const last = seen.findLast((group) => group.n >= TELLING) ?? seen[seen.length - 1];
  table("age-table", ["Datapoints before", name, "Datapoints judged", "Share"],
    groups.map((group) => [ages(group.age), number(group.y), whole(group.n), percent(group.n / judged)]));
  let note = "Nothing was judged that has a value.";
  if (seen.length && last === first) note = `So far there is only ${ages(first.age)} before: nothing to compare yet.`;
  if (seen.length > 1 && last !== first) {
    const start = first.age === 0 ? "Before a task's first datapoint" : `After ${ages(first.age)} datapoints`;
    note = `${start}: ${brief(first.y)}. After ${ages(last.age)}: ${brief(last.y)}`;
    const change = compared(first.y, last.y, higher);
    note += change ? `, ${change}.` : ".";
  }
  if (name !== score) note = `By the loss, as ${score} is of a whole set. ${note}`;
  text("age-note", note);
  $("age").toggleAttribute("hidden", seen.length === 0);
  if (seen.length) chart("age", { points: seen.map((group, i) => ({ x: i, y: group.y })), from: 0, to: seen.length - 1, dots: true,
    marks: seen.map((group, i) => ({ x: i, text: ages(group.age), sub: percent(group.n / judged) })), all, unit: name,
    axis: "datapoints before, and share of all judged", label: `${name} by datapoints of the task before. ${note}` });
}

function showTime(status, name, higher) {
  const series = status.score_over_time.filter((sample) => (sample.recent[name] ?? null) !== null)
    .map((sample) => ({ x: sample.time, y: sample.recent[name], n: sample.datapoints }));
  $("time").toggleAttribute("hidden", series.length === 0);
  const start = series.find((sample) => sample.n >= TELLING) ?? series[0]; // the first few say little
  const first = series[0], last = series[series.length - 1], long = series.length > 0 && last.x - first.x > 86400;
  const when = (x) => long ? `${clock(x).slice(0, 5)} on ${day(x)}` : clock(x);
  let note = "Nothing was judged since the service began.";
  if (series.length) note = `${brief(last.y)} at ${when(last.x)}`;
  if (start !== last) {
    const change = compared(start.y, last.y, higher);
    note = `${brief(start.y)} at ${when(start.x)}, ${note}${change ? `: ${change}` : ""}`;
  }
  text("time-note", series.length ? `${note}.` : note);
  table("time-table", ["Time", name, "Datapoints judged by then"],
    series.slice(-SHOWN).reverse().map((sample) => [when(sample.x), number(sample.y), whole(sample.n)]));
  if (!series.length) return;
  const marks = [];
  for (let i = 0; i < 5; i++) {
    const x = first.x + (last.x - first.x) * i / 4;
    if (i === 0 || last.x > first.x) marks.push({ x, text: long ? day(x) : clock(x).slice(0, last.x - first.x < 600 ? 8 : 5) });
  }
  chart("time", { points: series, from: first.x, to: last.x, marks, all: status.score.overall.values[name] ?? null, unit: name,
    axis: long ? "day" : "time of day", dots: series.length < 3, label: `${name} of the newest datapoints over time. ${note}` });
}

function showTasks() {
  const sought = $("search").value.trim().toLowerCase();
  const found = sought ? tasks.filter((task) => named(task.task).toLowerCase().includes(sought)) : tasks;
  const sorted = $("order").value === "most" ? [...found].sort((a, b) => b.datapoints - a.datapoints) : found;
  table("task-table", ["Task", "Datapoints"], sorted.slice(0, SHOWN).map((task) => {
    const name = document.createElement("bdi"), cell = element("td", undefined, "name"); // names may run right to left
    name.textContent = named(task.task);
    cell.append(name);
    return [cell, whole(task.datapoints)];
  }));
  const total = told ? told.tasks : tasks.length, searched = total > tasks.length ? ` of the newest ${whole(tasks.length)}` : "";
  const which = sought ? `${count(found.length, "task")}${searched} with this in the name` : `${count(total, "task")}`;
  text("found", found.length > SHOWN ? `${which}; the first ${SHOWN} are shown` : which);
}

const VERBS = ["predict", "adapt", "learn", "forget", "wait", "save", "rebuild"];

function rates(status) { // requests a second since the status before
  const passed = before && before.began === status.began ? status.now - before.now : 0, found = {};
  for (const verb of VERBS) {
    if (status.latency[verb] && passed > 0) found[verb] = (status.latency[verb].count - (before.latency[verb]?.count ?? 0)) / passed;
  }
  return found;
}

function showService(status) {
  const rate = rates(status), seen = VERBS.filter((verb) => status.latency[verb]);
  table("latency", ["Request", "median", "90 %", "99 %", "requests", "a second"], seen.map((verb) => {
    const its = status.latency[verb];
    return [verb, ms(its.p50), ms(its.p90), ms(its.p99), whole(its.count), verb in rate ? number(Number(rate[verb].toFixed(1))) : "–"];
  }));
  if (!seen.length) $("latency").replaceChildren(Object.assign(element("caption", "No requests yet.")));
  const its = status.latency.predict, predicting = (rate.predict ?? 0) + (rate.adapt ?? 0);
  text("rate", Object.keys(rate).length ? `${number(Number(predicting.toFixed(1)))} / s` : "– / s");
  text("rate-note", its ? `99 % within ${ms(its.p99)} ms` : "none was asked for yet");
  const most = status.limits?.backlog, working = Object.values(status.working_on).reduce((a, b) => a + b, 0);
  text("backlog", whole(status.backlog));
  text("backlog-note", `${most ? `at most ${whole(most)}; ` : ""}${count(working, "request")} at work`);
  text("tasks", whole(status.tasks));
  text("tasks-note", status.tasks ? `${number(Number((status.datapoints / status.tasks).toFixed(1)))} datapoints each` : "");
  text("datapoints", whole(status.datapoints));
  text("datapoints-note", status.score.not_finite ? `${whole(status.score.not_finite)} not judged: not finite` : `${whole(status.score.overall.datapoints)} judged`);
  text("snapshot", status.snapshot === null ? "none" : span(status.now - status.snapshot));
  text("snapshot-note", status.snapshot === null ? "the log has all that counts" : `ago, at ${clock(status.snapshot)}`);
  const about = { Learner: status.learner?.type ?? "–", Model: status.problem?.model?.type ?? "–", Loss: status.problem?.loss?.type
    ?? status.problem?.loss ?? "–", Classes: status.classes.join(", ") || "–", Version: `metaleader ${status.version}`,
    "Running for": span(status.now - status.began) };
  $("about").replaceChildren(...Object.entries(about).flatMap(([name, value]) => [element("dt", name), element("dd", String(value))]));
  text("settings", JSON.stringify({ learner: status.learner, problem: status.problem, limits: status.limits }, null, 1));
  text("learner", status.learner?.type ?? "");
}

function say(kind, words, old) {
  $("state").dataset.kind = kind;
  text("state", words);
  $("shown").classList.toggle("old", Boolean(old));
  document.title = kind === "bad" ? "(!) metaleader" : "metaleader";
}

function show(status) {
  $("shown").hidden = false;
  $("token").hidden = true;
  $("leave").hidden = !sessionStorage.getItem(KEY);
  $("metrics").hidden = !$("leave").hidden; // a link carries no token
  if (status.failed) say("bad", "Learning has ended by an error. All datapoints are kept, and predictions are made from what was learned before; the log of the service says why. Repair the cause, then start it again.");
  else if (status.rebuilding) say("wait", "The log is being learned anew, without what was forgotten. Predictions go on.");
  else if (!status.ready) say("wait", "Catching up with what was stored before it began. Predictions are made from an older state.");
  else if (!status.datapoints) say("wait", "Ready, and nothing is stored yet: send the first datapoints to /v1/learn. The API page shows how.");
  else say("good", status.learns ? "Ready: it learns and predicts." : "Ready: it predicts, and follows the process that learns.");
  showService(status);
  showScore(status);
  showTasks();
}

// ---- asking

async function ask(path) {
  const token = sessionStorage.getItem(KEY);
  const answer = await fetch(path, { headers: token ? { Authorization: `Bearer ${token}` } : {}, cache: "no-store",
    credentials: "omit", redirect: "error", signal: AbortSignal.timeout(PATIENCE) })
    .catch((error) => { throw Object.assign(error, { gone: true }); });
  const body = await answer.json().catch(() => null);
  if (answer.ok && body !== null) return body;
  throw Object.assign(new Error(body?.error?.message ?? `it answered ${answer.status}`),
    { status: answer.status, after: Number(answer.headers.get("Retry-After")) || 0 });
}

async function askTasks(status) {
  const now = `${status.began} ${status.stored}`;
  if (now === tasksOf || Date.now() < tasksAt + TASKS_EVERY) return;
  tasksAt = Date.now();
  const found = [];
  let start = Math.max(0, status.tasks - FETCHED);
  for (let i = 0; i < FETCHED / A_REQUEST && start !== null; i++) {
    const some = await ask(`/v1/tasks?start=${start}&limit=${A_REQUEST}`);
    found.push(...some.tasks);
    start = some.next;
  }
  tasks = found.reverse(); // they come in the order in which they were met
  tasksOf = now;
}

async function update() {
  const own = ++round;
  clearTimeout(timer);
  try {
    const status = await ask("/v1/status");
    await askTasks(status);
    if (own !== round) return; // a newer one was asked for meanwhile
    [before, told, askedAt, pause] = [told, status, Date.now(), EVERY];
    show(status);
  } catch (error) {
    if (own !== round) return;
    failed(error);
  }
  timer = setTimeout(update, document.hidden ? SLOWEST : pause);
}

function failed(error) {
  pause = Math.min(Math.max(2 * pause, 1000 * (error.after || 0)), SLOWEST);
  const since = told ? ` What is shown is from ${clock(askedAt / 1000)}.` : "";
  if (error.status === 401) {
    pause = SLOWEST;
    say("wait", `${sessionStorage.getItem(KEY) ? "The service does not know this token." : "The service asks for a token."}${since}`, told);
    $("leave").hidden = true;
    if ($("token").hidden) {
      $("token").hidden = false;
      $("secret").focus();
    }
  } else if (error.status) say("bad", `The service refuses to say how it stands: ${error.message}.${since}`, told);
  else if (error.gone) say("bad", `The service does not answer.${since} Trying again.`, told);
  else {
    say("bad", `This page has an error: ${error.message}.${since}`, told);
    console.error(error);
  }
}

$("token").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = $("secret").value.trim();
  $("secret").value = "";
  if (/^[\x21-\x7e]+$/.test(given)) sessionStorage.setItem(KEY, given);
  else say("wait", "A token has letters, digits and signs only, and no spaces.", told);
  if (sessionStorage.getItem(KEY)) update();
});
$("leave").addEventListener("click", () => {
  sessionStorage.removeItem(KEY);
  [told, before, tasks, tasksOf] = [null, null, [], ""];
  $("shown").hidden = true;
  update();
});
$("search").addEventListener("input", showTasks);
$("order").addEventListener("change", showTasks);
$("score").addEventListener("change", () => told && showScore(told));
document.addEventListener("visibilitychange", () => document.hidden || update());
new ResizeObserver(() => told && showScore(told)).observe($("shown"));
update();
