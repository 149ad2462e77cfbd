// Follows the server: asks every two seconds, less often in a hidden tab, ever less often while the server is away.

import { acts } from "./acts.js";
import { ask, Refused, token } from "./api.js";
import { clock, fill, more } from "./bind.js";
import { chart } from "./charts.js";
import { view } from "./view.js";

const EVERY = 2_000;
const HIDDEN = 30_000;
const MOST = 30_000;
const PARTS = ["status", "versions", "series", "alarms", "decisions"];
const byId = (id) => document.getElementById(id);

let state = null;
let shown = null;
let away = 0; // failures in a row
let timer = 0;
let turn = 0; // requests of an earlier turn are not shown

function link(kind, words) {
  byId("link").dataset.link = kind;
  if (byId("link-text").textContent !== words) byId("link-text").textContent = words;
}

function hear(sentence) {
  if (byId("heard").textContent !== sentence) byId("heard").textContent = sentence;
}

function askForToken() {
  const sentence = token.why();
  byId("whole").hidden = true;
  byId("forget").hidden = true;
  byId("ask").hidden = false;
  byId("ask-fault").textContent = sentence;
  byId("ask-fault").hidden = !sentence;
  document.title = "Everlearn";
  document.body.dataset.tone = "";
  for (const name of ["model", "kind"]) document.querySelector(`[data-text=${name}]`).textContent = "";
  link("asking", "");
  byId("ask-token").focus();
}

function show() {
  shown = view(state);
  fill(shown);
  byId("ask").hidden = true;
  byId("whole").hidden = false;
  byId("forget").hidden = !token.get();
  link("live", "live");
  hear(shown.headline);
  document.documentElement.dataset.ready = "true";
  requestAnimationFrame(() => chart(state));
}

async function follow() {
  clearTimeout(timer);
  const mine = ++turn;
  let wait = EVERY;
  try {
    if (!state) await ask("status"); // where this is refused, the rest need not be asked
    const found = await Promise.all(PARTS.map((part) => ask(part)));
    if (mine !== turn) return;
    state = Object.fromEntries(PARTS.map((part, index) => [part, found[index]]));
    away = 0;
    show();
  } catch (error) {
    if (mine !== turn) return;
    if (error instanceof Refused && (error.status === 401 || error.status === 403)) {
      if (token.get()) token.refused(`That token does not do: ${error.message}`);
      if (state) location.reload(); // so that nothing of what was shown stays
      else askForToken();
      return;
    }
    away += 1;
    wait = Math.max((error.wait ?? 0) * 1000, Math.min(MOST, EVERY * 2 ** (away - 1)));
    const since = state ? `; the figures are of ${clock(state.status.time)}` : "";
    link("away", `reconnecting${since}`);
    hear(`The server does not answer; reconnecting${since}.`);
    if (!(error instanceof Refused) && !(error instanceof TypeError) && error.name !== "TimeoutError") console.error(error);
  }
  timer = setTimeout(follow, document.hidden ? Math.max(wait, HIDDEN) : wait);
}

const doing = acts(() => state, follow);

document.addEventListener("visibilitychange", () => !document.hidden && byId("ask").hidden && follow());
addEventListener("online", () => byId("ask").hidden && follow());
document.addEventListener("click", (event) => {
  const name = event.target.closest("[data-more]")?.dataset.more;
  if (name && shown) more(name, shown);
});
byId("ask-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token.set(byId("ask-token").value.trim());
  byId("ask-token").value = "";
  follow();
});
byId("forget").addEventListener("click", () => {
  token.forget();
  doing.forget();
  state = shown = null;
  location.reload();
});
if (document.body.dataset.guarded && !token.get()) askForToken();
else follow();
