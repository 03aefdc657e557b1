//! The loops that training and encoding spend their time in, on the processor: matrix products of bf16 or fp32 numbers, attention over texts that
//! lie end to end, layer normalisation, GELU, dropout, sums of rows and AdamW.
//!
//! Everything works on row-major slices of `f32`. Where the processor has them, AMX, AVX-512 or AVX2 are used, found at run time
//! ([`Isa`]); plain Rust elsewhere. Work is spread over a [`Pool`]; results do not depend on its number of threads.
//!
//! Lengths of slices that do not fit each other are a mistake of the caller: functions panic.

pub mod adamw;
#[cfg(target_arch = "x86_64")]
mod amx;
pub mod attention;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod dropout;
pub mod gelu;
pub mod gemm;
mod isa;
mod math;
mod matrix;
mod micro;
pub mod norm;
mod pool;
mod rows;
mod simd;
#[cfg(test)]
mod testing;
mod tile;

pub use dropout::{Dropout, dropout};
pub use isa::Isa;
pub use matrix::{Matrix, Numbers, NumbersMut};
pub use pool::{Pool, Serial, Threads};
pub use rows::add_rows;
pub use tile::Precision;
