//! A store that others share: results are fetched from it by their key before they are computed, and pushed to it afterwards.
//!
//! ```text
//! PREFIX/v1/
//!   objects/ab/cdef…        as in a store: named by the BLAKE3 digest of their bytes
//!   results/ab/cdef….json   stage key → outputs and outcome
//! ```
//!
//! Contract. What comes from a remote is hostile until it is checked: a result must give the key it was asked by, an object its digest and
//! size. Nothing that goes wrong here ever fails a stage: it is told, and the stage is computed. A remote that cannot be used is
//! told of once and then left alone. Objects are pushed before the result that names them, so a result that is there is whole.
//! A pipeline without a remote starts no thread and loads no TLS; nor does one whose results are all in the local store.

mod client;
mod fetch;
mod location;
mod push;
mod trouble;

pub use location::{FORMS as REMOTE_FORMS, Location, LocationError};
pub use push::Pushed;

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use self::client::Client;
use self::push::Queue;
use self::trouble::Trouble;
use super::Digest;

/// So many results that are wrong, and nothing is fetched any more.
const MOST_WRONG: usize = 3;

/// A remote for the time of one run. Clones are the same one.
#[derive(Clone)]
pub struct Remote(Arc<Inner>);

struct Inner {
    location: Location,
    client: OnceLock<Client>,
    state: Mutex<State>,
    /// Something about the queue changed.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Nothing is fetched any more.
    reads_off: bool,
    /// Nothing is pushed any more.
    writes_off: bool,
    /// Somebody was told that the remote is left alone.
    told: bool,
    /// Keys whose results there are wrong; they are replaced when they are pushed.
    wrong: BTreeSet<Digest>,
    queue: Queue,
}

impl Remote {
    /// Nothing is connected before it is needed.
    pub fn new(location: Location) -> Self {
        let (client, state, changed) = (OnceLock::new(), Mutex::default(), Condvar::new());
        Remote(Arc::new(Inner { location, client, state, changed }))
    }

    pub fn location(&self) -> &Location {
        &self.0.location
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self) -> Result<&Client, Trouble> {
        if let Some(client) = self.0.client.get() {
            return Ok(client);
        }
        let client = Client::open(&self.0.location)?;
        // Another thread may have been first; its client is as good.
        Ok(self.0.client.get_or_init(|| client))
    }

    /// Leaves the remote alone from now on; the words to tell people, once.
    fn give_up(&self, trouble: &Trouble, only_writes: bool) -> Option<String> {
        let mut state = self.state();
        state.writes_off = true;
        state.reads_off |= !only_writes;
        let first = !std::mem::replace(&mut state.told, true);
        self.0.changed.notify_all();
        let what = if only_writes { "nothing more is pushed to it" } else { "it is left alone" };
        let later = if self.0.location.push { ", and a later run pushes what this one computes" } else { "" };
        first.then(|| format!("the remote `{}` cannot be used: {trouble}; {what} in this run{later}", self.0.location))
    }
}
