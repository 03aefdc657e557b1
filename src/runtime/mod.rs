//! What lies between this program and the machine: ONNX Runtime, sessions and bindings, packages, downloads.

pub mod cache;
pub mod cuda;
pub mod device;
pub mod files;
pub mod http;
pub mod library;
pub mod memory;
mod operators;
pub mod package;
pub mod precision;
pub mod retry;
pub mod session;
pub mod tensors;
#[cfg(test)]
pub(crate) mod testing;
pub mod trainable;

pub use device::Runtime;
