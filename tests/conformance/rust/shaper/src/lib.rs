//! See `tests/conformance/README.md`: the shaper with state.

use plumb_sdk::shaper::{Batch, Descriptor, Fault, Ragged, Shaped, Shaper, State};
use plumb_sdk::{RowFault, log};

#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    share: f64,
}

impl Default for Config {
    fn default() -> Self {
        Config { share: 0.5 }
    }
}

struct Conformance {
    share: f64,
    count: u64,
    mean: f64,
}

impl Shaper for Conformance {
    type Config = Config;
    const DESCRIPTOR: Descriptor = plumb_sdk::descriptor!()
        .config_schema(r#"{"type":"object","properties":{"share":{"type":"number","minimum":0,"maximum":1,"default":0.5}},"required":[],"additionalProperties":false}"#)
        .needs_columns(&["value"])
        .outputs(&["running", "group_mean"])
        .state_version(2);

    fn new(config: Config) -> Result<Self, Fault> {
        if !(0.0..=1.0).contains(&config.share) {
            return Err(Fault::bad_config("`share` must be in [0, 1]"));
        }
        Ok(Conformance { share: config.share, count: 0, mean: 0.0 })
    }

    fn shape(&mut self, batch: &Batch) -> Result<Shaped, Fault> {
        let values = batch.f64s("value")?;
        let before = self.mean;
        let (mut shaped, mut means) = (values.to_vec(), vec![f64::NAN; batch.rows()]);
        let mut faults = Vec::new();
        for (place, group) in batch.groups().enumerate() {
            let (mut sum, mut known) = (0.0, 0);
            for row in group.clone().filter(|&row| !values[row].is_nan()) {
                sum += values[row];
                known += 1;
                self.count += 1;
                self.mean += (values[row] - self.mean) / self.count as f64;
            }
            if known == 0 {
                log::warn(&format!("group {place} has no value"));
            }
            for row in group.filter(|&row| !values[row].is_nan()) {
                let mean = sum / f64::from(known);
                means[row] = mean;
                shaped[row] = values[row] + self.share * (mean - values[row]);
                if values[row].abs() > 1e9 {
                    faults.push(RowFault { row: row as u32, fault: Fault::new("too-large", "beyond 1e9") });
                }
            }
        }
        match batch.attr("fail").as_deref() {
            Some("fault") => return Err(Fault::new("told-to", "after it counted")),
            Some("panic") => panic!("told to"),
            _ => {}
        }
        let token_values = batch.find_token_f32s("old_logprobs").map(|logprobs| {
            let row = |row: usize| logprobs.get(row).iter().map(|&p| (f64::from(p) * self.share) as f32).collect::<Vec<_>>();
            (0..batch.rows()).map(row).collect::<Ragged<f32>>()
        });
        let mut shaped = Shaped::from(shaped).part("running", vec![before; batch.rows()]).part("group_mean", means);
        shaped.token_values = token_values;
        shaped.faults = faults;
        Ok(shaped)
    }
}

impl State for Conformance {
    fn save(&self) -> Result<Vec<u8>, Fault> {
        Ok([self.count.to_le_bytes(), self.mean.to_le_bytes()].concat())
    }

    fn load(&mut self, from_version: u32, bytes: &[u8]) -> Result<(), Fault> {
        let (Some((count, mean)), 2) = (bytes.split_first_chunk(), from_version) else {
            return Err(Fault::new("bad-state", format!("{} bytes of version {from_version}", bytes.len())));
        };
        let Ok(mean) = mean.try_into() else { return Err(Fault::new("bad-state", "not 16 bytes")) };
        (self.count, self.mean) = (u64::from_le_bytes(*count), f64::from_le_bytes(mean));
        Ok(())
    }
}

plumb_sdk::export_stateful_shaper!(Conformance);
