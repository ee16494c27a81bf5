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

/** Return the title of the card of an answer. */
export function cardName(budget) {
  return { model: "Model’s choice", all: "All tokens" }[budget] ?? `Budget ${budget}`;
}

export function tokensOf(run) {
  if (!run.explained) return "";
  const local = `${run.explained.tokens.kept} of ${run.explained.tokens.local} local`;
  return run.promptTokens ? `${local}, ${run.promptTokens} in all` : local;
}

/** Describe the time of an answer, and how much of it went into the image. That is spent once per image. */
export function timeOf(run) {
  if (!run.milliseconds) return "";
  const image = Math.round(((run.seconds?.load ?? 0) + (run.seconds?.encode ?? 0)) * 1000);
  const words = `${run.milliseconds.toLocaleString("en")} ms`;
  return run.seconds?.encode ? `${words} (image ${image.toLocaleString("en")})` : words;
}

/** Describe tokens and time of an answer. */
export function factsOf(run) {
  return [tokensOf(run), timeOf(run)].filter(Boolean).join(", ");
}
