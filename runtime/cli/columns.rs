//! From JSON values to typed columns, as a run types them.
//!
//! In a run every column of the data is text (numbers and lists as compact JSON), and columns that the runtime makes have types of
//! their own. Files of rows and cases are read the same way, so that a plugin meets in `plumb score` what it meets in training; `types`
//! says otherwise for single columns.

use std::collections::BTreeMap;

use clap::ValueEnum;
use plumb_core::{Column, Ragged};
use serde::Deserialize;
use serde_json::Value;

use crate::diagnostic::Diagnostic;

/// Type of a column.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Type {
    /// A text: strings as they are, nothing as the empty text, anything else as compact JSON.
    Text,
    /// A number: true is 1, false is 0, null is "no value" (NaN).
    F64,
    /// A whole number from 0 to 2^32 - 1; true is 1, false is 0.
    U32,
    /// Token ids; null is none.
    Tokens,
    /// A number per token; null is none.
    TokenF32,
    /// Numbers; null is none.
    F64Lists,
}

/// Types that columns are given, for those whose names do not say it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct Types(BTreeMap<String, Type>);

impl Types {
    /// Reads `COLUMN=TYPE` flags.
    pub fn read(flags: &[String]) -> Result<Self, Diagnostic> {
        let read = |flag: &String| {
            let known = || Type::value_variants().iter().filter_map(ValueEnum::to_possible_value);
            let found = flag.split_once('=').and_then(|(name, kind)| Some((name.to_owned(), Type::from_str(kind, false).ok()?)));
            found.ok_or_else(|| {
                let known = known().map(|value| value.get_name().to_owned()).collect::<Vec<_>>().join(", ");
                Diagnostic::usage("usage.type", format!("`--type {flag}` gives no column a type"))
                    .hint(format!("write `--type COLUMN=TYPE`; types are {known}"))
            })
        };
        Ok(Types(flags.iter().map(read).collect::<Result<_, _>>()?))
    }

    /// The type of a column: the one it was given, else the one that a run gives columns of that name.
    pub fn of(&self, name: &str) -> Type {
        self.0.get(name).copied().unwrap_or(match name {
            "value" | "raw" | "shaped" | "advantage" => Type::F64,
            "completion_tokens" => Type::U32,
            "prompt_ids" | "completion_ids" => Type::Tokens,
            "old_logprobs" | "ref_logprobs" => Type::TokenF32,
            _ if name.starts_with("reward/") => Type::F64,
            _ => Type::Text,
        })
    }
}

/// A value that does not fit the type of its column.
#[derive(Clone, Debug, PartialEq)]
pub struct Misfit {
    /// Its row, from 0.
    pub row: usize,
    value: Value,
    wanted: &'static str,
}

impl Misfit {
    /// What is wrong, for people.
    pub fn reason(&self, column: &str) -> String {
        const SHOWN: usize = 60;
        let text = self.value.to_string();
        let shown: String = text.chars().take(SHOWN).collect();
        let more = if text.chars().nth(SHOWN).is_some() { "..." } else { "" };
        match &self.value {
            Value::Null => format!("`{column}` is missing, and the column holds {}", self.wanted),
            _ => format!("`{column}` is {shown}{more}, and the column holds {}", self.wanted),
        }
    }
}

/// The column of that type; null stands for what a row lacks.
pub fn column<'v>(kind: Type, cells: impl Iterator<Item = &'v Value>) -> Result<Column, Misfit> {
    Ok(match kind {
        Type::Text => Column::Text(cells.map(text).collect()),
        Type::F64 => Column::F64(list(cells, "numbers", number)?),
        Type::U32 => Column::U32(list(cells, "whole numbers from 0 to 4294967295", integer)?),
        Type::Tokens => Column::Tokens(ragged(cells, "lists of token ids", integer)?),
        Type::TokenF32 => Column::TokenF32(ragged(cells, "lists of numbers", |cell| number(cell).map(|n| n as f32))?),
        Type::F64Lists => Column::F64Lists(ragged(cells, "lists of numbers", number)?),
    })
}

fn text(cell: &Value) -> String {
    match cell {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn number(cell: &Value) -> Option<f64> {
    match cell {
        Value::Null => Some(f64::NAN),
        Value::Bool(yes) => Some(f64::from(u8::from(*yes))),
        other => other.as_f64(),
    }
}

fn integer(cell: &Value) -> Option<u32> {
    match cell {
        Value::Bool(yes) => Some(u32::from(*yes)),
        other => other.as_u64().and_then(|n| u32::try_from(n).ok()),
    }
}

fn list<'v, T>(
    cells: impl Iterator<Item = &'v Value>,
    wanted: &'static str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Vec<T>, Misfit> {
    let misfit = |row: usize, value: &Value| Misfit { row, value: value.clone(), wanted };
    cells.enumerate().map(|(row, cell)| read(cell).ok_or_else(|| misfit(row, cell))).collect()
}

fn ragged<'v, T: Copy + Default>(
    cells: impl Iterator<Item = &'v Value>,
    wanted: &'static str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Ragged<T>, Misfit> {
    let of_row = |cell: &Value| match cell {
        Value::Null => Some(Vec::new()),
        Value::Array(items) => items.iter().map(&read).collect::<Option<Vec<T>>>(),
        _ => None,
    };
    let mut ragged = Ragged::default();
    list(cells, wanted, of_row)?.iter().for_each(|row| ragged.push(row));
    Ok(ragged)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(kind: Type, cells: &[Value]) -> Result<Column, String> {
        column(kind, cells.iter()).map_err(|misfit| format!("row {}: {}", misfit.row, misfit.reason("c")))
    }

    #[test]
    fn values_become_the_column_types_of_the_interface() {
        let Ok(Column::F64(numbers)) = read(Type::F64, &[json!(1), json!(-0.5), json!(true), json!(null)]) else { panic!() };
        assert_eq!(numbers[..3], [1.0, -0.5, 1.0]);
        assert!(numbers[3].is_nan());
        assert_eq!(read(Type::U32, &[json!(3), json!(false)]), Ok(Column::U32(vec![3, 0])));
        let Ok(Column::F64Lists(lists)) = read(Type::F64Lists, &[json!([1, 2.5]), json!(null), json!([])]) else { panic!() };
        assert_eq!((lists.row(0), lists.row(1), lists.row(2)), (&[1.0, 2.5][..], &[][..], &[][..]));
        let Ok(Column::Text(texts)) = read(Type::Text, &[json!("a"), json!(2), json!([1]), json!(null)]) else { panic!() };
        assert_eq!((0..4).map(|row| texts.get(row).unwrap()).collect::<Vec<_>>(), ["a", "2", "[1]", ""]);
    }

    #[test]
    fn value_that_does_not_fit_is_told_with_its_row_and_what_the_column_holds() {
        assert_eq!(
            read(Type::F64, &[json!(1), json!("two")]).unwrap_err(),
            "row 1: `c` is \"two\", and the column holds numbers"
        );
        let error = read(Type::U32, &[json!(0), json!(1), json!(-1)]).unwrap_err();
        assert_eq!(error, "row 2: `c` is -1, and the column holds whole numbers from 0 to 4294967295");
        assert!(read(Type::U32, &[json!(null)]).unwrap_err().contains("`c` is missing"));
        assert!(
            read(Type::Tokens, &[json!([1, "x"])]).unwrap_err().contains("[1,\"x\"], and the column holds lists of token ids")
        );
    }

    #[test]
    fn types_are_those_of_a_run_unless_a_flag_says_otherwise() {
        let types = Types::read(&["answer=f64".into()]).unwrap();
        assert_eq!((types.of("answer"), types.of("gold"), types.of("completion_tokens")), (Type::F64, Type::Text, Type::U32));
        for wrong in ["answer", "answer=float"] {
            let error = Types::read(&[wrong.into()]).unwrap_err();
            assert!(error.hint.unwrap().contains("text, f64, u32, tokens, token-f32, f64-lists"), "{wrong}");
        }
    }
}
