//! The one place that talks to object stores. Inside it is asynchronous; what others call blocks, for a bounded time.

use std::fs::{self, File};
use std::future::Future;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::ClientOptions;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Name;
use object_store::{BackoffConfig, ObjectStore, ObjectStoreExt, RetryConfig};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

use super::location::{Location, Place, Service};
use super::trouble::Trouble;
use crate::cancel::Cancel;
use crate::runtime::http;
use crate::store::Digest;

const CONNECT: Duration = Duration::from_secs(3);
/// How long a server may be silent, and how long a request takes at most besides what it carries.
const ANSWER: Duration = Duration::from_secs(10);
/// After so long no request is begun again.
const RETRY: Duration = Duration::from_secs(5);
/// The slowest transfer that is waited for, in bytes a second.
const SLOWEST: u64 = 200_000;
/// How often it is looked whether to stop.
const LOOK: Duration = Duration::from_millis(50);
/// Larger objects are uploaded in parts; services want at least 5 MiB a part and at most 10,000 parts.
const PART: u64 = 8 << 20;
const MOST_PARTS: u64 = 9_000;

/// A connection to a remote.
pub(super) struct Client {
    /// On the threads of those who wait; it has none of its own.
    runtime: Runtime,
    pub bucket: Bucket,
}

/// Where objects are.
#[derive(Clone)]
pub(super) struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: String,
}

impl Client {
    pub fn open(location: &Location) -> Result<Self, Trouble> {
        let failed = |e: std::io::Error| Trouble::Failed(e.to_string());
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (store, prefix): (Arc<dyn ObjectStore>, &str) = match &location.place {
            Place::Folder(folder) => (Arc::new(open_folder(folder)?), ""),
            Place::Bucket { service, bucket, prefix } => (open_bucket(location, *service, bucket)?, prefix),
        };
        let prefix = if prefix.is_empty() { "v1".into() } else { format!("{prefix}/v1") };
        Ok(Client { runtime, bucket: Bucket { store, prefix } })
    }

    /// Waits for `work`, which moves about `bytes`, until it is done, takes too long, or `cancel` is set.
    pub fn wait<T>(&self, bytes: u64, cancel: &Cancel, work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
        let limit = ANSWER + Duration::from_secs(bytes / SLOWEST);
        let stopped = async {
            while !cancel.is_set() {
                sleep(LOOK).await;
            }
        };
        self.runtime.block_on(async {
            tokio::select! {
                ended = timeout(limit, work) => ended.unwrap_or(Err(Trouble::Slow(limit))),
                () = stopped => Err(Trouble::Cancelled),
            }
        })
    }
}

/// The folder is made, but not those above it: they are missing when a disk is not there.
fn open_folder(folder: &Path) -> Result<LocalFileSystem, Trouble> {
    let shown = folder.display();
    if let Err(error) = fs::create_dir(folder)
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(Trouble::Failed(format!(
            "the folder cannot be made ({error}), so mount its disk or make the folder above it"
        )));
    }
    let store = LocalFileSystem::new_with_prefix(folder);
    Ok(store.map_err(|_| Trouble::Failed(format!("`{shown}` cannot be used as a folder")))?.with_fsync(true))
}

fn open_bucket(location: &Location, service: Service, bucket: &str) -> Result<Arc<dyn ObjectStore>, Trouble> {
    http::install_tls();
    let backoff = BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(2), base: 2.0 };
    let retry = RetryConfig { backoff, max_retries: 3, retry_timeout: RETRY };
    // A transfer of any size may go on while bytes come; the whole is bounded by `Client::wait`.
    let options = || ClientOptions::new().with_connect_timeout(CONNECT).with_read_timeout(ANSWER).with_timeout_disabled();
    let endpoint = location.endpoint.as_deref();
    let store: Arc<dyn ObjectStore> = match service {
        Service::S3 => {
            let mut builder = AmazonS3Builder::from_env();
            let from_env =
                builder.get_config_value(&object_store::aws::AmazonS3ConfigKey::Client(object_store::ClientConfigKey::AllowHttp));
            let allow_http = location.allow_http || endpoint.is_none() && from_env.is_some_and(|v| v == "true");
            builder = builder.with_client_options(options().with_allow_http(allow_http));
            builder = builder.with_bucket_name(bucket).with_retry(retry);
            if let Some(endpoint) = endpoint {
                builder = builder.with_endpoint(endpoint);
            }
            if let Some(region) = &location.region {
                builder = builder.with_region(region);
            }
            Arc::new(builder.build()?)
        }
        Service::Google => {
            let options = options().with_allow_http(location.allow_http);
            let mut builder = GoogleCloudStorageBuilder::from_env().with_client_options(options);
            builder = builder.with_bucket_name(bucket).with_retry(retry);
            if let Some(endpoint) = endpoint {
                builder = builder.with_base_url(endpoint);
            }
            Arc::new(builder.build()?)
        }
        Service::Azure => {
            let options = options().with_allow_http(location.allow_http);
            let mut builder = MicrosoftAzureBuilder::from_env().with_client_options(options);
            builder = builder.with_container_name(bucket).with_retry(retry);
            if let Some(endpoint) = endpoint {
                builder = builder.with_endpoint(endpoint.to_owned());
            }
            Arc::new(builder.build()?)
        }
    };
    Ok(store)
}

impl Bucket {
    /// `results/ab/cdef….json`.
    pub fn result(&self, key: &Digest) -> Name {
        let (head, tail) = key.as_str().split_at(2);
        Name::from(format!("{}/results/{head}/{tail}.json", self.prefix))
    }

    /// `objects/ab/cdef…`.
    pub fn object(&self, digest: &Digest) -> Name {
        let (head, tail) = digest.as_str().split_at(2);
        Name::from(format!("{}/objects/{head}/{tail}", self.prefix))
    }

    /// Size of what is there.
    pub async fn size(&self, name: &Name) -> Result<Option<u64>, Trouble> {
        match self.store.head(name).await {
            Ok(found) => Ok(Some(found.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What is there, if it is not larger than `most` bytes.
    pub async fn read(&self, name: &Name, most: u64) -> Result<Vec<u8>, Trouble> {
        let mut bytes = Vec::new();
        self.each(name, most, |chunk| {
            bytes.extend_from_slice(chunk);
            Ok(())
        })
        .await?;
        Ok(bytes)
    }

    /// Writes the object to `target`, and checks digest and size.
    pub async fn download(&self, digest: &Digest, size: u64, target: &Path) -> Result<(), Trouble> {
        let local = |e: std::io::Error| Trouble::Local(format!("`{}` cannot be written: {e}", target.display()));
        let mut file = File::create(target).map_err(local)?;
        let mut hasher = blake3::Hasher::new();
        let name = self.object(digest);
        let read = self.each(&name, size, |chunk| {
            hasher.update(chunk);
            file.write_all(chunk).map_err(local)
        });
        read.await.map_err(|trouble| missing(trouble, digest))?;
        check(digest, size, &hasher)
    }

    async fn each(&self, name: &Name, most: u64, mut take: impl FnMut(&[u8]) -> Result<(), Trouble>) -> Result<(), Trouble> {
        let mut stream = self.store.get(name).await?.into_stream();
        let mut left = most;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            let rest = left.checked_sub(chunk.len() as u64);
            left = rest.ok_or_else(|| Trouble::Wrong(format!("it is larger than the {most} bytes that it may have")))?;
            take(&chunk)?;
        }
        Ok(())
    }

    /// Puts bytes, replacing what is there.
    pub async fn write(&self, name: &Name, bytes: Vec<u8>) -> Result<(), Trouble> {
        self.store.put(name, bytes.into()).await?;
        Ok(())
    }

    /// Puts the file of an object, after it was checked that it still is that object.
    pub async fn upload(&self, digest: &Digest, size: u64, file: &Path) -> Result<(), Trouble> {
        let local = |e: std::io::Error| Trouble::Wrong(format!("`{}` cannot be read: {e}", file.display()));
        let name = self.object(digest);
        let mut parts =
            Parts { file: File::open(file).map_err(local)?, size: PART.max(size / MOST_PARTS), hasher: blake3::Hasher::new() };
        let first = parts.next().map_err(local)?;
        if size <= parts.size {
            check(digest, size, &parts.hasher)?;
            return self.write(&name, first).await;
        }
        let mut upload = self.store.put_multipart(&name).await?;
        let all = async {
            let mut bytes = first;
            while !bytes.is_empty() {
                upload.put_part(bytes.into()).await?;
                bytes = parts.next().map_err(local)?;
            }
            check(digest, size, &parts.hasher)
        };
        if let Err(trouble) = all.await {
            // What is left of it is the service's to clean up when this fails too.
            let _ = upload.abort().await;
            return Err(trouble);
        }
        upload.complete().await?;
        Ok(())
    }
}

/// A file that is read part by part, and digested meanwhile.
struct Parts {
    file: File,
    size: u64,
    hasher: blake3::Hasher,
}

impl Parts {
    /// Nothing at the end.
    fn next(&mut self) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        Read::by_ref(&mut self.file).take(self.size).read_to_end(&mut bytes)?;
        self.hasher.update(&bytes);
        Ok(bytes)
    }
}

/// That what was read is the object `digest`.
fn check(digest: &Digest, size: u64, hasher: &blake3::Hasher) -> Result<(), Trouble> {
    if hasher.count() == size && Digest::from(hasher.finalize()) == *digest {
        return Ok(());
    }
    Err(Trouble::Wrong(format!("object {} has other bytes than its digest says", digest.short())))
}

/// An object that a result names must be there.
pub(super) fn missing(trouble: Trouble, digest: &Digest) -> Trouble {
    match trouble {
        Trouble::Missing => Trouble::Wrong(format!("object {} is missing", digest.short())),
        Trouble::Wrong(what) => Trouble::Wrong(format!("object {}: {what}", digest.short())),
        other => other,
    }
}
