//! Tiles in AVX-512 registers: filling them, and products of them.

use std::arch::x86_64::*;

use crate::pool::Kept;
use crate::tile::Tile;

/// 16 rows of 16 fp32 numbers.
///
/// # Safety
/// `data` holds 16 rows of 16 numbers, `stride` apart.
#[target_feature(enable = "avx512f,avx512bw")]
pub unsafe fn pack_words(data: &[f32], stride: usize, transposed: bool, tile: &mut Tile<u32>) {
    // SAFETY: rows lie within `data` by the caller's word.
    let rows = std::array::from_fn(|i| unsafe { _mm512_castps_si512(_mm512_loadu_ps(data.as_ptr().add(i * stride))) });
    store(if transposed { transpose(rows) } else { rows }, tile);
}

/// 16 rows of 16 bf16 numbers, as fp32 numbers.
///
/// # Safety
/// `data` holds 16 rows of 16 numbers, `stride` apart.
#[target_feature(enable = "avx512f,avx512bw")]
pub unsafe fn pack_widened(data: &[u16], stride: usize, transposed: bool, tile: &mut Tile<u32>) {
    let rows = std::array::from_fn(|i| {
        // SAFETY: rows lie within `data` by the caller's word.
        let row = unsafe { _mm256_loadu_si256(data.as_ptr().add(i * stride).cast()) };
        _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(row))
    });
    store(if transposed { transpose(rows) } else { rows }, tile);
}

/// 16 rows of 32 numbers, rounded to bf16; pairs lie along the rows.
///
/// # Safety
/// `data` holds 16 rows of 32 numbers, `stride` apart.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub unsafe fn pack_pairs(data: &[f32], stride: usize, transposed: bool, tile: &mut Tile<u32>) {
    let rows = std::array::from_fn(|i| {
        // SAFETY: rows lie within `data` by the caller's word.
        unsafe {
            let row = data.as_ptr().add(i * stride);
            words(_mm512_loadu_ps(row), _mm512_loadu_ps(row.add(16)))
        }
    });
    store(if transposed { transpose(rows) } else { rows }, tile);
}

/// 32 rows of 16 numbers, rounded to bf16; a pair lies in two rows.
///
/// # Safety
/// `data` holds 32 rows of 16 numbers, `stride` apart.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub unsafe fn pack_pairs_along(data: &[f32], stride: usize, transposed: bool, tile: &mut Tile<u32>) {
    let index = interleaved();
    let rows = std::array::from_fn(|i| {
        // SAFETY: rows lie within `data` by the caller's word.
        unsafe {
            let row = data.as_ptr().add(2 * i * stride);
            _mm512_permutexvar_epi16(index, words(_mm512_loadu_ps(row), _mm512_loadu_ps(row.add(stride))))
        }
    });
    store(if transposed { transpose(rows) } else { rows }, tile);
}

/// 16 rows of 32 bf16 numbers; pairs lie along the rows.
///
/// # Safety
/// `data` holds 16 rows of 32 numbers, `stride` apart.
#[target_feature(enable = "avx512f,avx512bw")]
pub unsafe fn pack_bf16(data: &[u16], stride: usize, transposed: bool, tile: &mut Tile<u32>) {
    // SAFETY: rows lie within `data` by the caller's word.
    let rows = std::array::from_fn(|i| unsafe { _mm512_loadu_si512(data.as_ptr().add(i * stride).cast()) });
    store(if transposed { transpose(rows) } else { rows }, tile);
}

/// 32 rows of 16 bf16 numbers; a pair lies in two rows.
///
/// # Safety
/// `data` holds 32 rows of 16 numbers, `stride` apart.
#[target_feature(enable = "avx512f,avx512bw")]
pub unsafe fn pack_bf16_along(data: &[u16], stride: usize, transposed: bool, tile: &mut Tile<u32>) {
    let index = interleaved();
    let rows = std::array::from_fn(|i| {
        // SAFETY: rows lie within `data` by the caller's word.
        let (first, second) = unsafe {
            let row = data.as_ptr().add(2 * i * stride);
            (_mm256_loadu_si256(row.cast()), _mm256_loadu_si256(row.add(stride).cast()))
        };
        _mm512_permutexvar_epi16(index, _mm512_inserti64x4::<1>(_mm512_castsi256_si512(first), second))
    });
    store(if transposed { transpose(rows) } else { rows }, tile);
}

/// Takes turns between the first and the second half of a register.
#[inline]
#[target_feature(enable = "avx512f")]
pub fn interleaved() -> __m512i {
    let index: [u16; 32] = std::array::from_fn(|i| (i / 2 + i % 2 * 16) as u16);
    // SAFETY: 64 bytes are read from an array of 64 bytes.
    unsafe { _mm512_loadu_si512(index.as_ptr().cast()) }
}

/// Lines of pairs of 32 bf16 numbers become steps.
#[target_feature(enable = "avx512f,avx512bw")]
pub fn left_to_right(left: &[Tile<u32>], right: &mut [Tile<u32>]) {
    // Where numbers of two registers are found that take turns: those of the first halves, of the second ones.
    let index = |start: usize| {
        let index: [u16; 32] = std::array::from_fn(|i| (start + i / 2 + i % 2 * 32) as u16);
        // SAFETY: 64 bytes are read from an array of 64 bytes.
        unsafe { _mm512_loadu_si512(index.as_ptr().cast()) }
    };
    let index = [index(0), index(16)];
    for word in 0..16 {
        let (first, second) = (row(&left[word / 8], word % 8 * 2), row(&left[word / 8], word % 8 * 2 + 1));
        for (index, tile) in index.into_iter().zip(&mut *right) {
            let place = tile.row_mut(word);
            // SAFETY: `place` is 64 bytes.
            unsafe { _mm512_storeu_si512(place.as_mut_ptr().cast(), _mm512_permutex2var_epi16(first, index, second)) };
        }
    }
}

#[target_feature(enable = "avx512f")]
pub fn transpose_tile<T: Kept>(tile: &Tile<T>, out: &mut Tile<T>) {
    const { assert!(size_of::<T>() == 4, "numbers of 32 bits") };
    let rows = transpose(std::array::from_fn(|i| row(tile, i)));
    for (row, place) in rows.into_iter().zip(out.0.chunks_exact_mut(16)) {
        // SAFETY: `place` is 64 bytes.
        unsafe { _mm512_storeu_si512(place.as_mut_ptr().cast(), row) };
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn row<T: Kept>(tile: &Tile<T>, row: usize) -> __m512i {
    const { assert!(size_of::<T>() == 4, "numbers of 32 bits") };
    // SAFETY: 64 bytes are read from an array of 16 numbers of 32 bits.
    unsafe { _mm512_loadu_si512(tile.row(row).as_ptr().cast()) }
}

/// Row `row` of 32 of the left matrix, rounded to bf16: 32 numbers for each two tiles.
#[target_feature(enable = "avx512f,avx512bf16")]
pub fn pack_line(line: &[f32], row: usize, tiles: &mut [Tile<u32>]) {
    for (numbers, pair) in line.chunks_exact(32).zip(tiles.chunks_exact_mut(2)) {
        let place = &mut pair[row / 16].0[row % 16 * 16..][..16];
        // SAFETY: 32 numbers are read from a slice of 32, 16 words written to a slice of 16.
        unsafe {
            let row = numbers.as_ptr();
            _mm512_storeu_si512(place.as_mut_ptr().cast(), words(_mm512_loadu_ps(row), _mm512_loadu_ps(row.add(16))));
        }
    }
}

/// Writes row `row` of tiles, four for each 32 columns, as bf16; past the caches, where memory is aligned for that, if `stream`.
#[target_feature(enable = "avx512f,avx512bf16")]
pub fn write_bf16(tiles: &[Tile<f32>], row: usize, line: &mut [u16], stream: bool) {
    for (tiles, line) in tiles.as_chunks::<4>().0.iter().zip(line.as_chunks_mut::<32>().0) {
        let half = row / 16 * 2;
        let [low, high] = [&tiles[half], &tiles[half + 1]].map(|tile| tile.row(row % 16).as_ptr());
        let place = line.as_mut_ptr().cast::<__m512i>();
        // SAFETY: 16 numbers are read from arrays of 16, and 32 written to an array of 32.
        unsafe {
            let numbers = words(_mm512_loadu_ps(low), _mm512_loadu_ps(high));
            if stream && place.is_aligned() {
                _mm512_stream_si512(place, numbers);
            } else {
                _mm512_storeu_si512(place, numbers);
            }
        }
    }
}

/// 32 bf16 numbers: those of `low`, then those of `high`.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub fn words(low: __m512, high: __m512) -> __m512i {
    // SAFETY: both are 64 bytes of plain numbers.
    unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(high, low)) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(rows: [__m512i; 16], tile: &mut Tile<u32>) {
    for (row, place) in rows.into_iter().zip(tile.0.chunks_exact_mut(16)) {
        // SAFETY: `place` is 64 bytes.
        unsafe { _mm512_storeu_si512(place.as_mut_ptr().cast(), row) };
    }
}

/// Of a matrix of 16 × 16 words, a row a register.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(r: [__m512i; 16]) -> [__m512i; 16] {
    let zero = _mm512_setzero_si512();
    let (mut a, mut b) = ([zero; 16], [zero; 16]);
    // Within each 128-bit lane: words of two rows side by side, then of four rows.
    for i in (0..16).step_by(2) {
        a[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for i in (0..16).step_by(4) {
        b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
    // b[4g + c] holds column c, 4 + c, 8 + c, 12 + c of rows 4g … 4g + 3, a lane each. Lanes of the four groups come together.
    for c in 0..4 {
        let low01 = _mm512_shuffle_i32x4::<0b10_00_10_00>(b[c], b[4 + c]);
        let low23 = _mm512_shuffle_i32x4::<0b10_00_10_00>(b[8 + c], b[12 + c]);
        let high01 = _mm512_shuffle_i32x4::<0b11_01_11_01>(b[c], b[4 + c]);
        let high23 = _mm512_shuffle_i32x4::<0b11_01_11_01>(b[8 + c], b[12 + c]);
        a[c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(low01, low23);
        a[8 + c] = _mm512_shuffle_i32x4::<0b11_01_11_01>(low01, low23);
        a[4 + c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(high01, high23);
        a[12 + c] = _mm512_shuffle_i32x4::<0b11_01_11_01>(high01, high23);
    }
    a
}

/// `c (+)= a·b` of fp32 tiles: 32 rows and columns, two tiles of `a` and of `b` a step of 16.
///
/// # Safety
/// `a` and `b` hold `2 * steps` tiles.
#[target_feature(enable = "avx512f")]
pub unsafe fn multiply_words(a: &[Tile<u32>], b: &[Tile<u32>], steps: usize, c: &mut [Tile<f32>; 4], add: bool) {
    for part in 0..4 {
        let (upper, start) = (part / 2, part % 2 * 128);
        let mut sums = [[_mm512_setzero_ps(); 2]; 8];
        // SAFETY: `a` and `b` hold the tiles by the caller's word, and every index is within a tile of 256 words.
        unsafe {
            if add {
                load(&mut sums, c, upper, start);
            }
            for step in 0..steps {
                let a = a.as_ptr().add(2 * step + upper).cast::<f32>().add(start);
                let b = b.as_ptr().add(2 * step).cast::<f32>();
                for word in 0..16 {
                    let (b0, b1) = (_mm512_load_ps(b.add(word * 16)), _mm512_load_ps(b.add(256 + word * 16)));
                    for (line, sums) in sums.iter_mut().enumerate() {
                        let a = _mm512_set1_ps(*a.add(line * 16 + word));
                        sums[0] = _mm512_fmadd_ps(a, b0, sums[0]);
                        sums[1] = _mm512_fmadd_ps(a, b1, sums[1]);
                    }
                }
            }
            save(&sums, c, upper, start);
        }
    }
}

/// `c (+)= a·b` of bf16 tiles: 32 rows and columns, two tiles of `a` and of `b` a step of 32.
///
/// # Safety
/// `a` and `b` hold `2 * steps` tiles.
#[target_feature(enable = "avx512f,avx512bf16")]
pub unsafe fn multiply_pairs(a: &[Tile<u32>], b: &[Tile<u32>], steps: usize, c: &mut [Tile<f32>; 4], add: bool) {
    for part in 0..4 {
        let (upper, start) = (part / 2, part % 2 * 128);
        let mut sums = [[_mm512_setzero_ps(); 2]; 8];
        // SAFETY: `a` and `b` hold the tiles by the caller's word, and every index is within a tile of 256 words; vectors of words and of pairs of
        // bf16 have the same bytes.
        unsafe {
            if add {
                load(&mut sums, c, upper, start);
            }
            for step in 0..steps {
                let a = a.as_ptr().add(2 * step + upper).cast::<i32>().add(start);
                let b = b.as_ptr().add(2 * step).cast::<i32>();
                for word in 0..16 {
                    let b0: __m512bh = std::mem::transmute(_mm512_load_si512(b.add(word * 16).cast()));
                    let b1: __m512bh = std::mem::transmute(_mm512_load_si512(b.add(256 + word * 16).cast()));
                    for (line, sums) in sums.iter_mut().enumerate() {
                        let a: __m512bh = std::mem::transmute(_mm512_set1_epi32(*a.add(line * 16 + word)));
                        sums[0] = _mm512_dpbf16_ps(sums[0], a, b0);
                        sums[1] = _mm512_dpbf16_ps(sums[1], a, b1);
                    }
                }
            }
            save(&sums, c, upper, start);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(sums: &mut [[__m512; 2]; 8], c: &[Tile<f32>; 4], upper: usize, start: usize) {
    for (line, sums) in sums.iter_mut().enumerate() {
        let at = start + line * 16..start + line * 16 + 16;
        for (right, sum) in sums.iter_mut().enumerate() {
            // SAFETY: 16 numbers are read from a slice of 16.
            *sum = unsafe { _mm512_loadu_ps(c[2 * upper + right].0[at.clone()].as_ptr()) };
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn save(sums: &[[__m512; 2]; 8], c: &mut [Tile<f32>; 4], upper: usize, start: usize) {
    for (line, sums) in sums.iter().enumerate() {
        let at = start + line * 16..start + line * 16 + 16;
        for (right, sum) in sums.iter().enumerate() {
            // SAFETY: 16 numbers are written to a slice of 16.
            unsafe { _mm512_storeu_ps(c[2 * upper + right].0[at.clone()].as_mut_ptr(), *sum) };
        }
    }
}
