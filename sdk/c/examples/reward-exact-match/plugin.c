// 1 for a completion that is the reference answer, white space around both aside, else 0. Without an answer it abstains.

#include "plugin.h"

#include <stdlib.h>
#include <string.h>

// A piece of a text that the batch owns.
typedef struct {
  const uint8_t *ptr;
  size_t len;
} piece_t;

static bool is_space(uint8_t byte) { return byte == ' ' || (byte >= '\t' && byte <= '\r'); }

// Row `row` of a column, without white space around it: it is `bytes[ends[row - 1]..ends[row]]`.
static piece_t trimmed(const plumb_align_types_texts_t *texts, size_t row) {
  size_t start = row == 0 ? 0 : texts->ends.ptr[row - 1], stop = texts->ends.ptr[row];
  while (start < stop && is_space(texts->bytes.ptr[start])) start++;
  while (start < stop && is_space(texts->bytes.ptr[stop - 1])) stop--;
  return (piece_t){texts->bytes.ptr + start, stop - start};
}

static plumb_align_types_fault_t fault(const char *code, const char *message) {
  plumb_align_types_fault_t fault = {.retryable = false};
  // Copied: bindings free what a call returned.
  plugin_string_dup(&fault.code, code);
  plugin_string_dup(&fault.message, message);
  return fault;
}

static bool text_column(plumb_align_data_borrow_batch_t batch, const char *name, plumb_align_types_texts_t *texts) {
  plugin_string_t column;
  plugin_string_set(&column, name);
  return plumb_align_data_method_batch_text(batch, &column, texts);
}

static void *allocated(size_t count, size_t size) {
  void *block = calloc(count, size);
  if (block == NULL) abort();
  return block;
}

void exports_plumb_align_lifecycle_describe(exports_plumb_align_lifecycle_descriptor_t *about) {
  memset(about, 0, sizeof *about);
  plugin_string_dup(&about->name, "reward-exact-match-c");
  plugin_string_dup(&about->version, "0.1.0");
  plugin_string_dup(&about->config_schema, "{\"type\": \"object\", \"properties\": {}, \"additionalProperties\": false}");
  about->needs_columns = (plugin_list_string_t){allocated(2, sizeof(plugin_string_t)), 2};
  plugin_string_dup(&about->needs_columns.ptr[0], "completion");
  plugin_string_dup(&about->needs_columns.ptr[1], "answer");
}

// There is nothing to configure: the runtime holds configurations to the schema.
bool exports_plumb_align_lifecycle_init(exports_plumb_align_lifecycle_fault_t *err) {
  (void)err;
  return true;
}

bool exports_plumb_align_rewarding_score(exports_plumb_align_rewarding_borrow_batch_t batch,
                                         exports_plumb_align_rewarding_rewards_t *rewards,
                                         exports_plumb_align_rewarding_fault_t *err) {
  plumb_align_types_texts_t completions, answers;
  if (!text_column(batch, "completion", &completions) || !text_column(batch, "answer", &answers)) {
    *err = fault("missing-column", "the batch has no text column `completion` or no `answer`");
    return false;
  }
  size_t rows = plumb_align_data_method_batch_rows(batch);
  memset(rewards, 0, sizeof *rewards);
  rewards->values = (plugin_list_f64_t){allocated(rows, sizeof(double)), rows};
  rewards->faults.ptr = allocated(rows, sizeof *rewards->faults.ptr);
  for (size_t row = 0; row < rows; row++) {
    piece_t completion = trimmed(&completions, row), answer = trimmed(&answers, row);
    if (answer.len == 0) {
      exports_plumb_align_rewarding_row_fault_t without = {.row = row, .fault = fault("abstain", "the row's `answer` is empty")};
      rewards->faults.ptr[rewards->faults.len++] = without;
      continue;
    }
    bool equal = completion.len == answer.len && memcmp(completion.ptr, answer.ptr, answer.len) == 0;
    rewards->values.ptr[row] = equal ? 1.0 : 0.0;
  }
  // Of an empty list the bindings free nothing.
  if (rewards->faults.len == 0) free(rewards->faults.ptr);
  plumb_align_types_texts_free(&completions);
  plumb_align_types_texts_free(&answers);
  return true;
}
