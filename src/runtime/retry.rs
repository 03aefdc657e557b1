//! Trying again what may succeed later, without keeping anyone who wants to stop.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow};

use crate::cancel::Cancel;

/// How often it is looked whether to stop.
const LOOK: Duration = Duration::from_millis(50);

/// Waits between tries: `first`, then twice as long each time, never longer than `longest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Tries in all, the first one included.
    pub tries: u32,
    pub first: Duration,
    /// Also caps what a server asks for.
    pub longest: Duration,
}

/// Why a try failed.
#[derive(Debug)]
pub enum Failure {
    /// A later try may succeed; `after` is how long the server asks to wait.
    Transient { error: anyhow::Error, after: Option<Duration> },
    /// No later try will succeed.
    Final(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure::Final(error)
    }
}

impl Backoff {
    /// The wait after the `tried`-th try: what the server asks for, else exponential; up to a quarter more, so that those who
    /// were turned away together do not come back together. The extra is taken from `seed`, so that it is the same in every run.
    fn wait(&self, tried: u32, after: Option<Duration>, seed: &str) -> Duration {
        let doubled = self.first.saturating_mul(2u32.saturating_pow(tried.saturating_sub(1)));
        let wait = after.unwrap_or(doubled).min(self.longest);
        let digest = blake3::hash(format!("{seed}\n{tried}").as_bytes());
        wait + wait.mul_f64(f64::from(digest.as_bytes()[0]) / 255.0 / 4.0)
    }
}

/// Calls `attempt` until it succeeds, fails for good, or has been tried often enough. `log` gets a line before each wait.
///
/// # Errors
/// What the last try said, or [`Cancelled`](crate::cancel::Cancelled).
pub fn retry<T>(
    backoff: &Backoff,
    seed: &str,
    cancel: &Cancel,
    log: &dyn Fn(&str),
    mut attempt: impl FnMut() -> Result<T, Failure>,
) -> Result<T> {
    let mut tried = 0;
    loop {
        cancel.check()?;
        tried += 1;
        let (error, after) = match attempt() {
            Ok(value) => return Ok(value),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Transient { error, after }) => (error, after),
        };
        if tried >= backoff.tries {
            return Err(if tried > 1 { error.context(format!("gave up after {tried} tries")) } else { error });
        }
        let wait = backoff.wait(tried, after, seed);
        log(&format!("{error:#}; try {} of {} in {:.1} s", tried + 1, backoff.tries, wait.as_secs_f64()));
        pause(wait, cancel)?;
    }
}

/// Sleeps, but not after `cancel` is set.
///
/// # Errors
/// [`Cancelled`](crate::cancel::Cancelled).
pub fn pause(wait: Duration, cancel: &Cancel) -> Result<()> {
    let start = Instant::now();
    while let Some(left) = wait.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
        cancel.check()?;
        thread::sleep(left.min(LOOK));
    }
    Ok(cancel.check()?)
}

/// Runs blocking `work` on a thread of its own and returns what it yields; it is left behind when `cancel` is set meanwhile.
///
/// # Errors
/// [`Cancelled`](crate::cancel::Cancelled), or no thread can be had.
pub fn interruptible<T: Send + 'static>(cancel: &Cancel, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let (sender, receiver) = channel();
    let worker = move || {
        // The receiver is gone when the work was cancelled; nobody wants the result then.
        let _ = sender.send(work());
    };
    thread::Builder::new().spawn(worker).context("the system gives no further thread; lower `concurrency`")?;
    loop {
        match receiver.recv_timeout(LOOK) {
            Ok(value) => return Ok(value),
            Err(RecvTimeoutError::Timeout) => cancel.check()?,
            Err(RecvTimeoutError::Disconnected) => return Err(anyhow!("a request ended without a result")),
        }
    }
}

/// Reads a `Retry-After` header: seconds, or a date (RFC 9110, 10.2.3). A date that is past means at once.
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    Some(httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::Cancelled;

    const QUICK: Backoff = Backoff { tries: 4, first: Duration::from_millis(1), longest: Duration::from_secs(8) };

    fn transient() -> Failure {
        Failure::Transient { error: anyhow!("busy"), after: None }
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let backoff = Backoff { tries: 9, first: Duration::from_secs(1), longest: Duration::from_secs(8) };
        for (tried, base) in [(1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 8.0), (60, 8.0)] {
            let wait = backoff.wait(tried, None, "q1").as_secs_f64();
            assert!((base..=base * 1.25).contains(&wait), "{tried}: {wait}");
            assert_eq!(backoff.wait(tried, None, "q1"), backoff.wait(tried, None, "q1"));
        }
        assert_ne!(backoff.wait(1, None, "q1"), backoff.wait(1, None, "q2"));
        // The server's word counts, within bounds.
        assert_eq!(backoff.wait(3, Some(Duration::ZERO), "q1"), Duration::ZERO);
        assert!(backoff.wait(1, Some(Duration::from_secs(9999)), "q1") <= Duration::from_secs(10));
    }

    #[test]
    fn tries_as_often_as_told_and_no_more() {
        let mut calls = 0;
        let mut attempt = |good_at: u32| {
            calls += 1;
            if calls == good_at { Ok(calls) } else { Err(transient()) }
        };
        let cancel = Cancel::default();
        assert_eq!(retry(&QUICK, "", &cancel, &|_| (), || attempt(3)).unwrap(), 3);
        let mut calls = 0;
        let failed = retry(&QUICK, "", &cancel, &|_| (), || -> Result<(), Failure> {
            calls += 1;
            Err(transient())
        });
        assert_eq!((calls, format!("{:#}", failed.unwrap_err())), (4, "gave up after 4 tries: busy".into()));
        let mut calls = 0;
        let failed = retry(&QUICK, "", &cancel, &|_| (), || -> Result<(), Failure> {
            calls += 1;
            Err(Failure::Final(anyhow!("refused")))
        });
        assert_eq!((calls, format!("{:#}", failed.unwrap_err())), (1, "refused".into()));
    }

    #[test]
    fn a_wait_and_a_request_end_when_cancelled() {
        let cancel = Cancel::default();
        let later = cancel.clone();
        let start = Instant::now();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            later.set();
        });
        assert!(pause(Duration::from_secs(60), &cancel).unwrap_err().is::<Cancelled>());
        assert!(interruptible(&cancel, || thread::sleep(Duration::from_secs(60))).unwrap_err().is::<Cancelled>());
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(retry_after(" 7 ", now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:50:07 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(Duration::ZERO));
        for bad in ["", "soon", "-1", "NaN", "inf", "1e300"] {
            assert_eq!(retry_after(bad, now), None, "{bad}");
        }
    }
}
