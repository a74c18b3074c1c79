/** Live: what happens now, by asking every two seconds while somebody looks. */

import { getJson, serverNow } from "./api.js";
import { byId, el, show } from "./dom.js";
import { recent } from "./pages.js";
import { spark, stackedBars } from "./plots.js";
import { TIERS, clock, duration, money, number, percent, score } from "./words.js";
import { tierName } from "./why.js";
import { MOST, SPAN_S, Window } from "./window.js";

const EVERY_MS = 2000;
const OVERLAP_S = 6; // a decision is listed only when its record is written: ask again for those just behind
const WHOLE_EVERY = 15; // polls: a long answer is listed at its end, under the time of its start, which may lie far behind
const SHOWN = 12;
const TRAIL = 90; // polls whose load is remembered

/** Owns the timer and what it has seen. It runs only while the view is open, the tab is visible and nobody paused it. */
export class Live {
  constructor({ trouble, openReceipt, onStatus }) {
    this.trouble = trouble;
    this.openReceipt = openReceipt;
    this.onStatus = onStatus;
    this.seen = new Window();
    this.trail = Object.fromEntries(TIERS.map((tier) => [tier, []]));
    this.open = false;
    this.paused = false;
    this.polls = 0;
    this.timer = 0;
    this.asking = null;
    this.rowsShown = "";
    byId("live-pause").addEventListener("click", () => this.#pause(!this.paused));
    document.addEventListener("visibilitychange", () => this.#wake());
  }

  opened() {
    this.open = true;
    this.#wake();
  }

  closed() {
    this.open = false;
    this.#wake();
  }

  stop() {
    return false;
  }

  ready() {}

  get #runs() {
    return this.open && !this.paused && document.visibilityState === "visible";
  }

  #pause(paused) {
    this.paused = paused;
    byId("live-pause").setAttribute("aria-pressed", String(paused));
    byId("live-pause").textContent = paused ? "Go on" : "Pause";
    this.#state();
    this.#wake();
  }

  #wake() {
    clearTimeout(this.timer);
    if (!this.#runs) this.asking?.abort();
    else if (!this.asking) this.#poll();
  }

  async #poll() {
    this.asking = new AbortController();
    const { signal } = this.asking;
    try {
      const whole = this.polls++ % WHOLE_EVERY === 0;
      const since = Math.max(serverNow() - SPAN_S, whole ? 0 : this.seen.newest - OVERLAP_S);
      const [status, page] = await Promise.all([getJson("status", {}, signal), recent({ most: MOST, since, signal })]);
      this.seen.add(page.rows, serverNow());
      this.onStatus(status);
      this.#draw(status);
      this.trouble(null);
    } catch (error) {
      if (error.name !== "AbortError") this.#fail(error);
    } finally {
      this.asking = null;
    }
    if (this.#runs) this.timer = setTimeout(() => this.#poll(), EVERY_MS);
  }

  /** Without the right key, asking again is of no use. */
  #fail(error) {
    this.trouble(error);
    if (error.status === 401 || error.status === 403) this.#pause(true);
  }

  #state() {
    const cut = this.seen.cut ? `, of the latest ${number(MOST)} requests` : "";
    byId("live-state").textContent = this.paused ? "paused" : `as they happen${cut}`;
  }

  #draw(status) {
    this.#state();
    const figures = this.seen.figures();
    show(byId("live-figures"), figureCards(figures));
    const split = byId("live-split");
    const label = `Requests in steps of ten seconds: ${figures.requests} in five minutes, ${percent(figures.smallShare)} on the small tier`;
    show(split, stackedBars(split, label, {
      bars: this.seen.buckets(serverNow()),
      xTicks: [-300, -240, -180, -120, -60, 0],
      xFormat: (seconds) => (seconds === 0 ? "now" : `${-seconds / 60} min`),
    }), legend());
    this.#tiers(status, figures);
    this.#rows();
  }

  #tiers(status, figures) {
    const host = byId("live-tiers");
    const cards = TIERS.map((tier) => {
      const about = status.tiers[tier] ?? {};
      const trail = this.trail[tier];
      if (about.running !== undefined) trail.push(about.running + about.waiting);
      if (trail.length > TRAIL) trail.shift();
      return tierCard(tier, about, figures.tiers[tier], trail);
    });
    show(host, cards);
  }

  /** The list is left alone while nothing new came, so that a focused row keeps its focus. */
  #rows() {
    const rows = this.seen.latest(SHOWN);
    const shown = rows.map((row) => row.id).join();
    if (shown === this.rowsShown && rows.length) return;
    const focused = document.activeElement?.dataset?.id;
    this.rowsShown = shown;
    show(byId("live-rows"), rows.length
      ? decisionTable(rows, this.openReceipt)
      : el("p", { class: "hint" }, "No request in the last five minutes. Ask something under Try, or send traffic."));
    if (focused) byId("live-rows").querySelector(`[data-id="${CSS.escape(focused)}"]`)?.focus();
  }
}

export function figureCards(figures) {
  const rate = `${number(figures.perMinute, 1)} a minute`;
  const share = figures.allLarge > 0 ? `${percent(figures.saved / figures.allLarge)} of what all-large costs` : "nothing answered yet";
  return [
    ["Saved", money(figures.saved), share],
    ["Spent", money(figures.cost), "by token prices"],
    ["Requests", number(figures.requests), figures.failed ? `${rate}, ${figures.failed} not answered` : rate],
    ["On the small tier", percent(figures.smallShare), "of the decisions"],
    ["To decide", duration(figures.decide50), "median"],
  ].map(([name, value, says]) => figure(name, value, says));
}

export const figure = (name, value, says) =>
  el("div", { class: "figure" }, el("span", { class: "name" }, name), el("span", { class: "big" }, value), el("small", {}, says));

const legend = () => el("p", { class: "legend" }, TIERS.map((tier) => tierName(tier)));

function tierCard(tier, about, latency, trail) {
  const known = about.running !== undefined;
  const load = known ? about.running + about.waiting : 0;
  const rows = [
    ["Replicas", known ? number(about.replicas) : "–"],
    ...starting(about),
    ["Running", known ? `${number(about.running)} of ${number(about.capacity)}` : "–"],
    ["Waiting", known ? number(about.waiting) : "–"],
    ["Median time", duration(latency.whole50)],
    ["95 % under", duration(latency.whole95)],
  ];
  const broken = about.breaker && about.breaker !== "closed" ? `breaker ${about.breaker}` : null;
  const state = about.ready ? (broken ?? "ready") : (about.state ?? "not ready");
  return el("div", { class: "panel", "data-tier": tier },
    el("h3", {}, tierName(tier), el("span", { class: "model" }, about.model ?? ""), el("span", { class: "state" }, state)),
    known
      ? spark(`Running and waiting on the ${tier} tier: ${load}`, trail, Math.max(4, ...trail), tier)
      : el("p", { class: "hint" }, about.model ? "Its queues are unknown." : "An admin key shows queues and replicas."),
    el("dl", { class: "facts-list" }, rows.map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value)))));
}

/** While a replica is on its way: how many, and how long it may take. */
function starting({ starting: count, eta_s: eta }) {
  const rows = count ? [["Starting", number(count)]] : [];
  return eta ? [...rows, ["Ready in about", duration(eta)]] : rows;
}

/** Rows of decisions; the time is a button that opens the receipt. */
export function decisionTable(rows, open) {
  const cells = (row) => [
    el("td", {}, opener(row, open)),
    el("td", {}, tierName(row.tier)),
    el("td", { class: "num" }, score(row.score)),
    el("td", { class: "wide" }, row.reason.replaceAll("_", " ")),
    el("td", { class: "num wide" }, `${number(row.prompt_tokens)} + ${number(row.completion_tokens)}`),
    el("td", { class: "num" }, row.outcome === "ok" ? duration(row.total_seconds) : row.outcome),
    el("td", { class: "num" }, money(row.saved_usd)),
  ];
  const head = [["Time"], ["Tier"], ["Score", "num"], ["Reason", "wide"], ["Tokens", "num wide"], ["Took", "num"], ["Saved", "num"]];
  return el("table", {},
    el("thead", {}, el("tr", {}, head.map(([name, kind]) => el("th", { scope: "col", class: kind ?? null }, name)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, cells(row)))));
}

function opener(row, open) {
  const time = clock(row.created);
  const named = { class: "link", "data-id": row.id, "aria-label": `Receipt of ${time}` };
  return el("button", { type: "button", ...named, onclick: () => open(row.id) }, time);
}
