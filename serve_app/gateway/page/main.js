/** The page: tabs, the key, errors, and the three views. */

import { ApiError, getJson, key } from "./api.js";
import { decisionOfReceipt } from "./decision.js";
import { byId, el, show } from "./dom.js";
import { Live } from "./live.js";
import { Try, scoresAsTyped } from "./try.js";
import { Tune } from "./tune.js";
import { duration, money, number } from "./words.js";
import { Why } from "./why.js";

const NAMES = ["try", "live", "tune"];
let status = null;
let open = null;

const context = { trouble, openReceipt, status: () => status, onStatus };
const views = { try: new Try(context), live: new Live(context), tune: new Tune(context) };

function onStatus(told) {
  status = told;
  for (const view of Object.values(views)) view.ready();
}

/** Show a view; the address remembers it. */
function go(name) {
  if (name === open) return;
  views[open]?.closed();
  open = name;
  for (const other of NAMES) {
    const tab = byId(`tab-${other}`);
    tab.setAttribute("aria-selected", String(other === name));
    tab.tabIndex = other === name ? 0 : -1;
    byId(`view-${other}`).hidden = other !== name;
  }
  trouble(null);
  views[name].opened();
}

const named = () => (NAMES.includes(location.hash.slice(1)) ? location.hash.slice(1) : (open ?? "try"));

function listenTabs() {
  const list = document.querySelector("[role=tablist]");
  list.addEventListener("click", (event) => {
    const name = event.target.id?.replace("tab-", "");
    if (NAMES.includes(name)) location.hash = name;
  });
  list.addEventListener("keydown", (event) => {
    const at = NAMES.indexOf(open);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1 + NAMES.length, Home: 0, End: NAMES.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const name = NAMES[to % NAMES.length];
    location.hash = name;
    go(name);
    byId(`tab-${name}`).focus();
  });
  window.addEventListener("hashchange", () => go(named()));
}

/** Show what went wrong, and where a key would help, offer to give one; null takes it away. */
function trouble(error) {
  const host = byId("trouble");
  if (!error) {
    if (host.childElementCount) show(host);
    return;
  }
  if (!(error instanceof ApiError)) console.error(error);
  const needsKey = error.status === 401 || error.status === 403;
  const message = error instanceof ApiError ? error.message : "Something went wrong on this page.";
  if (host.dataset.message === message && host.childElementCount) return; // an alert is read out each time that it changes
  host.dataset.message = message;
  const give = el("button", { type: "button", onclick: () => askKey(message) }, key.get() ? "Use another key" : "Give a key");
  show(host, el("div", { class: "notice" }, el("p", {}, message), needsKey && give));
}

function askKey(why = null) {
  if (why) byId("key-why").textContent = why;
  byId("key").value = key.get();
  byId("key-dialog").showModal();
}

function listenKey() {
  byId("key-button").addEventListener("click", () => askKey());
  byId("key-dialog").addEventListener("close", () => {
    const { returnValue } = byId("key-dialog");
    byId("key-dialog").returnValue = "";
    if (returnValue !== "save" && returnValue !== "forget") return;
    try {
      key.set(returnValue === "save" ? byId("key").value.trim() : "");
    } catch (error) {
      trouble(error);
      return;
    }
    location.reload(); // what another key saw goes with it
  });
}

async function openReceipt(id) {
  const body = byId("receipt-body");
  show(body, el("p", { class: "hint" }, "loading…"));
  byId("receipt").showModal();
  try {
    const row = await getJson(`v1/decisions/${encodeURIComponent(id)}`);
    const host = el("div", { class: "why" });
    show(body, host, el("p", { class: "id" }, id), attempts(row));
    new Why(host).set(decisionOfReceipt(row));
    byId("receipt").dataset.of = id;
  } catch (error) {
    show(body, el("p", {}, error.message));
  }
}

/** The list behind it may have been drawn anew: give the focus back to the row that it came from. */
function listenReceipt() {
  byId("receipt").addEventListener("close", () => {
    const from = byId("receipt").dataset.of;
    if (from) document.querySelector(`main section:not([hidden]) [data-id="${CSS.escape(from)}"]`)?.focus();
  });
}

function attempts(row) {
  const cells = ({ model, usage, outcome, started, ended, cost_usd: cost }) =>
    [model, `${number(usage.prompt_tokens)} in, ${number(usage.completion_tokens)} out`, outcome, duration(ended - started), money(cost)];
  return el("table", {},
    el("caption", {}, `${duration(row.total_seconds)} in all, saved ${money(row.saved_usd)}`),
    el("thead", {}, el("tr", {}, ["Model", "Tokens", "End", "Time", "Cost"].map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, row.attempts.map((attempt) => el("tr", {}, cells(attempt).map((text) => el("td", {}, text))))));
}

function listenEscape() {
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !document.querySelector("dialog[open]") && views[open].stop()) event.preventDefault();
  });
}

async function start() {
  listenTabs();
  listenKey();
  listenReceipt();
  listenEscape();
  byId("as-i-type").checked = scoresAsTyped();
  go(named());
  try {
    onStatus(await getJson("status"));
  } catch (error) {
    trouble(error);
  }
}

start();
