//! How is arithmetic on slices of f32 done fast? Matrix product, norm, gate: row-major, several threads, no autograd.

use candle_core::{Result, bail};
use rayon::prelude::*;

/// Below this many multiply-adds a product runs on the calling thread: handing work over costs more than it saves
/// (a few microseconds, about 100,000 multiply-adds).
const THREADED_FROM: usize = 1 << 17;

/// A matrix in memory: `rows` × `columns`, element (i, j) at `i * row_stride + j * column_stride`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A row-major matrix that fills `data`.
    pub(crate) fn new(data: &'a [f32], columns: usize) -> Self {
        let rows = data.len().checked_div(columns).unwrap_or(0);
        Self { data, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// The first `rows` rows.
    pub(crate) fn head(self, rows: usize) -> Self {
        Self { rows: rows.min(self.rows), ..self }
    }

    /// The first `columns` columns.
    pub(crate) fn left(self, columns: usize) -> Self {
        Self { columns: columns.min(self.columns), ..self }
    }

    /// The transposed matrix; nothing is moved.
    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    fn fits(&self) -> bool {
        self.rows == 0
            || self.columns == 0
            || (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride < self.data.len()
    }
}

/// What becomes of the values that are in the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// They are overwritten.
    Fresh,
    /// The product is added to them.
    Sum,
}

/// `target = scale · left · right`, or `target += …`, with `target` row-major (left.rows × right.columns). Uses every
/// thread of the pool for large products, unless it is called from one of several tasks (`alone: false`).
///
/// # Errors
/// When the shapes do not fit.
pub(crate) fn product(
    target: (&mut [f32], Store),
    (left, right): (Matrix<'_>, Matrix<'_>),
    scale: f32,
    alone: bool,
) -> Result<()> {
    let (target, mode) = target;
    let (m, n, k) = (left.rows, right.columns, left.columns);
    if k != right.rows || target.len() != m * n || !left.fits() || !right.fits() {
        bail!("product of {m}x{k} and {}x{n} into {} values", right.rows, target.len());
    }
    if m == 0 || n == 0 {
        return Ok(());
    }
    if k == 0 {
        if mode == Store::Fresh {
            target.fill(0.0);
        }
        return Ok(());
    }
    let parallelism = match alone && m * n * k >= THREADED_FROM {
        true => gemm::Parallelism::Rayon(rayon::current_num_threads()),
        false => gemm::Parallelism::None,
    };
    let keep = if mode == Store::Sum { 1.0 } else { 0.0 };
    #[expect(
        unsafe_code,
        reason = "the crate's only entrance; extents were checked against the slices above"
    )]
    // SAFETY: every element addressed by (extent, strides) lies inside its slice (`fits` and the length of `target`),
    // and `target` is borrowed mutably, so it aliases neither operand.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            target.as_mut_ptr(),
            1,
            n as isize,
            mode == Store::Sum,
            left.data.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.data.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            keep,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
    Ok(())
}

/// The transposed copy of a row-major matrix.
pub(crate) fn transposed(data: &[f32], columns: usize) -> Vec<f32> {
    // A tile of 32 × 32 values lies in the first-level cache in both orders.
    const TILE: usize = 32;
    let rows = data.len().checked_div(columns).unwrap_or(0);
    let mut out = vec![0.0; rows * columns];
    out.par_chunks_mut((TILE * rows).max(1)).enumerate().for_each(|(tile, out)| {
        let first = tile * TILE;
        for start in (0..rows).step_by(TILE) {
            for (column, out) in (first..).zip(out.chunks_exact_mut(rows)) {
                for row in start..rows.min(start + TILE) {
                    out[row] = data[row * columns + column];
                }
            }
        }
    });
    out
}

/// Rows per task, so that a task moves about 16,000 values.
pub(crate) fn rows_per_task(columns: usize) -> usize {
    (16_384 / columns.max(1)).max(1)
}

/// Root-mean-square norm (arXiv:1910.07467) of each row of `x` times `weight`, into `out`.
pub(crate) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let (columns, step) = (weight.len(), rows_per_task(weight.len()) * weight.len());
    out.par_chunks_mut(step).zip(x.par_chunks(step)).for_each(|(out, x)| {
        for (out, x) in out.chunks_exact_mut(columns).zip(x.chunks_exact(columns)) {
            let scale = inverse_rms(x, eps);
            for ((out, x), w) in out.iter_mut().zip(x).zip(weight) {
                *out = x * scale * w;
            }
        }
    });
}

/// Gradient of [`rms_norm`] with respect to `x`, into `out`, for the output's gradient `grad`.
pub(crate) fn rms_norm_backward(x: &[f32], weight: &[f32], (eps, grad): (f32, &[f32]), out: &mut [f32]) {
    let (columns, step) = (weight.len(), rows_per_task(weight.len()) * weight.len());
    let parts = out.par_chunks_mut(step).zip(x.par_chunks(step)).zip(grad.par_chunks(step));
    parts.for_each(|((out, x), grad)| {
        let rows = out.chunks_exact_mut(columns).zip(x.chunks_exact(columns)).zip(grad.chunks_exact(columns));
        for ((out, x), grad) in rows {
            let scale = inverse_rms(x, eps);
            let along = sum(x.iter().zip(grad).zip(weight).map(|((x, g), w)| x * g * w));
            let back = along * scale * scale * scale / columns as f32;
            for (((out, x), g), w) in out.iter_mut().zip(x).zip(grad).zip(weight) {
                *out = g * w * scale - x * back;
            }
        }
    });
}

fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    (dot(x, x) / x.len() as f32 + eps).sqrt().recip()
}

/// Inner product, with 16 partial sums so that it runs in vector registers.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [0f32; LANES];
    let (a_parts, b_parts) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_parts.remainder().iter().zip(b_parts.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_parts.zip(b_parts) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    lanes.iter().sum::<f32>() + rest
}

fn sum(values: impl Iterator<Item = f32>) -> f32 {
    // In f64: a long row of products of both signs.
    values.map(f64::from).sum::<f64>() as f32
}

/// `silu(gate) * up` (arXiv:2002.05202), elementwise, into `out`.
pub(crate) fn swiglu(gate: &[f32], up: &[f32], out: &mut [f32]) {
    const STEP: usize = 16_384;
    let parts = out.par_chunks_mut(STEP).zip(gate.par_chunks(STEP)).zip(up.par_chunks(STEP));
    parts.for_each(|((out, gate), up)| {
        for ((out, g), u) in out.iter_mut().zip(gate).zip(up) {
            *out = g * sigmoid(*g) * u;
        }
    });
}

/// Gradients of [`swiglu`] with respect to gate and up.
pub(crate) fn swiglu_backward(gate: &[f32], up: &[f32], grad: &[f32]) -> (Vec<f32>, Vec<f32>) {
    const STEP: usize = 16_384;
    let (mut d_gate, mut d_up) = (vec![0.0; gate.len()], vec![0.0; up.len()]);
    let targets = d_gate.par_chunks_mut(STEP).zip(d_up.par_chunks_mut(STEP));
    let sources = gate.par_chunks(STEP).zip(up.par_chunks(STEP)).zip(grad.par_chunks(STEP));
    targets.zip(sources).for_each(|((d_gate, d_up), ((gate, up), grad))| {
        for ((((dg, du), g), u), grad) in d_gate.iter_mut().zip(d_up).zip(gate).zip(up).zip(grad) {
            let s = sigmoid(*g);
            let silu = g * s;
            *dg = grad * u * (s + silu * (1.0 - s));
            *du = grad * silu;
        }
    });
    (d_gate, d_up)
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// e^x within 2 units in the last place over the range of f32, written so that loops over it run in vector registers
/// (the C library's does not): e^x = 2^k · e^r with |r| <= ln 2 / 2, e^r by its Taylor series to the seventh power.
pub(crate) fn exp(x: f32) -> f32 {
    // Beyond these the result is 0 or infinite in f32.
    let x = x.clamp(-87.3, 88.7);
    let k = (x * std::f32::consts::LOG2_E).round_ties_even();
    // ln 2 in two parts, so that the remainder is exact (Cody and Waite).
    let r = (x - k * 0.693_359_4) + k * 2.121_944_4e-4;
    let series = 1.0 / 5040.0;
    let series = series * r + 1.0 / 720.0;
    let series = series * r + 1.0 / 120.0;
    let series = series * r + 1.0 / 24.0;
    let series = series * r + 1.0 / 6.0;
    let series = series * r + 0.5;
    let series = (series * r + 1.0) * r + 1.0;
    series * f32::from_bits((((k as i32) + 127) << 23) as u32)
}

/// Turns a row of logits into probabilities in place; gives the logarithm of the sum of their exponentials (nats).
pub(crate) fn softmax(row: &mut [f32]) -> f32 {
    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for value in row.iter_mut() {
        *value = exp(*value - top);
    }
    let total = row.chunks(4096).map(|part| f64::from(total(part))).sum::<f64>() as f32;
    let inverse = total.recip();
    for value in row.iter_mut() {
        *value *= inverse;
    }
    top + total.ln()
}

/// Sum with 16 partial sums.
fn total(values: &[f32]) -> f32 {
    let parts = values.chunks_exact(16);
    let rest: f32 = parts.remainder().iter().sum();
    let mut lanes = [0f32; 16];
    for part in parts {
        for (lane, value) in lanes.iter_mut().zip(part) {
            *lane += value;
        }
    }
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_agrees_with_the_standard_library() {
        for step in -8700..8800 {
            let x = step as f32 / 100.0;
            let (ours, theirs) = (exp(x), x.exp());
            assert!(((ours - theirs) / theirs).abs() < 3e-7, "exp({x}) = {ours}, not {theirs}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(-1000.0) < 1.3e-38);
    }

    #[test]
    fn products_fit_or_are_refused() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]);
        let (a, b) = (Matrix::new(&a, 2), Matrix::new(&b, 2));
        let mut out = [100.0; 4];
        product((&mut out, Store::Sum), (a, b.transposed()), 0.5, true).unwrap();
        assert_eq!(out, [108.5, 111.5, 119.5, 126.5]);
        product((&mut out, Store::Fresh), (a, b), 1.0, false).unwrap();
        assert_eq!(out, [19.0, 22.0, 43.0, 50.0]);
        assert!(product((&mut out[..3], Store::Fresh), (a, b), 1.0, true).is_err());
    }

    #[test]
    fn softmax_gives_the_logarithm_of_the_sum() {
        let mut row = [1.0, 2.0, 3.0];
        let log_sum = softmax(&mut row);
        assert!((log_sum - 3.407_606).abs() < 1e-5);
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }
}
