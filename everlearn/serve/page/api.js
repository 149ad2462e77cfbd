// Asks the server, with a token where there is one. The token lives in this tab's storage; one for a single act is never kept.

const KEY = "everlearn-token";
const REFUSED = "everlearn-refused";
const PATIENCE = 10_000; // milliseconds after which a request counts as lost

export class Refused extends Error {
  constructor(status, code, detail, wait) {
    super(detail);
    this.status = status;
    this.code = code;
    this.wait = wait; // seconds, or null
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
  // Why the last token was refused, told once.
  refused: (why) => {
    sessionStorage.removeItem(KEY);
    sessionStorage.setItem(REFUSED, why);
  },
  why: () => {
    const why = sessionStorage.getItem(REFUSED) ?? "";
    sessionStorage.removeItem(REFUSED);
    return why;
  },
};

export async function ask(path, { body, bearer = token.get() } = {}) {
  const headers = { accept: "application/json" };
  if (bearer) headers.authorization = `Bearer ${bearer}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  const answer = await fetch(`v1/${path}`, {
    method: body === undefined ? "GET" : "POST",
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
    cache: "no-store",
    credentials: "omit",
    redirect: "error",
    signal: AbortSignal.timeout(body === undefined ? PATIENCE : 6 * PATIENCE),
  });
  if (answer.ok) return answer.json();
  const problem = await answer.json().catch(() => ({}));
  const wait = Number(answer.headers.get("retry-after"));
  throw new Refused(answer.status, problem.code ?? "", problem.detail ?? `The server answered ${answer.status}.`, wait > 0 ? wait : null);
}
