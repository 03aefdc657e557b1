//! Model directories: configuration, weights, tokenizer, pooling; encoder architectures; sources; export.

pub mod embedder;
