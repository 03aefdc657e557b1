//! Tensors in the memory of a device.

use std::borrow::Cow;

use anyhow::{Context, Result, ensure};
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};

use super::device::{Device, Runtime};
use super::session::{commit, environment};
use crate::onnx::{DataType, Graph};
use crate::shape;

/// The memory of a device.
pub struct Memory {
    allocator: Allocator,
    /// On a GPU an allocator is a session's.
    _session: Option<ort::session::Session>,
}

/// Numbers in the memory of a device.
pub struct Tensor(ort::value::Tensor<f32>);

/// How ONNX Runtime describes the memory of a device.
pub(super) fn info(device: &Device) -> Result<MemoryInfo<'static>> {
    match device {
        Device::Cpu => host(),
        Device::Cuda { number, .. } => {
            let number = i32::try_from(*number)?;
            MemoryInfo::new(AllocationDevice::CUDA, number, AllocatorType::Device, MemoryType::Default)
                .context("ONNX Runtime has no CUDA memory")
        }
    }
}

/// How ONNX Runtime describes the memory of the processor.
pub(super) fn host() -> Result<MemoryInfo<'static>> {
    MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default)
        .context("ONNX Runtime has no CPU memory")
}

impl Memory {
    /// The memory of the device of `runtime`.
    ///
    /// # Errors
    /// ONNX Runtime cannot be loaded, or cannot use the device.
    pub fn of(runtime: &Runtime) -> Result<Self> {
        if runtime.device == Device::Cpu {
            environment(&runtime.downloads)?;
            return Ok(Memory { allocator: Allocator::default(), _session: None });
        }
        let g = Graph::new();
        let nothing = g.input("nothing", DataType::F32, shape![1]);
        g.output("same", nothing);
        let session = commit(&g.to_model()?, runtime)?;
        let allocator = Allocator::new(&session, info(&runtime.device)?).context("ONNX Runtime has no memory on the GPU")?;
        Ok(Memory { allocator, _session: Some(session) })
    }

    /// A tensor with a copy of `data`, or of zeros.
    ///
    /// # Errors
    /// There is not enough memory.
    pub fn tensor(&self, shape: &[usize], data: Option<&[f32]>) -> Result<Tensor> {
        let tensor = ort::value::Tensor::<f32>::new(&self.allocator, shape.to_vec());
        let size: usize = shape.iter().product();
        let mut tensor = Tensor(tensor.with_context(|| format!("{} MB of memory are not to be had", (size * 4) >> 20))?);
        match data {
            Some(data) => tensor.write(data)?,
            None => tensor.write(&vec![0.0; size])?,
        }
        Ok(tensor)
    }
}

impl Tensor {
    pub(super) fn inner(&self) -> &ort::value::Tensor<f32> {
        &self.0
    }

    pub(super) fn inner_mut(&mut self) -> &mut ort::value::Tensor<f32> {
        &mut self.0
    }

    /// The elements, when they lie in the memory of the processor.
    pub fn slice(&self) -> Option<&[f32]> {
        self.0.try_extract_tensor().ok().map(|(_, data)| data)
    }

    /// The elements, to be changed, when they lie in the memory of the processor.
    pub fn slice_mut(&mut self) -> Option<&mut [f32]> {
        self.0.try_extract_tensor_mut().ok().map(|(_, data)| data)
    }

    /// The elements, copied when they lie elsewhere.
    ///
    /// # Errors
    /// The device does not answer.
    pub fn read(&self) -> Result<Cow<'_, [f32]>> {
        if let Some(data) = self.slice() {
            return Ok(Cow::Borrowed(data));
        }
        let copy = self.0.to(AllocationDevice::CPU, 0).context("a tensor cannot be copied from the GPU")?;
        Ok(Cow::Owned(copy.try_extract_tensor().context("a copy from the GPU cannot be read")?.1.to_vec()))
    }

    /// Puts `data` in place of the elements.
    ///
    /// # Errors
    /// It has another number of elements, or the device does not answer.
    pub fn write(&mut self, data: &[f32]) -> Result<()> {
        let shape: Vec<usize> = self.0.shape().iter().map(|&size| size.max(0) as usize).collect();
        ensure!(shape.iter().product::<usize>() == data.len(), "{} numbers do not fit a tensor of shape {shape:?}", data.len());
        if let Some(own) = self.slice_mut() {
            own.copy_from_slice(data);
            return Ok(());
        }
        let source = ort::value::Tensor::from_array((shape, data.to_vec())).context("there is not enough memory")?;
        source.copy_into(&mut self.0).context("a tensor cannot be copied to the GPU")
    }
}
