// Types of plumb-sdk. The functions' own comments stand in `src`.

/** Why there is no answer, for one row or for the whole batch. Throw it. */
export class Fault extends Error {
  static readonly ABSTAIN: "abstain";
  static readonly BAD_CONFIG: "bad-config";
  static readonly MISSING_COLUMN: "missing-column";
  static readonly UNPARSEABLE: "unparseable";
  static readonly BAD_ARGUMENTS: "bad-arguments";
  constructor(code: string, message?: string, options?: { retryable?: boolean });
  /** For programs: kebab-case, stable. */
  readonly code: string;
  /** Whether the same call may succeed later. */
  readonly retryable: boolean;
  static abstain(message: string): Fault;
  static badConfig(message: string): Fault;
  static unparseable(message: string): Fault;
}

/** A fault of one row. */
export interface RowFault {
  row: number;
  fault: Fault;
}

/** Many texts as one buffer; rows are decoded when asked for. */
export class Texts implements Iterable<string> {
  constructor(bytes: Uint8Array, ends: ArrayLike<number>);
  static from(rows: Iterable<string | Uint8Array>): Texts;
  readonly bytes: Uint8Array;
  readonly ends: ArrayLike<number>;
  readonly length: number;
  get(row: number): string;
  bytesAt(row: number): Uint8Array;
  [Symbol.iterator](): Iterator<string>;
}

/** One list of numbers a row. */
export class Ragged implements Iterable<number[]> {
  constructor(values: number[], ends: ArrayLike<number>);
  static from(rows: Iterable<Iterable<number>>): Ragged;
  readonly values: number[];
  readonly ends: ArrayLike<number>;
  readonly length: number;
  get(row: number): number[];
  [Symbol.iterator](): Iterator<number[]>;
}

/** Rows with named columns. The rows of one prompt are adjacent and form a group. */
export class Batch implements Iterable<Row> {
  private constructor();
  readonly rows: number;
  readonly length: number;
  /** The optimizer step this batch belongs to; 0 outside training. */
  readonly step: number;
  /** Stable ids of the rows, the keys for `random`. */
  readonly rowIds: BigUint64Array;
  /** `[start, stop)` of each group. */
  readonly groups: [number, number][];
  readonly columns: string[];
  attr(name: string): string | undefined;
  text(column: string): Texts;
  f64s(column: string): Float64Array;
  u32s(column: string): ArrayLike<number>;
  tokens(column: string): Ragged;
  tokenF32s(column: string): Ragged;
  f64Lists(column: string): Ragged;
  bytes(column: string): Texts;
  findText(column: string): Texts | undefined;
  findF64s(column: string): Float64Array | undefined;
  findU32s(column: string): ArrayLike<number> | undefined;
  findTokens(column: string): Ragged | undefined;
  findTokenF32s(column: string): Ragged | undefined;
  findF64Lists(column: string): Ragged | undefined;
  findBytes(column: string): Texts | undefined;
  row(index: number): Row;
  [Symbol.iterator](): Iterator<Row>;
}

/** One row of a batch. */
export class Row {
  private constructor();
  readonly batch: Batch;
  readonly index: number;
  readonly id: bigint;
  text(column: string): string;
  f64(column: string): number;
  u32(column: string): number;
  tokens(column: string): number[];
  tokenF32s(column: string): number[];
  f64List(column: string): number[];
  bytes(column: string): Uint8Array;
}

/** A JSON schema of one key, with its default. */
export interface ConfigKey {
  type?: string | string[];
  default?: unknown;
  description?: string;
  [word: string]: unknown;
}

/** What all kinds' definitions have. `Self` is what `create` returns, else the configuration. */
export interface Definition<Self, Config = any> {
  name: string;
  version: string;
  /** The configuration's keys; one without default is required. */
  config?: Record<string, ConfigKey>;
  /** The whole JSON schema, in place of `config`. */
  configSchema?: string | object;
  needsColumns?: string[];
  outputs?: string[];
  /** Takes a configuration and checks it; throws `Fault.badConfig`. */
  create?(config: Config): Self;
}

/** A definition, ready to be a module's default export. */
export interface Plugin<Kind extends string = string, Self = unknown> {
  readonly kind: Kind;
  readonly name: string;
  readonly version: string;
  readonly configSchema: string;
  readonly self?: Self;
}

type Numbers = ArrayLike<number>;
/** Named components: `{ name: values }`, or a list where the order matters. */
export type Parts = Record<string, Numbers> | { name: string; values: Numbers }[];

export type Score = number | { value: number; parts?: Record<string, number> };

export class Rewards {
  values: number[];
  parts: { name: string; values: number[] }[];
  spans: Spans[];
  faults: RowFault[];
  push(score: Score | Fault): void;
}

/** Rewards of stretches of the completions. */
export class Spans {
  constructor(name: string, unit: "char" | "token");
  push(row: number, start: number, stop: number, value: number): void;
}

export interface RewardSpec<Self, Config = any> extends Definition<Self, Config> {
  scoreRow?(row: Row, self: Self): Score;
  score?(batch: Batch, self: Self): Rewards | Numbers;
}
export interface StatefulRewardSpec<Self, Config = any> extends RewardSpec<Self, Config> {
  /** Version of what `save` writes, from 1. */
  stateVersion: number;
  /** Takes note of rows that were just scored. */
  observe(batch: Batch, rewards: Rewards, self: Self): void;
  /** Adds up what the calls of a step learnt, each of which began with the state that `self` has. */
  merge(states: Uint8Array[], self: Self): void;
  save(self: Self): Uint8Array;
  load(self: Self, fromVersion: number, bytes: Uint8Array): void;
}
export function defineReward<Self = any, Config = any>(spec: RewardSpec<Self, Config>): Plugin<"reward", Self>;
export function defineStatefulReward<Self = any, Config = any>(spec: StatefulRewardSpec<Self, Config>): Plugin<"reward", Self>;

export interface Shaped {
  values?: Numbers;
  tokenValues?: Ragged;
  parts?: Parts;
  faults?: RowFault[];
}
export interface ShaperSpec<Self, Config = any> extends Definition<Self, Config> {
  shape(batch: Batch, self: Self): Shaped | Numbers;
}
export interface StatefulShaperSpec<Self, Config = any> extends ShaperSpec<Self, Config> {
  /** Version of what `save` writes, from 1. */
  stateVersion: number;
  save(self: Self): Uint8Array;
  load(self: Self, fromVersion: number, bytes: Uint8Array): void;
}
export function defineShaper<Self = any, Config = any>(spec: ShaperSpec<Self, Config>): Plugin<"shaper", Self>;
export function defineStatefulShaper<Self = any, Config = any>(spec: StatefulShaperSpec<Self, Config>): Plugin<"shaper", Self>;

export interface Sampling {
  maxTokens: number;
  temperature?: number;
  topP?: number;
  count?: number;
  /** Up to 2^53. */
  seed?: number | bigint;
  stop?: string[];
  extra?: Record<string, unknown>;
}
export interface Generated {
  text: Texts;
  tokens: Ragged;
  logprobs: Ragged;
  /** `stop` or `length`, one per completion; for a judge also why an unreadable prompt has none: `too-long`, `untokenizable`, `empty-prompt`. */
  finish: string[];
}
export interface Question {
  model: string;
  prompts: Texts | Iterable<string>;
  sampling: Sampling;
}
export interface Verdicts {
  scores?: Numbers;
  pairs?: { first: Numbers; second: Numbers; probability: Numbers };
  matrices?: { values: Numbers; readable: ArrayLike<boolean | number> };
  rationales?: Texts | Iterable<string>;
  parts?: Parts;
  faults?: RowFault[];
}
export interface Ask {
  questions: Question[];
  memo: Uint8Array;
}
export interface Done {
  verdicts: Verdicts;
}
export function ask(questions: Question[], memo?: Uint8Array | string): Ask;
export function done(verdicts: Verdicts): Done;
export interface JudgeSpec<Self, Config = any> extends Definition<Self, Config> {
  begin(batch: Batch, self: Self): Ask | Done;
  resume(batch: Batch, memo: Uint8Array, answers: Generated[], self: Self): Ask | Done;
}
export function defineJudge<Self = any, Config = any>(spec: JudgeSpec<Self, Config>): Plugin<"judge", Self>;

export class Decision {
  constructor(keep: ArrayLike<boolean | number>);
  static keepAll(rows: number): Decision;
  keep: boolean[];
  weights?: Numbers;
  pairs?: { chosen: number[]; rejected: number[]; probability?: number[]; margin?: number[]; level?: number[] };
  relabels: { column: string; rows: Numbers; texts: Texts | Iterable<string> }[];
  regenerate: number[];
  parts: Parts;
  reasons: [number, string][];
  dropRow(row: number, reason: string): void;
}
export interface FilterSpec<Self, Config = any> extends Definition<Self, Config> {
  select(batch: Batch, self: Self): Decision | boolean[];
}
export function defineFilter<Self = any, Config = any>(spec: FilterSpec<Self, Config>): Plugin<"filter", Self>;

export interface ToolSpec<Self, Config = any> extends Definition<Self, Config> {
  callRow(args: any, self: Self): unknown;
}
export function defineTool<Self = any, Config = any>(spec: ToolSpec<Self, Config>): Plugin<"tool", Self>;

/** A string's UTF-8, and back. */
export function encode(text: string): Uint8Array;
export function decode(bytes: Uint8Array, start?: number, stop?: number): string;
/** A text's length, and the place of a string index, in Unicode scalar values: what spans count. */
export function charLength(text: string): number;
export function charIndex(text: string, index: number): number;

export type Level = "trace" | "debug" | "info" | "warn" | "error";
type Fields = Record<string, unknown>;
export namespace log {
  function write(level: Level, message: string, fields?: Fields): void;
  function debug(message: string, fields?: Fields): void;
  function info(message: string, fields?: Fields): void;
  function warn(message: string, fields?: Fields): void;
}
export namespace metrics {
  function count(name: string, delta?: number): void;
  function observe(name: string, values: number | Numbers): void;
}
export namespace random {
  function draw(stream: string, rowId: bigint, count: number): BigUint64Array;
  function uniform(stream: string, rowId: bigint, count: number): number[];
}
export namespace kv {
  function get(key: string): Uint8Array | undefined;
  function getText(key: string): string | undefined;
  function set(key: string, value: Uint8Array | string): void;
  function remove(key: string): void;
  function keys(prefix?: string): string[];
}
export namespace models {
  function sampling(sampling: Sampling): Required<Sampling>;
  function greedy(maxTokens: number): Required<Sampling>;
  function generate(model: string, prompts: Texts | Iterable<string>, sampling: Sampling): Generated;
  function logprobs(model: string, prompts: Texts | Iterable<string>, continuations: Texts | Iterable<string>): Ragged;
  function tokenLogprobs(model: string, prompts: Texts | Iterable<string>, tokens: Ragged): Ragged;
  function choiceLogprobs(model: string, prompts: Texts | Iterable<string>, choices: Iterable<string>): number[];
  function score(model: string, prompts: Texts | Iterable<string>, continuations: Texts | Iterable<string>): { name: string; values: number[] }[];
  function embed(model: string, inputs: Texts | Iterable<string>): { width: number; values: number[] };
}
export namespace tools {
  function call(tool: string, args: Iterable<unknown>): (string | Fault)[];
}
