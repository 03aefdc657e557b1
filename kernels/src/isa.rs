//! Which instructions the processor offers, found once at run time.

use std::fmt;
use std::sync::OnceLock;

use crate::Precision;

/// An instruction set that this machine has. There is no way to make one that it lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Isa(Level);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
    #[cfg(target_arch = "x86_64")]
    Amx,
}

impl Isa {
    /// Plain Rust, on every machine.
    pub const PORTABLE: Isa = Isa(Level::Portable);

    /// The best of this machine.
    pub fn best() -> Isa {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| Isa::available().last().copied().unwrap_or(Isa::PORTABLE))
    }

    /// All that this machine has, the best last.
    pub fn available() -> Vec<Isa> {
        #[cfg(not(target_arch = "x86_64"))]
        return vec![Isa::PORTABLE];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            let bf16 = avx512 && is_x86_feature_detected!("avx512bf16");
            let all = [
                (Level::Portable, true),
                (Level::Avx2, avx2),
                (Level::Avx512, avx512),
                (Level::Avx512Bf16, bf16),
                (Level::Amx, bf16 && crate::amx::available()),
            ];
            all.into_iter().filter(|(_, has)| *has).map(|(level, _)| Isa(level)).collect()
        }
    }

    /// What products of numbers that may be rounded to bf16 are computed in: bf16 where that is faster than fp32. AMX is, by an order of magnitude; AVX-512's
    /// `vdpbf16ps` is on AMD's processors, while Intel's do half as many products a second with it as with fp32 (86 and 176 GFLOP/s a core of an
    /// Emerald Rapids).
    pub fn fastest(self) -> Precision {
        #[cfg(target_arch = "x86_64")]
        if self.has_amx() || self.has_bf16() && !is_intel() {
            return Precision::Bf16;
        }
        Precision::Fp32
    }
}

#[cfg(target_arch = "x86_64")]
fn is_intel() -> bool {
    let vendor = std::arch::x86_64::__cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).concat() == b"GenuineIntel"
}

#[cfg(target_arch = "x86_64")]
impl Isa {
    pub(crate) fn has_avx2(self) -> bool {
        self.0 >= Level::Avx2
    }

    pub(crate) fn has_avx512(self) -> bool {
        self.0 >= Level::Avx512
    }

    pub(crate) fn has_bf16(self) -> bool {
        self.0 >= Level::Avx512Bf16
    }

    pub(crate) fn has_amx(self) -> bool {
        self.0 >= Level::Amx
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self.0 {
            Level::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Bf16 => "avx512_bf16",
            #[cfg(target_arch = "x86_64")]
            Level::Amx => "amx",
        })
    }
}

/// Writes a function several times: in plain Rust, and compiled for AVX2, AVX-512 and AVX-512 with bf16; its first argument, the [`Isa`], chooses at run time. The
/// type named in angle brackets is the [`Vector`](crate::simd::Vector) of each.
macro_rules! versions {
    ($(#[$meta:meta])* $vis:vis fn $name:ident<$vector:ident>($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name(isa: $crate::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body<$vector: $crate::simd::Vector>($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512_bf16($($arg: $ty),*) $(-> $ret)? {
                    body::<$crate::simd::Avx512<true>>($($arg),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    body::<$crate::simd::Avx512<false>>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    body::<$crate::simd::Avx2>($($arg),*)
                }
                if isa.has_bf16() {
                    // SAFETY: an `Isa` exists only for what the processor has.
                    return unsafe { avx512_bf16($($arg),*) };
                }
                if isa.has_avx512() {
                    // SAFETY: as above.
                    return unsafe { avx512($($arg),*) };
                }
                if isa.has_avx2() {
                    // SAFETY: as above.
                    return unsafe { avx2($($arg),*) };
                }
            }
            let _ = isa;
            body::<$crate::simd::Plain>($($arg),*)
        }
    };
}
pub(crate) use versions;
