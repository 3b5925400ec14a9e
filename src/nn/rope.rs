//! How does a token's position enter? Rotary embeddings (arXiv:2104.09864), in either layout of the pairs.

/// Which two values of a head turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// Neighbours 2i and 2i+1: GGUF files of the Llama family.
    Neighbours,
    /// i and i + width/2: GGUF files of the Qwen family, and safetensors.
    Halves,
}

/// Angles per position.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f32,
    /// Width of a head; even.
    pub width: usize,
    /// Divides each frequency (width / 2 values); empty for none.
    pub factors: Vec<f32>,
    /// Which values turn together.
    pub pairing: Pairing,
}

/// Cosines and sines of the rows of one batch.
#[derive(Debug, Clone)]
pub(crate) struct Rotation {
    half: usize,
    pairing: Pairing,
    /// Rows × half.
    cos: Vec<f32>,
    /// Rows × half.
    sin: Vec<f32>,
}

impl Rope {
    /// The rotations of rows at these positions.
    pub(crate) fn at(&self, positions: &[u32]) -> Rotation {
        let half = self.width / 2;
        let frequency = |i: usize| {
            let frequency = self.theta.powf(-2.0 * i as f32 / self.width as f32);
            frequency / self.factors.get(i).copied().unwrap_or(1.0)
        };
        let frequencies: Vec<f32> = (0..half).map(frequency).collect();
        let angles = positions.iter().flat_map(|&at| frequencies.iter().map(move |f| at as f32 * f));
        let (sin, cos) = angles.map(f32::sin_cos).unzip();
        Rotation { half, pairing: self.pairing, cos, sin }
    }
}

impl Rotation {
    /// Turns one head of one row in place.
    pub(crate) fn forward(&self, row: usize, head: &mut [f32]) {
        self.turn(row, head, 1.0);
    }

    /// Turns it back: the gradient, since a rotation's transpose is its inverse.
    pub(crate) fn backward(&self, row: usize, head: &mut [f32]) {
        self.turn(row, head, -1.0);
    }

    fn turn(&self, row: usize, head: &mut [f32], sign: f32) {
        let (cos, sin) =
            (&self.cos[row * self.half..][..self.half], &self.sin[row * self.half..][..self.half]);
        match self.pairing {
            Pairing::Neighbours => {
                for ((pair, c), s) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
                    let (a, b) = (pair[0], pair[1]);
                    pair[0] = a * c - b * s * sign;
                    pair[1] = b * c + a * s * sign;
                }
            }
            Pairing::Halves => {
                let (first, second) = head.split_at_mut(self.half);
                for (((a, b), c), s) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                    let (old_a, old_b) = (*a, *b);
                    *a = old_a * c - old_b * s * sign;
                    *b = old_b * c + old_a * s * sign;
                }
            }
        }
    }
}
