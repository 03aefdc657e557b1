//! What goes wrong with a remote, in words that hold no address and so no credentials.

use std::error::Error;
use std::time::Duration;

use crate::store::StoreError;

/// Characters of a server's words that are kept.
const LONGEST: usize = 160;

/// Why something could not be fetched or pushed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// There is nothing under that name.
    #[error("there is no such bucket or object")]
    Missing,
    #[error("access is denied; check the credentials in the environment and what they permit")]
    Denied,
    #[error("it does not answer within {:.0} s", .0.as_secs_f64())]
    Slow(Duration),
    #[error("{0}")]
    Failed(String),
    /// What is there is not what should be there.
    #[error("{0}")]
    Wrong(String),
    #[error("interrupted")]
    Cancelled,
    /// The local disk.
    #[error("{0}")]
    Local(String),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Trouble::Local(error.to_string())
    }
}

impl From<object_store::Error> for Trouble {
    fn from(error: object_store::Error) -> Self {
        match &error {
            object_store::Error::NotFound { .. } => Trouble::Missing,
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => Trouble::Denied,
            _ => Trouble::Failed(words(&error)),
        }
    }
}

/// The innermost cause: outer ones name addresses, which may be signed.
fn words(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    let innermost = innermost.to_string();
    // The body of an answer follows the first line.
    let line = innermost.lines().next().unwrap_or_default();
    let line = line.split('<').next().unwrap_or_default().trim().trim_end_matches(':');
    let quotes_address = line.contains("://") || line.contains('?') || line.chars().any(char::is_control);
    if line.is_empty() || quotes_address { "the request failed".into() } else { line.chars().take(LONGEST).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_and_no_body_gets_into_the_words() {
        let error = |text: &str| {
            let source = std::io::Error::other(text.to_owned());
            Trouble::from(object_store::Error::Generic { store: "S3", source: Box::new(source) }).to_string()
        };
        assert_eq!(error("Connection refused (os error 111)"), "Connection refused (os error 111)");
        assert_eq!(error("status code: 503: <?xml version=…><Key>SECRET</Key>"), "status code: 503");
        assert_eq!(error("error sending request for url (https://x/?sig=SECRET)"), "the request failed");
        assert_eq!(error("\u{1b}[31m"), "the request failed");
    }
}
