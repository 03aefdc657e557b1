//! AMX: products of tiles of bf16 numbers (Intel, Software Developer's Manual, volume 1, chapter 18).

#[cfg(all(test, target_os = "linux"))]
mod emulation;

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::marker::PhantomData;
use std::sync::OnceLock;

use crate::tile::Tile;

/// Whether the processor has it and the system lets this process use it. In tests a processor without it is helped out.
pub fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        let has_it = has_instructions() && saves_tiles() && permitted();
        #[cfg(all(test, target_os = "linux"))]
        let has_it = has_it || emulation::install();
        has_it
    })
}

fn has_instructions() -> bool {
    const BF16: u32 = 1 << 22;
    const TILE: u32 = 1 << 24;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & (BF16 | TILE) == BF16 | TILE
}

/// Whether the system saves the tiles when it switches threads.
fn saves_tiles() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const TILES: u32 = 0b11 << 17;
    if __cpuid(1).ecx & OSXSAVE == 0 {
        return false;
    }
    let state: u32;
    // SAFETY: `xgetbv` of register 0 only reads, and exists where OSXSAVE is set.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") state, out("edx") _, options(nomem, nostack)) };
    state & TILES == TILES
}

/// Asks Linux for the tile registers, which it grants to a whole process once.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const TILE_DATA: u64 = 18;
    let result: i64;
    // SAFETY: the call takes two numbers and touches no memory of ours; the instruction clobbers rcx and r11.
    unsafe {
        asm!("syscall", inlateout("rax") ARCH_PRCTL => result, in("rdi") ARCH_REQ_XCOMP_PERM, in("rsi") TILE_DATA,
             out("rcx") _, out("r11") _, options(nostack));
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// The tile registers of this thread, all 16 rows of 64 bytes, until it is dropped.
pub struct Tiles {
    /// Tile registers belong to a thread.
    not_send: PhantomData<*const ()>,
}

impl Tiles {
    /// Configures them; `None` where there is no AMX.
    pub fn configure() -> Option<Tiles> {
        #[repr(C, align(64))]
        struct Config {
            palette: u8,
            start: u8,
            reserved: [u8; 14],
            bytes: [u16; 16],
            rows: [u8; 16],
        }
        let (mut bytes, mut rows) = ([0; 16], [0; 16]);
        bytes[..8].fill(64);
        rows[..8].fill(16);
        let config = Config { palette: 1, start: 0, reserved: [0; 14], bytes, rows };
        // SAFETY: AMX is available; the instruction reads 64 bytes. Compiled Rust never uses tile registers of its own.
        available().then(|| unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, readonly));
            Tiles { not_send: PhantomData }
        })
    }

    /// `c (+)= a·b` for 32 rows and columns, in `steps` steps of 32 along the sum. `a` and `b` hold two tiles a step, `c` the upper two and
    /// the lower two; `add` says whether `c` counts.
    #[inline]
    pub fn multiply(&self, a: &[Tile<u32>], b: &[Tile<u32>], steps: usize, c: &mut [Tile<f32>; 4], add: bool) {
        assert!(steps > 0 && a.len() >= 2 * steps && b.len() >= 2 * steps);
        // SAFETY: the tiles are configured while `self` lives, on this thread; each step reads 2 KiB of `a` and of `b`, which hold `steps` of them,
        // and `c` is 4 KiB.
        unsafe {
            asm!(
                "test {add:e}, {add:e}",
                "jz 2f",
                "tileloadd tmm0, [{c} + {stride}*1]",
                "tileloadd tmm1, [{c} + {stride}*1 + 1024]",
                "tileloadd tmm2, [{c} + {stride}*1 + 2048]",
                "tileloadd tmm3, [{c} + {stride}*1 + 3072]",
                "jmp 3f",
                "2:",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "3:",
                "tileloadd tmm4, [{a} + {stride}*1]",
                "tileloadd tmm6, [{b} + {stride}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {stride}*1 + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{a} + {stride}*1 + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, 2048",
                "add {b}, 2048",
                "dec {steps}",
                "jnz 3b",
                "tilestored [{c} + {stride}*1], tmm0",
                "tilestored [{c} + {stride}*1 + 1024], tmm1",
                "tilestored [{c} + {stride}*1 + 2048], tmm2",
                "tilestored [{c} + {stride}*1 + 3072], tmm3",
                add = in(reg) u32::from(add),
                a = inout(reg) a.as_ptr() => _,
                b = inout(reg) b.as_ptr() => _,
                c = in(reg) c.as_mut_ptr(),
                stride = in(reg) 64usize,
                steps = inout(reg) steps => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack)
            );
        }
    }
}

/// Where sums that go straight to their place begin.
#[derive(Debug, Clone, Copy)]
pub enum Start {
    Zero,
    /// At 32 numbers of each of 32 rows, so many numbers apart; 0 for one row that counts for all.
    At(*const f32, usize),
}

impl Tiles {
    /// `out = start + a·b` for 32 rows and columns, the rows of `out` being `stride` numbers apart; operands as for [`Tiles::multiply`].
    ///
    /// # Safety
    /// 32 rows of 32 numbers can be read from `start` and written to `out`.
    #[inline]
    pub unsafe fn multiply_to(&self, a: &[Tile<u32>], b: &[Tile<u32>], start: Start, out: *mut f32, stride: usize) {
        let steps = a.len() / 2;
        assert!(steps > 0 && b.len() >= 2 * steps);
        let (from, apart) = match start {
            Start::Zero => (std::ptr::null(), 0),
            Start::At(from, apart) => (from, apart * 4),
        };
        // SAFETY: the tiles are configured while `self` lives, on this thread; each step reads 2 KiB of `a` and of `b`, which hold `steps` of
        // them; `start` and `out` by the caller's word.
        unsafe {
            asm!(
                "test {from}, {from}",
                "jz 2f",
                "tileloadd tmm0, [{from} + {apart}*1]",
                "tileloadd tmm1, [{from} + {apart}*1 + 64]",
                "mov {lower}, {apart}",
                "shl {lower}, 4",
                "add {from}, {lower}",
                "tileloadd tmm2, [{from} + {apart}*1]",
                "tileloadd tmm3, [{from} + {apart}*1 + 64]",
                "jmp 3f",
                "2:",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "3:",
                "tileloadd tmm4, [{a} + {line}*1]",
                "tileloadd tmm6, [{b} + {line}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {line}*1 + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{a} + {line}*1 + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, 2048",
                "add {b}, 2048",
                "dec {steps}",
                "jnz 3b",
                "tilestored [{out} + {stride}*1], tmm0",
                "tilestored [{out} + {stride}*1 + 64], tmm1",
                "mov {lower}, {stride}",
                "shl {lower}, 4",
                "add {out}, {lower}",
                "tilestored [{out} + {stride}*1], tmm2",
                "tilestored [{out} + {stride}*1 + 64], tmm3",
                from = inout(reg) from => _,
                apart = in(reg) apart,
                lower = out(reg) _,
                a = inout(reg) a.as_ptr() => _,
                b = inout(reg) b.as_ptr() => _,
                out = inout(reg) out => _,
                stride = in(reg) stride * 4,
                line = in(reg) 64usize,
                steps = inout(reg) steps => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack)
            );
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: the tiles are configured; releasing them lets the system stop saving them.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use crate::Isa;

    /// So that every test that goes through all instruction sets tests the products of tiles.
    #[test]
    fn tests_have_tiles_where_the_processor_has_bf16() {
        let all = Isa::available();
        assert!(all.iter().any(|isa| isa.has_amx()) || !all.iter().any(|isa| isa.has_bf16()), "{all:?}");
    }
}
