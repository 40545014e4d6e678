//! What a plugin may use. Fuel decides outcomes, since it counts the same everywhere; the clock only guards against hangs.

use plumb_core::recipe::LimitsUse;

use crate::error::{Error, Result};

/// Fuel of a call besides that of its rows, in wasmtime's units (about one per instruction): some 0.05 s of work, enough to
/// read a configuration and compile regular expressions.
pub const FUEL: u64 = 1_000_000_000;
/// Fuel per row: some 10 ms of work, ten times what a symbolic comparison of two formulas takes.
pub const FUEL_PER_ROW: u64 = 200_000_000;
/// Linear memory of a plugin in MiB: thousands of times what the batch limit of 4 MiB needs for a parser written in Rust.
pub const MEMORY_MIB: u64 = 64;
/// Largest linear memory that can be asked for, in MiB: all that 32-bit addresses reach.
pub const MAX_MEMORY_MIB: u64 = 4096;
/// Wall clock of a call besides that of its rows, in ms. Far above what the fuel takes, even on a busy machine.
pub const DEADLINE_MS: u64 = 10_000;
/// Wall clock per row, in ms.
pub const DEADLINE_MS_PER_ROW: u64 = 50;

/// The most fuel that a manifest may ask for; whoever runs the plugin decides about more.
pub const MANIFEST_FUEL: u64 = 10 * FUEL;
/// The most fuel per row that a manifest may ask for.
pub const MANIFEST_FUEL_PER_ROW: u64 = 10 * FUEL_PER_ROW;
/// The most memory that a manifest may ask for, in MiB.
pub const MANIFEST_MEMORY_MIB: u64 = 1024;
/// The longest deadline that a manifest may ask for, in ms.
pub const MANIFEST_DEADLINE_MS: u64 = 60_000;

/// Fuel of one host call, besides one unit per byte that it copies or looks at: about what a call and a copy take of the clock. Both
/// count against the fuel of the call.
pub const HOST_CALL_FUEL: u64 = 200;
/// Fuel of a call of a tool for each of its rows: about what a fresh instance takes of the clock. What the tool does has limits of its own.
pub const TOOL_CALL_FUEL: usize = 1_000_000;
/// Bytes that one call, host import or answer, may hand to the host: a step of 4,096 rows of 1,024 token values is 16 MiB.
pub const ANSWER_BYTES: usize = 64 << 20;
/// Size of a component, in bytes. Compiling is not metered, so that its input is bounded.
pub const COMPONENT_BYTES: u64 = 64 << 20;
/// Instances that a component may become, those of the components within it included. Python's become some two hundred.
pub const INSTANCES: u64 = 4096;
/// Resource handles a call may hold at once; it is given one.
pub const HANDLES: usize = 1000;
/// Entries of all tables of an instance: function pointers of a guest, some ten thousand for an interpreter.
pub const TABLE_ELEMENTS: usize = 100_000;

/// What the name of a plugin may hold, for [`crate::Manifest`] and `describe`.
pub const NAME_RULE: &str = "1 to 128 letters, digits, `-`, `_` or `.`";
/// Bytes of the name of a plugin, a part or of spans.
pub const NAME_BYTES: usize = 128;
/// Bytes of a fault's code.
pub const CODE_BYTES: usize = 64;
/// Bytes of a fault's message or a reason: the host keeps one per row. Longer ones are cut.
pub const MESSAGE_BYTES: usize = 1 << 10;
/// Lists of spans of an answer.
pub const SPAN_LISTS: usize = 64;
/// Spans of an answer for each of its rows, on average.
pub const SPANS_PER_ROW: usize = 1024;
/// Preference pairs of an answer for each of its rows, on average: what is left of all pairs of groups of 512.
pub const PAIRS_PER_ROW: usize = 256;
/// Largest magnitude of a value that goes into the loss. Sums of such values and of their squares stay far from where f32 ends, so
/// that no single row makes those of a whole step infinite.
pub const MAGNITUDE: f64 = 1e12;
/// Bytes of a manifest, and of all that `describe` returns besides the schema.
pub const DESCRIPTION_BYTES: usize = 64 << 10;
/// Bytes of a configuration's schema.
pub const SCHEMA_BYTES: usize = 256 << 10;
/// Different codes that a plugin's counts keep apart. Of more, those that come first in the alphabet are kept.
pub const CODES: usize = 64;

/// Tokens per row of a call that models may read and write for a plugin.
pub const TOKENS_PER_ROW: u64 = 4096;
/// Bytes of the longest token of common vocabularies, a run of spaces: a text has no fewer tokens than one for so many bytes.
pub const TOKEN_BYTES: u64 = 128;
/// Fuel of each byte that a model's tokenizer reads, which takes about a hundred times what copying it does.
pub const TOKENIZER_FUEL: usize = 100;
/// Prompts of a question and, all together, of a judge's turn.
pub const PROMPTS: usize = 1 << 16;
/// Completions per prompt.
pub const COMPLETIONS: u32 = 1024;
/// Texts that end a completion, and further settings of how to sample it. Each has [`NAME_BYTES`] at most.
pub const STOPS: usize = 16;
/// Questions of a judge's turn: each is of one model with one way to sample.
pub const QUESTIONS: usize = 64;
/// Bytes that a judge hands on from turn to turn.
pub const MEMO_BYTES: usize = 4 << 20;
/// Bytes of a judge's rationale for a row, which goes into the run's records. Longer ones are cut.
pub const RATIONALE_BYTES: usize = 16 << 10;
/// Calls of tools per row of a plugin's call.
pub const TOOL_CALLS_PER_ROW: usize = 64;
/// Bytes of a tool plugin's answer to a row, which must find room in the memory of whoever asked.
pub const TOOL_OUTPUT_BYTES: usize = 1 << 20;

/// Log lines of a call; more are dropped and counted.
pub const LOG_LINES: usize = 100;
/// Fields of a log line; more are dropped and counted.
pub const LOG_FIELDS: usize = 32;
/// Bytes of the log lines of a call, fields and what keeping them takes included.
pub const LOG_BYTES: usize = 64 << 10;
/// Different metrics of a call; each becomes a series in the run's records.
pub const METRIC_NAMES: usize = 16;
/// Different metrics of a plugin in a step. Of more, those that come first in the alphabet are kept.
pub const STEP_METRIC_NAMES: usize = 64;
/// Values that a call may observe over all its metrics.
pub const METRIC_VALUES: usize = 1 << 16;
/// Numbers of one `random.draw`.
pub const RANDOM_COUNT: u32 = 1 << 20;
/// Bytes of a `kv` key.
pub const KV_KEY_BYTES: usize = 256;
/// Bytes that a `kv` entry counts besides its key and value.
pub const KV_ENTRY_BYTES: usize = 64;
/// Bytes of `kv` writes and metrics of a plugin that wait for the end of a step. Those of calls beyond it, in the order of the rows,
/// are lost.
pub const STEP_EFFECT_BYTES: usize = 64 << 20;
/// Bytes of all entries of a plugin's `kv`: they go into every checkpoint.
pub const KV_BYTES: usize = 16 << 20;

/// Rows of a reward call. Fixed cost is then below 0.1 µs a row, and a poison row costs sixteen more calls.
pub const CALL_ROWS: usize = 256;
/// Bytes of a reward call's columns.
pub const CALL_BYTES: usize = 4 << 20;

/// The limits of a plugin: the recipe's, else the manifest's, else the host's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct EffectiveLimits {
    /// Fuel per call, in wasmtime's units (about one per instruction).
    pub fuel: u64,
    /// Fuel per row of the call.
    pub fuel_per_row: u64,
    /// Linear memory in MiB.
    pub memory_mib: u64,
    /// Wall clock per call, in ms.
    pub deadline_ms: u64,
    /// Wall clock per row, in ms; 0 where a deadline was given.
    pub deadline_ms_per_row: u64,
}

impl Default for EffectiveLimits {
    fn default() -> Self {
        EffectiveLimits {
            fuel: FUEL,
            fuel_per_row: FUEL_PER_ROW,
            memory_mib: MEMORY_MIB,
            deadline_ms: DEADLINE_MS,
            deadline_ms_per_row: DEADLINE_MS_PER_ROW,
        }
    }
}

impl EffectiveLimits {
    /// Takes each limit from `recipe`, else from `manifest`, else the default.
    ///
    /// # Errors
    /// [`Error::Limit`] for a limit of zero or beyond what a plugin can use.
    pub fn resolve(plugin: &str, recipe: &LimitsUse, manifest: &LimitsUse) -> Result<Self> {
        let default = Self::default();
        let deadline = recipe.deadline_ms.or(manifest.deadline_ms);
        let limits = EffectiveLimits {
            fuel: recipe.fuel.or(manifest.fuel).unwrap_or(default.fuel),
            fuel_per_row: recipe.fuel_per_row.or(manifest.fuel_per_row).unwrap_or(default.fuel_per_row),
            memory_mib: recipe.memory_mib.or(manifest.memory_mib).unwrap_or(default.memory_mib),
            deadline_ms: deadline.unwrap_or(default.deadline_ms),
            deadline_ms_per_row: if deadline.is_some() { 0 } else { default.deadline_ms_per_row },
        };
        let wrong = |limit, value, allowed| Err(Error::Limit { plugin: plugin.to_owned(), limit, value, allowed });
        if limits.fuel == 0 {
            return wrong("fuel", 0, "at least 1");
        }
        if !(1..=MAX_MEMORY_MIB).contains(&limits.memory_mib) {
            return wrong("memory_mib", limits.memory_mib, "between 1 and 4096");
        }
        if limits.deadline_ms == 0 {
            return wrong("deadline_ms", 0, "at least 1");
        }
        Ok(limits)
    }

    /// Refuses a limit of the manifest beyond what a plugin may grant itself, unless the recipe replaces it.
    ///
    /// # Errors
    /// [`Error::ManifestLimit`] for the first such limit.
    pub fn check_manifest(plugin: &str, recipe: &LimitsUse, manifest: &LimitsUse) -> Result<()> {
        for (limit, recipe, manifest, ceiling) in [
            ("fuel", recipe.fuel, manifest.fuel, MANIFEST_FUEL),
            ("fuel_per_row", recipe.fuel_per_row, manifest.fuel_per_row, MANIFEST_FUEL_PER_ROW),
            ("memory_mib", recipe.memory_mib, manifest.memory_mib, MANIFEST_MEMORY_MIB),
            ("deadline_ms", recipe.deadline_ms, manifest.deadline_ms, MANIFEST_DEADLINE_MS),
        ] {
            if let (None, Some(value)) = (recipe, manifest)
                && value > ceiling
            {
                return Err(Error::ManifestLimit { plugin: plugin.to_owned(), limit, value, ceiling });
            }
        }
        Ok(())
    }

    /// Fuel of a call with that many rows.
    pub fn call_fuel(&self, rows: usize) -> u64 {
        self.fuel.saturating_add(self.fuel_per_row.saturating_mul(rows as u64))
    }

    /// Wall clock of a call with that many rows, in ms.
    pub fn call_deadline_ms(&self, rows: usize) -> u64 {
        self.deadline_ms.saturating_add(self.deadline_ms_per_row.saturating_mul(rows as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_come_from_the_recipe_then_the_manifest_then_the_defaults() {
        let recipe = LimitsUse { fuel: Some(5), ..LimitsUse::default() };
        let manifest = LimitsUse { fuel: Some(7), memory_mib: Some(256), deadline_ms: Some(100), ..LimitsUse::default() };
        let limits = EffectiveLimits::resolve("p", &recipe, &manifest).unwrap();
        assert_eq!(
            limits,
            EffectiveLimits {
                fuel: 5,
                fuel_per_row: FUEL_PER_ROW,
                memory_mib: 256,
                deadline_ms: 100,
                // A deadline that was asked for holds as it stands.
                deadline_ms_per_row: 0
            }
        );
        assert_eq!(limits.call_fuel(3), 5 + 3 * FUEL_PER_ROW);
    }

    #[test]
    fn limits_of_a_manifest_have_ceilings_that_only_the_recipe_lifts() {
        let manifest = LimitsUse { fuel: Some(u64::MAX), ..LimitsUse::default() };
        let error = EffectiveLimits::check_manifest("p", &LimitsUse::default(), &manifest).unwrap_err();
        let told = error.to_string();
        assert!([&u64::MAX.to_string(), "10000000000", "set it in the recipe (`limits`)"].iter().all(|part| told.contains(part)));
        let recipe = LimitsUse { fuel: Some(u64::MAX), ..LimitsUse::default() };
        assert!(EffectiveLimits::check_manifest("p", &recipe, &manifest).is_ok());
        let deadline = LimitsUse { deadline_ms: Some(MANIFEST_DEADLINE_MS + 1), ..LimitsUse::default() };
        assert!(EffectiveLimits::check_manifest("p", &recipe, &deadline).is_err());
    }

    #[test]
    fn limits_out_of_range_are_refused_by_name() {
        let recipe = LimitsUse { memory_mib: Some(5000), ..LimitsUse::default() };
        let error = EffectiveLimits::resolve("p", &recipe, &LimitsUse::default()).unwrap_err();
        assert!(matches!(error, Error::Limit { limit: "memory_mib", value: 5000, .. }), "{error}");
    }
}
