// See `tests/conformance/README.md`: the judge.

import { ask, charLength, decode, defineJudge, done, Fault, kv, log, metrics, models } from "plumb-sdk";

export default defineJudge({
  name: "conformance-judge",
  version: "0.1.0",
  config: { form: { type: "string", default: "pointwise" }, model: { type: "string", default: "judge" } },
  needsColumns: ["prompt", "completion"],
  outputs: ["tokens", "logprob", "rank"],

  create(config) {
    if (!Object.hasOwn(QUESTIONS, config.form)) throw Fault.badConfig(`no form \`${config.form}\``);
    return config;
  },

  begin(batch, config) {
    toldTo(batch, "begin");
    const questions = QUESTIONS[config.form](batch, config.model);
    if (questions.every(({ prompts }) => prompts.length === 0)) return read(batch, "first", [], config);
    log.debug(`asks ${questions.length} questions`);
    return ask(questions, "first");
  },

  resume(batch, memo, answers, config) {
    toldTo(batch, "resume");
    metrics.observe("answer", answers.flatMap((answer) => Array.from(answer.text, charLength)));
    return read(batch, memo.length === 5 ? decode(memo) : memo, answers, config);
  },
});

const QUESTIONS = {
  /** A question about each row that has a completion, answered twice. */
  pointwise(batch, model) {
    const sampling = {
      maxTokens: 8,
      temperature: 0.75,
      topP: 0.9,
      count: 2,
      seed: batch.step + 7,
      stop: ["\n", "。"],
      extra: { style: "brief é" },
    };
    const [asked, texts] = [batch.text("prompt"), batch.text("completion")];
    return [{ model, prompts: written(batch).map((row) => `Grade „${texts.get(row)}“ for ${asked.get(row)}: `), sampling }];
  },

  /** A question for each group of two rows or more, about each of its pairs. */
  pairwise(batch, model) {
    const texts = batch.text("completion");
    return batch.groups.flatMap(([start, stop], seed) => {
      if (stop - start < 2) return [];
      const prompts = upper(start, stop).map(([i, j]) => `A: ${texts.get(i)}\nB: ${texts.get(j)}\nBetter: `);
      return [{ model, prompts, sampling: { maxTokens: 1, count: 2, seed } }];
    });
  },

  /** A question about each group as a whole. */
  listwise(batch, model) {
    const texts = Array.from(batch.text("completion"));
    const list = ([start, stop]) => texts.slice(start, stop).map((text, place) => `${place}) ${text}\n`).join("");
    const prompts = batch.groups.filter(([start, stop]) => start < stop).map((group) => `${list(group)}Best first: `);
    return [{ model, prompts, sampling: models.greedy(16) }];
  },

  /** Two questions: how far a row is better than one behind it, and the reverse, which another model is asked. */
  matrix(batch, model) {
    const texts = batch.text("completion");
    const pairs = batch.groups.flatMap(([start, stop]) => upper(start, stop));
    const prompt = (i, j) => `${texts.get(i)} over ${texts.get(j)}: `;
    return [
      { model, prompts: pairs.map(([i, j]) => prompt(i, j)), sampling: models.greedy(3) },
      { model: "critic", prompts: pairs.map(([i, j]) => prompt(j, i)), sampling: models.greedy(3) },
    ];
  },
};

/** What the answers of a turn say. */
function read(batch, memo, answers, { form }) {
  const next = READERS[form](batch, answers, memo);
  if (next.questions) return next;
  const before = kv.get("judged");
  const judged = before ? new DataView(before.buffer, before.byteOffset).getBigUint64(0, true) : 0n;
  kv.set("judged", new Uint8Array(BigUint64Array.of(judged + BigInt(batch.rows)).buffer));
  metrics.count("rows", batch.rows);
  log.info(`judged ${batch.rows} rows ✓`, { form, before: judged });
  return done(next);
}

const READERS = {
  /** Grades, or a second question about the rows of which no answer can be read. */
  pointwise(batch, [answer], memo) {
    let asked = written(batch);
    let grades = new Array(batch.rows).fill(-1);
    const samples = memo === "first" ? 2 : 1;
    if (memo === "first") {
      asked.forEach((row, place) => {
        const read = [0, 1].map((sample) => grade(answer.text.get(2 * place + sample))).filter((grade) => grade !== undefined);
        if (read.length > 0) grades[row] = sum(read) / read.length;
      });
      const again = asked.filter((row) => grades[row] < 0);
      if (again.length > 0) {
        const prompts = again.map((row) => `Row ${row}, digits only: `);
        return ask([{ model: "critic", prompts, sampling: models.greedy(2) }], new Uint8Array(Float64Array.from(grades).buffer));
      }
    } else {
      grades = Array.from(new Float64Array(memo.slice().buffer));
      asked = asked.filter((row) => grades[row] < 0);
      asked.forEach((row, place) => (grades[row] = grade(answer.text.get(place)) ?? -1));
    }
    const [tokens, logprob] = [NaN, NaN].map((nothing) => new Array(batch.rows).fill(nothing));
    const rationales = new Array(batch.rows).fill("");
    asked.forEach((row, place) => {
      const first = place * samples;
      tokens[row] = Array.from(answer.tokens.get(first)).reduce((sum, token) => sum * 0.5 + token, 0);
      logprob[row] = sum(Array.from(answer.logprobs.get(first)));
      rationales[row] = `${answer.finish[first]}: ${answer.text.get(first)}`;
    });
    const faults = [];
    for (const row of batch) {
      if (grades[row.index] >= 0) continue;
      const lost = new Fault(Fault.UNPARSEABLE, `row ${row.index} has no grade`, { retryable: true });
      faults.push({ row: row.index, fault: row.text("completion") === "" ? Fault.abstain("∅") : lost });
    }
    return { scores: grades.map((grade) => (grade < 0 ? NaN : grade)), rationales, parts: { tokens, logprob }, faults };
  },

  /** The share of a pair's two votes; a pair without a vote that can be read has no verdict. */
  pairwise(batch, answers) {
    const pairs = { first: [], second: [], probability: [] };
    batch.groups.filter(([start, stop]) => stop - start > 1).forEach(([start, stop], group) => {
      upper(start, stop).forEach(([i, j], place) => {
        const votes = [0, 1].map((sample) => vote(answers[group].text.get(2 * place + sample))).filter((vote) => vote !== undefined);
        if (votes.length === 0) return metrics.count("unreadable");
        pairs.first.push(i);
        pairs.second.push(j);
        pairs.probability.push(sum(votes) / votes.length);
      });
    });
    return { pairs };
  },

  /** 1 for the best of a group and 0 for its last. */
  listwise(batch, [answer]) {
    const scores = new Array(batch.rows).fill(0);
    const rank = new Array(batch.rows).fill(NaN);
    const rationales = new Array(batch.rows).fill("");
    const faults = [];
    batch.groups.filter(([start, stop]) => start < stop).forEach(([start, stop], place) => {
      const text = answer.text.get(place);
      const order = ranking(text, stop - start);
      for (let row = start; row < stop; row++) {
        rationales[row] = text;
        if (order) {
          rank[row] = order.indexOf(row - start);
          scores[row] = 1 - (stop - start > 1 ? rank[row] / (stop - start - 1) : 0);
        } else {
          faults.push({ row, fault: Fault.unparseable(`group ${place} has no ranking`) });
        }
      }
    });
    return { scores, rationales, parts: { rank }, faults };
  },

  /** Half the difference of the two answers about a pair, where both can be read. */
  matrix(batch, [over, under]) {
    const matrices = { values: [], readable: [] };
    let asked = 0;
    for (const [start, stop] of batch.groups) {
      const n = stop - start;
      const values = new Array(n * n).fill(0);
      const readable = new Array(n * n).fill(true);
      for (const [i, j] of upper(0, n)) {
        const [a, b] = [grade(over.text.get(asked)), grade(under.text.get(asked))];
        asked += 1;
        if (a === undefined || b === undefined) {
          readable[i * n + j] = readable[j * n + i] = false;
        } else {
          values[i * n + j] = (a - b) / 2;
          values[j * n + i] = (b - a) / 2;
        }
      }
      matrices.values.push(...values);
      matrices.readable.push(...readable);
    }
    return { matrices };
  },
};

/** Fails or breaks if the batch says so of this export. */
function toldTo(batch, exported) {
  const how = batch.attr("fail");
  if (how === `${exported}: fault`) throw new Fault("told-to", `step ${batch.step}`);
  if (how === `${exported}: panic`) throw new Error("told to");
}

/** Rows that have a completion. */
function written(batch) {
  return Array.from(batch, ({ index }) => index).filter((row) => batch.text("completion").get(row) !== "");
}

/** The pairs of a group, each once. */
function upper(start, stop) {
  const pairs = [];
  for (let i = start; i < stop; i++) for (let j = i + 1; j < stop; j++) pairs.push([i, j]);
  return pairs;
}

const sum = (numbers) => numbers.reduce((sum, number) => sum + number, 0);

/** The digits that a text begins with, three at most, in tenths. */
function grade(text) {
  const digits = /^ *([0-9]{1,3})/.exec(text);
  return digits ? Number(digits[1]) / 10 : undefined;
}

/** 1 for A, 0 for B and 0.5 for a tie. */
function vote(text) {
  return { A: 1, B: 0, "=": 0.5 }[text.replace(/^ */, "").slice(0, 1)];
}

/** `1 > 0 > 2` as places; undefined unless it names each of `n` rows once. */
function ranking(text, n) {
  const places = text.split(">").map((place) => place.replace(/^ *| *$/g, ""));
  const complete = places.length === n && places.every((_, row) => places.includes(String(row)));
  return complete ? places.map(Number) : undefined;
}
