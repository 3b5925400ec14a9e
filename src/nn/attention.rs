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
pub struct Span {
    /// Rows of the batch.
    pub rows: Range<usize>,
    /// Rows of the same group that every row of this span sees: the shared prompt.
    pub prefix: Range<usize>,
}

/// Rows that have to do only with each other: a prompt and its completions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Rows of the batch.
    pub rows: Range<usize>,
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

/// One key head's share of one group, gathered into contiguous memory and rotated.
struct Task {
    /// Rows × shared × width, scaled by 1/√width.
    q: Vec<f32>,
    /// Rows × width.
    k: Vec<f32>,
    /// Rows × width.
    v: Vec<f32>,
}

/// Keys and values that one span sees: prefix, then itself.
struct Seen {
    /// Keys × width.
    k: Vec<f32>,
    v: Vec<f32>,
    /// Width × keys: the matrix product packs this order faster.
    k_turned: Vec<f32>,
    prefix: usize,
}

impl Attention {
    fn tasks(&self) -> Vec<(&Group, usize)> {
        self.groups.iter().flat_map(|group| (0..self.heads.key).map(move |head| (group, head))).collect()
    }

    fn gather(&self, group: &Group, head: usize, (q, k, v): (&[f32], &[f32], &[f32])) -> Task {
        let Heads { query, key, width } = self.heads;
        let shared = self.heads.shared();
        let scale = (width as f32).sqrt().recip();
        let rows = group.rows.len();
        let mut task = Task {
            q: Vec::with_capacity(rows * shared * width),
            k: Vec::with_capacity(rows * width),
            v: Vec::with_capacity(rows * width),
        };
        for row in group.rows.clone() {
            let q_at = (row * query + head * shared) * width;
            let start = task.q.len();
            task.q.extend(q[q_at..q_at + shared * width].iter().map(|value| value * scale));
            for part in task.q[start..].chunks_exact_mut(width) {
                self.rotation.forward(row, part);
            }
            let at = (row * key + head) * width;
            let start = task.k.len();
            task.k.extend_from_slice(&k[at..at + width]);
            self.rotation.forward(row, &mut task.k[start..]);
            task.v.extend_from_slice(&v[at..at + width]);
        }
        task
    }

    fn seen(&self, group: &Group, span: &Span, task: &Task) -> Seen {
        let width = self.heads.width;
        let local = |rows: &Range<usize>| {
            (rows.start - group.rows.start) * width..(rows.end - group.rows.start) * width
        };
        let join = |values: &[f32]| {
            let prefix = if span.prefix.is_empty() { 0..0 } else { local(&span.prefix) };
            [&values[prefix], &values[local(&span.rows)]].concat()
        };
        let k = join(&task.k);
        Seen { k_turned: transposed(&k, width), k, v: join(&task.v), prefix: span.prefix.len() }
    }

    /// Probabilities of the query rows `block` of a span (shared heads within rows) over the keys up to its end.
    fn probabilities(&self, q: &[f32], seen: &Seen, block: &Range<usize>) -> Result<Vec<f32>> {
        let (shared, width) = (self.heads.shared(), self.heads.width);
        let keys = seen.prefix + block.end;
        let mut scores = vec![0.0; block.len() * shared * keys];
        let k = Matrix::new(&seen.k_turned, seen.k.len() / width).left(keys);
        product((&mut scores, Store::Fresh), (Matrix::new(q, width), k), 1.0, false)?;
        for (i, row) in scores.chunks_exact_mut(keys).enumerate() {
            let (visible, hidden) = row.split_at_mut(seen.prefix + block.start + i / shared + 1);
            softmax(visible);
            hidden.fill(0.0);
        }
        Ok(scores)
    }

    /// Rows × shared × width of one task.
    fn forward(&self, group: &Group, task: &Task) -> Result<Vec<f32>> {
        let (shared, width) = (self.heads.shared(), self.heads.width);
        let mut out = vec![0.0; task.q.len()];
        for span in &group.spans {
            let seen = self.seen(group, span, task);
            for block in blocks(span.rows.len()) {
                let at = self.local(group, span, &block, shared * width);
                let p = self.probabilities(&task.q[at.clone()], &seen, &block)?;
                let keys = seen.prefix + block.end;
                let v = Matrix::new(&seen.v, width).head(keys);
                product((&mut out[at], Store::Fresh), (Matrix::new(&p, keys), v), 1.0, false)?;
            }
        }
        Ok(out)
    }

    fn local(
        &self,
        group: &Group,
        span: &Span,
        block: &Range<usize>,
        columns: usize,
    ) -> Range<usize> {
        let first = span.rows.start - group.rows.start;
        (first + block.start) * columns..(first + block.end) * columns
    }

    /// Gradients of one task's q, k and v (rotated, q scaled) from `grad` (rows × shared × width).
    fn backward(&self, group: &Group, task: &Task, grad: &[f32]) -> Result<Task> {
        let (shared, width) = (self.heads.shared(), self.heads.width);
        let mut out = Task {
            q: vec![0.0; task.q.len()],
            k: vec![0.0; task.k.len()],
            v: vec![0.0; task.v.len()],
        };
        for span in &group.spans {
            let seen = self.seen(group, span, task);
            let v_turned = transposed(&seen.v, width);
            let (mut d_k, mut d_v) = (vec![0.0; seen.k.len()], vec![0.0; seen.v.len()]);
            for block in blocks(span.rows.len()) {
                let at = self.local(group, span, &block, shared * width);
                let q = &task.q[at.clone()];
                let (grad, keys) = (&grad[at.clone()], seen.prefix + block.end);
                let p = self.probabilities(q, &seen, &block)?;
                let mut d_s = vec![0.0; p.len()];
                let v = Matrix::new(&v_turned, seen.k.len() / width).left(keys);
                product((&mut d_s, Store::Fresh), (Matrix::new(grad, width), v), 1.0, false)?;
                softmax_backward(&p, &mut d_s, keys);
                let (p, s) = (Matrix::new(&p, keys), Matrix::new(&d_s, keys));
                let of_v = (&mut d_v[..keys * width], Store::Sum);
                product(of_v, (p.transposed(), Matrix::new(grad, width)), 1.0, false)?;
                let of_k = (&mut d_k[..keys * width], Store::Sum);
                product(of_k, (s.transposed(), Matrix::new(q, width)), 1.0, false)?;
                let k = Matrix::new(&seen.k, width).head(keys);
                product((&mut out.q[at], Store::Fresh), (s, k), 1.0, false)?;
            }
            let own = (span.rows.start - group.rows.start) * width;
            let prefix = span.prefix.start.saturating_sub(group.rows.start) * width;
            for (target, source) in [(&mut out.k, &d_k), (&mut out.v, &d_v)] {
                let (of_prefix, of_span) = source.split_at(seen.prefix * width);
                add(&mut target[prefix..prefix + of_prefix.len()], of_prefix);
                add(&mut target[own..own + of_span.len()], of_span);
            }
        }
        Ok(out)
    }

    fn gradients(&self, (q, k, v): (&[f32], &[f32], &[f32]), grad: &[f32]) -> Result<[Vec<f32>; 3]> {
        let Heads { query, key, width } = self.heads;
        let shared = self.heads.shared();
        let scale = (width as f32).sqrt().recip();
        let tasks = self.tasks();
        let done: Vec<Task> = tasks
            .par_iter()
            .map(|(group, head)| {
                let task = self.gather(group, *head, (q, k, v));
                let local = group.rows.clone().flat_map(|row| {
                    let at = (row * query + head * shared) * width;
                    grad[at..at + shared * width].iter().copied()
                });
                self.backward(group, &task, &local.collect::<Vec<_>>())
            })
            .collect::<Result<_>>()?;
        let (mut d_q, mut d_k, mut d_v) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
        for ((group, head), mut task) in tasks.into_iter().zip(done) {
            for (i, row) in group.rows.clone().enumerate() {
                let part = &mut task.q[i * shared * width..(i + 1) * shared * width];
                for part in part.chunks_exact_mut(width) {
                    self.rotation.backward(row, part);
                    part.iter_mut().for_each(|value| *value *= scale);
                }
                let at = (row * query + head * shared) * width;
                d_q[at..at + shared * width].copy_from_slice(part);
                let part = &mut task.k[i * width..(i + 1) * width];
                self.rotation.backward(row, part);
                let at = (row * key + head) * width;
                d_k[at..at + width].copy_from_slice(part);
                d_v[at..at + width].copy_from_slice(&task.v[i * width..(i + 1) * width]);
            }
        }
        Ok([d_q, d_k, d_v])
    }

    /// Attended values, rows × query·width.
    pub(crate) fn run(&self, (q, k, v): (&[f32], &[f32], &[f32])) -> Result<Vec<f32>> {
        let Heads { query, width, .. } = self.heads;
        let shared = self.heads.shared();
        let tasks = self.tasks();
        let done: Vec<Vec<f32>> = tasks
            .par_iter()
            .map(|(group, head)| self.forward(group, &self.gather(group, *head, (q, k, v))))
            .collect::<Result<_>>()?;
        let mut out = vec![0.0; q.len()];
        for ((group, head), task) in tasks.into_iter().zip(done) {
            for (row, part) in group.rows.clone().zip(task.chunks_exact(shared * width)) {
                let at = (row * query + head * shared) * width;
                out[at..at + shared * width].copy_from_slice(part);
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
        let gradients = with_values([q, k, v, grad], |[q_, k_, v_, grad]| self.gradients((q_, k_, v_), grad))?;
        let [d_q, d_k, d_v] = gradients;
        let tensor = |data, like: &Tensor| Tensor::from_vec(data, like.shape(), like.device()).map(Some);
        Ok((tensor(d_q, q)?, tensor(d_k, k)?, tensor(d_v, v)?))
    }
}
