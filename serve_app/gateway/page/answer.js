/** One answer as it is written, with its account at the end. */

import { chat } from "./api.js";
import { el, show } from "./dom.js";
import { duration, money, number } from "./words.js";
import { tierName } from "./why.js";

/** Owns one card and its request. `run` resolves to the receipt, or null when it was stopped; raises `ApiError`. */
export class Answer {
  constructor(tier = null) {
    this.tier = tier;
    this.written = document.createTextNode("");
    this.name = el("h3", {}, tier ? tierName(tier) : "…");
    this.model = el("span", { class: "model" });
    this.state = el("span", { class: "state" }, "waiting");
    this.account = el("dl", { class: "account" });
    this.node = el("article", { class: "answer", "data-tier": tier ?? "", "aria-busy": "true" },
      el("header", {}, this.name, this.model, this.state),
      el("div", { class: "text", tabindex: "0", role: "group", "aria-label": "The answer" }, this.written),
      this.account);
    this.stopping = new AbortController();
  }

  stop() {
    this.stopping.abort();
  }

  async run(prompt, maxTokens, onDecision) {
    const started = performance.now();
    const ago = () => (performance.now() - started) / 1000;
    let receipt = null;
    let first = null;
    try {
      for await (const part of chat(prompt, { maxTokens, tier: this.tier, signal: this.stopping.signal })) {
        if (part.decision) this.#decided(part.decision, onDecision);
        if (part.text) {
          first ??= ago();
          this.written.appendData(part.text);
        }
        receipt = part.receipt ?? receipt;
      }
      this.#end("done", receipt, ago(), first);
      return receipt;
    } catch (error) {
      this.#end(error.name === "AbortError" ? "stopped" : "failed", null, ago(), first);
      if (error.name !== "AbortError") throw error;
      return null;
    }
  }

  #decided(decision, onDecision) {
    this.node.dataset.tier = decision.tier;
    show(this.name, tierName(decision.tier));
    show(this.model, decision.model ?? "");
    show(this.state, "writing");
    onDecision(decision);
  }

  #end(state, receipt, seconds, first) {
    show(this.state, state);
    this.node.dataset.state = state;
    this.node.setAttribute("aria-busy", "false");
    if (!receipt) return;
    const { usage } = receipt;
    const told = [
      ["Saved", money(receipt.saved_usd)],
      ["Cost", money(receipt.cost_usd)],
      ["Tokens", `${number(usage.prompt_tokens)} in, ${number(usage.completion_tokens)} out`],
      ["Time", first === null ? duration(seconds) : `${duration(seconds)}, first ${duration(first)}`],
    ];
    show(this.account, told.map(([term, says]) => el("div", { class: term.toLowerCase() }, el("dt", {}, term), el("dd", {}, says))));
  }
}
