//! Sixteen numbers side by side: the vocabulary that kernels are written in once, for every instruction set.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod plain;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use plain::Plain;

use crate::math::bf16;

/// Sixteen fp32 numbers.
///
/// Methods of the vector types of an instruction set must only run where the processor has it: `versions!` sees to that.
pub(crate) trait Vector: Copy {
    type Words: Words<Floats = Self>;

    fn splat(x: f32) -> Self;
    fn load(from: &[f32; 16]) -> Self;
    fn store(self, to: &mut [f32; 16]);
    /// [`Vector::store`] past the caches, where that can be: for what is not read soon. A fence must follow.
    #[inline(always)]
    fn stream(self, to: &mut [f32; 16]) {
        self.store(to);
    }
    fn load_bf16(from: &[u16; 16]) -> Self;
    /// Rounded to nearest, ties to even; NaN stays NaN.
    fn store_bf16(self, to: &mut [u16; 16]);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    /// [`Vector::div`], off by a few units in the last place where an exact division is slow. `by` is a number from 2⁻¹²⁰ to 2¹²⁰.
    #[inline(always)]
    fn div_about(self, by: Self) -> Self {
        self.div(by)
    }
    fn sqrt(self) -> Self;
    /// `self · a + b`, in one rounding where it is one instruction.
    fn fma(self, a: Self, b: Self) -> Self;
    /// The greater one; `other` if either is NaN.
    fn max(self, other: Self) -> Self;
    /// The smaller one; `other` if either is NaN.
    fn min(self, other: Self) -> Self;
    /// `yes` where `self < other`, `no` elsewhere.
    fn select_below(self, other: Self, yes: Self, no: Self) -> Self;
    /// `self − ⌊self⌋`; 0 of infinities.
    fn fraction(self) -> Self;
    /// `self · 2ⁿ`, n rounded down, for numbers from ½ to 2 and NaN: 0 or infinity where that is beyond the numbers there are.
    fn scale(self, n: Self) -> Self;
    /// Writes words of two bf16 numbers each, those of `low`, then those of `high`, rounded as [`bf16`] does it or with denormal numbers as 0.
    #[inline(always)]
    fn store_beside(low: Self, high: Self, to: &mut [u32; 16]) {
        beside(low.array(), high.array(), to);
    }
    /// Likewise, each word having a number of `first` and one of `second`.
    #[inline(always)]
    fn store_below(first: Self, second: Self, to: &mut [u32; 16]) {
        below(first.array(), second.array(), to);
    }

    #[inline(always)]
    fn zero() -> Self {
        Self::splat(0.0)
    }

    #[inline(always)]
    fn array(self) -> [f32; 16] {
        let mut out = [0.0; 16];
        self.store(&mut out);
        out
    }

    #[inline(always)]
    fn abs(self) -> Self {
        self.max(Self::zero().sub(self))
    }

    /// Of all lanes, in a fixed order.
    #[inline(always)]
    fn sum(self) -> f32 {
        fold(self.array(), |a, b| a + b)
    }

    /// The numbers of a slice of at most 16, then zeros.
    #[inline(always)]
    fn load_some(from: &[f32]) -> Self {
        match from.first_chunk() {
            Some(all) => Self::load(all),
            None => {
                let mut all = [0.0; 16];
                all[..from.len()].copy_from_slice(from);
                Self::load(&all)
            }
        }
    }

    /// As many numbers as the slice has, of at most 16.
    #[inline(always)]
    fn store_some(self, to: &mut [f32]) {
        match to.first_chunk_mut() {
            Some(all) => self.store(all),
            None => to.copy_from_slice(&self.array()[..to.len()]),
        }
    }

    /// [`Vector::load_some`] of bf16 numbers.
    #[inline(always)]
    fn load_some_bf16(from: &[u16]) -> Self {
        match from.first_chunk() {
            Some(all) => Self::load_bf16(all),
            None => {
                let mut all = [0; 16];
                all[..from.len()].copy_from_slice(from);
                Self::load_bf16(&all)
            }
        }
    }

    /// [`Vector::store_some`] as bf16 numbers.
    #[inline(always)]
    fn store_some_bf16(self, to: &mut [u16]) {
        match to.first_chunk_mut() {
            Some(all) => self.store_bf16(all),
            None => {
                let mut all = [0; 16];
                self.store_bf16(&mut all);
                to.copy_from_slice(&all[..to.len()]);
            }
        }
    }
}

/// The word of two numbers that follow each other along the sum.
#[inline(always)]
pub(crate) fn pair(first: f32, second: f32) -> u32 {
    u32::from(bf16(first)) | u32::from(bf16(second)) << 16
}

#[inline(always)]
fn beside(low: [f32; 16], high: [f32; 16], to: &mut [u32; 16]) {
    let number = |i: usize| if i < 16 { low[i] } else { high[i - 16] };
    *to = std::array::from_fn(|i| pair(number(2 * i), number(2 * i + 1)));
}

#[inline(always)]
fn below(first: [f32; 16], second: [f32; 16], to: &mut [u32; 16]) {
    *to = std::array::from_fn(|i| pair(first[i], second[i]));
}

/// Halves again and again.
#[inline(always)]
fn fold(x: [f32; 16], f: impl Fn(f32, f32) -> f32) -> f32 {
    let a: [f32; 8] = std::array::from_fn(|i| f(x[i], x[i + 8]));
    let b: [f32; 4] = std::array::from_fn(|i| f(a[i], a[i + 4]));
    f(f(b[0], b[2]), f(b[1], b[3]))
}

/// Sixteen words of 32 bits; sums and products wrap.
pub(crate) trait Words: Copy {
    type Floats;

    fn load(from: &[u32; 16]) -> Self;
    /// start, start + 1, …
    fn count(start: u32) -> Self;
    fn splat(x: u32) -> Self;
    fn add(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn xor(self, other: Self) -> Self;
    fn shift_right<const N: u32>(self) -> Self;
    /// `no` where `self < other`, `yes` elsewhere.
    fn select_reaches(self, other: Self, yes: Self::Floats, no: Self::Floats) -> Self::Floats;
}
