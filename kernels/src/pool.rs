//! Where kernels run: threads, the parts of a result that tasks write, and buffers kept for the next call.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Isa;
use crate::tile::Tile;

/// Where a kernel runs its tasks. Results never depend on the number of threads.
pub trait Pool: Sync {
    /// How many tasks run at once.
    fn threads(&self) -> usize;

    /// Runs `task(0)` … `task(tasks - 1)`, each once, in any order, and returns when all are done.
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync));

    /// The instructions that tasks use. Results depend on it in the last digits.
    fn isa(&self) -> Isa {
        Isa::best()
    }
}

/// On the calling thread.
pub struct Serial;

impl Pool for Serial {
    fn threads(&self) -> usize {
        1
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..tasks).for_each(task);
    }
}

/// On threads that are started for each kernel: simple, for tests and benchmarks. A program keeps its threads.
pub struct Threads {
    pub threads: usize,
    pub isa: Isa,
}

impl Pool for Threads {
    fn threads(&self) -> usize {
        self.threads
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= tasks {
                    break;
                }
                task(i);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.threads.min(tasks) {
                scope.spawn(work);
            }
            work();
        });
    }

    fn isa(&self) -> Isa {
        self.isa
    }
}

/// A slice of which each task changes a part of its own.
pub(crate) struct Parts<'a, T> {
    data: *mut T,
    len: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: tasks on other threads reach the elements only through `part`, whose caller keeps the parts disjoint.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    pub fn new(data: &'a mut [T]) -> Self {
        Parts { data: data.as_mut_ptr(), len: data.len(), lifetime: PhantomData }
    }

    /// Fetches the memory around an element that will be written soon.
    #[inline(always)]
    pub fn expect(&self, at: usize) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
            // SAFETY: a hint, which may be given for any address; `wrapping_add` makes it without a claim that it is within the slice.
            unsafe { _mm_prefetch::<_MM_HINT_ET0>(self.data.wrapping_add(at).cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }

    /// Where the elements of `range` lie.
    ///
    /// # Panics
    /// The range is not within the slice.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub fn place(&self, range: Range<usize>) -> *mut T {
        assert!(range.start <= range.end && range.end <= self.len, "part {range:?} of {}", self.len);
        self.data.wrapping_add(range.start)
    }

    /// The elements of `range`.
    ///
    /// # Panics
    /// The range is not within the slice.
    ///
    /// # Safety
    /// Parts that are held at the same time do not overlap.
    #[allow(clippy::mut_from_ref)]
    #[inline]
    pub unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "part {range:?} of {}", self.len);
        // SAFETY: within the slice, which is borrowed for `'a`; disjoint by the caller's word.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(range.start), range.len()) }
    }
}

/// Calls `task(first row, rows)` for blocks of `rows` rows of a `[?, width]` matrix.
pub(crate) fn blocks<T: Send>(pool: &dyn Pool, data: &mut [T], block: usize, task: impl Fn(usize, &mut [T]) + Sync) {
    let len = data.len();
    let parts = Parts::new(data);
    pool.run(len.div_ceil(block), &|i| {
        let range = i * block..len.min((i + 1) * block);
        // SAFETY: blocks do not overlap, and each index runs once.
        task(i, unsafe { parts.part(range) });
    });
}

/// Tiles that a kernel needs while it runs, of any content at first. They are kept for later calls: fresh memory costs a page
/// fault every 4 KiB.
pub(crate) struct Buffer<T: Kept> {
    tiles: Vec<Tile<T>>,
    len: usize,
    /// Whether it is freed when it is dropped, not kept for later calls.
    is_freed: bool,
}

/// What [`Buffer`]s hold.
pub trait Kept: Copy + Default + 'static {
    fn shelf() -> &'static Mutex<Vec<Vec<Tile<Self>>>>;
}

impl Kept for u32 {
    fn shelf() -> &'static Mutex<Vec<Vec<Tile<u32>>>> {
        static SHELF: Mutex<Vec<Vec<Tile<u32>>>> = Mutex::new(Vec::new());
        &SHELF
    }
}

impl Kept for f32 {
    fn shelf() -> &'static Mutex<Vec<Vec<Tile<f32>>>> {
        static SHELF: Mutex<Vec<Vec<Tile<f32>>>> = Mutex::new(Vec::new());
        &SHELF
    }
}

impl<T: Kept> Buffer<T> {
    pub fn new(len: usize) -> Self {
        let mut shelf = T::shelf().lock().unwrap_or_else(|e| e.into_inner());
        // The smallest that is large enough, or else the largest, which grows.
        let enough = (0..shelf.len()).filter(|&i| shelf[i].len() >= len).min_by_key(|&i| shelf[i].len());
        let found = enough.or_else(|| (0..shelf.len()).max_by_key(|&i| shelf[i].len()));
        let mut tiles = found.map(|i| shelf.swap_remove(i)).unwrap_or_default();
        drop(shelf);
        if tiles.len() < len {
            tiles = vec![Tile([T::default(); 256]); len];
        }
        Buffer { tiles, len, is_freed: false }
    }

    /// The same tiles in memory of their own, which is freed with them: for what outlives a call.
    pub fn apart(&self) -> Self {
        Buffer { tiles: self.to_vec(), len: self.len, is_freed: true }
    }
}

impl<T: Kept> Drop for Buffer<T> {
    fn drop(&mut self) {
        let tiles = std::mem::take(&mut self.tiles);
        if self.is_freed {
            return;
        }
        T::shelf().lock().unwrap_or_else(|e| e.into_inner()).push(tiles);
    }
}

impl<T: Kept> Deref for Buffer<T> {
    type Target = [Tile<T>];

    fn deref(&self) -> &[Tile<T>] {
        &self.tiles[..self.len]
    }
}

impl<T: Kept> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [Tile<T>] {
        &mut self.tiles[..self.len]
    }
}
