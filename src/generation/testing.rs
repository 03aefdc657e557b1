//! A small HTTP server on the loopback for tests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::endpoint::Endpoint;

/// The key that tests use.
pub const KEY: &str = "sk-test/0123456789abcdef";

/// Serves until the test ends.
pub struct Server {
    pub base_url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// `answer` gets the number of requests before this one, and the request; what it returns is sent as it is.
    pub fn start(mut answer: impl FnMut(usize, &str) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let request = read(&mut stream);
                seen.lock().unwrap().push(request.clone());
                // A client that has given up is no concern of the server.
                let _ = stream.write_all(answer(number, &request).as_bytes());
            }
        });
        Server { base_url, requests }
    }

    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// The server as a language model, with [`KEY`].
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::openai(&self.base_url, "small", "TEST_KEY", &|_| Some(KEY.into())).unwrap()
    }
}

fn read(stream: &mut TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap() == 0 || line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head += &line;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    head + "\r\n" + &String::from_utf8(body).unwrap()
}

/// An HTTP answer.
pub fn http(status: u16, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

/// A chat completion that says `text`.
pub fn completion(text: &str) -> String {
    let choice = serde_json::json!({ "index": 0, "finish_reason": "stop", "message": { "role": "assistant", "content": text } });
    http(200, "content-type: application/json\r\n", &serde_json::json!({ "id": "x", "choices": [choice] }).to_string())
}
