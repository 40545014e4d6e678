//! The completions of a step as a Parquet file with a column per value, for any data-frame library.

use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as PhysicalType};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::record::Field;
use parquet::schema::types::Type;

use super::error::{Error, IoContext, Result};
use super::ledger::hash;

/// One column: a value a row, or none.
#[derive(Clone, Debug, PartialEq)]
pub enum TableColumn {
    /// Texts.
    Text(Vec<Option<String>>),
    /// Integers.
    Int(Vec<Option<i64>>),
    /// Numbers; NaN is not allowed, a missing number is None.
    Float(Vec<Option<f64>>),
    /// Truth values.
    Bool(Vec<Option<bool>>),
}

impl TableColumn {
    fn len(&self) -> usize {
        match self {
            TableColumn::Text(v) => v.len(),
            TableColumn::Int(v) => v.len(),
            TableColumn::Float(v) => v.len(),
            TableColumn::Bool(v) => v.len(),
        }
    }
}

/// Named columns of equal length. The order of columns is that of the file.
///
/// The columns of a step: `step`, `row_id`, `prompt_id`, `index`, `prompt`, `completion`, the data's own columns (`answer`, ...), `tokens`,
/// `finish`, `rewards/<name>` and `status/<name>` per reward plugin, `raw`, `shaped`, `advantage`, `weight`, `kept`, `reason`. A
/// column of the data with one of these names is there as `data/<name>`.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    rows: usize,
    columns: Vec<(String, TableColumn)>,
}

impl Table {
    /// A table without columns.
    pub fn new(rows: usize) -> Self {
        Table { rows, columns: Vec::new() }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Adds a column; one of the same name is replaced.
    ///
    /// # Panics
    /// When its length is not the number of rows.
    pub fn insert(&mut self, name: impl Into<String>, column: TableColumn) {
        let name = name.into();
        assert_eq!(column.len(), self.rows, "column `{name}` must have one entry per row");
        self.columns.retain(|(have, _)| *have != name);
        self.columns.push((name, column));
    }

    /// Adds a column of texts.
    pub fn text<T: Into<String>>(&mut self, name: impl Into<String>, values: impl IntoIterator<Item = T>) {
        self.insert(name, TableColumn::Text(values.into_iter().map(|v| Some(v.into())).collect()));
    }

    /// Adds a column of integers.
    pub fn int(&mut self, name: impl Into<String>, values: impl IntoIterator<Item = u64>) {
        self.insert(name, TableColumn::Int(values.into_iter().map(|v| Some(v as i64)).collect()));
    }

    /// Adds a column of numbers; what is not finite becomes a missing one.
    pub fn float(&mut self, name: impl Into<String>, values: impl IntoIterator<Item = Option<f64>>) {
        self.insert(name, TableColumn::Float(values.into_iter().map(|v| v.filter(|v| v.is_finite())).collect()));
    }

    /// Adds a column of truth values.
    pub fn bool(&mut self, name: impl Into<String>, values: impl IntoIterator<Item = bool>) {
        self.insert(name, TableColumn::Bool(values.into_iter().map(Some).collect()));
    }

    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&TableColumn> {
        self.columns.iter().find(|(have, _)| have == name).map(|(_, column)| column)
    }

    /// A column of texts without a missing one.
    pub fn texts(&self, name: &str) -> Option<Vec<&str>> {
        match self.column(name)? {
            TableColumn::Text(values) => values.iter().map(Option::as_deref).collect(),
            _ => None,
        }
    }

    /// A column of integers without a missing one.
    pub fn ints(&self, name: &str) -> Option<Vec<u64>> {
        match self.column(name)? {
            TableColumn::Int(values) => values.iter().map(|value| value.map(|value| value as u64)).collect(),
            _ => None,
        }
    }

    /// Columns in order.
    pub fn columns(&self) -> impl Iterator<Item = (&str, &TableColumn)> {
        self.columns.iter().map(|(name, column)| (name.as_str(), column))
    }

    /// Writes the table and returns the file's SHA-256.
    pub fn write(&self, path: &Path) -> Result<String> {
        let bytes = self.to_bytes().map_err(|source| Error::Parquet { action: "write", path: path.to_owned(), source })?;
        std::fs::write(path, &bytes).at("write", path)?;
        Ok(hash(&bytes))
    }

    /// The table as a Parquet file: one row group, compressed with Snappy. The same table gives the same bytes.
    pub fn to_bytes(&self) -> parquet::errors::Result<Vec<u8>> {
        let fields = self.columns.iter().map(|(name, column)| {
            let (physical, logical) = match column {
                TableColumn::Text(_) => (PhysicalType::BYTE_ARRAY, Some(LogicalType::String)),
                TableColumn::Int(_) => (PhysicalType::INT64, None),
                TableColumn::Float(_) => (PhysicalType::DOUBLE, None),
                TableColumn::Bool(_) => (PhysicalType::BOOLEAN, None),
            };
            let builder = Type::primitive_type_builder(name, physical).with_repetition(Repetition::OPTIONAL);
            builder.with_logical_type(logical).build().map(Arc::new)
        });
        let schema =
            Type::group_type_builder("completions").with_fields(fields.collect::<parquet::errors::Result<_>>()?).build()?;
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).set_created_by("plumb".into()).build();
        let mut writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties))?;
        let mut group = writer.next_row_group()?;
        for (_, column) in &self.columns {
            match column {
                TableColumn::Text(v) => {
                    write_column::<ByteArrayType, _>(&mut group, v, |s| ByteArray::from(s.as_bytes().to_vec()))?;
                }
                TableColumn::Int(v) => write_column::<Int64Type, _>(&mut group, v, |x| *x)?,
                TableColumn::Float(v) => write_column::<DoubleType, _>(&mut group, v, |x| *x)?,
                TableColumn::Bool(v) => write_column::<BoolType, _>(&mut group, v, |x| *x)?,
            }
        }
        group.close()?;
        writer.into_inner()
    }

    /// Reads what [`Table::write`] wrote.
    pub fn read(path: &Path) -> Result<Self> {
        Ok(Self::read_hashed(path)?.0)
    }

    /// Reads what [`Table::write`] wrote, and the SHA-256 of the file as it is now.
    pub fn read_hashed(path: &Path) -> Result<(Self, String)> {
        let bytes = std::fs::read(path).at("read", path)?;
        let sha256 = hash(&bytes);
        Ok((Self::parse(bytes).map_err(|source| Error::Parquet { action: "read", path: path.to_owned(), source })?, sha256))
    }

    fn parse(bytes: Vec<u8>) -> parquet::errors::Result<Self> {
        let reader = SerializedFileReader::new(bytes::Bytes::from(bytes))?;
        let metadata = reader.metadata().file_metadata();
        let rows = usize::try_from(metadata.num_rows()).unwrap_or(0);
        let mut columns: Vec<(String, TableColumn)> = metadata
            .schema()
            .get_fields()
            .iter()
            .map(|field| {
                let column = match field.get_physical_type() {
                    PhysicalType::INT64 => TableColumn::Int(Vec::with_capacity(rows)),
                    PhysicalType::DOUBLE => TableColumn::Float(Vec::with_capacity(rows)),
                    PhysicalType::BOOLEAN => TableColumn::Bool(Vec::with_capacity(rows)),
                    _ => TableColumn::Text(Vec::with_capacity(rows)),
                };
                (field.name().to_owned(), column)
            })
            .collect();
        for row in reader.get_row_iter(None)? {
            for ((_, column), (_, field)) in columns.iter_mut().zip(row?.get_column_iter()) {
                match (column, field) {
                    (TableColumn::Text(v), Field::Str(s)) => v.push(Some(s.clone())),
                    (TableColumn::Int(v), Field::Long(x)) => v.push(Some(*x)),
                    (TableColumn::Float(v), Field::Double(x)) => v.push(Some(*x)),
                    (TableColumn::Bool(v), Field::Bool(x)) => v.push(Some(*x)),
                    (TableColumn::Text(v), _) => v.push(None),
                    (TableColumn::Int(v), _) => v.push(None),
                    (TableColumn::Float(v), _) => v.push(None),
                    (TableColumn::Bool(v), _) => v.push(None),
                }
            }
        }
        Ok(Table { rows, columns })
    }
}

fn write_column<D: DataType, V>(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    values: &[Option<V>],
    convert: impl Fn(&V) -> D::T,
) -> parquet::errors::Result<()> {
    let mut column = group.next_column()?.expect("the schema has as many columns as the table");
    let present: Vec<D::T> = values.iter().flatten().map(convert).collect();
    let levels: Vec<i16> = values.iter().map(|v| i16::from(v.is_some())).collect();
    column.typed::<D>().write_batch(&present, Some(&levels), None)?;
    column.close()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(3);
        table.int("step", [7, 7, 7]);
        table.text("completion", ["4", "", "vierzehn 🙂"]);
        table.float("rewards/exact-match", [Some(1.0), None, Some(f64::NAN)]);
        table.bool("kept", [true, false, true]);
        table.insert("reason", TableColumn::Text(vec![None, Some("zero variance".into()), None]));
        table
    }

    #[test]
    fn table_reads_back_with_missing_values() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("completions_00001.parquet");
        table().write(&path).unwrap();
        let read = Table::read(&path).unwrap();
        assert_eq!(read, table());
        assert_eq!(read.column("rewards/exact-match"), Some(&TableColumn::Float(vec![Some(1.0), None, None])));
    }

    #[test]
    fn same_table_gives_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        table().write(&a).unwrap();
        table().write(&b).unwrap();
        assert_eq!(std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
    }
}
