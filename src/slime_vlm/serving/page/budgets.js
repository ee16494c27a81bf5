// Budgets of local tokens: a number, "model" for what the checkpoint is set to, and "all".

export const BUDGETS = ["model", 8, 16, 32, 64, 128, 256, 512, "all"];
export const COMPARED = [16, 64, 256, "all"];

/** Return the fields of a request's `slime` object. */
export function fieldsOf(budget) {
  if (budget === "model") return {};
  return budget === "all" ? { selector_top_p: 1 } : { max_local_tokens: budget };
}

export function budgetName(budget) {
  return { model: "the model’s choice", all: "all" }[budget] ?? `at most ${budget}`;
}

/** Describe tokens and time of an answer. */
export function factsOf(run) {
  const parts = [];
  if (run.explained) parts.push(`${run.explained.tokens.kept} of ${run.explained.tokens.local} local tokens`);
  if (run.promptTokens) parts.push(`${run.promptTokens} in all`);
  if (run.milliseconds) parts.push(`${run.milliseconds.toLocaleString("en")} ms`);
  return parts.join(" · ");
}
