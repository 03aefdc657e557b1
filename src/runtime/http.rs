//! The HTTP client that downloads and language-model requests share.

use std::sync::Once;
use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::blocking::{Client, ClientBuilder};

/// A client that gives up on a connection after 20 seconds, and on a silent answer after `timeout`.
///
/// # Errors
/// The system's certificates cannot be read.
pub fn client(timeout: Duration) -> Result<Client> {
    builder(timeout).build().context("the HTTP client cannot be set up")
}

/// Chooses the cryptography of TLS for every client of the process.
pub fn install_tls() {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Fails only when a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// What [`client`] builds, for those who need to set more.
pub fn builder(timeout: Duration) -> ClientBuilder {
    install_tls();
    Client::builder()
        .user_agent(concat!("retune/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(20))
        .timeout(timeout)
}

/// Why a request failed, without the address: the innermost cause.
pub fn cause(error: &reqwest::Error) -> String {
    let innermost = std::iter::successors(std::error::Error::source(error), |e| e.source()).last();
    innermost.map_or_else(|| "the request failed".into(), ToString::to_string)
}

/// Whether an answer with this status is worth another try.
pub fn is_transient(status: u16) -> bool {
    status == 408 || status == 429 || status >= 500
}
