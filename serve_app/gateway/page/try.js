/** Try: a prompt, the decision as it is typed, the answer as it is written, and the other tier's beside it. */

import { getJson, key, postJson } from "./api.js";
import { Answer } from "./answer.js";
import { decisionOfReceipt, decisionOfRoute } from "./decision.js";
import { announce, byId, el, show } from "./dom.js";
import { because, money, other } from "./words.js";
import { Why, tierName } from "./why.js";

const EXAMPLES = [
  "What is a router?",
  "Write a two-line birthday wish for a colleague.",
  "Could a perfectly honest person run a casino?",
  "Design the migration of a bank's monolith to services without losing the nightly reconciliation.",
  "Prove that there are infinitely many primes.",
];
const TYPING_MS = 350;
const SHORTEST = 3;

export class Try {
  /** `trouble` shows an error; `status` gives the endpoint's status, or null while it is unknown. */
  constructor({ trouble, status }) {
    this.trouble = trouble;
    this.status = status;
    this.why = new Why(byId("why"));
    this.prompt = byId("prompt");
    this.running = new Set();
    this.dry = { text: "", told: null, timer: 0, abort: null };
    this.#listen();
    const example = (text) => el("button", { type: "button", class: "example", onclick: () => this.#example(text) }, text);
    show(byId("examples"), EXAMPLES.map(example));
    this.ready();
  }

  /** The status came, or changed. */
  ready() {
    if (!this.dry.text && !this.running.size && !byId("answers").childElementCount) {
      this.why.idle(this.status()?.threshold ?? null, "Type, and see where it would go.");
    }
  }

  opened() {}

  closed() {
    this.#forgetDry();
  }

  /** ESC. True when there was something to stop. */
  stop() {
    for (const answer of this.running) answer.stop();
    return this.running.size > 0;
  }

  #listen() {
    byId("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#ask();
    });
    this.prompt.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("ask").requestSubmit();
    });
    this.prompt.addEventListener("input", () => this.#scoreSoon());
    byId("as-i-type").addEventListener("change", () => this.#scoreSoon());
    byId("stop").addEventListener("click", () => this.stop());
  }

  #example(text) {
    this.prompt.value = text;
    this.prompt.focus();
    this.#scoreSoon();
  }

  #forgetDry() {
    clearTimeout(this.dry.timer);
    this.dry.abort?.abort();
  }

  #scoreSoon() {
    this.#forgetDry();
    const text = this.prompt.value.trim();
    if (!byId("as-i-type").checked || text.length < SHORTEST || text === this.dry.text || this.running.size) return;
    this.dry.timer = setTimeout(() => this.#score(text), TYPING_MS);
  }

  async #score(text) {
    this.dry.abort = new AbortController();
    try {
      const decision = decisionOfRoute(await postJson("route", { prompt: text }, this.dry.abort.signal));
      this.dry.text = text;
      this.why.set(decision, { dry: true });
      if (decision.tier !== this.dry.told) announce(`Would go to the ${decision.tier} tier. ${because(decision)}`); // not at every letter
      this.dry.told = decision.tier;
      this.trouble(null);
    } catch (error) {
      if (error.name !== "AbortError") this.trouble(error);
    }
  }

  async #ask() {
    const text = this.prompt.value.trim();
    if (!text) {
      this.prompt.focus();
      return;
    }
    this.#forgetDry();
    this.stop();
    if (text !== this.dry.text) this.why.idle(this.status()?.threshold ?? null, "Deciding…");
    show(byId("compare"));
    const answer = new Answer();
    show(byId("answers"), answer.node);
    byId("why").scrollIntoView({ block: "nearest" }); // on a phone it lies below the fold
    let decided = null;
    const receipt = await this.#run(answer, text, (decision) => {
      decided = decision;
      this.why.set(decision);
    });
    this.dry.text = "";
    if (receipt && decided) await this.#settled(text, receipt, decided, answer);
  }

  /** Run one answer to its end, with Stop offered meanwhile; null when there is no receipt. */
  async #run(answer, text, onDecision) {
    this.running.add(answer);
    byId("stop").hidden = false;
    this.trouble(null);
    try {
      const receipt = await answer.run(text, Number(byId("length").value), onDecision);
      announce(receipt ? ended(receipt) : "Stopped.");
      return receipt;
    } catch (error) {
      this.trouble(error);
      return null;
    } finally {
      this.running.delete(answer);
      byId("stop").hidden = this.running.size === 0;
    }
  }

  async #settled(text, receipt, decided, answer) {
    this.#offer(text, receipt);
    try {
      const full = decisionOfReceipt(await getJson(`v1/decisions/${receipt.decision_id}`));
      if (answer.node.isConnected) this.why.set({ ...full, overhead: decided.overhead });
    } catch {
      // the receipt only adds the signals: without it, what the headers said stands
    }
  }

  #offer(text, receipt) {
    const tier = other(receipt.tier);
    const cost = this.#costOf(tier, receipt);
    const price = cost === null ? "it costs less than this one" : `about ${money(cost)} for an answer as long`;
    const asked = () => this.#compare(text, tier, receipt, button);
    const button = el("button", { type: "button", onclick: asked }, "Ask the ", tierName(tier), " tier too");
    show(byId("compare"), button, el("span", { class: "hint" }, price));
  }

  /** What as many tokens cost at `tier`; null when the endpoint does not tell its prices. */
  #costOf(tier, receipt) {
    const price = this.status()?.prices?.[tier];
    if (price) return (receipt.usage.prompt_tokens * price.input + receipt.usage.completion_tokens * price.output) / 1e6;
    return tier === "large" ? receipt.cost_usd + receipt.saved_usd : null;
  }

  async #compare(text, tier, first, button) {
    button.disabled = true;
    const answer = new Answer(tier);
    byId("answers").append(answer.node);
    const second = await this.#run(answer, text, () => {});
    if (!second) {
      button.disabled = false;
      return;
    }
    show(byId("compare"), el("p", { class: "verdict" }, compared(first, second, tier)));
  }
}

/** What the second answer cost beside the first; `asked` is the tier that was to give it, and another may have stood in. */
function compared(first, second, asked) {
  if (second.tier !== asked) return `The ${asked} tier did not answer: the ${second.tier} tier did in its place, for ${money(second.cost_usd)}.`;
  const [small, large] = asked === "large" ? [first, second] : [second, first];
  const times = small.cost_usd > 0 ? `${(large.cost_usd / small.cost_usd).toFixed(1)} times` : "more than";
  return `The large tier's answer cost ${times} the small one's: ${money(large.cost_usd)} against ${money(small.cost_usd)}.`;
}

const ended = ({ tier, cost_usd: cost, saved_usd: saved }) =>
  `The ${tier} tier's answer is complete. Cost ${money(cost)}, saved ${money(saved)}.`;

/** Whether a dry run while typing is a good default: under a key it counts as one of the key's requests. */
export const scoresAsTyped = () => key.get() === "";
