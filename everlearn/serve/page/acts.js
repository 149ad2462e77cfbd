// What one can do: go back to a version, pause and resume. Each is told beforehand, has a reason, and shows what came of it.

import { ask, Refused, token } from "./api.js";
import { count, plural } from "./numbers.js";

const byId = (id) => document.getElementById(id);
let lent = ""; // a token with the scope admin, for this page alone

export function outcome(sentence) {
  byId("outcome-text").textContent = sentence;
  byId("outcome").hidden = false;
}

function fault(dialog, sentence) {
  const element = byId(`${dialog}-fault`);
  element.textContent = sentence;
  element.hidden = !sentence;
}

function wantToken(dialog, on) {
  byId(`${dialog}-form`).querySelector(".token").hidden = !on;
  if (on) byId(`${dialog}-token`).focus();
}

function opened(dialog) {
  const form = byId(`${dialog}-form`);
  form.reset();
  fault(dialog, "");
  wantToken(dialog, false);
  byId(dialog).showModal();
}

// Sends what a dialog asks for; true once it was done.
async function send(dialog, path, body, told, after) {
  const reason = byId(`${dialog}-reason`);
  const own = byId(`${dialog}-token`);
  if (!reason.value.trim()) {
    fault(dialog, "Say why, in a few words: the reason is kept with the decision.");
    return reason.focus();
  }
  const asked = !byId(`${dialog}-form`).querySelector(".token").hidden;
  if (asked && own.value.trim()) lent = own.value.trim();
  const button = byId(`${dialog}-form`).querySelector("[type=submit]");
  button.disabled = true;
  fault(dialog, "");
  try {
    const answer = await ask(path, { body: { ...body, reason: reason.value.trim() }, bearer: lent || token.get() });
    byId(dialog).close();
    outcome(told(answer));
    after();
  } catch (error) {
    if (error instanceof Refused && (error.status === 401 || error.status === 403)) {
      lent = "";
      own.value = "";
      fault(dialog, asked ? `That token does not do: ${error.message}` : "This needs a token with the scope admin.");
      wantToken(dialog, true);
    } else {
      fault(dialog, error instanceof Refused ? error.message : "The server did not answer; look whether it was done before you try again.");
    }
  } finally {
    button.disabled = false;
  }
  return undefined;
}

const FATES = {
  quarantine: "set aside until someone releases it",
  replay: "learned from again, on top of this version",
  skip: "left out for good",
};

export function acts(state, refresh) {
  let version = null;

  function will() {
    const status = state().status;
    const after = byId("back-form").elements.after.value;
    const since = Math.max(0, status.last_seq - version.applied_seq);
    const came = since
      ? `${plural(since, "row")} of the log came after what it has learned from (up to row ${count(version.applied_seq)}); the feedback among them is ${FATES[after]}.`
      : "No row of the log came after what it has learned from.";
    byId("back-will").textContent = came;
  }

  document.addEventListener("click", (event) => {
    const target = event.target.closest("button");
    if (!target) return;
    if (target.hasAttribute("data-roll-back")) {
      const number = target.closest("[data-item]").dataset.item;
      version = state().versions.find((item) => String(item.version) === number);
      if (!version) return;
      opened("back");
      byId("back-version").textContent = number;
      const now = state().status.version;
      const place = now === null ? "" : `, in place of version ${now}`;
      byId("back-what").textContent = `Version ${number} will answer${place}, and learning goes on from it. Predictions and feedback go on meanwhile.`;
      const usual = state().status.options?.after;
      byId("back-form").elements.after.value = Object.hasOwn(FATES, usual ?? "") ? usual : "quarantine";
      will();
      byId("back-form").querySelector("input:checked").focus();
    } else if (target.id === "pause" || target.id === "resume") {
      const pausing = target.id === "pause";
      opened("learn");
      byId("learn").dataset.act = target.id;
      byId("learn-title").textContent = pausing ? "Pause learning" : "Resume learning";
      byId("learn-do").textContent = pausing ? "Pause learning" : "Resume learning";
      byId("learn-what").textContent = pausing
        ? "Predictions and feedback go on; what is told meanwhile is kept, and learned from after resuming."
        : `Learning goes on with ${plural(state().status.lag.answers, "answer")} that came meanwhile.`;
      byId("learn-reason").focus();
    } else if (target.hasAttribute("data-close")) {
      target.closest("dialog").close();
    } else if (target.id === "outcome-close") {
      byId("outcome").hidden = true;
    }
  });

  byId("back-form").addEventListener("change", will);
  byId("back-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const number = version.version;
    const after = byId("back-form").elements.after.value;
    send("back", "rollback", { version: number, after }, () => `Version ${number} is in service again. Feedback that came since is ${FATES[after]}.`, refresh);
  });
  byId("learn-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const act = byId("learn").dataset.act;
    send("learn", act, {}, () => (act === "pause" ? "Learning is paused. Feedback is kept." : "Learning goes on."), refresh);
  });

  return { forget: () => (lent = "") };
}
