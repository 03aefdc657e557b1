//! Finding and loading ONNX Runtime, sessions, bindings.

pub mod cache;
pub mod library;
pub mod session;
#[cfg(test)]
pub(crate) mod testing;
pub mod trainable;
