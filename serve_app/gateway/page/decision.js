/**
 * One shape for a decision, wherever it came from: response headers, `/route`, or a receipt.
 * `{id, tier, score, threshold, reason, mode, model, overhead, signals: [{title, about, value, weight, state, seconds}], flip, facts}`
 */

const finite = (value) => (value === null || value === undefined || Number.isNaN(Number(value)) ? null : Number(value));

export function decisionOfHeaders(headers) {
  const get = (name) => headers.get(`x-tierwise-${name}`);
  const overhead = finite(get("overhead-ms"));
  return {
    id: get("decision-id"),
    tier: get("tier"),
    score: finite(get("score")),
    threshold: finite(get("threshold")),
    reason: get("reason"),
    mode: get("mode"),
    model: get("model"),
    overhead: overhead === null ? null : overhead / 1000,
    signals: [],
    flip: null,
    facts: [],
  };
}

/** `/route`'s answer: a dry run. */
export function decisionOfRoute(body) {
  return {
    id: body.decision_id,
    tier: body.tier_name,
    score: finite(body.complexity_score),
    threshold: body.threshold,
    reason: body.reason,
    mode: "normal",
    model: null,
    overhead: body.router_latency_ms / 1000,
    ...ofWhy(body.why),
    facts: factsOf(body.signals?.features),
  };
}

/** A receipt, as `/v1/decisions/{id}` gives it. */
export function decisionOfReceipt(row) {
  const { decision } = row;
  return {
    id: row.id,
    tier: decision.tier,
    score: finite(decision.score.value),
    threshold: decision.threshold,
    reason: decision.reason,
    mode: decision.mode,
    model: row.attempts.at(-1)?.model ?? null,
    overhead: row.overhead_seconds,
    ...ofWhy(row.why),
    facts: factsOf(decision.features),
  };
}

const ABOUT = {
  embedding: ["Embedding", "how near to known hard prompts"],
  assessment: ["Self-assessment", "how hard the router model finds it"],
  p_small_right: ["Small model right", "its fitted chance of a good answer"],
  p_large_right: ["Large model right", "its fitted chance of a good answer"],
  novelty: ["Novelty", "how unlike the fitted prompts the text is"],
  conversation: ["Conversation", "the hardest turn before this one"],
  capacity: ["Queues", "how far they moved the threshold"],
};

function ofWhy(why) {
  const signals = (why?.signals ?? []).map(({ name, value, weight, state = "ok", seconds = null }) => {
    const [title, about] = ABOUT[name] ?? [name, ""];
    return { title, about, value: finite(value), weight: finite(weight), state, seconds };
  });
  return { signals, flip: why?.flip ?? null };
}

const FLAGS = {
  code: "holds code",
  math: "holds mathematics",
  asks_code: "asks for code",
  asks_math: "asks for mathematics",
  tools: "brings tools",
  json_schema: "wants JSON of a schema",
  images: "holds images",
};

function factsOf(features) {
  if (!features) return [];
  const turns = features.turns > 1 ? [`${features.turns} turns`] : [];
  const flags = Object.keys(FLAGS).filter((name) => features[name]);
  return [`${features.chars.toLocaleString("en")} characters`, ...turns, ...flags.map((name) => FLAGS[name])];
}
