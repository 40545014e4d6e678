// Judges: candidates to verdicts, by way of questions that the runtime puts to models.

import { Texts } from "./batch.js";
import { sampling } from "./models.js";
import { define, integers, numbers, parts, rowFaults, settled } from "./plugin.js";
import { encode } from "./utf8.js";

/**
 * A judge has no input or output of its own: `begin(batch, self)` returns `ask(...)` or `done(...)`, the runtime runs the
 * models, and `resume(batch, memo, answers, self)` goes on, maybe in another instance. What a judge needs to remember goes
 * into the memo.
 */
export function defineJudge(spec) {
  return define("judge", spec, [["begin"], ["resume"]]);
}

/** Questions of one turn: `{ model, prompts, sampling }` each. `memo` (bytes, or a string) comes back to `resume` as bytes. */
export function ask(questions, memo = new Uint8Array()) {
  return {
    questions: questions.map(({ model, prompts, sampling: how }) => ({
      model,
      prompts: prompts instanceof Texts ? prompts : Texts.from(prompts),
      sampling: sampling(how),
    })),
    memo: typeof memo === "string" ? encode(memo) : memo,
  };
}

/** The verdicts: `scores`, `pairs`, `matrices`, `rationales`, `parts`, `faults`, whichever there are. */
export function done(verdicts) {
  return { verdicts };
}

/** A definition's next turn, checked. */
export function turn(result, name, batch) {
  const next = settled(result, name);
  if (next?.questions) return { ask: next };
  if (!next?.verdicts) throw new TypeError(`\`${name}\` must return \`ask(...)\` or \`done(...)\``);
  const { scores, pairs, matrices, rationales, parts: named, faults } = next.verdicts;
  if (scores && scores.length !== batch.length) throw new RangeError(`\`scores\` has ${scores.length} values for ${batch.length} rows`);
  return {
    done: {
      scores: scores && numbers(scores, "`scores`"),
      pairs: pairs && {
        first: integers(pairs.first, "`first` of pairs"),
        second: integers(pairs.second, "`second` of pairs"),
        probability: numbers(pairs.probability, "`probability` of pairs"),
      },
      matrices: matrices && {
        values: numbers(matrices.values, "`values` of matrices"),
        readable: Uint8Array.from(matrices.readable, (readable) => (readable ? 1 : 0)),
      },
      rationales: rationales && (rationales instanceof Texts ? rationales : Texts.from(rationales)),
      parts: parts(named, batch.length),
      faults: rowFaults(faults),
    },
  };
}
