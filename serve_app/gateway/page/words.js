/** Numbers and reasons in words. */

export const TIERS = ["small", "large"];
export const other = (tier) => (tier === "small" ? "large" : "small");

const plain = (value, digits) => value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits });

/** Dollars as cents below a dollar: three significant digits, however small it is. */
export function money(usd) {
  if (usd === null || usd === undefined) return "–";
  const size = Math.abs(usd);
  if (size >= 1) return `${usd < 0 ? "−" : ""}$${plain(size, 2)}`;
  const cents = size * 100;
  if (cents === 0) return "0 ¢";
  const digits = Math.min(8, Math.max(0, 1 - Math.floor(Math.log10(cents))));
  return `${usd < 0 ? "−" : ""}${plain(cents, digits)} ¢`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return `${plain(seconds * 1000, seconds > 0 && seconds < 0.0095 ? 1 : 0)} ms`;
  return seconds < 10 ? `${plain(seconds, 2)} s` : `${plain(seconds, 1)} s`;
}

export const percent = (share) => (share === null || Number.isNaN(share) ? "–" : `${plain(share * 100, share > 0 && share < 0.1 ? 1 : 0)} %`);
export const number = (value, digits = 0) => (value ?? null) === null ? "–" : plain(value, digits);
export const score = (value) => (value === null || value === undefined ? "–" : value.toFixed(2));
export const threshold = (value) => String(Number(value.toFixed(4)));
export const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB");

const REASONS = {
  score_above: (d) => `Its score ${score(d.score)} is at or above the threshold ${score(d.threshold)}.`,
  score_below: (d) => `Its score ${score(d.score)} is below the threshold ${score(d.threshold)}.`,
  explicit_model: () => "The request named this model.",
  explicit_tier: () => "The request named this tier.",
  heuristic_math_code: () => "Code and mathematics always go to the large tier, whatever the score.",
  guard_context: () => "Prompt and answer fit the context of this tier only.",
  guard_capability: () => "Only this tier can do what the request needs.",
  guard_policy: () => "The API key may use this tier only.",
  conversation: () => "An earlier turn of the conversation was hard, so the conversation stays.",
  tool_loop: () => "A tool's answer goes back to the model that asked for it.",
  novelty: () => "The text is unlike everything that the calibration was fitted on, and its score is near the threshold.",
  capacity: (d) => `The engines' queues moved the threshold to ${score(d.threshold)}; the score is ${score(d.score)}.`,
  escalated_low_confidence: () => "The small model doubted its first tokens, so the large one answers.",
  degraded: () => "The large tier broke, and answers of the small one are allowed instead.",
  tier_unavailable: () => "The other tier cannot answer now.",
  fallback_engine_error: () => "The small tier broke before its first byte.",
  fallback_router_error: () => "No signal could be had; without a score the large tier answers.",
};

export const REASON_NAMES = Object.keys(REASONS);

/** A sentence for the decision's reason. A reason of a newer endpoint is shown by its name. */
export const because = (decision) => (REASONS[decision.reason] ? REASONS[decision.reason](decision) : String(decision.reason));

const MODES = {
  shadow: "Shadow mode: the router's choice is recorded, another tier answers.",
  canary: "Canary mode: only a share of the easy requests goes small.",
};
export const inMode = (mode) => MODES[mode] ?? null;
