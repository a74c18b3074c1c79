/**
 * What another threshold would have done to recorded decisions. Pure.
 *
 * Only what the threshold decided moves: guards, explicit tiers, conversations and fallbacks stay as they were. A request that moves
 * keeps its tokens and pays the other tier's price: what the other model would really have written, nobody knows.
 */

import { TIERS } from "./words.js";

const SCORED = new Set(["score_above", "score_below", "capacity"]);

/** Whether the threshold in force decided; in a tool loop the turn counts whose tier is the one of its score. As `tierwise replay` has it. */
function moves(row) {
  if (row.score === null || row.own_threshold) return false;
  return SCORED.has(row.reason) || (row.reason === "tool_loop" && (row.tier === "large") === (row.score >= row.threshold));
}

/** What a row costs at a tier, from the row itself and the prices of `/status`; null when it cannot be known. */
export function pricer(prices) {
  return (row, tier) => {
    if (tier === row.tier) return row.cost_usd;
    if (tier === "large") return row.all_large_usd;
    if (!prices?.small) return null;
    return (row.prompt_tokens * prices.small.input + row.completion_tokens * prices.small.output) / 1e6;
  };
}

/** The share of the all-large cost that the small tier takes, over what it answered: stands in for prices that are not told. */
export function smallRatio(rows) {
  const answered = rows.filter((row) => row.tier === "small" && row.outcome === "ok" && row.all_large_usd > 0);
  const [cost, all] = answered.reduce(([a, b], row) => [a + row.cost_usd, b + row.all_large_usd], [0, 0]);
  return all > 0 ? cost / all : null;
}

/** Rows of `/v1/decisions` made ready: what each costs on either tier, and what a label says of it. */
export function prepare(rows, prices, labels = new Map()) {
  const cost = pricer(prices);
  const ratio = smallRatio(rows);
  return rows.filter((row) => row.mode === "normal").map((row) => ({
    row,
    moves: moves(row),
    cost: { small: cost(row, "small") ?? (ratio === null ? row.cost_usd : row.all_large_usd * ratio), large: cost(row, "large") },
    right: rightness(labels.get(row.id) ?? null),
  }));
}

/** How good an answer of either tier is by its label, in [0, 1]; null without one. */
function rightness(label) {
  if (!label) return null;
  if (TIERS.includes(label.expected_tier)) return { small: Number(label.expected_tier === "small"), large: Number(label.expected_tier === "large") };
  return { small: label.weak_score, large: label.strong_score };
}

const tierAt = (item, threshold) => (item.moves ? (item.row.score >= threshold ? "large" : "small") : item.row.tier);

/** `{cost, allLarge, largeShare, quality, judged, moved}` of all items at a threshold; money is dollars per 1,000 requests. */
export function at(items, threshold) {
  let cost = 0, all = 0, large = 0, right = 0, judged = 0, moved = 0;
  for (const item of items) {
    const tier = tierAt(item, threshold);
    cost += item.cost[tier];
    all += item.row.all_large_usd; // not what was paid there: a failed or doubted small answer may be in that
    large += tier === "large";
    moved += tier !== item.row.tier;
    if (item.right) {
      judged += 1;
      right += item.right[tier];
    }
  }
  const count = items.length || 1;
  const quality = judged ? right / judged : null;
  return { cost: (cost / count) * 1000, allLarge: (all / count) * 1000, largeShare: large / count, quality, judged, moved };
}

export const STEPS = Array.from({ length: 101 }, (_, index) => index / 100);

/** `at` for thresholds from 0 to 1. */
export const curve = (items) => STEPS.map((threshold) => ({ threshold, ...at(items, threshold) }));

/** The items that would have gone elsewhere, those nearest to the new threshold first. */
export function flips(items, threshold) {
  return items
    .filter((item) => tierAt(item, threshold) !== item.row.tier)
    .sort((a, b) => Math.abs(a.row.score - threshold) - Math.abs(b.row.score - threshold));
}

/** How many items have a score in each of `count` equal parts of [0, 1]: `{from, to, small, large}` by the tier at `threshold`. */
export function histogram(items, threshold, count = 40) {
  const bars = Array.from({ length: count }, (_, index) => ({ from: index / count, to: (index + 1) / count, small: 0, large: 0 }));
  for (const item of items) {
    if (item.row.score === null) continue;
    bars[Math.min(count - 1, Math.floor(item.row.score * count))][tierAt(item, threshold)] += 1;
  }
  return bars;
}

/** Labels from JSON lines, by decision. Raises `Error` naming the first bad line. */
export function readLabels(text) {
  const labels = new Map();
  text.split("\n").forEach((line, index) => {
    if (!line.trim()) return;
    let row = null;
    try {
      row = JSON.parse(line);
    } catch {
      // told below, with the line's number
    }
    if (typeof row?.id !== "string" || !isLabel(row)) {
      throw new Error(`Line ${index + 1} needs id and expected_tier (small or large), or weak_score and strong_score in [0, 1].`);
    }
    labels.set(row.id, row);
  });
  return labels;
}

const isScore = (value) => typeof value === "number" && value >= 0 && value <= 1;
const isLabel = (row) => TIERS.includes(row.expected_tier) || (isScore(row.weak_score) && isScore(row.strong_score));
