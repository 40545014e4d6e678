//! What a plugin may ask of the runtime besides its batch. Natively, in tests, [`testing`](crate::testing) answers.

#[cfg(target_arch = "wasm32")]
use crate::guest::base::plumb::align as backend;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::backend;

/// Lines for the run's log. Bounded per call; what is beyond the bound is dropped and counted.
pub mod log {
    pub use super::backend::log::Level;

    /// Writes a line with fields.
    pub fn write(level: Level, message: &str, fields: &[(&str, String)]) {
        let fields: Vec<_> = fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        super::backend::log::write(level, message, &fields);
    }

    /// Something that helps to understand a run in detail.
    pub fn debug(message: &str) {
        write(Level::Debug, message, &[]);
    }

    /// Something worth knowing.
    pub fn info(message: &str) {
        write(Level::Info, message, &[]);
    }

    /// Something that may make results wrong.
    pub fn warn(message: &str) {
        write(Level::Warn, message, &[]);
    }
}

/// Numbers for the run's metrics, as `plugin/<name>/<metric>`.
pub mod metrics {
    /// Adds to a counter.
    pub fn count(name: &str, delta: u64) {
        super::backend::metrics::count(name, delta);
    }

    /// Adds values of which the run keeps the mean. A value that is not finite fails the call.
    pub fn observe(name: &str, values: &[f64]) {
        super::backend::metrics::observe(name, values);
    }
}

/// Random numbers as a pure function of (run seed, plugin name, step, arguments): calls may be repeated, split and reordered
/// without changing them.
pub mod random {
    /// `count` numbers of the row's stream of that name.
    pub fn draw(stream: &str, row_id: u64, count: u32) -> Vec<u64> {
        super::backend::random::draw(stream, row_id, count)
    }

    /// `count` numbers, uniform in [0, 1), with 53 random bits.
    pub fn uniform(stream: &str, row_id: u64, count: u32) -> Vec<f64> {
        let unit = |bits: u64| (bits >> 11) as f64 * (1.0 / (1_u64 << 53) as f64);
        draw(stream, row_id, count).into_iter().map(unit).collect()
    }
}

/// Values kept by plugin name, across calls, checkpoints and swaps. Writes land only if the call returns ok.
pub mod kv {
    use crate::fault::Fault;

    /// The value at a key.
    pub fn get(key: &str) -> Option<Vec<u8>> {
        super::backend::kv::get(key)
    }

    /// Sets the value at a key.
    ///
    /// # Errors
    /// When the plugin's quota is used up.
    #[allow(clippy::useless_conversion, reason = "the bindings in a guest have a fault type of their own")]
    pub fn set(key: &str, value: &[u8]) -> Result<(), Fault> {
        super::backend::kv::set(key, value).map_err(Into::into)
    }

    /// Removes a key, if it is there.
    pub fn delete(key: &str) {
        super::backend::kv::delete(key);
    }

    /// The keys with that prefix, in order.
    pub fn keys(prefix: &str) -> Vec<String> {
        super::backend::kv::keys(prefix)
    }
}
