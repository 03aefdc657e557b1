//! Sixteen numbers side by side: the vocabulary that kernels are written in once, for every instruction set.

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

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Vector, Words, below, beside};
    use crate::avx512::{interleaved, words};
    use crate::math::bf16;

    /// AVX-512, with its instructions for bf16 or without.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512<const BF16: bool>(__m512);

    #[derive(Clone, Copy)]
    pub(crate) struct Avx512Words<const BF16: bool>(__m512i);

    /// AVX2 with FMA: two registers.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(__m256, __m256);

    #[derive(Clone, Copy)]
    pub(crate) struct Avx2Words(__m256i, __m256i);

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

    /// The same, once for each half.
    macro_rules! halves {
        ($($name:ident($($other:ident),*) = $instruction:ident;)*) => {
            $(#[inline(always)]
            fn $name(self, $($other: Self),*) -> Self {
                // SAFETY: see `wide`.
                unsafe { Self($instruction(self.0, $($other.0),*), $instruction(self.1, $($other.1),*)) }
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
            Self::splat(start)
                .add(Avx512Words(unsafe { _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15) }))
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
            // SAFETY: see `wide`.
            let x = unsafe { _mm256_set1_ps(x) };
            Avx2(x, x)
        }

        #[inline(always)]
        fn load(from: &[f32; 16]) -> Self {
            // SAFETY: see `wide`; 16 numbers are read from an array of 16.
            unsafe { Avx2(_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))) }
        }

        #[inline(always)]
        fn store(self, to: &mut [f32; 16]) {
            // SAFETY: see `wide`; 16 numbers are written to an array of 16.
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
            // SAFETY: see `wide`.
            unsafe {
                let (a, b) = (_mm256_cmp_ps::<_CMP_LT_OQ>(self.0, other.0), _mm256_cmp_ps::<_CMP_LT_OQ>(self.1, other.1));
                Avx2(_mm256_blendv_ps(no.0, yes.0, a), _mm256_blendv_ps(no.1, yes.1, b))
            }
        }

        #[inline(always)]
        fn fraction(self) -> Self {
            let half = |x: __m256| {
                // SAFETY: see `wide`. Infinities become whole numbers; NaN stays, as it is the second argument.
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
                // SAFETY: see `wide`. In two factors, each of which is a normal number.
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
            // SAFETY: see `wide`; 16 words are read from an array of 16.
            unsafe { Avx2Words(_mm256_loadu_si256(from.as_ptr().cast()), _mm256_loadu_si256(from.as_ptr().add(8).cast())) }
        }

        halves! {
            add(other) = _mm256_add_epi32;
            mul(other) = _mm256_mullo_epi32;
            xor(other) = _mm256_xor_si256;
        }

        #[inline(always)]
        fn count(start: u32) -> Self {
            // SAFETY: see `wide`.
            let order =
                unsafe { Avx2Words(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15)) };
            Self::splat(start).add(order)
        }

        #[inline(always)]
        fn splat(x: u32) -> Self {
            // SAFETY: see `wide`.
            let x = unsafe { _mm256_set1_epi32(x as i32) };
            Avx2Words(x, x)
        }

        #[inline(always)]
        fn shift_right<const N: u32>(self) -> Self {
            // SAFETY: see `wide`; N is below 32.
            unsafe {
                let count = _mm_cvtsi32_si128(N as i32);
                Avx2Words(_mm256_srl_epi32(self.0, count), _mm256_srl_epi32(self.1, count))
            }
        }

        #[inline(always)]
        fn select_reaches(self, other: Self, yes: Avx2, no: Avx2) -> Avx2 {
            let half = |a: __m256i, b: __m256i, yes: __m256, no: __m256| {
                // SAFETY: see `wide`. a ≥ b where the greater of both is a.
                unsafe { _mm256_blendv_ps(no, yes, _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_max_epu32(a, b), a))) }
            };
            Avx2(half(self.0, other.0, yes.0, no.0), half(self.1, other.1, yes.1, no.1))
        }
    }
}
