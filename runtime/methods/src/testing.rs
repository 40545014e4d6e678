//! What tests of graphs share.

use candle_core::{DType, Device, Tensor, Var};

/// Step of central differences in float64: near the cube root of its precision, where truncation and rounding errors meet.
const STEP: f64 = 1e-5;

/// `[N]` of float64.
pub fn vector(values: &[f64]) -> Tensor {
    Tensor::from_slice(values, values.len(), &Device::Cpu).unwrap()
}

/// `[rows, columns]` of float64.
pub fn matrix<const R: usize, const C: usize>(rows: [[f64; C]; R]) -> Tensor {
    Tensor::from_vec(rows.concat(), (R, C), &Device::Cpu).unwrap()
}

/// Numbers of a float64 tensor, flat.
pub fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Value of a scalar graph and its gradients by its leaves, flat; zeros where none flows.
pub fn gradients(
    leaves: &[Tensor],
    graph: impl Fn(&[Tensor]) -> candle_core::Result<Tensor>,
) -> candle_core::Result<(f64, Vec<Vec<f64>>)> {
    let vars = leaves.iter().map(Var::from_tensor).collect::<candle_core::Result<Vec<_>>>()?;
    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let value = graph(&tensors)?;
    let store = value.backward()?;
    let gradient = |leaf: &Tensor| store.get(leaf).map_or_else(|| vec![0.0; leaf.elem_count()], numbers);
    Ok((value.to_scalar()?, tensors.iter().map(gradient).collect()))
}

/// Holds every partial derivative of a scalar graph to central differences, and the value to be finite. Returns the gradients.
pub fn check_gradients(
    leaves: &[Tensor],
    tolerance: f64,
    graph: impl Fn(&[Tensor]) -> candle_core::Result<Tensor>,
) -> Vec<Vec<f64>> {
    let (value, gradients) = gradients(leaves, &graph).unwrap();
    assert!(value.is_finite(), "the value is {value}");
    for (l, leaf) in leaves.iter().enumerate() {
        for i in 0..leaf.elem_count() {
            let at = |step: f64| {
                let mut moved = leaves.to_vec();
                let mut values = numbers(leaf);
                values[i] += step;
                moved[l] = Tensor::from_vec(values, leaf.shape(), &Device::Cpu).unwrap();
                graph(&moved).unwrap().to_scalar::<f64>().unwrap()
            };
            let (got, numeric) = (gradients[l][i], (at(STEP) - at(-STEP)) / (2.0 * STEP));
            assert!((got - numeric).abs() < tolerance, "leaf {l}, entry {i}: {got} is not {numeric}");
        }
    }
    gradients
}

/// Asserts that a scalar graph and all its gradients are finite. Returns the value.
pub fn assert_finite(leaves: &[Tensor], graph: impl Fn(&[Tensor]) -> candle_core::Result<Tensor>) -> f64 {
    let (value, gradients) = gradients(leaves, graph).unwrap();
    assert!(value.is_finite() && gradients.iter().flatten().all(|g| g.is_finite()), "{value}, {gradients:?}");
    value
}

/// Holds a scalar graph in float32 to the same one in float64.
#[track_caller]
pub fn assert_float32_agrees(leaves: &[Tensor], graph: impl Fn(&[Tensor]) -> candle_core::Result<Tensor>) {
    let value = |dtype: DType| {
        let leaves: Vec<Tensor> = leaves.iter().map(|leaf| leaf.to_dtype(dtype).unwrap()).collect();
        graph(&leaves).unwrap().to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap()
    };
    let (narrow, wide) = (value(DType::F32), value(DType::F64));
    assert!((narrow - wide).abs() < 1e-5 * wide.abs().max(1.0), "{narrow} is not {wide}");
}

/// Asserts that lists are alike within 1e-12.
#[track_caller]
pub fn assert_close(got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len(), "{got:?} is not {want:?}");
    assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-12), "{got:?} is not {want:?}");
}
