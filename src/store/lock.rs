//! One process at a time computes a key.

use std::fs::{File, TryLockError};
use std::time::Duration;

use super::{Digest, Store, StoreError};
use crate::cancel::Cancel;

/// Held while a key is being computed; the operating system releases it when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Store {
    /// Takes the lock of `key`. While another process has it, waits until `cancel` is set; `waiting` is called once then. `None` when
    /// `cancel` was set first.
    ///
    /// # Errors
    /// The lock file cannot be made.
    pub fn lock(&self, key: &Digest, cancel: &Cancel, waiting: &dyn Fn()) -> Result<Option<Lock>, StoreError> {
        let path = self.root.join("locks").join(key.as_str());
        let file = File::create(&path).map_err(|e| self.io(&path, e))?;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Lock { _file: file })),
                Err(TryLockError::WouldBlock) if cancel.is_set() => return Ok(None),
                Err(TryLockError::WouldBlock) => {
                    if !told {
                        waiting();
                        told = true;
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(TryLockError::Error(e)) => return Err(self.io(&path, e)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn the_second_waits_for_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let key = Digest::of(b"key");
        let first = store.lock(&key, &Cancel::default(), &|| ()).unwrap();
        assert!(first.is_some());
        let (done, told) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let second = scope.spawn(|| {
                let lock = store.lock(&key, &Cancel::default(), &|| told.store(true, Ordering::SeqCst)).unwrap();
                assert!(done.load(Ordering::SeqCst));
                lock.is_some()
            });
            while !told.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            done.store(true, Ordering::SeqCst);
            drop(first);
            assert!(second.join().unwrap());
        });
        let _held = store.lock(&key, &Cancel::default(), &|| ()).unwrap();
        let cancel = Cancel::default();
        cancel.set();
        assert!(store.lock(&key, &cancel, &|| ()).unwrap().is_none());
    }
}
