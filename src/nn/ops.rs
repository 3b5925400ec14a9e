//! Which differentiable operations does a decoder layer consist of, besides attention? Norm, linear map with adapter,
//! gate; each fused, with its own backward.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::kernel::{self, Matrix, Store, product};
use super::tensors::{values, with_values};

/// Root-mean-square norm over the last axis; the weight is frozen.
#[derive(Debug, Clone)]
pub(crate) struct RmsNorm {
    /// One value per column.
    pub(crate) weight: Tensor,
    pub(crate) eps: f32,
}

impl RmsNorm {
    /// Normalises each row; differentiable with respect to `x` (rows × columns).
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        x.contiguous()?.apply_op1(self.clone())
    }

    /// The same on plain values.
    pub(crate) fn run(&self, x: &[f32]) -> Result<Vec<f32>> {
        with_values([&self.weight], |[weight]| {
            let mut out = vec![0.0; x.len()];
            kernel::rms_norm(x, weight, self.eps, &mut out);
            Ok(out)
        })
    }
}

impl CustomOp1 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(self.run(values(x, layout)?)?), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _out: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let out = with_values([x, &self.weight, grad], |[x, weight, grad]| {
            let mut out = vec![0.0; x.len()];
            kernel::rms_norm_backward(x, weight, (self.eps, grad), &mut out);
            Ok(out)
        })?;
        Tensor::from_vec(out, x.shape(), x.device()).map(Some)
    }
}

/// `silu(gate) * up`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SwiGlu;

impl CustomOp2 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(
        &self,
        gate: &CpuStorage,
        gate_layout: &Layout,
        up: &CpuStorage,
        up_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (gate, up) = (values(gate, gate_layout)?, values(up, up_layout)?);
        let mut out = vec![0.0; gate.len()];
        kernel::swiglu(gate, up, &mut out);
        Ok((CpuStorage::F32(out), gate_layout.shape().clone()))
    }

    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (d_gate, d_up) =
            with_values([gate, up, grad], |[gate, up, grad]| Ok(kernel::swiglu_backward(gate, up, grad)))?;
        let tensor = |data, like: &Tensor| Tensor::from_vec(data, like.shape(), like.device()).map(Some);
        Ok((tensor(d_gate, gate)?, tensor(d_up, up)?))
    }
}

/// Which values of a layer's input its adapter does not see in this step: the same in forward and backward, a pure
/// function of seed and place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Dropout {
    /// Share that is dropped, in [0, 1).
    pub(crate) share: f32,
    /// Of this layer in this step.
    pub(crate) seed: u64,
}

impl Dropout {
    /// Each value multiplied by 0 or 1/(1 − share).
    #[cfg(test)]
    pub(crate) fn run(&self, x: &[f32]) -> Vec<f32> {
        let mut out = Vec::new();
        self.apply(x, &mut out);
        out
    }

    /// Multiplies each value by 0 or 1/(1 − share), into `out`.
    fn apply(&self, x: &[f32], out: &mut Vec<f32>) {
        const STEP: usize = 16_384;
        // 24 bits of the hash against 24 bits of the share.
        let threshold = (self.share * (1 << 24) as f32) as u32;
        let scale = (1.0 - self.share).recip();
        out.resize(x.len(), 0.0);
        out.par_chunks_mut(STEP).zip(x.par_chunks(STEP)).enumerate().for_each(|(chunk, (out, x))| {
            let first = (chunk * STEP) as u64;
            for ((out, x), at) in out.iter_mut().zip(x).zip(first..) {
                let kept = (mix(self.seed, at) >> 40) as u32 >= threshold;
                *out = if kept { x * scale } else { 0.0 };
            }
        });
    }
}

/// The output function of `SplitMix64` (Steele, Lea, Flood, OOPSLA 2014) on a counter.
fn mix(seed: u64, at: u64) -> u64 {
    let z = seed.wrapping_add(at.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A frozen linear map y = x Wᵀ (+ bias). Its weight is kept in both orientations: the matrix product packs the one
/// with contiguous outputs several times faster going forward, the other going back.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    /// Outputs × inputs.
    pub(crate) weight: Tensor,
    /// Inputs × outputs.
    pub(crate) turned: Tensor,
    /// One value per output.
    pub(crate) bias: Option<Tensor>,
}

impl Linear {
    /// A map with this weight (outputs × inputs).
    pub(crate) fn new(weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        let (outputs, inputs) = weight.dims2()?;
        let turned = with_values([&weight], |[weight]| Ok(kernel::transposed(weight, inputs)))?;
        let turned = Tensor::from_vec(turned, (inputs, outputs), weight.device())?;
        Ok(Self { weight, turned, bias })
    }

    /// (outputs, inputs).
    pub(crate) fn dims(&self) -> Result<(usize, usize)> {
        self.weight.dims2()
    }

    /// rows × outputs from rows × inputs.
    pub(crate) fn run(&self, x: &[f32]) -> Result<Vec<f32>> {
        let (outputs, inputs) = self.dims()?;
        with_values([&self.turned], |[turned]| {
            let mut out = vec![0.0; x.len() / inputs * outputs];
            let factors = (Matrix::new(x, inputs), Matrix::new(turned, outputs));
            product((&mut out, Store::Fresh), factors, 1.0, true)?;
            Ok(out)
        })
        .and_then(|out| self.add_bias(out))
    }

    fn add_bias(&self, mut out: Vec<f32>) -> Result<Vec<f32>> {
        if let Some(bias) = &self.bias {
            with_values([bias], |[bias]| {
                out.par_chunks_mut(bias.len()).for_each(|row| {
                    row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
                });
                Ok(())
            })?;
        }
        Ok(out)
    }
}

impl CustomOp1 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (outputs, _) = self.dims()?;
        let out = self.run(values(x, layout)?)?;
        Ok((CpuStorage::F32(out), Shape::from((layout.shape().dims()[0], outputs))))
    }

    /// Only the input's gradient: the weights are frozen.
    fn bwd(&self, x: &Tensor, _out: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (outputs, inputs) = self.dims()?;
        let out = with_values([&self.weight, grad], |[weight, grad]| {
            let mut out = vec![0.0; grad.len() / outputs * inputs];
            let factors = (Matrix::new(grad, outputs), Matrix::new(weight, inputs));
            product((&mut out, Store::Fresh), factors, 1.0, true)?;
            Ok(out)
        })?;
        Tensor::from_vec(out, x.shape(), x.device()).map(Some)
    }
}

/// A frozen linear map with a trainable low-rank part (arXiv:2106.09685): y = x Wᵀ + scale · drop(x) Aᵀ Bᵀ. Arguments
/// are x (rows × inputs), A (rank × inputs), B (outputs × rank).
#[derive(Debug, Clone)]
pub(crate) struct LoraLinear {
    pub(crate) base: Linear,
    /// alpha / rank.
    pub(crate) scale: f32,
    pub(crate) dropout: Option<Dropout>,
}

impl LoraLinear {
    fn dropped<'a>(&self, x: &'a [f32], memory: &'a mut Vec<f32>) -> &'a [f32] {
        match &self.dropout {
            Some(dropout) => {
                dropout.apply(x, memory);
                memory
            }
            None => x,
        }
    }

    /// x, A and B's gradients.
    fn gradients(&self, [weight, x, a, b, grad]: [&[f32]; 5]) -> Result<[Vec<f32>; 3]> {
        let (outputs, inputs) = self.base.dims()?;
        let (rank, rows) = (b.len() / outputs, x.len() / inputs);
        let mut memory = Vec::new();
        let seen = Matrix::new(self.dropped(x, &mut memory), inputs);
        let (a, b, grad) = (Matrix::new(a, inputs), Matrix::new(b, rank), Matrix::new(grad, outputs));
        let mut inner = vec![0.0; rows * rank];
        product((&mut inner, Store::Fresh), (seen, a.transposed()), 1.0, true)?;
        let mut d_inner = vec![0.0; rows * rank];
        product((&mut d_inner, Store::Fresh), (grad, b), self.scale, true)?;
        let mut d_a = vec![0.0; rank * inputs];
        let left = Matrix::new(&d_inner, rank);
        product((&mut d_a, Store::Fresh), (left.transposed(), seen), 1.0, true)?;
        let mut d_b = vec![0.0; outputs * rank];
        let factors = (grad.transposed(), Matrix::new(&inner, rank));
        product((&mut d_b, Store::Fresh), factors, self.scale, true)?;
        let mut d_x = vec![0.0; rows * inputs];
        product((&mut d_x, Store::Fresh), (left, a), 1.0, true)?;
        if let Some(dropout) = &self.dropout {
            let through = d_x;
            d_x = Vec::new();
            dropout.apply(&through, &mut d_x);
        }
        product((&mut d_x, Store::Sum), (grad, Matrix::new(weight, inputs)), 1.0, true)?;
        Ok([d_x, d_a, d_b])
    }
}

impl CustomOp3 for LoraLinear {
    fn name(&self) -> &'static str {
        "lora-linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, a, b) = (values(x, x_layout)?, values(a, a_layout)?, values(b, b_layout)?);
        let (outputs, inputs) = self.base.dims()?;
        let (rank, rows) = (b.len() / outputs, x.len() / inputs);
        let mut out = self.base.run(x)?;
        let mut memory = Vec::new();
        let seen = Matrix::new(self.dropped(x, &mut memory), inputs);
        let mut inner = vec![0.0; rows * rank];
        product((&mut inner, Store::Fresh), (seen, Matrix::new(a, inputs).transposed()), 1.0, true)?;
        let factors = (Matrix::new(&inner, rank), Matrix::new(b, rank).transposed());
        product((&mut out, Store::Sum), factors, self.scale, true)?;
        Ok((CpuStorage::F32(out), Shape::from((rows, outputs))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        b: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [d_x, d_a, d_b] = with_values([&self.base.weight, x, a, b, grad], |all| self.gradients(all))?;
        let tensor = |data, like: &Tensor| Tensor::from_vec(data, like.shape(), like.device()).map(Some);
        Ok((tensor(d_x, x)?, tensor(d_a, a)?, tensor(d_b, b)?))
    }
}
