// What an engine says of itself, in the words and figures of the page: the twin of view.py, held to it by a test.

import * as say from "./numbers.js";

const KINDS = { classes: "classifier", values: "regressor", actions: "agent" };
const MEASURES = { accuracy: "Accuracy", error: "Mean absolute error", reward: "Mean reward" };
const STATES = {
  active: "in service", candidate: "candidate", refused: "refused", retired: "retired", withdrawn: "withdrawn", pruned: "removed",
};
const ACTIONS = {
  promote: "Version {after} went into service in place of version {before}",
  refuse: "Version {after} was refused; version {before} stayed in service",
  rollback: "Version {after} was put back into service in place of version {before}",
  automatic_rollback: "The guard put version {after} back into service in place of version {before}",
  set_aside: "A step that cannot be learned from was set aside",
  release: "Feedback that was set aside was released for learning",
  pause: "Learning was paused",
  resume: "Learning was resumed",
  freeze: "An alarm stopped learning",
  erase: "What was stored under an id was erased",
};
const TONES = { promote: "good", rollback: "caution", automatic_rollback: "caution", freeze: "bad", set_aside: "bad" };
const BACK = ["retired", "withdrawn", "refused", "candidate"];
const LOCAL = "local";
const LEARNING = { running: "pause", paused: "resume" };

const own = (table, key, otherwise) => (Object.hasOwn(table, key) ? table[key] : otherwise);
const named = (status) => (status.version === null ? "No version" : `Version ${status.version}`);
const answers = (number) => say.plural(number, "answer");

export function words(name) {
  const text = name.replaceAll("_", " ");
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}

export function view({ status, versions, alarms, decisions }) {
  const { measure, time } = status;
  const found = health(status);
  return {
    ...found,
    title: [found.badge, ...(status.version === null ? [] : [named(status)]), "Everlearn"].join(" – "),
    model: status.model,
    kind: own(KINDS, status.kind, status.kind),
    learning: own(LEARNING, status.learning, ""),
    tiles: tiles(status, versions),
    measure: MEASURES[measure],
    better: measure === "error" ? "lower is better" : "higher is better",
    guard: guard(status),
    alarms: alarms.map((item) => alarm(item, time)),
    versions: versions.map((item) => version(item, measure, time)),
    decisions: decisions.map((item) => decision(item, time)),
    foot: foot(status),
  };
}

export function score(measure, value) {
  if (measure === "accuracy") return say.percent(value);
  return say.figure(measure === "error" && say.known(value) ? -value : value);
}

export function gap(measure, value, other) {
  if (!(say.known(value) && say.known(other))) return "";
  if (measure === "accuracy") return say.signedPoints(value - other);
  const ahead = measure === "error" ? other - value : value - other;
  return (ahead > 0 ? "+" : "") + say.figure(ahead);
}

function health(status) {
  const { lag, alarms } = status;
  const version = named(status);
  const fault = status.fault ?? "";
  const waiting = `${answers(lag.answers)} not learned from yet`;
  const told = (tone, badge, headline, beneath) => ({ tone, badge, headline, beneath });
  if (status.learning === "failed" && status.version === null)
    return told("bad", "Failed", "Nothing answers: the server could not start from its log.", fault);
  if (status.learning === "failed") return told("bad", "Learning has stopped", `${version} still answers, but learning has stopped.`, fault);
  if (status.learning === "recovering")
    return told("open", "Starting", "The server is starting from its log.", `${say.plural(lag.events, "row")} of the log left to learn again.`);
  if (status.learning === "paused")
    return told("caution", "Paused", `${version} answers, and learning is paused.`, fault || `${waiting}; feedback is kept, and nothing is lost.`);
  if (status.learning === "following") return told("open", "Following", `${version} answers, and another process learns.`, fault);
  if (fault || !status.ready)
    return told("caution", "Not ready", `${version} answers, but the server is not ready.`, fault || `${waiting}, the oldest for ${say.seconds(lag.seconds)}.`);
  if (alarms.recent)
    return told("caution", "Needs a look", `${version} is in service and learning, with ${say.plural(alarms.recent, "alarm")} in the last hour.`,
      alarms.latest ? alarms.latest.message : "");
  if (!status.counts.inputs) return told("open", "Ready", `${version} waits for its first request.`, "Send a row with POST /v1/predict, and its answer with POST /v1/feedback once it is known.");
  return told("good", "Healthy", `${version} is in service and learning.`, "");
}

function tiles(status, versions) {
  const { counts, lag, queue, measure, propensity } = status;
  const rows = status.score.rows;
  const service = versions.find((item) => item.version === status.version);
  const tile = (key, name, figure, beside) => ({ key, name, figure, beside });
  const newest = rows === 1 ? "over the newest answer" : `over the newest ${say.count(rows)} answers`;
  const waits = lag.answers ? `the oldest for ${say.seconds(lag.seconds)}` : "every answer is learned from";
  const early = counts.early_waiting ? `, ${say.count(counts.early_waiting)} early` : "";
  const delay = status.delay ?? {};
  const found = [
    tile("score", MEASURES[measure], score(measure, status.score.value), rows ? newest : "no answers yet"),
    tile("version", "In service", named(status), made(service, status.time)),
    tile("lag", "Not learned from yet", lag.answers ? answers(lag.answers) : "Nothing", waits),
  ];
  if (say.known(delay.median)) {
    const slow = say.known(delay.p90) ? `one in ten after ${say.seconds(delay.p90)}` : "the median";
    found.push(tile("delay", "Answers come after", say.seconds(delay.median), slow));
  }
  const left = counts.unanswered ? `, ${say.count(counts.unanswered)} given up` : "";
  const share = status.unanswered_share;
  found.push(tile("unanswered", "Without an answer", say.percent(share),
    `${say.count(share * counts.inputs)} of ${say.count(counts.inputs)} predictions${left}`));
  if (propensity)
    found.push(tile("propensity", "Least propensity", say.figure(propensity.least), `effective sample ${say.percent(propensity.effective, 0)}`));
  found.push(tile("requests", "Predictions", say.count(counts.inputs), `${answers(counts.answers)} came${early}`));
  found.push(tile("queue", "In the queue", say.count(queue.waiting), `of ${say.count(queue.limit)} that may wait`));
  return found;
}

function guard({ guard, measure }) {
  if (!guard || !say.known(guard.candidate)) return "";
  const beside = [`The candidate stands at ${score(measure, guard.candidate)}`];
  if (say.known(guard.service)) beside.push(`the one in service at ${score(measure, guard.service)}`);
  if (say.known(guard.parent)) beside.push(`its parent at ${score(measure, guard.parent)}`);
  return `${beside.join(", ")}, over ${answers(guard.rows)}.`;
}

function alarm(item, now) {
  return {
    key: `${item.kind} ${item.seq} ${say.fixed(item.time, 3)}`,
    kind: words(item.kind),
    message: item.message,
    held: `${say.figure(item.value)} against a limit of ${say.figure(item.limit)}`,
    age: say.age(now - item.time),
    time: item.time,
  };
}

function version(item, measure, now) {
  return {
    key: String(item.version),
    number: item.version,
    branch: item.branch ? `branch ${item.branch}` : "",
    state: item.state,
    word: own(STATES, item.state, item.state),
    score: score(measure, item.score),
    service: score(measure, item.service_score),
    gap: gap(measure, item.score, item.service_score),
    over: item.rows ? answers(item.rows) : "",
    age: say.age(now - item.created),
    time: item.created,
    reason: item.reason,
    back: BACK.includes(item.state),
  };
}

export function decision(item, now) {
  let sentence = own(ACTIONS, item.action, words(item.action));
  if (item.before === null) sentence = sentence.split(" in place of")[0].split("; version")[0];
  sentence = sentence.replaceAll("{before}", () => String(item.before)).replaceAll("{after}", () => String(item.after ?? "?"));
  return {
    key: `${item.action} ${item.seq} ${say.fixed(item.time, 3)}`,
    action: item.action,
    tone: own(TONES, item.action, ""),
    sentence: `${sentence}.`,
    reason: item.reason,
    who: item.who && item.who !== LOCAL ? `by ${item.who}` : "",
    age: say.age(now - item.time),
    time: item.time,
  };
}

function foot(status) {
  const kept = { full: "kept through a power cut", normal: "kept through a crash" };
  const parts = [
    `Up for ${say.span(Number(say.fixed(Math.max(0, status.time - status.started), 0)))}`,
    `log up to row ${say.count(status.last_seq)}, learned up to row ${say.count(status.applied_seq)}`,
    `${say.plural(status.counts.versions, "version")}, ${say.plural(status.counts.steps, "step")}`,
    `what is accepted is ${own(kept, status.durability, status.durability)}`,
  ];
  if (say.known(status.fsync_ms)) parts.push(`a write takes ${say.milliseconds(status.fsync_ms)}`);
  return parts.join("; ") + ".";
}

function made(version, now) {
  if (!version) return "";
  return `made ${say.age(now - version.created)}${version.branch ? `, branch ${version.branch}` : ""}`;
}
