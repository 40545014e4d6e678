//! Small networks as cases write them.

use anyhow::{Result, bail};
use plumb_methods::reward::mlp::{Activation, Layer};
use serde::Deserialize;

use crate::Case;
use crate::tensor::{matrix, vector};

/// One layer of a case.
#[derive(Deserialize)]
struct Written {
    weight: Vec<Vec<f64>>,
    bias: Vec<f64>,
}

/// The input `layers`.
pub fn layers(case: &Case) -> Result<Vec<Layer>> {
    let written: Vec<Written> = case.input("layers")?;
    written.iter().map(|layer| Ok(Layer { weight: matrix(&layer.weight)?, bias: vector(&layer.bias)? })).collect()
}

/// The parameter `activation`.
pub fn activation(case: &Case, default: &str) -> Result<Activation> {
    Ok(match case.param_or("activation", default.to_owned())?.as_str() {
        "none" => Activation::None,
        "tanh" => Activation::Tanh,
        "relu" => Activation::Relu,
        "silu" => Activation::Silu,
        other => bail!("no activation `{other}`"),
    })
}
