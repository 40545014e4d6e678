//! A shaper for measurements: `numbers` returns the column `value` as it is, `texts` reads the column `completion` and answers
//! with its length in every row, `nothing` reads no column.

use plumb_sdk::shaper::{Batch, Descriptor, Fault, Shaped, Shaper};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    read: Read,
}

#[derive(serde::Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum Read {
    Nothing,
    Numbers,
    Texts,
}

struct Echo {
    read: Read,
}

impl Shaper for Echo {
    type Config = Config;
    const DESCRIPTOR: Descriptor = plumb_sdk::descriptor!();

    fn new(config: Config) -> Result<Self, Fault> {
        Ok(Echo { read: config.read })
    }

    fn shape(&mut self, batch: &Batch) -> Result<Shaped, Fault> {
        Ok(Shaped::from(match self.read {
            Read::Nothing => vec![0.0; batch.rows()],
            Read::Numbers => batch.f64s("value")?.to_vec(),
            Read::Texts => vec![batch.text("completion")?.iter().map(str::len).sum::<usize>() as f64; batch.rows()],
        }))
    }
}

plumb_sdk::export_shaper!(Echo);
