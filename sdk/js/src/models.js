// The models of the recipe: `policy`, `reference`, any other. A capability: plugin.toml asks for it (`[needs]`,
// `capabilities = ["models"]`), and the recipe grants it. All functions throw a fault when the model cannot answer.

import { backend } from "./backend.js";
import { Texts } from "./batch.js";

const texts = (rows) => (rows instanceof Texts ? rows : Texts.from(rows));

/** How to sample, with every field: what is left out takes its default. */
export function sampling({ maxTokens, temperature = 1, topP = 1, count = 1, seed = 0, stop = [], extra = {} }) {
  if (!(Number.isInteger(maxTokens) && maxTokens > 0)) throw new TypeError("`maxTokens` must be a positive integer");
  return { maxTokens, temperature, topP, count, seed, stop, extra };
}

/** One completion per prompt, the likeliest token at each place. */
export function greedy(maxTokens) {
  return sampling({ maxTokens, temperature: 0 });
}

/** Completes each prompt, `count` adjacent completions per prompt; a prompt may hold the beginning of the answer. */
export function generate(model, prompts, params) {
  return backend("models").generate(model, texts(prompts), sampling(params));
}

/** Log-probability of every token of each continuation, in nats. */
export function logprobs(model, prompts, continuations) {
  return backend("models").logprobs(model, texts(prompts), texts(continuations));
}

/** The same for given token ids (a `Ragged`), without tokenizing again. */
export function tokenLogprobs(model, prompts, tokens) {
  return backend("models").tokenLogprobs(model, texts(prompts), tokens);
}

/** Log-probabilities of candidate answers, prompts × choices, prompt by prompt. */
export function choiceLogprobs(model, prompts, choices) {
  return backend("models").choiceLogprobs(model, texts(prompts), Array.from(choices));
}

/** Scalar and multi-objective heads: parts, each with one value per row. */
export function score(model, prompts, continuations) {
  return backend("models").score(model, texts(prompts), texts(continuations));
}

/** `{ width, values }`: row-major embeddings. */
export function embed(model, inputs) {
  return backend("models").embed(model, texts(inputs));
}
