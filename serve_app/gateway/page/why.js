/** Why a tier was chosen: the verdict in words, the score on its scale, each signal as a bar. */

import { el, show } from "./dom.js";
import { because, duration, inMode, score as shown } from "./words.js";

const STATES = {
  skipped: "not asked: it was not needed",
  late: "came too late",
  failed: "failed",
};

const LATER = "The signals come with the receipt, when the answer ends.";

/** The score between easy and hard, with the threshold. Keeps its elements, so that the needle moves instead of jumping. */
export class Scale {
  constructor() {
    this.value = el("span", { class: "value" });
    this.limit = el("span", { class: "value" });
    this.node = el("div", { class: "scale", role: "img" },
      el("div", { class: "track" }, el("i", { class: "easy" }), el("i", { class: "hard" })),
      el("div", { class: "needle" }, this.value),
      el("div", { class: "limit" }, this.limit),
      el("div", { class: "ends" }, el("span", {}, "easy"), el("span", {}, "hard")));
    this.set(null, null);
  }

  set(score, threshold, tier = null) {
    const { style, dataset } = this.node;
    dataset.scored = score !== null;
    dataset.tier = tier ?? "";
    style.setProperty("--limit", threshold ?? 0.65);
    if (score !== null) style.setProperty("--score", score);
    this.node.classList.toggle("late-label", (score ?? 0) > 0.9);
    this.node.classList.toggle("limited", threshold !== null);
    this.value.textContent = score === null ? "" : shown(score);
    this.limit.textContent = threshold === null ? "" : `threshold ${shown(threshold)}`;
    const known = score !== null;
    this.node.setAttribute("aria-label", !known ? "No score" : `Score ${shown(score)} of 1; the threshold is ${shown(threshold)}`);
  }
}

/** The view of one decision. `dry` says that nothing was asked of a model yet. */
export class Why {
  constructor(host) {
    this.scale = new Scale();
    this.verdict = el("p", { class: "verdict" });
    this.reason = el("p", { class: "reason" });
    this.signals = el("div", { class: "signals" });
    this.facts = el("p", { class: "facts" });
    show(host, el("div", { class: "measure" }, this.verdict, this.reason, this.scale.node, this.facts), this.signals);
  }

  idle(threshold, text) {
    this.scale.set(null, threshold);
    show(this.verdict, text);
    show(this.reason);
    show(this.signals);
    show(this.facts);
  }

  set(decision, { dry = false } = {}) {
    this.scale.set(decision.score, decision.threshold, decision.tier);
    show(this.verdict, dry ? "Would go to the " : "Went to the ", tierName(decision.tier), " tier");
    show(this.reason, [because(decision), inMode(decision.mode)].filter(Boolean).join(" "));
    if (decision.signals.length) show(this.signals, decision.signals.map(bar));
    else if (!dry && !this.signals.childElementCount) show(this.signals, el("p", { class: "hint" }, LATER));
    const time = decision.overhead === null ? [] : [`decided in ${duration(decision.overhead)}`];
    show(this.facts, [flipped(decision), [...decision.facts, ...time].join(" · ")].filter(Boolean).map((line) => el("span", {}, line)));
  }
}

/** What would have sent it the other way, where a score decided. */
function flipped({ flip }) {
  if (!flip) return null;
  const { at_most: most, above } = flip.threshold;
  return most === undefined ? `A threshold above ${shown(above)} would send it to the small tier.`
    : `A threshold of ${shown(most)} or less would send it to the large tier.`;
}

export const tierName = (tier) => el("strong", { class: "tier", "data-tier": tier }, tier);

function bar({ title, about, value, weight, state, seconds }) {
  const fill = el("i");
  fill.style.setProperty("--part", Math.min(1, Math.abs(value ?? 0)));
  const weighed = weight === null || value === null ? null : `weight ${shown(weight)}`;
  const told = [weighed, seconds ? duration(seconds) : null].filter(Boolean).join(" · ");
  const says = value === null ? (STATES[state] ?? "no value") : told;
  const label = `${title}: ${value === null ? "no value" : `${shown(value)} of 1`}`;
  return el("div", { class: "signal", "data-state": value === null ? "none" : "ok" },
    el("span", { class: "name" }, title, el("small", {}, about)),
    el("span", { class: "bar", role: "img", "aria-label": label }, fill),
    el("span", { class: "number", "aria-hidden": "true" }, value === null ? "–" : shown(value)),
    el("small", { class: "says" }, says));
}
