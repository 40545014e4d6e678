//! What a measurement prints: a short table for people, the same numbers as one JSON line for scripts.

use serde_json::{Map, Value, json};

use super::ceilings::Ceilings;

/// The rounds of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Spread {
    /// The middle one; of an even number the mean of the two in the middle.
    pub median: f64,
    /// The lowest.
    pub low: f64,
    /// The highest.
    pub high: f64,
}

impl Spread {
    /// Of at least one round.
    pub fn of(rounds: impl IntoIterator<Item = f64>) -> Self {
        let mut rounds: Vec<f64> = rounds.into_iter().collect();
        rounds.sort_by(f64::total_cmp);
        let middle = rounds.len() / 2;
        let median = if rounds.len() % 2 == 1 { rounds[middle] } else { f64::midpoint(rounds[middle - 1], rounds[middle]) };
        Spread { median, low: rounds[0], high: rounds[rounds.len() - 1] }
    }
}

/// A number of the report.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Figure {
    /// One number.
    One(f64),
    /// Rounds.
    Rounds(Spread),
}

impl From<f64> for Figure {
    fn from(value: f64) -> Self {
        Figure::One(value)
    }
}

impl From<Spread> for Figure {
    fn from(spread: Spread) -> Self {
        Figure::Rounds(spread)
    }
}

impl Figure {
    fn json(self) -> Value {
        match self {
            Figure::One(value) => json!(value),
            Figure::Rounds(spread) => json!(spread),
        }
    }

    /// A name that ends in `_share` is a part of a whole, shown in percent.
    fn text(self, name: &str) -> String {
        let scaled = |value: f64| if name.ends_with("_share") { format!("{} %", number(100.0 * value)) } else { number(value) };
        match self {
            Figure::One(value) => scaled(value),
            Figure::Rounds(Spread { median, low, high }) => format!("{} ({}-{})", scaled(median), scaled(low), scaled(high)),
        }
    }
}

/// A line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// What identifies it for scripts, besides the name.
    pub keys: Vec<(&'static str, Value)>,
    /// Its numbers, by names that end in their unit; all rows of a table have the same.
    pub figures: Vec<(&'static str, Figure)>,
}

/// A measurement.
#[derive(Clone, Debug)]
pub struct Report {
    /// The command: `decode`, ...
    pub command: &'static str,
    /// What was measured on.
    pub setup: Vec<(&'static str, Value)>,
    /// What the machine can do; None where nothing is held against it.
    pub ceilings: Option<Ceilings>,
    /// Numbers of the whole.
    pub figures: Vec<(&'static str, Figure)>,
    /// The table.
    pub rows: Vec<Row>,
    /// The most memory that the process held while it measured; None where the system does not say.
    pub peak_rss_mib: Option<f64>,
}

impl Report {
    /// `{"type": "bench", "v": 1, "data": {...}}`.
    pub fn json(&self) -> String {
        let figures = |figures: &[(&'static str, Figure)]| -> Map<String, Value> {
            figures.iter().map(|(name, figure)| ((*name).to_owned(), figure.json())).collect()
        };
        let mut data = Map::new();
        data.insert("bench".into(), self.command.into());
        data.extend(self.setup.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        data.insert("threads".into(), rayon::current_num_threads().into());
        data.insert("ceilings".into(), self.ceilings.map_or(Value::Null, |ceilings| ceilings.json()));
        data.extend(figures(&self.figures));
        let row = |row: &Row| {
            let mut object = Map::from_iter([("name".to_owned(), row.name.clone().into())]);
            object.extend(row.keys.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
            object.extend(figures(&row.figures));
            object
        };
        data.insert("rows".into(), self.rows.iter().map(row).collect());
        data.insert("peak_rss_mib".into(), self.peak_rss_mib.into());
        json!({ "type": "bench", "v": 1, "data": data }).to_string()
    }

    /// Lines for people; medians with the lowest and highest round behind them.
    pub fn text(&self) -> String {
        let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        let setup = self.setup.iter().map(|(name, value)| format!("{} {}", name.replace('_', " "), plain(value)));
        let threads = format!("threads {}", rayon::current_num_threads());
        let mut lines = vec![format!("{}: {}", self.command, setup.chain([threads]).collect::<Vec<_>>().join(", "))];
        lines.extend(self.ceilings.map(|ceilings| format!("ceilings: {}", ceilings.text())));
        if let Some(first) = self.rows.first() {
            let header = std::iter::once(String::new()).chain(first.figures.iter().map(|(name, _)| heading(name)));
            let cells = |row: &Row| {
                let figures = row.figures.iter().map(|(name, figure)| figure.text(name));
                std::iter::once(row.name.clone()).chain(figures).collect()
            };
            lines.extend(aligned(&std::iter::once(header.collect()).chain(self.rows.iter().map(cells)).collect::<Vec<_>>()));
        }
        let mut totals: Vec<String> =
            self.figures.iter().map(|(name, figure)| format!("{} {}", heading(name), figure.text(name))).collect();
        totals.extend(self.peak_rss_mib.map(|mib| format!("peak memory {mib:.0} MiB")));
        lines.push(totals.join(", "));
        lines.retain(|line| !line.is_empty());
        lines.join("\n")
    }
}

/// `decode_tokens_per_s` → `decode tokens/s`.
fn heading(name: &str) -> String {
    let name = name.replace("_per_", "/").replace('_', " ");
    name.replace("gb/s", "GB/s").replace("gflop", "GFLOP")
}

/// Three digits, or all before the point.
pub fn number(value: f64) -> String {
    let digits = if value == 0.0 || !value.is_finite() { 0 } else { 2 - value.abs().log10().floor() as i64 };
    format!("{value:.*}", digits.clamp(0, 6) as usize)
}

/// Columns of equal width: the first to the left, numbers to the right.
fn aligned(table: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..table[0].len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("   ")
    };
    table.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let figures = |median: f64| {
            let rounds = Spread::of([median, median / 2.0, median * 2.0]);
            vec![("decode_tokens_per_s", rounds.into()), ("read_share", 0.5.into())]
        };
        let row = |name: &str, median: f64| Row { name: name.into(), keys: vec![("batch", 1.into())], figures: figures(median) };
        Report {
            command: "decode",
            setup: vec![("model", "tiny".into())],
            ceilings: None,
            figures: vec![("step_s", 0.25.into())],
            rows: vec![row("batch 1", 50.0), row("batch 16", 800.0)],
            peak_rss_mib: Some(12.0),
        }
    }

    #[test]
    fn median_is_the_middle_of_rounds_in_any_order() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Spread { median: 2.0, low: 1.0, high: 3.0 });
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(Spread::of([7.0]), Spread { median: 7.0, low: 7.0, high: 7.0 });
    }

    #[test]
    fn table_is_aligned_and_has_its_units() {
        let text = report().text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("decode: model tiny, threads "), "{text}");
        assert_eq!(lines[1].trim(), "decode tokens/s   read share");
        assert_eq!(lines[2], "batch 1    50.0 (25.0-100)       50.0 %");
        assert_eq!(lines[3], "batch 16    800 (400-1600)       50.0 %");
        assert_eq!(lines[4], "step s 0.250, peak memory 12 MiB");
    }

    #[test]
    fn json_has_the_same_numbers_unrounded() {
        let line: Value = serde_json::from_str(&report().json()).unwrap();
        let data = &line["data"];
        assert_eq!((&line["type"], &line["v"], &data["bench"]), (&json!("bench"), &json!(1), &json!("decode")));
        assert_eq!(data["rows"][1]["decode_tokens_per_s"], json!({"median": 800.0, "low": 400.0, "high": 1600.0}));
        assert_eq!((&data["rows"][1]["batch"], &data["step_s"]), (&json!(1), &json!(0.25)));
    }

    #[test]
    fn numbers_keep_three_digits() {
        for (value, text) in
            [(0.0, "0"), (0.012_345, "0.0123"), (1.0, "1.00"), (12.345, "12.3"), (123.45, "123"), (12_345.6, "12346")]
        {
            assert_eq!(number(value), text);
        }
    }
}
