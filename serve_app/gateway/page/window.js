/** The last minutes of decisions, bounded in time and number. Pure: the time is an argument. */

import { TIERS } from "./words.js";

export const SPAN_S = 300;
export const MOST = 3000;
const BUCKET_S = 10;

/** Owns the rows in view: rows of `/v1/decisions` in, figures out. */
export class Window {
  constructor() {
    this.rows = new Map(); // by id; a decision is told by several polls
    this.cut = false; // more came than are kept
  }

  add(rows, now) {
    for (const row of rows) this.rows.set(row.id, row);
    for (const [id, row] of this.rows) if (row.created < now - SPAN_S) this.rows.delete(id);
    this.cut = this.rows.size > MOST;
    if (this.cut) {
      const newest = [...this.rows.values()].sort((a, b) => b.created - a.created).slice(0, MOST);
      this.rows = new Map(newest.map((row) => [row.id, row]));
    }
  }

  /** The newest first. */
  latest(count) {
    return [...this.rows.values()].sort((a, b) => b.created - a.created).slice(0, count);
  }

  get newest() {
    return Math.max(0, ...[...this.rows.values()].map((row) => row.created));
  }

  figures() {
    const rows = [...this.rows.values()];
    const cost = sum(rows.map((row) => row.cost_usd));
    const allLarge = sum(rows.map((row) => row.all_large_usd));
    const small = rows.filter((row) => row.tier === "small").length;
    return {
      requests: rows.length,
      perMinute: rows.length / (SPAN_S / 60),
      smallShare: rows.length ? small / rows.length : null,
      failed: rows.filter((row) => !["ok", "cancelled"].includes(row.outcome)).length,
      cost,
      allLarge,
      saved: allLarge - cost,
      decide50: quantile(rows.map((row) => row.overhead_seconds), 0.5),
      tiers: Object.fromEntries(TIERS.map((tier) => [tier, latencies(rows, tier)])),
    };
  }

  /** Requests by tier in steps of ten seconds, as seconds before `now` (negative). */
  buckets(now) {
    const bars = Array.from({ length: SPAN_S / BUCKET_S }, (_, index) => ({
      from: -SPAN_S + index * BUCKET_S, to: -SPAN_S + (index + 1) * BUCKET_S, small: 0, large: 0,
    }));
    for (const row of this.rows.values()) {
      const index = Math.min(bars.length - 1, Math.floor((row.created - now + SPAN_S) / BUCKET_S));
      if (index >= 0) bars[index][row.tier] += 1;
    }
    return bars;
  }
}

function latencies(rows, tier) {
  const answered = rows.filter((row) => row.tier === tier && row.outcome === "ok");
  const whole = answered.map((row) => row.total_seconds);
  return { requests: answered.length, whole50: quantile(whole, 0.5), whole95: quantile(whole, 0.95) };
}

const sum = (values) => values.reduce((total, value) => total + value, 0);

/** The nearest rank; null of nothing. */
export function quantile(values, share) {
  if (!values.length) return null;
  const ordered = [...values].sort((a, b) => a - b);
  return ordered[Math.max(0, Math.ceil(share * ordered.length) - 1)];
}
