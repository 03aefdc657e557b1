//! Vectors in AVX-512 registers.

use std::arch::x86_64::*;

use super::{Vector, Words, below, beside};
use crate::avx512::{interleaved, words};

/// AVX-512, with its instructions for bf16 or without.
#[derive(Clone, Copy)]
pub(crate) struct Avx512<const BF16: bool>(__m512);

#[derive(Clone, Copy)]
pub(crate) struct Avx512Words<const BF16: bool>(__m512i);

/// A method that is one instruction. SAFETY of all of them: the trait's promise is that the processor has it.
macro_rules! wide {
    ($($name:ident($($other:ident),*) = $instruction:ident;)*) => {
        $(#[inline(always)]
        fn $name(self, $($other: Self),*) -> Self {
            // SAFETY: see the macro.
            Self(unsafe { $instruction(self.0, $($other.0),*) })
        })*
    };
}

/// The mask of the first `count` lanes, of at most 16.
#[inline(always)]
fn lanes(count: usize) -> u16 {
    ((1u32 << count.min(16)) - 1) as u16
}

impl<const BF16: bool> Avx512<BF16> {
    #[inline(always)]
    fn bf16(self) -> __m256i {
        // SAFETY: see `wide`.
        unsafe {
            if BF16 {
                return std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(self.0));
            }
            let bits = _mm512_castps_si512(self.0);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0);
            let quiet = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x40_0000));
            _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(quiet))
        }
    }
}

impl<const BF16: bool> Vector for Avx512<BF16> {
    type Words = Avx512Words<BF16>;

    wide! {
        add(other) = _mm512_add_ps;
        sub(other) = _mm512_sub_ps;
        mul(other) = _mm512_mul_ps;
        div(other) = _mm512_div_ps;
        sqrt() = _mm512_sqrt_ps;
        fma(a, b) = _mm512_fmadd_ps;
        max(other) = _mm512_max_ps;
        min(other) = _mm512_min_ps;
        scale(n) = _mm512_scalef_ps;
    }

    // Parts of vectors by masks: a call to copy them, however rare, would push what is in registers to the stack in every loop.

    #[inline(always)]
    fn load_some(from: &[f32]) -> Self {
        match from.first_chunk() {
            Some(all) => Self::load(all),
            // SAFETY: see `wide`; only as many numbers are read as there are.
            None => Avx512(unsafe { _mm512_maskz_loadu_ps(lanes(from.len()), from.as_ptr()) }),
        }
    }

    #[inline(always)]
    fn store_some(self, to: &mut [f32]) {
        match to.first_chunk_mut() {
            Some(all) => self.store(all),
            // SAFETY: see `wide`; only as many numbers are written as there are.
            None => unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), lanes(to.len()), self.0) },
        }
    }

    #[inline(always)]
    fn load_some_bf16(from: &[u16]) -> Self {
        match from.first_chunk() {
            Some(all) => Self::load_bf16(all),
            // SAFETY: see `wide`; only as many numbers are read as there are.
            None => unsafe {
                let halves = _mm256_maskz_loadu_epi16(lanes(from.len()), from.as_ptr().cast());
                Avx512(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves))))
            },
        }
    }

    #[inline(always)]
    fn store_some_bf16(self, to: &mut [u16]) {
        match to.first_chunk_mut() {
            Some(all) => self.store_bf16(all),
            // SAFETY: see `wide`; only as many numbers are written as there are.
            None => unsafe { _mm256_mask_storeu_epi16(to.as_mut_ptr().cast(), lanes(to.len()), self.bf16()) },
        }
    }

    #[inline(always)]
    fn div_about(self, by: Self) -> Self {
        // SAFETY: see `wide`.
        unsafe {
            // One step of Newton's doubles the 14 bits.
            let inverse = _mm512_rcp14_ps(by.0);
            let rest = _mm512_fnmadd_ps(by.0, inverse, _mm512_set1_ps(2.0));
            Avx512(_mm512_mul_ps(_mm512_mul_ps(self.0, inverse), rest))
        }
    }

    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: see `wide`.
        Avx512(unsafe { _mm512_set1_ps(x) })
    }

    #[inline(always)]
    fn load(from: &[f32; 16]) -> Self {
        // SAFETY: see `wide`; 16 numbers are read from an array of 16.
        Avx512(unsafe { _mm512_loadu_ps(from.as_ptr()) })
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; 16]) {
        // SAFETY: see `wide`; 16 numbers are written to an array of 16.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn stream(self, to: &mut [f32; 16]) {
        // SAFETY: see `wide`; 16 numbers are written to an array of 16, past the caches only where it is aligned for that.
        unsafe {
            if to.as_ptr().cast::<__m512>().is_aligned() {
                _mm512_stream_ps(to.as_mut_ptr(), self.0);
            } else {
                _mm512_storeu_ps(to.as_mut_ptr(), self.0);
            }
        }
    }

    #[inline(always)]
    fn load_bf16(from: &[u16; 16]) -> Self {
        // SAFETY: see `wide`; 16 numbers are read from an array of 16.
        unsafe {
            let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast()));
            Avx512(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves)))
        }
    }

    #[inline(always)]
    fn store_bf16(self, to: &mut [u16; 16]) {
        // SAFETY: see `wide`; 16 numbers are written to an array of 16.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), self.bf16()) }
    }

    #[inline(always)]
    fn select_below(self, other: Self, yes: Self, no: Self) -> Self {
        // SAFETY: see `wide`.
        Avx512(unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, other.0), no.0, yes.0) })
    }

    #[inline(always)]
    fn fraction(self) -> Self {
        // SAFETY: see `wide`.
        Avx512(unsafe { _mm512_reduce_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(self.0) })
    }

    #[inline(always)]
    fn store_beside(low: Self, high: Self, to: &mut [u32; 16]) {
        if BF16 {
            // SAFETY: see `wide`; 16 words are written to an array of 16.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), words(low.0, high.0)) }
        } else {
            beside(low.array(), high.array(), to);
        }
    }

    #[inline(always)]
    fn store_below(first: Self, second: Self, to: &mut [u32; 16]) {
        if BF16 {
            // SAFETY: as above.
            unsafe {
                let words = _mm512_permutexvar_epi16(interleaved(), words(first.0, second.0));
                _mm512_storeu_si512(to.as_mut_ptr().cast(), words);
            }
        } else {
            below(first.array(), second.array(), to);
        }
    }
}

impl<const BF16: bool> Words for Avx512Words<BF16> {
    type Floats = Avx512<BF16>;

    #[inline(always)]
    fn load(from: &[u32; 16]) -> Self {
        // SAFETY: see `wide`; 16 words are read from an array of 16.
        Avx512Words(unsafe { _mm512_loadu_si512(from.as_ptr().cast()) })
    }

    wide! {
        add(other) = _mm512_add_epi32;
        mul(other) = _mm512_mullo_epi32;
        xor(other) = _mm512_xor_si512;
    }

    #[inline(always)]
    fn count(start: u32) -> Self {
        // SAFETY: see `wide`.
        Self::splat(start).add(Avx512Words(unsafe { _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15) }))
    }

    #[inline(always)]
    fn splat(x: u32) -> Self {
        // SAFETY: see `wide`.
        Avx512Words(unsafe { _mm512_set1_epi32(x as i32) })
    }

    #[inline(always)]
    fn shift_right<const N: u32>(self) -> Self {
        // SAFETY: see `wide`.
        Avx512Words(unsafe { _mm512_srli_epi32::<N>(self.0) })
    }

    #[inline(always)]
    fn select_reaches(self, other: Self, yes: Self::Floats, no: Self::Floats) -> Self::Floats {
        // SAFETY: see `wide`.
        Avx512(unsafe { _mm512_mask_blend_ps(_mm512_cmpge_epu32_mask(self.0, other.0), no.0, yes.0) })
    }
}
