// Draws the score and what waits along time. Vega comes after the figures, and evaluates nothing: its expressions are interpreted.

import { clock } from "./bind.js";
import { decision, score, words } from "./view.js";

const base = new URL(".", import.meta.url);
const byId = (id) => document.getElementById(id);
const views = {};
let drawing = null;
let drawn = "";

function load() {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = new URL("vega.js", base);
    script.onload = resolve;
    script.onerror = () => reject(new Error("the script of the charts did not come"));
    document.head.append(script);
  });
}

async function make() {
  const [specs] = await Promise.all([
    fetch(new URL("charts.json", base)).then((answer) => (answer.ok ? answer.json() : Promise.reject(new Error("the charts did not come")))),
    load(),
  ]);
  for (const name of ["score", "lag"]) {
    const box = byId(`chart-${name}`);
    box.hidden = false;
    const spec = specs[name];
    spec.config.font = getComputedStyle(document.body).fontFamily;
    const options = {
      mode: "vega-lite", renderer: "svg", actions: false, ast: true, defaultStyle: false,
      tooltip: { theme: "page", disableDefaultStyle: true },
    };
    spec.datasets = { points: [], marks: [] };
    views[name] = (await window.vegaEmbed(box, spec, options)).view;
  }
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

// A promise that is kept once the chart shows the state, or says why it does not.
export async function chart(state) {
  const points = pointsOf(state);
  if (!points.some((point) => point.score !== null)) return tell("Once answers come, the score is drawn here.");
  const marks = marksOf(state);
  const now = JSON.stringify([points, marks, state.status.measure]);
  if (now === drawn) return undefined;
  try {
    tell("");
    drawing ??= make();
    await drawing;
    for (const [name, view] of Object.entries(views)) {
      const put = (rows) => window.vega.changeset().remove(window.vega.truthy).insert(rows);
      view.change("points", put(structuredClone(points)));
      if (name === "score") view.change("marks", put(structuredClone(marks))).signal("percent", state.status.measure === "accuracy");
      await view.resize().runAsync();
    }
    drawn = now;
    const last = points.findLast((point) => point.score !== null);
    byId("chart-score").setAttribute("aria-label", `Score over time, ${points.length} points; the last is ${last.told}.`);
    document.documentElement.dataset.drawn = "true";
  } catch (error) {
    drawing = null;
    tell(`The chart could not be drawn: ${error.message}.`);
  }
  return undefined;
}
