/** Talks to the endpoint that served the page. The key lives in this tab's sessionStorage and nowhere else. */

import { decisionOfHeaders } from "./decision.js";

const SLOT = "tierwise.key";
const PRINTABLE = /^[\x21-\x7e]+$/;
let ahead = 0; // seconds by which the server's clock is ahead of this one

export const key = {
  get: () => sessionStorage.getItem(SLOT) ?? "",
  /** Raises `ApiError` for what no header can hold. */
  set(value) {
    if (value && !PRINTABLE.test(value)) throw new ApiError(401, "That is no key: it holds a space or a letter that keys do not have.");
    if (value) sessionStorage.setItem(SLOT, value);
    else sessionStorage.removeItem(SLOT);
  },
};

/** An answer that is none, in words for the reader. `status` is 0 when nobody answered. */
export class ApiError extends Error {
  constructor(status, message, retryAfter = null) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** The server's Unix time in seconds: decisions are stamped with it. */
export const serverNow = () => Date.now() / 1000 + ahead;

export const getJson = (path, query = {}, signal = undefined) => json(address(path, query), { signal });

export const postJson = (path, body, signal = undefined) => json(path, { method: "POST", body: JSON.stringify(body), signal });

/**
 * A streamed chat answer: first `{decision}` from the headers, then `{text}` as it comes, at last `{receipt}`.
 * Raises `ApiError`, also for an error inside the stream; `signal` stops it, and the engine with it.
 */
export async function* chat(prompt, { maxTokens, tier = null, signal }) {
  const body = { model: "auto", messages: [{ role: "user", content: prompt }], max_tokens: maxTokens, stream: true };
  const headers = tier ? { "x-tierwise-tier": tier } : {};
  const response = await send("v1/chat/completions", { method: "POST", body: JSON.stringify(body), headers, signal });
  yield { decision: decisionOfHeaders(response.headers) };
  for await (const event of events(response.body)) {
    if (event.error) throw new ApiError(502, event.error.message);
    const text = event.choices?.[0]?.delta?.content;
    if (text) yield { text };
    if (event.tierwise) yield { receipt: event.tierwise };
  }
}

async function json(path, options) {
  return (await send(path, options)).json();
}

async function send(path, { headers = {}, ...options }) {
  const authorization = key.get() ? { authorization: `Bearer ${key.get()}` } : {};
  const content = options.body ? { "content-type": "application/json" } : {};
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...content, ...authorization, ...headers }, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The endpoint does not answer. Is it running?");
  }
  const date = Date.parse(response.headers.get("date") ?? "");
  if (!Number.isNaN(date)) ahead = (date - Date.now()) / 1000;
  if (!response.ok) throw await failure(response);
  return response;
}

async function failure(response) {
  const retryAfter = Number(response.headers.get("retry-after")) || null;
  let message;
  try {
    message = (await response.json()).error.message;
  } catch {
    message = `The endpoint answered ${response.status}.`;
  }
  return new ApiError(response.status, explained(response.status, message, retryAfter), retryAfter);
}

function explained(status, message, retryAfter) {
  if (status === 401) return key.get() ? "The endpoint does not know this API key." : "This endpoint asks for an API key.";
  if (status === 403) return `${message} Another key may.`;
  return retryAfter ? `${message} Try again in ${retryAfter} s.` : message;
}

function address(path, query) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined);
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

async function next(reader) {
  try {
    return await reader.read();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The connection broke in the middle of the answer.");
  }
}

/** The JSON of each server-sent event. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await next(reader);
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        if (part.startsWith("data: ") && part !== "data: [DONE]") yield JSON.parse(part.slice(6));
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // the reader of a stopped answer: nobody waits for what comes of it
  }
}
