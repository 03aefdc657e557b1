//! A client for chat completions.

use std::io::{self, Read};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use reqwest::blocking::{Client, RequestBuilder};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Url, redirect};
use serde::{Deserialize, Serialize};

use super::endpoint::{Authorization, Endpoint};
use super::secret::Secret;
use crate::cancel::Cancel;
use crate::report::markdown::{one_line, shorten};
use crate::runtime::http;
use crate::runtime::retry::{Backoff, Failure, interruptible, retry, retry_after};

/// More of an answer is not read.
const MAX_BYTES: u64 = 16 << 20;
/// Characters of a server's message that are shown.
const SHOWN: usize = 300;

/// How patient the client is.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For one answer.
    pub timeout: Duration,
    pub backoff: Backoff,
}

/// What is asked.
#[derive(Debug, Clone, Serialize)]
pub struct Question {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    messages: Vec<Message>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
}

#[derive(Debug, Clone, Serialize)]
struct Message {
    role: &'static str,
    content: String,
}

impl Question {
    /// A system message, left out when it is empty, and the user's. Absent numbers are left to the server.
    pub fn new(system: &str, user: String, temperature: Option<f64>, max_tokens: Option<u32>) -> Self {
        let system = Some(system).filter(|s| !s.trim().is_empty()).map(|s| Message { role: "system", content: s.to_owned() });
        let messages = system.into_iter().chain([Message { role: "user", content: user }]).collect();
        Question { model: None, messages, temperature, max_tokens }
    }
}

/// What a language model says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub text: String,
    /// The model would have said more than `max_tokens` let it.
    pub cut: bool,
}

/// A client of one endpoint.
pub struct Chat {
    client: Client,
    endpoint: Endpoint,
    patience: Patience,
}

impl Chat {
    /// # Errors
    /// The key cannot be sent, or the system's certificates cannot be read.
    pub fn new(endpoint: Endpoint, patience: Patience) -> Result<Self> {
        // A redirect would carry the key to an address that nobody named.
        let builder = http::builder(patience.timeout).redirect(redirect::Policy::none()).default_headers(headers(&endpoint)?);
        // A proxy reaches another loopback than ours.
        let builder = if is_loopback(&endpoint.url) { builder.no_proxy() } else { builder };
        Ok(Chat { client: builder.build().context("the HTTP client cannot be set up")?, endpoint, patience })
    }

    /// Asks, again and again while the server is busy. `seed` spreads the waits of different questions; `log` gets a line for each try
    /// that failed.
    ///
    /// # Errors
    /// The server refuses, does not answer, or answers with something else; no message holds the key.
    pub fn ask(&self, question: &Question, seed: &str, cancel: &Cancel, log: &dyn Fn(&str)) -> Result<Reply> {
        let body = serde_json::to_vec(&Question { model: self.endpoint.model.clone(), ..question.clone() })?;
        retry(&self.patience.backoff, seed, cancel, log, || {
            let request =
                self.client.post(self.endpoint.url.clone()).header("content-type", "application/json").body(body.clone());
            let answer = interruptible(cancel, move || Answer::of(request))?;
            self.judge(&answer.map_err(|e| self.unanswered(&e))?)
        })
    }

    /// What to make of an answer.
    fn judge(&self, answer: &Answer) -> Result<Reply, Failure> {
        let text = String::from_utf8_lossy(&answer.body);
        if !(200..300).contains(&answer.status) {
            return Err(self.refused(answer, &text));
        }
        let fail = |why: String| {
            Failure::Final(
                self.error(&format!("{why}; is this the address of a server that answers chat completions in OpenAI's form?")),
            )
        };
        if answer.body.len() as u64 > MAX_BYTES {
            return Err(fail(format!("answered with more than {} MiB", MAX_BYTES >> 20)));
        }
        let completion: Completion = serde_json::from_slice(&answer.body)
            .map_err(|e| fail(format!("answered with what is no chat completion ({e}): `{}`", self.shown(&text))))?;
        let Some(choice) = completion.choices.into_iter().next() else {
            return Err(fail("answered with an empty list of choices".into()));
        };
        let reason = choice.finish_reason.unwrap_or_default();
        match choice.message.content {
            Some(content) if !content.trim().is_empty() => {
                Ok(Reply { text: self.endpoint.key.scrub(content.trim()), cut: reason == "length" })
            }
            _ => Err(Failure::Final(self.error(&match (reason.as_str(), choice.message.refusal) {
                ("length", _) => "used up `max_tokens` without an answer; raise it".into(),
                (_, Some(refusal)) => format!("declined: {}", self.shown(&refusal)),
                (reason, None) => format!("answered with no text (finish reason `{}`)", self.shown(reason)),
            }))),
        }
    }

    /// The error for a status that is no success.
    fn refused(&self, answer: &Answer, text: &str) -> Failure {
        let detail = serde_json::from_str::<Refusal>(text).unwrap_or_default();
        let (message, code) = detail.parts().unwrap_or_else(|| (text.to_owned(), String::new()));
        let message = self.shown(&message);
        let said = if message.is_empty() { String::new() } else { format!(": {message}") };
        // The quota does not come back within minutes, though its status is that of a busy server.
        let spent = code == "insufficient_quota";
        let advice = self.advice(answer.status, spent);
        let error = self.error(&format!("answered with status {}{said}{advice}", answer.status));
        if http::is_transient(answer.status) && !spent {
            Failure::Transient { error, after: answer.retry_after }
        } else {
            Failure::Final(error)
        }
    }

    fn advice(&self, status: u16, spent: bool) -> String {
        match status {
            300..=399 => "; the address has moved: give the one it moved to".into(),
            401 | 403 => format!("; check the key in `{}`", self.endpoint.key_variable),
            404 if self.endpoint.model.is_some() => "; check `base_url` and `model`".into(),
            404 => "; check `AZURE_OPENAI_ENDPOINT` and `AZURE_OPENAI_DEPLOYMENT_NAME`".into(),
            429 if spent => "; the account's quota is used up: add to it, or use another key".into(),
            429 => "; lower `concurrency` or raise `max_retries`".into(),
            _ => String::new(),
        }
    }

    /// The error for an answer that did not come.
    fn unanswered(&self, unanswered: &Unanswered) -> Failure {
        let error = self.error(&match unanswered {
            Unanswered::Late => {
                format!("did not answer within {} s; raise `timeout_seconds`", self.patience.timeout.as_secs_f64())
            }
            Unanswered::Unreachable(cause) => format!("cannot be reached: {cause}; is the server running?"),
            Unanswered::Broken(cause) => format!("broke the connection off: {cause}"),
        });
        Failure::Transient { error, after: None }
    }

    /// An error about this endpoint. Every message goes through here, and so loses the key.
    fn error(&self, what: &str) -> anyhow::Error {
        let mut url = self.endpoint.url.clone();
        url.set_query(None);
        anyhow!(self.endpoint.key.scrub(&format!("`{url}` {what}")))
    }

    /// What a server said, fit for a line. The key goes first: a cut would leave a part of it.
    fn shown(&self, text: &str) -> String {
        shorten(&one_line(&self.endpoint.key.scrub(text)), SHOWN)
    }
}

fn headers(endpoint: &Endpoint) -> Result<HeaderMap> {
    let key: &Secret = &endpoint.key;
    let (name, value) = match endpoint.authorization {
        Authorization::Bearer => (AUTHORIZATION, format!("Bearer {}", key.reveal())),
        Authorization::ApiKey => (HeaderName::from_static("api-key"), key.reveal().to_owned()),
    };
    let variable = &endpoint.key_variable;
    let mut value = HeaderValue::from_str(&value)
        .map_err(|_| anyhow!("the key in `{variable}` holds characters that cannot be sent; is there a line break in it?"))?;
    value.set_sensitive(true);
    Ok(HeaderMap::from_iter([(name, value)]))
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// An answer that has been read.
struct Answer {
    status: u16,
    retry_after: Option<Duration>,
    body: Vec<u8>,
}

/// Why there is no answer.
enum Unanswered {
    Late,
    Unreachable(String),
    Broken(String),
}

impl From<reqwest::Error> for Unanswered {
    fn from(error: reqwest::Error) -> Self {
        if error.is_connect() {
            Unanswered::Unreachable(http::cause(&error))
        } else if error.is_timeout() {
            Unanswered::Late
        } else {
            Unanswered::Broken(http::cause(&error))
        }
    }
}

impl From<io::Error> for Unanswered {
    fn from(error: io::Error) -> Self {
        let inner = error.get_ref().and_then(|e| e.downcast_ref::<reqwest::Error>());
        if error.kind() == io::ErrorKind::TimedOut || inner.is_some_and(reqwest::Error::is_timeout) {
            Unanswered::Late
        } else {
            Unanswered::Broken(inner.map_or_else(|| error.to_string(), http::cause))
        }
    }
}

impl Answer {
    fn of(request: RequestBuilder) -> Result<Self, Unanswered> {
        let response = request.send()?;
        let status = response.status().as_u16();
        let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = header.and_then(|value| retry_after(value, SystemTime::now()));
        let mut body = Vec::new();
        response.take(MAX_BYTES + 1).read_to_end(&mut body)?;
        Ok(Answer { status, retry_after, body })
    }
}

#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    message: Content,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Content {
    content: Option<String>,
    refusal: Option<String>,
}

/// The forms in which servers say why they refuse: `{"error": {"message", "code"}}`, `{"error": "…"}`, `{"message": "…"}`, `{"detail": "…"}`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    error: serde_json::Value,
    message: Option<String>,
    detail: serde_json::Value,
}

impl Refusal {
    /// Message and code.
    fn parts(&self) -> Option<(String, String)> {
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let field = |name: &str| self.error.get(name).and_then(text);
        let message =
            field("message").or_else(|| text(&self.error)).or_else(|| self.message.clone()).or_else(|| text(&self.detail))?;
        Some((message, field("code").unwrap_or_default()))
    }
}
