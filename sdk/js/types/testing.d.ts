import type { Batch, Fault, Generated, Level, Plugin, Ragged, Sampling, Texts } from "./index.js";

interface NamedValues {
  name: string;
  values: Float64Array;
}
interface FaultOfRow {
  row: number;
  fault: Fault;
}

/** A judge's turn: `questions` and `memo` if it asks, the others if it has decided. */
export interface Turn {
  questions: { model: string; prompts: Texts; sampling: Required<Sampling> }[];
  memo: Uint8Array;
  scores: Float64Array;
  pairs: { first: Uint32Array; second: Uint32Array; probability: Float64Array };
  matrices: { values: Float64Array; readable: Uint8Array };
  rationales: Texts;
  parts: NamedValues[];
  faults: FaultOfRow[];
}

/** A configured plugin; a kind has those functions that belong to it. */
export interface Configured {
  readonly self: any;
  score(batch: Batch): {
    values: Float64Array;
    parts: NamedValues[];
    spans: { name: string; unit: string; rows: Uint32Array; starts: Uint32Array; stops: Uint32Array; values: Float64Array }[];
    faults: FaultOfRow[];
  };
  /** `values` or `tokenValues`, or both: what the plugin gave. */
  shape(batch: Batch): { values: Float64Array; tokenValues: { values: Float32Array; ends: Uint32Array }; parts: NamedValues[]; faults: FaultOfRow[] };
  select(batch: Batch): {
    keep: Uint8Array;
    weights?: Float64Array;
    pairs?: { chosen: Uint32Array; rejected: Uint32Array; probability: Float64Array; margin: Float64Array; level: Uint32Array };
    relabels: { column: string; rows: Uint32Array; texts: Texts }[];
    regenerate: Uint32Array;
    parts: NamedValues[];
    reasons: [number, string][];
  };
  begin(batch: Batch): Turn;
  resume(batch: Batch, memo: Uint8Array, answers: Generated[]): Turn;
  call(args: unknown[]): { output: string[]; faults: FaultOfRow[] };
  save(): Uint8Array;
  load(fromVersion: number, bytes: Uint8Array): void;
}
export function configure(plugin: Plugin, config?: object): Configured;

export class BatchBuilder {
  text(name: string, rows: Iterable<string>): this;
  f64s(name: string, rows: Iterable<number>): this;
  u32s(name: string, rows: Iterable<number>): this;
  tokens(name: string, rows: Iterable<number[]>): this;
  tokenF32s(name: string, rows: number[][]): this;
  f64Lists(name: string, rows: Iterable<number[]>): this;
  bytes(name: string, rows: Iterable<Uint8Array>): this;
  attr(name: string, value: string): this;
  groups(ends: Iterable<number>): this;
  rowIds(ids: Iterable<bigint | number>): this;
  step(step: number): this;
  build(): Batch;
}

export interface Output {
  log: { level: Level; message: string; fields: Record<string, string> }[];
  counts: Record<string, number>;
  observed: Record<string, number[]>;
}
export function takeOutput(): Output;
export function clearKv(): void;

export interface ModelScript {
  generate?(prompts: Texts, sampling: Required<Sampling>): Generated;
  logprobs?(prompts: Texts, continuations: Texts): Ragged;
  tokenLogprobs?(prompts: Texts, tokens: Ragged): Ragged;
  choiceLogprobs?(prompts: Texts, choices: string[]): number[];
  score?(prompts: Texts, continuations: Texts): { name: string; values: number[] }[];
  embed?(inputs: Texts): { width: number; values: number[] };
}
export function scriptModel(name: string, answer: ModelScript): void;
export function scriptTool(name: string, answer: (args: any) => unknown): void;
export function generated(texts: string[]): Generated;
