//! Where results are shared: a folder, or a bucket of an object store.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use reqwest::Url;

/// What a place may look like.
pub const FORMS: &str = "name a folder (`../shared-store`, `file:///…`) or a bucket (`s3://BUCKET/PREFIX`, `gs://…`, `az://…`)";

/// Where results are shared, and how it is reached. It holds no credentials: those come from the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    pub(super) place: Place,
    /// The server, where it is not the service's own.
    pub(super) endpoint: Option<String>,
    pub(super) region: Option<String>,
    pub(super) allow_http: bool,
    /// Whether what is computed is pushed; else results are only fetched.
    pub push: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Folder(PathBuf),
    /// The prefix has no `/` at its ends.
    Bucket {
        service: Service,
        bucket: String,
        prefix: String,
    },
}

/// An object store's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    S3,
    Google,
    Azure,
}

/// A location that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {help}")]
pub struct LocationError {
    pub message: String,
    /// The mend.
    pub help: String,
}

fn error<T>(message: impl Into<String>, help: impl Into<String>) -> Result<T, LocationError> {
    Err(LocationError { message: message.into(), help: help.into() })
}

impl Location {
    /// Reads a folder, relative to `base`, or a URL.
    ///
    /// # Errors
    /// It is neither, or it holds credentials.
    pub fn parse(text: &str, base: &Path) -> Result<Self, LocationError> {
        let place = match text.trim() {
            "" => return error("the remote is empty", FORMS),
            text if text.starts_with('~') => {
                return error(format!("`{text}` is not expanded as a shell does"), "write the folder's path in full");
            }
            text if text.contains("://") => Self::url(text)?,
            text => match std::path::absolute(base.join(text)) {
                Ok(folder) => Place::Folder(folder),
                Err(_) => return error(format!("`{text}` cannot be made absolute"), "write the folder's path in full"),
            },
        };
        Ok(Location { place, endpoint: None, region: None, allow_http: false, push: true })
    }

    fn url(text: &str) -> Result<Place, LocationError> {
        let url = address(text, "the remote")?;
        let service = match url.scheme() {
            "s3" => Service::S3,
            "gs" => Service::Google,
            "az" => Service::Azure,
            "file" => {
                return match url.to_file_path() {
                    Ok(folder) => Ok(Place::Folder(folder)),
                    Err(()) => error("the remote is no folder of this machine", "write three slashes: `file:///path`"),
                };
            }
            "http" | "https" => {
                let help = format!("{FORMS}; a server that speaks S3 is given as `endpoint` beside `url: s3://BUCKET/PREFIX`");
                return error(format!("a remote cannot be reached by `{}`", url.scheme()), help);
            }
            other => return error(format!("there is no kind of remote `{other}`"), FORMS),
        };
        let Some(bucket) = url.host_str().filter(|bucket| !bucket.is_empty()) else {
            return error("the remote names no bucket", format!("write `{}://BUCKET/PREFIX`", url.scheme()));
        };
        let prefix = url.path().trim_matches('/');
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.=+@,".contains(c);
        if !prefix.is_empty() && !prefix.split('/').all(|part| !part.is_empty() && part.chars().all(plain)) {
            let help = "use letters, digits and `-_.=+@,` between single slashes";
            return error(format!("`{prefix}` cannot be a remote's prefix"), help);
        }
        Ok(Place::Bucket { service, bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }

    /// What tells it from other remotes.
    pub(super) fn mark(&self) -> String {
        format!("{self} {}\n", self.endpoint.as_deref().unwrap_or_default())
    }

    /// Sets the server of a bucket, `https://HOST[:PORT]`; over plain HTTP only if `allow_http`.
    ///
    /// # Errors
    /// It is no such address, or the remote is a folder.
    pub fn set_endpoint(&mut self, text: &str, allow_http: bool) -> Result<(), LocationError> {
        if matches!(self.place, Place::Folder(_)) {
            return error("a folder has no `endpoint`", "remove it, or name a bucket as `url`");
        }
        let url = address(text, "the `endpoint`")?;
        match url.scheme() {
            "https" => {}
            "http" if allow_http => {}
            "http" => {
                let help =
                    "write `https://`, or add `allow_http: true` if everybody on the way may read and change what is shared";
                return error("the `endpoint` is reached over plain HTTP", help);
            }
            other => return error(format!("an `endpoint` cannot be reached by `{other}`"), "write `https://HOST`"),
        }
        self.endpoint = Some(text.trim().trim_end_matches('/').to_owned());
        self.allow_http = allow_http;
        Ok(())
    }

    /// Sets the region of an S3 bucket.
    ///
    /// # Errors
    /// The remote is something else, or it is no name of a region.
    pub fn set_region(&mut self, region: &str) -> Result<(), LocationError> {
        if !matches!(self.place, Place::Bucket { service: Service::S3, .. }) {
            return error("only buckets of S3 have a `region`", "remove it");
        }
        if region.is_empty() || !region.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return error(format!("`{region}` is no region"), "write one as `eu-central-1`");
        }
        self.region = Some(region.to_owned());
        Ok(())
    }
}

/// An address without credentials; errors do not quote it, because it may have some.
fn address(text: &str, what: &str) -> Result<Url, LocationError> {
    let Ok(url) = Url::parse(text.trim()) else {
        return error(format!("{what} is no address"), FORMS);
    };
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        let help = "leave out what stands before `@` and after `?` or `#`; credentials come from the environment";
        return error(format!("{what} holds more than a place"), help);
    }
    Ok(url)
}

/// Without `..`, to be read.
fn shortened(folder: &Path) -> PathBuf {
    let mut short = PathBuf::new();
    for part in folder.components() {
        match part {
            Component::ParentDir => _ = short.pop(),
            part => short.push(part),
        }
    }
    short
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Folder(folder) => write!(f, "{}", shortened(folder).display()),
            Place::Bucket { service, bucket, prefix } => {
                let scheme = match service {
                    Service::S3 => "s3",
                    Service::Google => "gs",
                    Service::Azure => "az",
                };
                let slash = if prefix.is_empty() { "" } else { "/" };
                write!(f, "{scheme}://{bucket}{slash}{prefix}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_written() {
        let read = |text: &str| match Location::parse(text, Path::new("/p/pipelines")) {
            Ok(location) => location.to_string(),
            Err(error) => format!("error: {error}"),
        };
        let texts = [
            "../shared-store",
            "/srv/store",
            "file:///srv/store",
            "s3://bucket",
            "s3://bucket/team/retune/",
            "gs://bucket/x",
            "az://container/x",
            "",
            "~/store",
            "https://bucket.example",
            "ftp://bucket/x",
            "s3://",
            "s3://KEY:SECRET@bucket/x",
            "az://container/x?sig=SECRET",
            "s3://bucket/a//b",
            "s3://bucket/a/../b c",
        ];
        let drawn: Vec<String> = texts.iter().map(|text| format!("{text}: {}", read(text))).collect();
        insta::assert_snapshot!(drawn.join("\n"), @"
        ../shared-store: /p/shared-store
        /srv/store: /srv/store
        file:///srv/store: /srv/store
        s3://bucket: s3://bucket
        s3://bucket/team/retune/: s3://bucket/team/retune
        gs://bucket/x: gs://bucket/x
        az://container/x: az://container/x
        : error: the remote is empty; name a folder (`../shared-store`, `file:///…`) or a bucket (`s3://BUCKET/PREFIX`, `gs://…`, `az://…`)
        ~/store: error: `~/store` is not expanded as a shell does; write the folder's path in full
        https://bucket.example: error: a remote cannot be reached by `https`; name a folder (`../shared-store`, `file:///…`) or a bucket (`s3://BUCKET/PREFIX`, `gs://…`, `az://…`); a server that speaks S3 is given as `endpoint` beside `url: s3://BUCKET/PREFIX`
        ftp://bucket/x: error: there is no kind of remote `ftp`; name a folder (`../shared-store`, `file:///…`) or a bucket (`s3://BUCKET/PREFIX`, `gs://…`, `az://…`)
        s3://: error: the remote names no bucket; write `s3://BUCKET/PREFIX`
        s3://KEY:SECRET@bucket/x: error: the remote holds more than a place; leave out what stands before `@` and after `?` or `#`; credentials come from the environment
        az://container/x?sig=SECRET: error: the remote holds more than a place; leave out what stands before `@` and after `?` or `#`; credentials come from the environment
        s3://bucket/a//b: error: `a//b` cannot be a remote's prefix; use letters, digits and `-_.=+@,` between single slashes
        s3://bucket/a/../b c: error: `b%20c` cannot be a remote's prefix; use letters, digits and `-_.=+@,` between single slashes
        ");
        assert!(texts.iter().map(|text| read(text)).all(|drawn| !drawn.contains("SECRET")));
    }

    #[test]
    fn an_endpoint_is_a_server_without_credentials() {
        let set = |url: &str, endpoint: &str, allow_http: bool| {
            let mut location = Location::parse(url, Path::new("/p")).unwrap();
            location.set_endpoint(endpoint, allow_http).map(|()| location.endpoint.unwrap_or_default())
        };
        assert_eq!(set("s3://b", "https://minio.example:9000/", false).unwrap(), "https://minio.example:9000");
        assert!(set("s3://b", "http://localhost:9000", true).is_ok());
        for (url, endpoint) in [
            ("s3://b", "http://localhost:9000"),
            ("/folder", "https://x.example"),
            ("s3://b", "https://a:SECRET@x"),
            ("s3://b", "x"),
        ] {
            let message = set(url, endpoint, false).unwrap_err().to_string();
            assert!(!message.contains("SECRET"), "{message}");
        }
        let mut google = Location::parse("gs://b", Path::new("/p")).unwrap();
        assert!(google.set_region("eu-central-1").is_err());
    }
}
