import assert from "node:assert/strict";
import test from "node:test";

import { ask, charIndex, charLength, Decision, decode, defineFilter, defineJudge, defineReward, defineStatefulReward, defineStatefulShaper } from "plumb-sdk";
import { defineTool, done, encode, Fault, kv, log, metrics, models, random, Spans, Rewards, tools } from "plumb-sdk";
import { BatchBuilder, clearKv, configure, generated, scriptModel, scriptTool, takeOutput } from "plumb-sdk/testing";

const brevity = defineReward({
  name: "reward-brevity",
  version: "0.1.0",
  config: { max_words: { type: "integer", minimum: 1, default: 50 } },
  needsColumns: ["completion"],
  outputs: ["words"],
  scoreRow(row, { max_words }) {
    const words = row.text("completion").split(/\s+/).filter(Boolean).length;
    if (words === 0) throw Fault.abstain("the completion is empty");
    return { value: words <= max_words ? 1 : 0, parts: { words } };
  },
});

const completions = (...rows) => new BatchBuilder().text("completion", rows).build();

test("reward_rows_get_values_parts_and_faults", () => {
  const { values, parts, faults } = configure(brevity, { max_words: 2 }).score(completions("two words", "", "three words here"));
  assert.deepEqual([...values], [1, 0, 0]);
  assert.deepEqual(parts.map(({ name, values }) => [name, ...values]), [["words", 2, NaN, 3]]);
  assert.deepEqual(faults.map(({ row, fault }) => [row, fault.code]), [[1, "abstain"]]);
});

test("missing_column_ends_the_call_and_lists_those_there_are", () => {
  const batch = new BatchBuilder().text("prompt", ["p"]).text("answer", ["a"]).build();
  assert.throws(() => configure(brevity).score(batch), {
    code: "missing-column",
    message: "no text column `completion`; the batch has `answer`, `prompt`",
  });
});

test("config_with_unknown_keys_or_wrong_values_is_refused_with_the_key", () => {
  assert.throws(() => configure(brevity, { max_word: 1 }), { code: "bad-config", message: /unknown key `max_word`, expected `max_words`/ });
  assert.throws(() => configure(brevity, { max_words: 0 }), { code: "bad-config", message: /`max_words` must be at least 1/ });
  assert.throws(() => configure(brevity, { max_words: 1.5 }), { code: "bad-config", message: /type integer/ });
  assert.equal(configure(brevity).self.max_words, 50);
});

test("config_schema_holds_properties_defaults_and_required_keys", () => {
  const { configSchema } = defineReward({ ...brevity, configSchema: undefined, config: { a: { type: "string" }, b: { default: 1 } } });
  assert.deepEqual(JSON.parse(configSchema), {
    type: "object", properties: { a: { type: "string" }, b: { default: 1 } }, required: ["a"], additionalProperties: false,
  });
});

test("reward_that_is_no_number_is_an_error_that_names_the_row", () => {
  const wrong = defineReward({ name: "w", version: "1", scoreRow: () => "1" });
  assert.throws(() => configure(wrong).score(completions("a")), { message: /row 0: the reward is "1"/ });
  const late = defineReward({ name: "w", version: "1", scoreRow: async () => 1 });
  assert.throws(() => configure(late).score(completions("a")), { message: /must not be `async`/ });
});

test("definition_without_its_function_is_refused", () => {
  assert.throws(() => defineReward({ name: "w", version: "1" }), { message: /needs the function `scoreRow` or `score`/ });
  assert.throws(() => defineStatefulShaper({ name: "w", version: "1", shape() {}, save() {}, load() {} }), { message: /stateVersion/ });
});

test("texts_go_to_utf8_and_back_and_halves_of_pairs_are_replaced", () => {
  const text = "a\u00e9\u20ac\ud83d\ude00z".repeat(2000);
  assert.deepEqual(encode(text), new TextEncoder().encode(text));
  assert.equal(decode(encode(text)), text);
  assert.equal(decode(encode("\ud83dx\ude00")), "\ufffdx\ufffd");
});

test("char_index_counts_scalar_values_and_not_utf16", () => {
  const text = "e\u0301\ud83d\ude00ab";
  assert.equal(charLength(text), 5);
  assert.equal(charIndex(text, text.indexOf("a")), 3);
  assert.equal(charIndex(text, 3), 3, "the middle of a pair is after its character");
});

test("stateful_shaper_hands_its_state_over", () => {
  const counting = defineStatefulShaper({
    name: "s", version: "1", stateVersion: 1,
    create: () => ({ calls: 0 }),
    shape(batch, self) {
      self.calls++;
      return batch.f64s("value").map((value) => value + self.calls);
    },
    save: ({ calls }) => Uint8Array.of(calls),
    load(self, version, bytes) {
      if (version !== 1) throw new Fault("unknown-state", "");
      [self.calls] = bytes;
    },
  });
  const batch = new BatchBuilder().f64s("value", [1, NaN]).build();
  const first = configure(counting);
  first.shape(batch);
  const second = configure(counting);
  second.load(1, first.save());
  assert.deepEqual([...second.shape(batch).values], [3, NaN]);
});

test("stateful_reward_observes_its_rows_and_merges", () => {
  const seen = defineStatefulReward({
    name: "s", version: "1", stateVersion: 1,
    create: () => ({ rows: 0 }),
    scoreRow: (row, self) => self.rows,
    observe(batch, rewards, self) {
      self.rows += rewards.values.length;
    },
    merge(states, self) {
      const before = self.rows;
      for (const [rows] of states) self.rows += rows - before;
    },
    save: ({ rows }) => Uint8Array.of(rows),
    load(self, version, [rows]) {
      self.rows = rows;
    },
  });
  const batch = completions("a", "b");
  const one = configure(seen);
  one.observe(batch, one.score(batch));
  const all = configure(seen);
  all.merge([one.save(), one.save()]);
  assert.deepEqual([...all.score(batch).values], [4, 4]);
  assert.throws(() => defineStatefulReward({ name: "w", version: "1", stateVersion: 1, scoreRow() {}, save() {}, load() {} }), { message: /`observe`/ });
});

test("filter_decides_with_pairs_relabels_and_reasons", () => {
  const filter = defineFilter({
    name: "f", version: "1",
    select(batch) {
      const decision = Decision.keepAll(batch.rows);
      decision.dropRow(1, "low");
      decision.pairs = { chosen: [0], rejected: [1] };
      decision.relabels.push({ column: "completion", rows: [0], texts: ["\u00e9"] });
      return decision;
    },
  });
  const decision = configure(filter).select(completions("a", "b"));
  assert.deepEqual([[...decision.keep], decision.reasons, [...decision.pairs.probability]], [[1, 0], [[1, "low"]], [1]]);
  assert.deepEqual([...decision.relabels[0].texts.bytes], [0xc3, 0xa9]);
});

test("judge_asks_and_resumes_from_its_memo", () => {
  const judge = defineJudge({
    name: "j", version: "1",
    begin: (batch) => ask([{ model: "policy", prompts: batch.text("completion"), sampling: models.greedy(4) }], "v1"),
    resume: (batch, memo, [answers]) => done({ scores: Array.from(answers.text, Number), rationales: answers.text, parts: { memo: [memo.length] } }),
  });
  const judging = configure(judge);
  const batch = completions("a");
  const { questions, memo } = judging.begin(batch);
  assert.deepEqual([questions[0].model, questions[0].sampling.temperature, decode(memo)], ["policy", 0, "v1"]);
  const { scores, rationales } = judging.resume(batch, memo, [generated(["7"])]);
  assert.deepEqual([[...scores], rationales.get(0)], [[7], "7"]);
});

test("tool_answers_json_and_faults_by_row", () => {
  const tool = defineTool({
    name: "t", version: "1",
    callRow({ x }) {
      if (x === 0) throw new Fault("division", "by zero");
      return { y: 1 / x };
    },
  });
  const { output, faults } = configure(tool).call([{ x: 2 }, { x: 0 }, "{"]);
  assert.deepEqual(output, ['{"y":0.5}', "", ""]);
  assert.deepEqual(faults.map(({ row, fault }) => [row, fault.code]), [[1, "division"], [2, "bad-arguments"]]);
});

test("models_and_tools_answer_from_scripts_and_unknown_ones_are_faults", () => {
  scriptModel("m", { choiceLogprobs: (prompts, choices) => Array.from(prompts).flatMap(() => choices.map(() => -1)) });
  assert.deepEqual(models.choiceLogprobs("m", ["p"], ["a", "b"]), [-1, -1]);
  assert.throws(() => models.generate("n", ["p"], { maxTokens: 1 }), { code: "unknown-model" });
  scriptTool("double", ({ x }) => {
    if (x < 0) throw Fault.abstain("negative");
    return { x: 2 * x };
  });
  const [one, two] = tools.call("double", [{ x: 4 }, { x: -1 }]);
  assert.equal(one, '{"x":8}');
  assert.ok(two instanceof Fault && two.code === "abstain");
});

test("random_numbers_depend_on_their_key_alone_and_extend_their_prefix", () => {
  const four = random.draw("noise", 7n, 4);
  assert.deepEqual(four.slice(0, 2), random.draw("noise", 7n, 2));
  assert.notDeepEqual(four, random.draw("noise", 8n, 4));
  assert.notDeepEqual(four, random.draw("other", 7n, 4));
  assert.ok(random.uniform("noise", 7n, 64).every((x) => x >= 0 && x < 1));
});

test("written_output_is_taken_once_and_kv_is_found_by_prefix", () => {
  takeOutput();
  log.warn("odd", { row: 3 });
  metrics.count("seen", 2);
  metrics.observe("length", [1, 2]);
  assert.deepEqual(takeOutput(), { log: [{ level: "warn", message: "odd", fields: { row: "3" } }], counts: { seen: 2 }, observed: { length: [1, 2] } });
  assert.deepEqual(takeOutput().log, []);
  clearKv();
  kv.set("a/1", "x");
  kv.set("b/1", Uint8Array.of(1));
  assert.deepEqual(kv.keys("a/"), ["a/1"]);
  assert.equal(kv.getText("a/1"), "x");
  kv.remove("a/1");
  assert.equal(kv.get("a/1"), undefined);
});

test("spans_and_batch_rewards_are_checked", () => {
  const spans = new Spans("part", "char");
  spans.push(0, 0, 2, 0.5);
  const reward = defineReward({ name: "r", version: "1", score: () => Object.assign(new Rewards(), { values: [1], spans: [spans] }) });
  assert.deepEqual([...configure(reward).score(completions("ab")).spans[0].stops], [2]);
  assert.throws(() => new Spans("part", "byte"), /`char` or `token`/);
  const short = defineReward({ name: "r", version: "1", score: () => [] });
  assert.throws(() => configure(short).score(completions("ab")), { message: /0 values for 1 rows/ });
});
