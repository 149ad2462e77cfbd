// Draws the score and what waits along time. Vega comes after the figures, and evaluates nothing: its expressions are interpreted.

import { clock } from "./bind.js";
import { decision, score, words } from "./view.js";

const base = new URL(".", import.meta.url);
const byId = (id) => document.getElementById(id);
let views = null;
let drawing = false;
let next = null; // the state to be drawn after this one
let drawn = "";

function load() {
  if (window.vegaEmbed) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = new URL("vega.js", base);
    script.onload = resolve;
    script.onerror = () => reject(new Error("its script did not come"));
    document.head.append(script);
  });
}

async function specifications() {
  const answer = await fetch(new URL("charts.json", base));
  if (!answer.ok) throw new Error("its description did not come");
  return answer.json();
}

async function make(datasets) {
  const [specs] = await Promise.all([specifications(), load()]);
  const made = {};
  for (const name of ["score", "lag"]) {
    const spec = specs[name];
    spec.config.font = getComputedStyle(document.body).fontFamily;
    spec.datasets = structuredClone(datasets);
    const options = {
      mode: "vega-lite", renderer: "svg", actions: false, ast: true, defaultStyle: false,
      tooltip: { theme: "page", disableDefaultStyle: true },
    };
    made[name] = (await window.vegaEmbed(byId(`chart-${name}`), spec, options)).view;
  }
  return made;
}

export function pointsOf({ status, series }) {
  const sign = status.measure === "error" ? -1 : 1;
  return series.map((point) => ({
    time: point.time * 1000,
    when: clock(point.time),
    score: point.score === null ? null : sign * point.score,
    told: score(status.measure, point.score),
    lag: point.lag,
    version: point.version,
  }));
}

export function marksOf({ status, series, alarms, decisions }) {
  if (!series.length) return [];
  const first = series[0].time;
  const kinds = { promote: "promotion", rollback: "rollback", automatic_rollback: "rollback" };
  const done = decisions
    .filter((item) => Object.hasOwn(kinds, item.action))
    .map((item) => ({ kind: kinds[item.action], time: item.time, what: decision(item, status.time).sentence }));
  const heard = alarms.map((item) => ({ kind: "alarm", time: item.time, what: `${words(item.kind)}: ${item.message}` }));
  return [...done, ...heard].filter((item) => item.time >= first).map((item) => ({ ...item, time: item.time * 1000, when: clock(item.time) }));
}

function tell(sentence) {
  const none = byId("chart-none");
  none.textContent = sentence;
  none.hidden = !sentence;
  for (const id of ["chart-score", "chart-lag", "lag-title", "keys"]) byId(id).hidden = Boolean(sentence);
}

async function draw(state) {
  const points = pointsOf(state);
  if (!points.some((point) => point.score !== null)) return tell("Once answers come, the score is drawn here.");
  const datasets = { points, marks: marksOf(state) };
  const percent = state.status.measure === "accuracy";
  const now = JSON.stringify([datasets, percent]);
  if (now === drawn) return undefined;
  tell("");
  views ??= await make(datasets);
  for (const [name, view] of Object.entries(views)) {
    for (const [part, rows] of Object.entries(datasets)) view.data(part, structuredClone(rows));
    if (name === "score") view.signal("percent", percent);
    await view.runAsync();
  }
  const last = points.findLast((point) => point.score !== null);
  byId("chart-score").setAttribute("aria-label", `Score over time, ${points.length} points; the last is ${last.told}.`);
  document.documentElement.dataset.drawn = "true";
  drawn = now;
  return undefined;
}

// Shows the newest state that was given, one drawing at a time.
export async function chart(state) {
  next = state;
  if (drawing) return;
  drawing = true;
  while (next) {
    const one = next;
    next = null;
    try {
      await draw(one);
    } catch (error) {
      tell(`The chart could not be drawn: ${error.message}.`);
      console.error(error);
    }
  }
  drawing = false;
}
