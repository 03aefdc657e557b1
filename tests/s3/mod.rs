//! A server that speaks S3 on the loopback, in a thread of the test.

use std::error::Error;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{Request, Response, server::conn::http1};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub const KEY: &str = "retune-test-key";
pub const SECRET: &str = "retune-test-SECRET-value";

/// Runs until it is dropped.
pub struct Server {
    port: u16,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves the folders in `root` as buckets.
    pub fn start(root: &Path) -> Self {
        Self::at(root, 0, usize::MAX)
    }

    /// After `requests` requests every connection is cut.
    pub fn dying(root: &Path, requests: usize) -> Self {
        Self::at(root, 0, requests)
    }

    /// At a port; 0 for any that is free.
    pub fn at(root: &Path, port: u16, requests: usize) -> Self {
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root).unwrap());
        service.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = Mortal { service: service.build(), left: Arc::new(AtomicUsize::new(requests)) };
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = serve(TcpListener::from_std(listener).unwrap(), service) => {}
                    _ = stopped => {}
                }
            });
        });
        Server { port, stop: Some(stop), thread: Some(thread) }
    }

    /// `remote:` of a pipeline.
    pub fn remote(&self) -> String {
        remote(self.port)
    }
}

/// `remote:` of a pipeline, for a server at `port`.
pub fn remote(port: u16) -> String {
    format!("remote: {{ url: s3://bucket/team, endpoint: \"http://127.0.0.1:{port}\", allow_http: true }}\n")
}

async fn serve(listener: TcpListener, service: Mortal) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service.clone());
        tokio::spawn(async move {
            // A connection that the client or the service cuts is what some tests want.
            let _ = connection.await;
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[derive(Clone)]
struct Mortal {
    service: S3Service,
    left: Arc<AtomicUsize>,
}

impl Service<Request<Incoming>> for Mortal {
    type Response = Response<s3s::Body>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let dead = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err();
        if dead {
            return Box::pin(async { Err(io::Error::other("dead").into()) });
        }
        let answer = Service::call(&self.service, request);
        Box::pin(async move { answer.await.map_err(|e| io::Error::other(format!("{e:?}")).into()) })
    }
}
