//! A shaper with state: it adds the number of its calls so far, and fails when it is told to, after it counted.

use plumb_sdk::kv;
use plumb_sdk::shaper::{Batch, Descriptor, Fault, Shaped, Shaper, State};

#[derive(serde::Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Config {}

struct Counts {
    calls: u64,
}

impl Shaper for Counts {
    type Config = Config;
    const DESCRIPTOR: Descriptor = plumb_sdk::descriptor!().needs_columns(&["value"]).state_version(1);

    fn new(_: Config) -> Result<Self, Fault> {
        Ok(Counts { calls: 0 })
    }

    fn shape(&mut self, batch: &Batch) -> Result<Shaped, Fault> {
        self.calls += 1;
        kv::set("last-step", &batch.step().to_le_bytes())?;
        let seen = kv::get("last-step").is_some();
        match batch.attr("fail").as_deref() {
            Some("fault") => return Err(Fault::new("told-to", "the test told it to fail")),
            Some("trap") => panic!("the test told it to panic"),
            _ => {}
        }
        let shaped: Vec<f64> = batch.f64s("value")?.iter().map(|value| value + self.calls as f64).collect();
        Ok(Shaped::from(shaped).part("own-write-seen", vec![f64::from(seen); batch.rows()]))
    }
}

impl State for Counts {
    fn save(&self) -> Result<Vec<u8>, Fault> {
        Ok(self.calls.to_le_bytes().to_vec())
    }

    fn load(&mut self, from_version: u32, bytes: &[u8]) -> Result<(), Fault> {
        match bytes.try_into() {
            Ok(bytes) if from_version == 1 => self.calls = u64::from_le_bytes(bytes),
            _ => return Err(Fault::new("bad-state", format!("{} bytes of version {from_version}", bytes.len()))),
        }
        Ok(())
    }
}

plumb_sdk::export_stateful_shaper!(Counts);
