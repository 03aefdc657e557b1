//! AMX for tests on processors without it: the processor refuses a tile instruction, and the handler of that signal does what it would have done.
//! Only the instructions and the shape of tiles that kernels use are known (Intel, Software Developer's Manual, volume 2).

use std::arch::x86_64::*;
use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::mem;

use libc::{c_int, siginfo_t, ucontext_t};

const ROWS: usize = 16;
const ROW_BYTES: usize = 64;

type Register = [[u32; 16]; ROWS];

/// The tile registers of a thread.
struct Tiles {
    is_configured: bool,
    registers: [Register; 8],
}

thread_local! {
    static TILES: UnsafeCell<Tiles> = const { UnsafeCell::new(Tiles { is_configured: false, registers: [[[0; 16]; ROWS]; 8] }) };
}

/// From now on tile instructions work in this process; `false` where that cannot be.
pub fn install() -> bool {
    if !is_x86_feature_detected!("avx512f") {
        return false;
    }
    // SAFETY: all zeros is a valid `sigaction`; the handler has the signature that `SA_SIGINFO` asks for.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = on_refusal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGILL, &raw const action, std::ptr::null_mut()) == 0
    }
}

extern "C" fn on_refusal(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the system hands over the registers of this thread, whose instruction pointer is at an instruction that it was refused; what that reads and
    // writes is what the tested code says. No other reference to this thread's tiles lives meanwhile.
    let known = unsafe {
        let context = &mut *context.cast::<ucontext_t>();
        TILES.with(|tiles| execute(&mut *tiles.get(), &mut context.uc_mcontext.gregs))
    };
    if known.is_none() {
        // The instruction is refused once more, and the process ends as it would have without this.
        // SAFETY: the default action is always allowed.
        unsafe { libc::signal(libc::SIGILL, libc::SIG_DFL) };
    }
}

/// Does what the instruction at the instruction pointer says and goes on to the next; `None` if it is unknown.
///
/// # Safety
/// The registers are those of a thread at an instruction that may be executed there.
unsafe fn execute(tiles: &mut Tiles, registers: &mut [i64; 23]) -> Option<()> {
    // SAFETY: by the caller's word there is a whole instruction, which is longer than what is read of it if it has an address; addresses in it are valid.
    unsafe {
        let code = registers[libc::REG_RIP as usize] as *const u8;
        let byte = |i: usize| *code.add(i);
        // VEX with three bytes, of the map 0F 38, with no register above 7 but in addresses, 128 bits long.
        if byte(0) != 0xc4 || byte(1) & 0x9f != 0x82 || byte(2) & 0x84 != 0 {
            return None;
        }
        let (prefix, other, operation) = (byte(2) & 3, usize::from(!(byte(2) >> 3) & 15), byte(3));
        let (register, low) = (usize::from(byte(4) >> 3 & 7), usize::from(byte(4) & 7));
        let has_address = byte(4) >> 6 != 3;
        let (address, stride, length) = if has_address { address(code, registers)? } else { (std::ptr::null_mut(), 0, 5) };
        let row = |i: usize| address.offset(stride * i as isize).cast::<[u32; 16]>();
        match (operation, prefix, has_address) {
            // ldtilecfg
            (0x49, 0, true) => {
                let config = &*address.cast::<[u8; ROW_BYTES]>();
                let is_whole = |i: usize| config[16 + 2 * i..18 + 2 * i] == [ROW_BYTES as u8, 0] && config[48 + i] == ROWS as u8;
                assert!(config[0] == 1 && (0..8).all(is_whole), "tiles of 16 rows of 64 bytes");
                *tiles = Tiles { is_configured: true, registers: [[[0; 16]; ROWS]; 8] };
            }
            // tilerelease
            (0x49, 0, false) => tiles.is_configured = false,
            _ if !tiles.is_configured => return None,
            // tilezero
            (0x49, 3, false) => tiles.registers[register] = [[0; 16]; ROWS],
            // tileloadd
            (0x4b, 3, true) => (0..ROWS).for_each(|i| tiles.registers[register][i] = row(i).read_unaligned()),
            // tilestored
            (0x4b, 2, true) => (0..ROWS).for_each(|i| row(i).write_unaligned(tiles.registers[register][i])),
            // tdpbf16ps
            (0x5c, 2, false) if register != low && register != other && low != other => {
                let (a, b) = (tiles.registers[low], *tiles.registers.get(other)?);
                multiply(&a, &b, &mut tiles.registers[register]);
            }
            _ => return None,
        }
        registers[libc::REG_RIP as usize] += length;
        Some(())
    }
}

/// The address of an instruction's operand, the distance of its rows, and the length of the instruction.
///
/// # Safety
/// As for [`execute`].
unsafe fn address(code: *const u8, registers: &[i64; 23]) -> Option<(*mut u8, isize, i64)> {
    use libc::*;
    /// In the order of their numbers.
    const NAMES: [c_int; 16] = [
        REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI, REG_R8, REG_R9, REG_R10, REG_R11, REG_R12,
        REG_R13, REG_R14, REG_R15,
    ];
    let value = |number: u8| registers[NAMES[usize::from(number)] as usize];
    // SAFETY: by the caller's word.
    unsafe {
        let byte = |i: usize| *code.add(i);
        let (high_base, high_index) = (!(byte(1) >> 5) & 1, !(byte(1) >> 6) & 1);
        let (how, low) = (byte(4) >> 6, byte(4) & 7);
        let (base, stride, next) = if low == 4 {
            let scale = byte(5);
            let index = scale >> 3 & 7 | high_index << 3;
            let stride = if index == 4 { 0 } else { value(index) << (scale >> 6) };
            (scale & 7, stride, 6)
        } else {
            (low, 0, 5)
        };
        let (offset, length) = match how {
            // An address without a base, or from the instruction pointer.
            0 if base == 5 => return None,
            0 => (0, next),
            1 => (i64::from(byte(next) as i8), next + 1),
            _ => (i64::from(code.add(next).cast::<i32>().read_unaligned()), next + 4),
        };
        Some(((value(base | high_base << 3) + offset) as *mut u8, stride as isize, length as i64))
    }
}

/// `c += a·b`: products of even and of odd numbers are summed up apart, and denormal numbers count as zero.
#[target_feature(enable = "avx512f")]
fn multiply(a: &Register, b: &Register, c: &mut Register) {
    let number = |words: __m512i| {
        let is_normal = _mm512_test_epi32_mask(words, _mm512_set1_epi32(0x7f80_0000));
        _mm512_castsi512_ps(_mm512_maskz_mov_epi32(is_normal, words))
    };
    let halves = |words: __m512i| {
        let high = _mm512_and_si512(words, _mm512_set1_epi32(!0xffff));
        [number(_mm512_slli_epi32::<16>(words)), number(high)]
    };
    for (a, c) in a.iter().zip(c) {
        let mut sums = [_mm512_setzero_ps(); 2];
        for (&word, b) in a.iter().zip(b) {
            // SAFETY: 64 bytes are read from an array of 64 bytes.
            let b = halves(unsafe { _mm512_loadu_si512(b.as_ptr().cast()) });
            let a = halves(_mm512_set1_epi32(word as i32));
            sums = [0, 1].map(|i| _mm512_fmadd_ps(a[i], b[i], sums[i]));
        }
        // SAFETY: as above.
        unsafe {
            let sum = _mm512_add_ps(_mm512_loadu_ps(c.as_ptr().cast()), _mm512_add_ps(sums[0], sums[1]));
            _mm512_storeu_ps(c.as_mut_ptr().cast(), sum);
        }
    }
}
