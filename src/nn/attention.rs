//! What does each token attend to? Causal grouped-query attention with rotary positions over a packed batch, with its
//! own backward pass.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::kernel::{Matrix, Store, product, softmax, transposed};
use super::rope::Rotation;
use super::tensors::{values, with_values};

/// Query rows handled together: their scores (times heads per key head, times keys) stay in the second-level cache.
const BLOCK: usize = 64;

/// Consecutive rows of a batch that attend causally to themselves, after all rows of their prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    /// Rows of the batch.
    pub rows: Range<usize>,
    /// Rows of the same group that every row of this span sees, in the order of their positions: what several prompts
    /// begin with, and the rest of a prompt that several completions share.
    pub prefix: Vec<Range<usize>>,
}

/// Rows that have to do only with each other: a prompt and its completions, or several that begin alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    /// The spans that fill them, in order.
    pub spans: Vec<Span>,
}

/// How many heads there are and how wide they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub query: usize,
    /// Key and value heads; divides `query`.
    pub key: usize,
    /// Width of a head.
    pub width: usize,
}

impl Heads {
    /// Query heads that share a key head.
    pub(crate) fn shared(&self) -> usize {
        self.query / self.key
    }
}

/// Attention over a packed batch; arguments are q (rows × query·width), k and v (rows × key·width) before rotation.
#[derive(Debug, Clone)]
pub(crate) struct Attention {
    pub(crate) heads: Heads,
    pub(crate) groups: Arc<Vec<Group>>,
    /// Of each row's position.
    pub(crate) rotation: Arc<Rotation>,
}

/// One key head's share of one span, gathered into contiguous memory and rotated.
struct Task {
    /// Own rows × shared × width, scaled by 1/√width.
    q: Vec<f32>,
    /// Keys × width: the prefix's, then its own.
    k: Vec<f32>,
    /// Keys × width.
    v: Vec<f32>,
    /// Width × keys: the matrix product packs this order faster.
    k_turned: Vec<f32>,
}

/// Gradients of a task's q, k and v.
struct Gradients {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

/// q, k and v of a whole batch.
type Inputs<'a> = (&'a [f32], &'a [f32], &'a [f32]);

impl Span {
    /// The rows whose keys it sees.
    fn keys(&self) -> impl Iterator<Item = usize> + '_ {
        self.prefix.iter().chain([&self.rows]).flat_map(Clone::clone)
    }

    /// How many rows are seen before its own.
    fn before(&self) -> usize {
        self.prefix.iter().map(ExactSizeIterator::len).sum()
    }
}

impl Attention {
    /// The work, in parts that are independent of each other.
    fn parts(&self) -> Vec<(&Span, usize)> {
        let spans = self.groups.iter().flat_map(|group| &group.spans);
        spans.flat_map(|span| (0..self.heads.key).map(move |head| (span, head))).collect()
    }

    /// Where a row's queries of one key head lie in q.
    fn query_at(&self, row: usize, head: usize) -> Range<usize> {
        let Heads { query, width, .. } = self.heads;
        let start = (row * query + head * self.heads.shared()) * width;
        start..start + self.heads.shared() * width
    }

    /// Where a row's key (or value) of one key head lies in k (or v).
    fn key_at(&self, row: usize, head: usize) -> Range<usize> {
        let start = (row * self.heads.key + head) * self.heads.width;
        start..start + self.heads.width
    }

    fn gather(&self, span: &Span, head: usize, (q, k, v): Inputs<'_>) -> Task {
        let width = self.heads.width;
        let scale = (width as f32).sqrt().recip();
        let (rows, keys) = (span.rows.len(), span.before() + span.rows.len());
        let mut task = Task {
            q: Vec::with_capacity(rows * self.heads.shared() * width),
            k: Vec::with_capacity(keys * width),
            v: Vec::with_capacity(keys * width),
            k_turned: Vec::new(),
        };
        for row in span.rows.clone() {
            let start = task.q.len();
            task.q.extend(q[self.query_at(row, head)].iter().map(|value| value * scale));
            task.q[start..].chunks_exact_mut(width).for_each(|part| self.rotation.forward(row, part));
        }
        for row in span.keys() {
            let start = task.k.len();
            task.k.extend_from_slice(&k[self.key_at(row, head)]);
            self.rotation.forward(row, &mut task.k[start..]);
            task.v.extend_from_slice(&v[self.key_at(row, head)]);
        }
        task.k_turned = transposed(&task.k, width);
        task
    }

    /// Probabilities of a span's rows `block` (shared heads within rows) over the keys up to the block's end.
    fn probabilities(&self, task: &Task, prefix: usize, block: &Range<usize>) -> Result<Vec<f32>> {
        let (shared, width) = (self.heads.shared(), self.heads.width);
        let keys = prefix + block.end;
        let mut scores = vec![0.0; block.len() * shared * keys];
        let q = &task.q[block.start * shared * width..block.end * shared * width];
        let k = Matrix::new(&task.k_turned, task.k.len() / width).left(keys);
        product((&mut scores, Store::Fresh), (Matrix::new(q, width), k), 1.0, false)?;
        for (i, row) in scores.chunks_exact_mut(keys).enumerate() {
            let (visible, hidden) = row.split_at_mut(prefix + block.start + i / shared + 1);
            softmax(visible);
            hidden.fill(0.0);
        }
        Ok(scores)
    }

    /// Attended values of one task: rows × shared × width.
    fn forward(&self, span: &Span, task: &Task) -> Result<Vec<f32>> {
        let (columns, width) = (self.heads.shared() * self.heads.width, self.heads.width);
        let mut out = vec![0.0; task.q.len()];
        for block in blocks(span.rows.len()) {
            let p = self.probabilities(task, span.before(), &block)?;
            let keys = span.before() + block.end;
            let v = Matrix::new(&task.v, width).head(keys);
            let target = &mut out[block.start * columns..block.end * columns];
            product((target, Store::Fresh), (Matrix::new(&p, keys), v), 1.0, false)?;
        }
        Ok(out)
    }

    /// Gradients of one task (rotated, q scaled) from `grad` (rows × shared × width).
    fn backward(&self, span: &Span, task: &Task, grad: &[f32]) -> Result<Gradients> {
        let (columns, width) = (self.heads.shared() * self.heads.width, self.heads.width);
        let zeros = |like: &[f32]| vec![0.0; like.len()];
        let mut out = Gradients { q: zeros(&task.q), k: zeros(&task.k), v: zeros(&task.v) };
        let v_turned = transposed(&task.v, width);
        for block in blocks(span.rows.len()) {
            let at = block.start * columns..block.end * columns;
            let (q, grad) = (Matrix::new(&task.q[at.clone()], width), Matrix::new(&grad[at.clone()], width));
            let keys = span.before() + block.end;
            let p = self.probabilities(task, span.before(), &block)?;
            let mut d_s = vec![0.0; p.len()];
            let v = Matrix::new(&v_turned, task.v.len() / width).left(keys);
            product((&mut d_s, Store::Fresh), (grad, v), 1.0, false)?;
            softmax_backward(&p, &mut d_s, keys);
            let (p, s) = (Matrix::new(&p, keys), Matrix::new(&d_s, keys));
            product((&mut out.v[..keys * width], Store::Sum), (p.transposed(), grad), 1.0, false)?;
            product((&mut out.k[..keys * width], Store::Sum), (s.transposed(), q), 1.0, false)?;
            let k = Matrix::new(&task.k, width).head(keys);
            product((&mut out.q[at], Store::Fresh), (s, k), 1.0, false)?;
        }
        Ok(out)
    }

    fn gradients(&self, (q, k, v): Inputs<'_>, grad: &[f32]) -> Result<[Vec<f32>; 3]> {
        let width = self.heads.width;
        let scale = (width as f32).sqrt().recip();
        let parts = self.parts();
        let done: Vec<Gradients> = parts
            .par_iter()
            .map(|(span, head)| {
                let rows = span.rows.clone().flat_map(|row| grad[self.query_at(row, *head)].iter().copied());
                let mut found =
                    self.backward(span, &self.gather(span, *head, (q, k, v)), &rows.collect::<Vec<_>>())?;
                let columns = self.heads.shared() * width;
                for (row, part) in span.rows.clone().zip(found.q.chunks_exact_mut(columns)) {
                    part.chunks_exact_mut(width).for_each(|part| self.rotation.backward(row, part));
                    part.iter_mut().for_each(|value| *value *= scale);
                }
                for (row, part) in span.keys().zip(found.k.chunks_exact_mut(width)) {
                    self.rotation.backward(row, part);
                }
                Ok(found)
            })
            .collect::<Result<_>>()?;
        let (mut d_q, mut d_k, mut d_v) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
        for ((span, head), found) in parts.into_iter().zip(done) {
            for (row, part) in span.rows.clone().zip(found.q.chunks_exact(self.heads.shared() * width)) {
                d_q[self.query_at(row, head)].copy_from_slice(part);
            }
            // A prefix's keys are seen by several spans: their gradients add up, always in the same order.
            let both = found.k.chunks_exact(width).zip(found.v.chunks_exact(width));
            for (row, (k, v)) in span.keys().zip(both) {
                add(&mut d_k[self.key_at(row, head)], k);
                add(&mut d_v[self.key_at(row, head)], v);
            }
        }
        Ok([d_q, d_k, d_v])
    }

    /// Attended values, rows × query·width.
    pub(crate) fn run(&self, inputs: Inputs<'_>) -> Result<Vec<f32>> {
        let parts = self.parts();
        let done: Vec<Vec<f32>> = parts
            .par_iter()
            .map(|(span, head)| self.forward(span, &self.gather(span, *head, inputs)))
            .collect::<Result<_>>()?;
        let mut out = vec![0.0; inputs.0.len()];
        let columns = self.heads.shared() * self.heads.width;
        for ((span, head), found) in parts.into_iter().zip(done) {
            for (row, part) in span.rows.clone().zip(found.chunks_exact(columns)) {
                out[self.query_at(row, head)].copy_from_slice(part);
            }
        }
        Ok(out)
    }
}

/// Turns the gradient of probabilities into that of scores, in place: p · (g − Σ p g).
fn softmax_backward(p: &[f32], grad: &mut [f32], columns: usize) {
    for (p, grad) in p.chunks_exact(columns).zip(grad.chunks_exact_mut(columns)) {
        let mean = super::kernel::dot(p, grad);
        for (grad, p) in grad.iter_mut().zip(p) {
            *grad = p * (*grad - mean);
        }
    }
}

fn blocks(rows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows).step_by(BLOCK).map(move |start| start..rows.min(start + BLOCK))
}

fn add(target: &mut [f32], source: &[f32]) {
    for (target, source) in target.iter_mut().zip(source) {
        *target += source;
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let q = values(q, q_layout)?;
        let out = self.run((q, values(k, k_layout)?, values(v, v_layout)?))?;
        Ok((CpuStorage::F32(out), q_layout.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradients =
            with_values([q, k, v, grad], |[q_, k_, v_, grad]| self.gradients((q_, k_, v_), grad))?;
        let [d_q, d_k, d_v] = gradients;
        let tensor = |data, like: &Tensor| Tensor::from_vec(data, like.shape(), like.device()).map(Some);
        Ok((tensor(d_q, q)?, tensor(d_k, k)?, tensor(d_v, v)?))
    }
}
