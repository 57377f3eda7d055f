// Talks to the service, as any client does. Addresses are relative: a proxy may publish the service under a path.

const REFUSAL_STATUSES = new Set([502, 504]); // a proxy says that nothing is behind it
const BACKOFF_SECONDS = [2, 4, 8, 15];

const KEY = "arcface-key"; // kept until the tab is closed, and sent to this service alone

/** The API key that requests are sent with; empty: none. */
export function apiKey() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return memory; // a browser may forbid it
  }
}

let memory = "";

/** Send requests with this key from now on. */
export function setApiKey(key) {
  memory = key;
  try {
    sessionStorage.setItem(KEY, key);
  } catch {
    // as above
  }
}

/** What the service refused, or could not do. `retrySeconds`: after how many seconds to try again; null: never. */
export class Refusal extends Error {
  constructor({ kind, status = 0, code = "", detail = "", retrySeconds = null }) {
    super(detail);
    Object.assign(this, { kind, status, code, detail, retrySeconds });
  }
}

/** `/info`. */
export async function getInfo() {
  const answer = await ask("info", {}, 0);
  return answer.json();
}

/** Embed a picture; returns the answer's body and what its headers say. */
export async function embed(picture, query, { signal, attempt = 0 }) {
  const form = new FormData();
  form.append("file", picture, picture.name);
  const answer = await ask(`embed?${new URLSearchParams(query)}`, { method: "POST", body: form, signal }, attempt);
  const body = await answer.json();
  const timing = /total;dur=([\d.]+)/.exec(answer.headers.get("server-timing") ?? "");
  return {
    ...body,
    alignment: answer.headers.get("x-alignment"),
    recipe: answer.headers.get("x-embedding-recipe"),
    fingerprint: answer.headers.get("x-model-fingerprint"),
    norm: Number(answer.headers.get("x-embedding-norm")),
    totalMs: timing ? Number(timing[1]) : null,
  };
}

async function ask(path, options, attempt) {
  const backoff = BACKOFF_SECONDS[Math.min(attempt, BACKOFF_SECONDS.length - 1)];
  let answer;
  try {
    const key = apiKey();
    answer = await fetch(path, key ? { ...options, headers: { "X-API-Key": key } } : options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal({ kind: "down", retrySeconds: backoff });
  }
  if (answer.ok) return answer;
  if (REFUSAL_STATUSES.has(answer.status)) {
    throw new Refusal({ kind: "down", status: answer.status, retrySeconds: backoff });
  }
  let problem = {};
  try {
    problem = await answer.json();
  } catch {
    // a proxy's page, not the service's words
  }
  const retryAfter = Number.parseInt(answer.headers.get("retry-after") ?? "", 10);
  const isBusy = answer.status === 429 || (answer.status === 503 && retryAfter >= 0);
  throw new Refusal({
    kind: isBusy ? "busy" : answer.status >= 500 ? "failed" : "refused",
    status: answer.status,
    code: problem.code,
    detail: problem.detail,
    retrySeconds: isBusy ? Math.max(1, Number.isNaN(retryAfter) ? backoff : retryAfter) : null,
  });
}

/** The cosine similarity of two normalised embeddings. */
export function similarity(one, other) {
  return one.reduce((sum, value, place) => sum + value * other[place], 0);
}
