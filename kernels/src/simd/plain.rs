//! Vectors in plain Rust.

use super::{Vector, Words};
use crate::math::bf16;

/// Plain Rust.
#[derive(Clone, Copy)]
pub(crate) struct Plain([f32; 16]);

#[derive(Clone, Copy)]
pub(crate) struct PlainWords([u32; 16]);

impl Plain {
    #[inline(always)]
    fn with(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Plain(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl Vector for Plain {
    type Words = PlainWords;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        Plain([x; 16])
    }

    #[inline(always)]
    fn load(from: &[f32; 16]) -> Self {
        Plain(*from)
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; 16]) {
        *to = self.0;
    }

    #[inline(always)]
    fn load_bf16(from: &[u16; 16]) -> Self {
        Plain(from.map(|x| f32::from_bits(u32::from(x) << 16)))
    }

    #[inline(always)]
    fn store_bf16(self, to: &mut [u16; 16]) {
        *to = self.0.map(bf16);
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.with(other, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.with(other, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.with(other, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.with(other, |a, b| a / b)
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        Plain(self.0.map(f32::sqrt))
    }

    #[inline(always)]
    fn fma(self, a: Self, b: Self) -> Self {
        let fused = cfg!(target_arch = "aarch64");
        let one = |i: usize| if fused { self.0[i].mul_add(a.0[i], b.0[i]) } else { self.0[i] * a.0[i] + b.0[i] };
        Plain(std::array::from_fn(one))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.with(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.with(other, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn select_below(self, other: Self, yes: Self, no: Self) -> Self {
        Plain(std::array::from_fn(|i| if self.0[i] < other.0[i] { yes.0[i] } else { no.0[i] }))
    }

    #[inline(always)]
    fn fraction(self) -> Self {
        Plain(self.0.map(|x| {
            // Infinities become whole numbers.
            let x = x.clamp(-8_388_608.0, 8_388_608.0);
            x - floor(x)
        }))
    }

    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        // In two factors, each of which is a normal number.
        let power = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
        self.with(n, |x, n| {
            let n = floor(n.clamp(-151.0, 128.0)) as i32;
            x * power(n >> 1) * power(n - (n >> 1))
        })
    }
}

/// ⌊x⌋ of numbers that are not great, without a call where the processor has no instruction for it.
#[inline(always)]
fn floor(x: f32) -> f32 {
    let whole = x as i32 as f32;
    if whole > x { whole - 1.0 } else { whole }
}

impl Words for PlainWords {
    type Floats = Plain;

    #[inline(always)]
    fn load(from: &[u32; 16]) -> Self {
        PlainWords(*from)
    }

    #[inline(always)]
    fn count(start: u32) -> Self {
        PlainWords(std::array::from_fn(|i| start.wrapping_add(i as u32)))
    }

    #[inline(always)]
    fn splat(x: u32) -> Self {
        PlainWords([x; 16])
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        PlainWords(std::array::from_fn(|i| self.0[i].wrapping_add(other.0[i])))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        PlainWords(std::array::from_fn(|i| self.0[i].wrapping_mul(other.0[i])))
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        PlainWords(std::array::from_fn(|i| self.0[i] ^ other.0[i]))
    }

    #[inline(always)]
    fn shift_right<const N: u32>(self) -> Self {
        PlainWords(self.0.map(|x| x >> N))
    }

    #[inline(always)]
    fn select_reaches(self, other: Self, yes: Plain, no: Plain) -> Plain {
        Plain(std::array::from_fn(|i| if self.0[i] >= other.0[i] { yes.0[i] } else { no.0[i] }))
    }
}
