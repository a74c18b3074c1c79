/** Tune: another threshold over recorded decisions. Computed in the browser; nothing is written. */

import { getJson } from "./api.js";
import { announce, byId, el, show } from "./dom.js";
import { decisionTable, figure } from "./live.js";
import { recent } from "./pages.js";
import { linePlot, stackedBars } from "./plots.js";
import { at, curve, flips, histogram, prepare, readLabels } from "./replay.js";
import { money, number, percent, score, threshold as written } from "./words.js";

const MOST = 10000; // about 5 MB
const LISTED = 12;
const TENTHS = [0, 0.2, 0.4, 0.6, 0.8, 1];

/** Owns the recorded decisions in view and the labels that the reader gave. */
export class Tune {
  constructor({ trouble, openReceipt, onStatus, status }) {
    this.trouble = trouble;
    this.openReceipt = openReceipt;
    this.onStatus = onStatus;
    this.status = status;
    this.rows = [];
    this.labels = new Map();
    this.items = [];
    this.curve = [];
    this.now = 0.65;
    this.moved = false; // the slider, by hand
    this.loading = null;
    byId("tune-load").addEventListener("click", () => this.#load());
    byId("threshold").addEventListener("input", () => {
      this.moved = true;
      this.#draw();
    });
    byId("threshold").addEventListener("change", () => announce(byId("tune-says").textContent));
    byId("labels").addEventListener("change", (event) => this.#label(event.target.files[0]));
    byId("tune-copy").addEventListener("click", () => this.#copy());
    window.addEventListener("resize", () => this.loading === null && !byId("view-tune").hidden && this.#draw());
  }

  opened() {
    if (!this.rows.length) this.#load();
    else this.#draw();
  }

  closed() {
    this.loading?.abort();
  }

  /** ESC ends the loading; what came is kept. */
  stop() {
    const loads = this.loading !== null;
    this.loading?.abort();
    return loads;
  }

  ready() {}

  async #load() {
    this.loading?.abort();
    const loading = new AbortController();
    this.loading = loading;
    this.#state("loading…");
    try {
      this.onStatus(await getJson("status", {}, loading.signal));
      const onPage = (count) => this.#state(`loading, ${number(count)} so far; Esc stops`);
      const { rows, more } = await recent({ most: MOST, signal: loading.signal, onPage });
      this.rows = rows;
      this.more = more;
      this.trouble(null);
    } catch (error) {
      if (error.name !== "AbortError") this.trouble(error);
    } finally {
      if (this.loading === loading) this.loading = null;
    }
    this.#prepare();
  }

  #state(text) {
    byId("tune-state").textContent = text;
  }

  #prepare() {
    this.items = prepare(this.rows, this.status()?.prices, this.labels);
    this.curve = curve(this.items);
    this.now = this.status()?.threshold ?? this.items.find((item) => item.moves)?.row.threshold ?? 0.65;
    if (!this.moved) byId("threshold").value = this.now;
    const judged = this.items.filter((item) => item.right).length;
    const which = this.more ? "the latest " : "";
    const labelled = judged ? `, ${number(judged)} of them labelled` : "";
    this.#state(this.rows.length ? `over ${which}${number(this.items.length)} decisions${labelled}` : "");
    this.#draw();
  }

  #draw() {
    const wanted = this.moved ? Number(byId("threshold").value) : this.now; // the slider has steps, the one in force may lie between
    byId("threshold-value").textContent = wanted.toFixed(3).replace(/0$/, "");
    byId("threshold").setAttribute("aria-valuetext", `${score(wanted)}, in force ${score(this.now)}`);
    show(byId("tune-yaml"), yaml(wanted));
    show(byId("tune-command"), `tierwise replay --write ${written(wanted)}`);
    if (!this.items.length) {
      byId("tune-says").textContent = "No decision is recorded yet. Ask something under Try, or send traffic, then load again.";
      for (const id of ["tune-scores", "tune-figures", "tune-cost", "tune-quality", "tune-flips"]) show(byId(id));
      return;
    }
    const before = at(this.items, this.now);
    const after = at(this.items, wanted);
    byId("tune-says").textContent = sentence(wanted, this.now, before, after);
    this.#scores(wanted);
    show(byId("tune-figures"), figures(before, after));
    this.#plots(wanted, before, after);
    this.#flips(wanted);
  }

  #scores(wanted) {
    const host = byId("tune-scores");
    show(host, stackedBars(host, `Scores of the decisions; ${score(wanted)} parts them`, {
      bars: histogram(this.items, wanted), xTicks: TENTHS, xFormat: String, height: 150,
      marks: [{ value: this.now, name: "now" }, { value: wanted, name: "wanted" }],
    }));
  }

  #plots(wanted, before, after) {
    const host = byId("tune-cost");
    const points = this.curve.map((point) => [point.threshold, point.cost]);
    const marks = [{ point: [this.now, before.cost], name: "now" }, { point: [wanted, after.cost], name: "wanted" }];
    const ends = `${money(points[0][1])} at threshold 0, ${money(points.at(-1)[1])} at 1`;
    const label = `Cost of 1,000 requests: ${ends}, ${money(after.cost)} at ${score(wanted)}`;
    show(host, linePlot(host, label, { points, marks, xTicks: TENTHS, xFormat: String, yFormat: money }), key());
    this.#quality(before, after);
  }

  #quality(before, after) {
    const host = byId("tune-quality");
    if (!before.judged) {
      const says = "The ledger does not know which answers were good. Give labels, and the curve of quality for the money stands here.";
      show(host, el("p", { class: "hint" }, says));
      return;
    }
    const points = this.curve.map((point) => [point.cost, point.quality]).sort((a, b) => a[0] - b[0]);
    const marks = [{ point: [before.cost, before.quality], name: "now" }, { point: [after.cost, after.quality], name: "wanted" }];
    const yLeast = Math.floor(Math.min(...points.map(([, quality]) => quality)) * 10) / 10;
    const ends = [points[0][0], points.at(-1)[0]];
    const xTicks = ends[0] < ends[1] ? ends : [0, ends[1]];
    const inForce = `${percent(before.quality)} for ${money(before.cost)} in force`;
    const label = `Quality by cost: ${percent(after.quality)} for ${money(after.cost)} at the slider's threshold, ${inForce}`;
    show(host, linePlot(host, label, { points, marks, xTicks, xFormat: money, yFormat: percent, yLeast }), key());
  }

  #flips(wanted) {
    const gone = flips(this.items, wanted);
    if (!gone.length) {
      show(byId("tune-flips"), el("p", { class: "hint" }, wanted === this.now ? "Move the threshold." : "None of these decisions."));
      return;
    }
    const rows = gone.slice(0, LISTED).map(({ row }) => row);
    const rest = gone.length - rows.length;
    const says = `${ways(gone)}, those nearest to the new threshold first; shown as they were.`;
    show(byId("tune-flips"), el("p", { class: "hint" }, says), decisionTable(rows, this.openReceipt),
      rest > 0 && el("p", { class: "hint" }, `and ${number(rest)} more`));
  }

  async #label(file) {
    if (!file) return;
    try {
      this.labels = readLabels(await file.text());
      this.#prepare();
      const matched = this.items.filter((item) => item.right).length;
      byId("labels-hint").textContent =
        `${number(matched)} of ${number(this.labels.size)} labels belong to these decisions. Quality is their mean.`;
    } catch (error) {
      byId("labels-hint").textContent = error.message;
    }
    announce(byId("labels-hint").textContent);
  }

  async #copy() {
    try {
      await navigator.clipboard.writeText(byId("tune-yaml").textContent);
      announce("Copied.");
      byId("tune-copy").textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(byId("tune-yaml"));
      byId("tune-copy").textContent = "Selected";
    }
    setTimeout(() => (byId("tune-copy").textContent = "Copy"), 2000);
  }
}

const yaml = (value) => `- name: Ingress\n  user_config:\n    threshold: ${written(value)}\n`;

function sentence(wanted, now, before, after) {
  const inForce = `In force: ${score(now)}. ${percent(before.largeShare)} of these decisions went large`;
  if (!after.moved && wanted === now) return `${inForce}, at ${money(before.cost)} for 1,000 requests.`;
  if (!after.moved) return `At ${score(wanted)} every one of these decisions would have been the same as at ${score(now)}.`;
  const change = before.cost > 0 ? (after.cost - before.cost) / before.cost : 0;
  const dearer = change > 0 ? "dearer" : "cheaper";
  const large = `${percent(after.largeShare)} would have gone large instead of ${percent(before.largeShare)}`;
  return `At ${score(wanted)}, ${large}: ${percent(Math.abs(change))} ${dearer}, ${number(after.moved)} of these decisions elsewhere.`;
}

/** They may go both ways: the threshold may have been another one when they were recorded. */
function ways(gone) {
  const toLarge = gone.filter(({ row }) => row.tier === "small").length;
  const told = [[toLarge, "from small to large"], [gone.length - toLarge, "from large to small"]];
  return told.filter(([count]) => count).map(([count, way]) => `${number(count)} ${way}`).join(", ");
}

function figures(before, after) {
  const judged = () => `${percent(before.quality)} now, of ${number(after.judged)} labelled`;
  const quality = after.quality === null ? [] : [["Quality", percent(after.quality), judged()]];
  return [
    ["1,000 requests", money(after.cost), `${money(before.cost)} now`],
    ["Saved", percent(after.allLarge > 0 ? 1 - after.cost / after.allLarge : 0), "of what all-large costs"],
    ["Large", percent(after.largeShare), `${percent(before.largeShare)} now`],
    ...quality,
  ].map(([name, value, says]) => figure(name, value, says));
}

const key = () =>
  el("p", { class: "legend" }, el("span", { class: "key now" }, "in force"), el("span", { class: "key wanted" }, "the slider's"));
