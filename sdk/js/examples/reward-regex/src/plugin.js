// 1 where a regular expression is found in the completion, else 0. Groups with names that hold a number become parts.

import { defineReward, Fault } from "plumb-sdk";

export default defineReward({
  name: "reward-regex",
  version: "0.1.0",
  config: {
    pattern: { type: "string", default: "[Aa]nswer is (?<answer>-?\\d+)", description: "a regular expression of JavaScript's" },
    column: { type: "string", default: "completion", description: "column that is searched" },
  },

  create({ pattern, column }) {
    try {
      return { pattern: new RegExp(pattern, "u"), column };
    } catch (error) {
      throw Fault.badConfig(`\`pattern\`: ${error.message}`);
    }
  },

  scoreRow(row, { pattern, column }) {
    const found = pattern.exec(row.text(column));
    if (!found) return 0;
    const parts = {};
    for (const [name, text] of Object.entries(found.groups ?? {})) {
      if (/^-?\d+$/.test(text)) parts[name] = Number(text);
    }
    return { value: 1, parts };
  },
});
