//! Lists of numbers as float64 tensors and back.

use anyhow::Result;
use candle_core::{Device, Tensor, Var};

/// `[]`.
pub fn scalar(value: f64) -> Result<Tensor> {
    Ok(Tensor::new(value, &Device::Cpu)?)
}

/// `[N]`.
pub fn vector(values: &[f64]) -> Result<Tensor> {
    Ok(Tensor::from_slice(values, values.len(), &Device::Cpu)?)
}

/// `[rows, columns]`; the rows have one length.
pub fn matrix(rows: &[Vec<f64>]) -> Result<Tensor> {
    matrix_or(rows, 0)
}

/// As [`matrix`], with as many columns as said where there are no rows to tell.
pub fn matrix_or(rows: &[Vec<f64>], columns: usize) -> Result<Tensor> {
    let columns = rows.first().map_or(columns, Vec::len);
    Ok(Tensor::from_vec(rows.concat(), (rows.len(), columns), &Device::Cpu)?)
}

/// A mask `[rows, columns]` as ones and zeros.
pub fn mask_tensor(mask: &[Vec<bool>]) -> Result<Tensor> {
    matrix(&mask.iter().map(|row| row.iter().map(|mask| f64::from(u8::from(*mask))).collect()).collect::<Vec<_>>())
}

/// Numbers of a tensor of any shape, flat.
pub fn flat(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.flatten_all()?.to_vec1()?)
}

/// Numbers of a `[rows, columns]` tensor.
pub fn rows(tensor: &Tensor) -> Result<Vec<Vec<f64>>> {
    Ok(tensor.to_vec2()?)
}

/// Value of a scalar graph over some tensors, and its gradient by each of them, in their shapes; zeros where none flows.
pub fn gradients(leaves: &[Tensor], graph: impl FnOnce(&[Tensor]) -> candle_core::Result<Tensor>) -> Result<(f64, Vec<Tensor>)> {
    let vars = leaves.iter().map(Var::from_tensor).collect::<candle_core::Result<Vec<_>>>()?;
    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let value = graph(&tensors)?;
    let store = value.backward()?;
    let gradient = |leaf: &Tensor| store.get(leaf).map_or_else(|| leaf.zeros_like(), |gradient| Ok(gradient.clone()));
    let gradients = tensors.iter().map(gradient).collect::<candle_core::Result<_>>()?;
    Ok((value.to_scalar()?, gradients))
}
