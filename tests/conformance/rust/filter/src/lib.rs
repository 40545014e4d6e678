//! See `tests/conformance/README.md`: the filter.

use plumb_sdk::filter::{Batch, Decision, Descriptor, Fault, Filter, Pairs, Part, Relabel};

#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    min_value: f64,
}

impl Default for Config {
    fn default() -> Self {
        Config { min_value: 0.25 }
    }
}

struct Conformance(Config);

impl Filter for Conformance {
    type Config = Config;
    const DESCRIPTOR: Descriptor = plumb_sdk::descriptor!()
        .config_schema(r#"{"type":"object","properties":{"min_value":{"type":"number","default":0.25}},"required":[],"additionalProperties":false}"#)
        .needs_columns(&["value", "completion"])
        .outputs(&["kept"]);

    fn new(config: Config) -> Result<Self, Fault> {
        Ok(Conformance(config))
    }

    fn select(&self, batch: &Batch) -> Result<Decision, Fault> {
        let (values, texts) = (batch.f64s("value")?, batch.text("completion")?);
        let mut decision = Decision::keep_all(batch.rows());
        let (mut pairs, mut relabel) = (Pairs::default(), Relabel { column: "completion".into(), ..Relabel::default() });
        let mut kept = vec![0.0; batch.rows()];
        for (row, &value) in values.iter().enumerate() {
            if value.is_nan() {
                decision.drop_row(row, "no value");
            } else if value < self.0.min_value {
                decision.drop_row(row, format!("row {} is low ↓", batch.row_ids()[row]));
            }
            if let Some(text) = texts.get(row).strip_suffix(' ') {
                relabel.rows.push(row as u32);
                relabel.texts.push(format!("{text}é😀"));
            }
        }
        for (place, group) in batch.groups().enumerate() {
            let count = group.clone().filter(|&row| decision.keep[row]).count();
            group.clone().for_each(|row| kept[row] = count as f64);
            if count == 0 && !group.is_empty() {
                decision.regenerate.push(place as u32);
            }
            // The first of the best, and the first of the worst.
            let known = || group.clone().filter(|&row| !values[row].is_nan());
            let best = known().reduce(|best, row| if values[row] > values[best] { row } else { best });
            let worst = known().reduce(|worst, row| if values[row] < values[worst] { row } else { worst });
            if let (Some(best), Some(worst)) = (best, worst) {
                let margin = values[best] - values[worst];
                if margin > 0.0 {
                    pairs.chosen.push(best as u32);
                    pairs.rejected.push(worst as u32);
                    pairs.probability.push(0.5 + margin / (2.0 * (1.0 + margin)));
                    pairs.margin.push(margin);
                    pairs.level.push(place as u32);
                }
            }
        }
        decision.weights = Some(values.iter().map(|v| if v.is_nan() { 0.0 } else { 1.0 / (1.0 + v.abs()) }).collect());
        decision.pairs = Some(pairs);
        if !relabel.rows.is_empty() {
            decision.relabels.push(relabel);
        }
        decision.parts.push(Part::new("kept", kept));
        Ok(decision)
    }
}

plumb_sdk::export_filter!(Conformance);
