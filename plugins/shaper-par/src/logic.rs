//! Configuration, columns and state around the transformations.

use plumb_sdk::shaper::{Batch, Descriptor, Fault, Shaped, Shaper, State};
use plumb_sdk::{log, metrics};
use serde::Deserialize;

use crate::running::Running;
use crate::transform::{self, Outside};

/// What a recipe may set.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The transformation.
    pub kind: Kind,
    /// Slope inside the sigmoid, for `par` and `sigmoid`.
    pub k: f64,
    /// Column with the rewards of reference completions of the row's prompt: JSON arrays as text, or numbers per token.
    pub references: String,
    /// How many of them are used, the first ones; all when absent.
    pub max_refs: Option<usize>,
    /// For `fitted-poly`: coefficients from the highest power down.
    pub coefficients: Vec<f64>,
    /// For `fitted-poly`: where the polynomial ends.
    pub bound: f64,
    /// For `fitted-poly`: what follows there.
    pub outside: Outside,
    /// For `slow-then-fast`: how far the sigmoid is moved to the right.
    pub shift: f64,
    /// For `lsc`: what is subtracted from the number of references in their variance, 0 or 1.
    pub ddof: usize,
    /// For `lsc`: added to their standard deviation.
    pub std_eps: f64,
    /// For `ceiling`: the highest value.
    pub ceiling: f64,
    /// For `meanstd` and `clip`: smallest variance.
    pub variance_floor: f64,
    /// For `clip`: standard deviations on either side of the mean.
    pub width: f64,
    /// For `minmax`: smallest range.
    pub range_floor: f64,
    /// Length penalty before the transformation; none when absent.
    pub length: Option<Length>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            kind: Kind::Par,
            k: 1.0,
            references: "reference_rewards".to_owned(),
            max_refs: Some(10),
            coefficients: vec![0.000_376_132_953, 0.0, -0.013_291_661_1, 0.0, 0.239_537_005, 0.5],
            bound: 4.0,
            outside: Outside::Sigmoid,
            shift: 3.0,
            ddof: 0,
            std_eps: 0.0,
            ceiling: 1.0,
            variance_floor: 1e-8,
            width: 1.0,
            range_floor: 1e-8,
            length: None,
        }
    }
}

/// The transformation; `r` is the reward, `m` runs over the references.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `mean_m sigmoid(k (r - r_m))`.
    Par,
    /// `mean_m tanh(r - r_m)`.
    TanhCentered,
    /// `mean_m poly(r - r_m)`.
    FittedPoly,
    /// `mean_m sigmoid(r - shift - r_m)`.
    SlowThenFast,
    /// `mean_m (r - r_m)`.
    Centered,
    /// `log sigmoid(r - q85)`.
    Lsc,
    /// `sigmoid(k r)`.
    Sigmoid,
    /// `min(r, ceiling)`.
    Ceiling,
    /// `(r - mean) / std`, running.
    Meanstd,
    /// `r` clipped to `mean ± width std`, running.
    Clip,
    /// `(r - min) / (max - min)`, running.
    Minmax,
    /// `r`: for the length penalty alone.
    Identity,
}

impl Kind {
    fn needs_references(self) -> bool {
        matches!(self, Kind::Par | Kind::TanhCentered | Kind::FittedPoly | Kind::SlowThenFast | Kind::Centered | Kind::Lsc)
    }

    fn needs_state(self) -> bool {
        matches!(self, Kind::Meanstd | Kind::Clip | Kind::Minmax)
    }
}

/// `r -= penalty` per token beyond `valid_len`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Length {
    /// Tokens without penalty.
    pub valid_len: u32,
    /// Penalty per further token.
    pub penalty: f64,
}

impl Default for Length {
    fn default() -> Self {
        Length { valid_len: 300, penalty: 0.01 }
    }
}

/// The shaper.
#[derive(Debug)]
pub struct Par {
    config: Config,
    running: Running,
}

impl Shaper for Par {
    type Config = Config;
    const DESCRIPTOR: Descriptor = plumb_sdk::descriptor!()
        .needs_columns(&["value"])
        .outputs(&["length_penalty"])
        .config_schema(include_str!("../config.schema.json"))
        .state_version(1);

    fn new(config: Config) -> Result<Self, Fault> {
        let Config { k, bound, shift, std_eps, ceiling, variance_floor, width, range_floor, .. } = config;
        if ![k, bound, shift, std_eps, ceiling, variance_floor, width, range_floor].iter().all(|number| number.is_finite()) {
            return Err(Fault::bad_config("all numbers must be finite"));
        }
        // Divisors: 0 would make an infinity of the first batch.
        if variance_floor <= 0.0 || range_floor <= 0.0 {
            return Err(Fault::bad_config("`variance_floor` and `range_floor` must be positive"));
        }
        if width < 0.0 || std_eps < 0.0 || bound < 0.0 {
            return Err(Fault::bad_config("`width`, `std_eps` and `bound` must not be negative"));
        }
        if config.ddof > 1 {
            return Err(Fault::bad_config("`ddof` must be 0 or 1"));
        }
        if config.max_refs == Some(0) {
            return Err(Fault::bad_config("`max_refs` must be at least 1"));
        }
        Ok(Par { config, running: Running::default() })
    }

    fn shape(&mut self, batch: &Batch) -> Result<Shaped, Fault> {
        let mut rewards = batch.f64s("value")?.to_vec();
        let penalties = self.config.length.map(|length| length.penalties(batch)).transpose()?;
        for (reward, penalty) in rewards.iter_mut().zip(penalties.iter().flatten()) {
            *reward += penalty;
        }
        let references = self.references(batch)?;
        // Before the batch is transformed: its own rewards count, as in the public code.
        if self.config.kind.needs_state() {
            self.running.update(&rewards);
        }
        let values: Vec<f64> = rewards
            .iter()
            .enumerate()
            .map(|(row, &reward)| {
                let references = references.as_ref().map_or(&[][..], |rows| rows[row].as_slice());
                if reward.is_nan() { reward } else { self.transform(reward, references) }
            })
            .collect();
        let shaped = Shaped::from(values);
        Ok(match penalties {
            Some(penalties) => shaped.part("length_penalty", penalties),
            None => shaped,
        })
    }
}

impl State for Par {
    fn save(&self) -> Result<Vec<u8>, Fault> {
        Ok(self.running.to_bytes())
    }

    fn load(&mut self, from_version: u32, bytes: &[u8]) -> Result<(), Fault> {
        if from_version != Self::DESCRIPTOR.state_version {
            return Err(Fault::new("bad-state", format!("cannot read state of version {from_version}")));
        }
        self.running = Running::from_bytes(bytes)?;
        Ok(())
    }
}

impl Par {
    fn transform(&self, reward: f64, references: &[f64]) -> f64 {
        let config = &self.config;
        match config.kind {
            Kind::Par => transform::par(reward, references, config.k),
            Kind::TanhCentered => transform::centred(reward, references, f64::tanh),
            Kind::FittedPoly => {
                let poly = |x| transform::fitted_poly(x, &config.coefficients, config.bound, config.outside);
                transform::centred(reward, references, poly)
            }
            Kind::SlowThenFast => transform::centred(reward - config.shift, references, transform::sigmoid),
            Kind::Centered => transform::centred(reward, references, |x| x),
            Kind::Lsc => transform::log_sigmoid_centred(reward, references, config.ddof, config.std_eps),
            Kind::Sigmoid => transform::sigmoid(config.k * reward),
            Kind::Ceiling => reward.min(config.ceiling),
            Kind::Meanstd => (reward - self.running.mean) / self.std(),
            Kind::Clip => {
                let reach = config.width * self.std();
                reward.clamp(self.running.mean - reach, self.running.mean + reach)
            }
            Kind::Minmax => (reward - self.running.min) / (self.running.max - self.running.min).max(config.range_floor),
            Kind::Identity => reward,
        }
    }

    fn std(&self) -> f64 {
        self.running.variance().max(self.config.variance_floor).sqrt()
    }

    /// Each row's references, cut to `max_refs`; None for kinds that read none.
    fn references(&self, batch: &Batch) -> Result<Option<Vec<Vec<f64>>>, Fault> {
        if !self.config.kind.needs_references() {
            return Ok(None);
        }
        let column = &self.config.references;
        let mut rows: Vec<Vec<f64>> = if let Some(texts) = batch.find_text(column) {
            texts.iter().enumerate().map(|(row, text)| read_references(column, row, text)).collect::<Result<_, _>>()?
        } else if let Some(numbers) = batch.find_token_f32s(column) {
            numbers.iter().map(|row| row.iter().map(|&number| f64::from(number)).collect()).collect()
        } else {
            // For the message, which lists the columns there are.
            batch.text(column)?;
            Vec::new()
        };
        for references in &mut rows {
            references.truncate(self.config.max_refs.unwrap_or(usize::MAX));
        }
        let without = rows.iter().filter(|references| references.is_empty()).count();
        if without > 0 {
            metrics::count("rows_without_references", without as u64);
            log::warn(&format!(
                "{without} of {} rows have no references in `{column}`: their centre is 0, par leaves them",
                rows.len()
            ));
        }
        Ok(Some(rows))
    }
}

/// A row's references as a JSON array; nothing is none.
fn read_references(column: &str, row: usize, text: &str) -> Result<Vec<f64>, Fault> {
    if matches!(text.trim(), "" | "null") {
        return Ok(Vec::new());
    }
    serde_json::from_str(text)
        .map_err(|error| Fault::unparseable(format!("`{column}` of row {row} is no list of numbers: {error}")))
}

impl Length {
    /// What is added to each row's reward: 0, or less.
    fn penalties(self, batch: &Batch) -> Result<Vec<f64>, Fault> {
        let beyond = |&tokens: &u32| f64::from(tokens.saturating_sub(self.valid_len));
        Ok(batch.u32s("completion_tokens")?.iter().map(|tokens| -self.penalty * beyond(tokens)).collect())
    }
}

#[cfg(test)]
mod tests;
