//! How are the numbers inside candle's tensors reached without copying them?

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, bail};

/// The values of a contiguous f32 storage.
///
/// # Errors
/// When it is of another dtype or not contiguous.
pub(crate) fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(data), Some((start, end))) => Ok(&data[start..end]),
        _ => bail!("fused operations take contiguous f32 tensors, this one is {:?}", layout.shape()),
    }
}

/// Calls `f` with the values of these tensors, which must be f32, on the CPU; others than contiguous ones are copied.
///
/// # Errors
/// When a tensor is elsewhere or of another dtype, or `f` fails.
pub(crate) fn with_values<const N: usize, T>(
    tensors: [&Tensor; N],
    f: impl FnOnce([&[f32]; N]) -> Result<T>,
) -> Result<T> {
    let contiguous: Vec<Tensor> = tensors.iter().map(|tensor| tensor.contiguous()).collect::<Result<_>>()?;
    let guards: Vec<_> = contiguous.iter().map(Tensor::storage_and_layout).collect();
    let mut slices = [[].as_slice(); N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&guards) {
        *slice = match &**storage {
            Storage::Cpu(storage) => values(storage, layout)?,
            _ => bail!("fused operations run on the CPU"),
        };
    }
    f(slices)
}
