//! Finding and loading ONNX Runtime, sessions, bindings.

pub mod library;
