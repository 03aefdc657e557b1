//! Vectors in two AVX2 registers.

use std::arch::x86_64::*;

use super::{Vector, Words};
use crate::math::bf16;

/// AVX2 with FMA: two registers.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256, __m256);

#[derive(Clone, Copy)]
pub(crate) struct Avx2Words(__m256i, __m256i);

/// A method that is one instruction, once for each half. SAFETY of all of them: the trait's promise is that the processor has it.
macro_rules! halves {
    ($($name:ident($($other:ident),*) = $instruction:ident;)*) => {
        $(#[inline(always)]
        fn $name(self, $($other: Self),*) -> Self {
            // SAFETY: see `halves`.
            unsafe { Self($instruction(self.0, $($other.0),*), $instruction(self.1, $($other.1),*)) }
        })*
    };
}

impl Vector for Avx2 {
    type Words = Avx2Words;

    halves! {
        add(other) = _mm256_add_ps;
        sub(other) = _mm256_sub_ps;
        mul(other) = _mm256_mul_ps;
        div(other) = _mm256_div_ps;
        sqrt() = _mm256_sqrt_ps;
        fma(a, b) = _mm256_fmadd_ps;
        max(other) = _mm256_max_ps;
        min(other) = _mm256_min_ps;
    }

    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: see `halves`.
        let x = unsafe { _mm256_set1_ps(x) };
        Avx2(x, x)
    }

    #[inline(always)]
    fn load(from: &[f32; 16]) -> Self {
        // SAFETY: see `halves`; 16 numbers are read from an array of 16.
        unsafe { Avx2(_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))) }
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; 16]) {
        // SAFETY: see `halves`; 16 numbers are written to an array of 16.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), self.0);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), self.1);
        }
    }

    #[inline(always)]
    fn load_bf16(from: &[u16; 16]) -> Self {
        Self::load(&from.map(|x| f32::from_bits(u32::from(x) << 16)))
    }

    #[inline(always)]
    fn store_bf16(self, to: &mut [u16; 16]) {
        *to = self.array().map(bf16);
    }

    #[inline(always)]
    fn select_below(self, other: Self, yes: Self, no: Self) -> Self {
        // SAFETY: see `halves`.
        unsafe {
            let (a, b) = (_mm256_cmp_ps::<_CMP_LT_OQ>(self.0, other.0), _mm256_cmp_ps::<_CMP_LT_OQ>(self.1, other.1));
            Avx2(_mm256_blendv_ps(no.0, yes.0, a), _mm256_blendv_ps(no.1, yes.1, b))
        }
    }

    #[inline(always)]
    fn fraction(self) -> Self {
        let half = |x: __m256| {
            // SAFETY: see `halves`. Infinities become whole numbers; NaN stays, as it is the second argument.
            unsafe {
                let x = _mm256_min_ps(_mm256_set1_ps(8_388_608.0), _mm256_max_ps(_mm256_set1_ps(-8_388_608.0), x));
                _mm256_sub_ps(x, _mm256_floor_ps(x))
            }
        };
        Avx2(half(self.0), half(self.1))
    }

    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        let half = |x: __m256, n: __m256| {
            // SAFETY: see `halves`. In two factors, each of which is a normal number.
            unsafe {
                let n = _mm256_max_ps(_mm256_min_ps(n, _mm256_set1_ps(128.0)), _mm256_set1_ps(-151.0));
                let n = _mm256_cvtps_epi32(_mm256_floor_ps(n));
                let first = _mm256_srai_epi32::<1>(n);
                let bias = _mm256_set1_epi32(127);
                let power = |n| _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, bias)));
                _mm256_mul_ps(_mm256_mul_ps(x, power(first)), power(_mm256_sub_epi32(n, first)))
            }
        };
        Avx2(half(self.0, n.0), half(self.1, n.1))
    }
}

impl Words for Avx2Words {
    type Floats = Avx2;

    #[inline(always)]
    fn load(from: &[u32; 16]) -> Self {
        // SAFETY: see `halves`; 16 words are read from an array of 16.
        unsafe { Avx2Words(_mm256_loadu_si256(from.as_ptr().cast()), _mm256_loadu_si256(from.as_ptr().add(8).cast())) }
    }

    halves! {
        add(other) = _mm256_add_epi32;
        mul(other) = _mm256_mullo_epi32;
        xor(other) = _mm256_xor_si256;
    }

    #[inline(always)]
    fn count(start: u32) -> Self {
        // SAFETY: see `halves`.
        let order =
            unsafe { Avx2Words(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15)) };
        Self::splat(start).add(order)
    }

    #[inline(always)]
    fn splat(x: u32) -> Self {
        // SAFETY: see `halves`.
        let x = unsafe { _mm256_set1_epi32(x as i32) };
        Avx2Words(x, x)
    }

    #[inline(always)]
    fn shift_right<const N: u32>(self) -> Self {
        // SAFETY: see `halves`; N is below 32.
        unsafe {
            let count = _mm_cvtsi32_si128(N as i32);
            Avx2Words(_mm256_srl_epi32(self.0, count), _mm256_srl_epi32(self.1, count))
        }
    }

    #[inline(always)]
    fn select_reaches(self, other: Self, yes: Avx2, no: Avx2) -> Avx2 {
        let half = |a: __m256i, b: __m256i, yes: __m256, no: __m256| {
            // SAFETY: see `halves`. a ≥ b where the greater of both is a.
            unsafe { _mm256_blendv_ps(no, yes, _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_max_epu32(a, b), a))) }
        };
        Avx2(half(self.0, other.0, yes.0, no.0), half(self.1, other.1, yes.1, no.1))
    }
}
