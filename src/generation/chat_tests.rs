//! The client against a real server on the loopback.

use std::cell::RefCell;
use std::net::TcpListener;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::chat::{Chat, Patience, Question, Reply};
use super::endpoint::Endpoint;
use super::testing::{KEY, Server, completion, http};
use crate::cancel::{Cancel, Cancelled};
use crate::runtime::retry::Backoff;

const PATIENCE: Patience = Patience {
    timeout: Duration::from_secs(20),
    backoff: Backoff { tries: 3, first: Duration::from_millis(5), longest: Duration::from_secs(5) },
};

/// Asks one question; the result and the log.
fn ask(endpoint: Endpoint, patience: Patience) -> (Result<Reply>, String) {
    let log = RefCell::new(String::new());
    let question = Question::new("be brief", "why?".into(), Some(0.1), None);
    let chat = Chat::new(endpoint, patience).unwrap();
    let reply = chat.ask(&question, "q1", &Cancel::default(), &|line| *log.borrow_mut() += &format!("{line}\n"));
    (reply, log.into_inner())
}

/// The message of the failure that `server` leads to, its own address replaced; neither it nor the log may hold the key.
fn message(server: &Server) -> String {
    let (reply, log) = ask(server.endpoint(), PATIENCE);
    let error = reply.unwrap_err();
    let message = format!("{error:#}");
    for text in [&message, &log, &format!("{error:?}")] {
        assert!(!text.contains(KEY) && !text.contains("0123456789"), "{text}");
    }
    message.replace(&server.base_url, "http://HOST/v1")
}

#[test]
fn asks_and_reads_the_answer() {
    let server = Server::start(|_, _| completion(" Because. "));
    let (reply, log) = ask(server.endpoint(), PATIENCE);
    assert_eq!(reply.unwrap(), Reply { text: "Because.".into(), cut: false });
    assert_eq!(log, "");
    let [request] = server.requests().try_into().unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{head}");
    assert!(head.to_lowercase().contains(&format!("authorization: bearer {KEY}\r\n")), "{head}");
    insta::assert_snapshot!(body, @r#"{"model":"small","messages":[{"role":"system","content":"be brief"},{"role":"user","content":"why?"}],"temperature":0.1}"#);
}

#[test]
fn azure_has_its_own_address_and_header() {
    let server = Server::start(|_, _| completion("Because."));
    let base = server.base_url.trim_end_matches("/v1").to_owned();
    let environment = |name: &str| match name {
        "AZURE_OPENAI_API_KEY" => Some(KEY.to_owned()),
        "AZURE_OPENAI_ENDPOINT" => Some(base.clone()),
        "AZURE_OPENAI_DEPLOYMENT_NAME" => Some("mine".to_owned()),
        _ => None,
    };
    assert_eq!(ask(Endpoint::azure(&environment).unwrap(), PATIENCE).0.unwrap().text, "Because.");
    let request = &server.requests()[0];
    assert!(
        request.starts_with("POST /openai/deployments/mine/chat/completions?api-version=2024-02-15-preview HTTP/1.1"),
        "{request}"
    );
    assert!(request.contains(&format!("api-key: {KEY}\r\n")) && !request.to_lowercase().contains("authorization"), "{request}");
    assert!(!request.contains("\"model\""), "{request}");
}

#[test]
fn waits_as_long_as_a_busy_server_asks() {
    let server = Server::start(|number, _| match number {
        0 => http(429, "retry-after: 1\r\n", r#"{"error": {"message": "slow down"}}"#),
        1 => http(503, "", ""),
        _ => completion("Because."),
    });
    let start = Instant::now();
    let (reply, log) = ask(server.endpoint(), PATIENCE);
    assert_eq!(reply.unwrap().text, "Because.");
    assert!(start.elapsed() >= Duration::from_secs(1));
    let log = log.replace(&server.base_url, "http://HOST/v1");
    insta::assert_snapshot!(log, @r"
    `http://HOST/v1/chat/completions` answered with status 429: slow down; lower `concurrency` or raise `max_retries`; try 2 of 3 in 1.2 s
    `http://HOST/v1/chat/completions` answered with status 503; try 3 of 3 in 0.0 s
    ");
}

#[test]
fn a_server_that_stays_broken_is_given_up() {
    let server = Server::start(|_, _| http(500, "", "<h1>Internal\nerror</h1>"));
    insta::assert_snapshot!(message(&server), @"gave up after 3 tries: `http://HOST/v1/chat/completions` answered with status 500: <h1>Internal error</h1>");
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn a_refusal_is_told_at_once_and_without_the_key() {
    // The key as it is, in JSON that escapes `/`, and where the message is cut.
    let echoes: [fn(&str) -> String; 3] = [
        |key| {
            serde_json::json!({ "error": { "message": format!("Incorrect API key provided: {key}."), "code": "invalid_api_key" } }).to_string()
        },
        |key| format!("no entry for {}", key.replace('/', "\\/")),
        |key| "x".repeat(290) + key,
    ];
    let mut messages = Vec::new();
    for echo in echoes {
        let server = Server::start(move |_, request| {
            let key = request.lines().find_map(|l| l.strip_prefix("authorization: Bearer ")).unwrap();
            http(401, &format!("www-authenticate: Bearer {key}\r\n"), &echo(key))
        });
        messages.push(message(&server));
        assert_eq!(server.requests().len(), 1);
    }
    insta::assert_snapshot!(messages[0], @"`http://HOST/v1/chat/completions` answered with status 401: Incorrect API key provided: ***.; check the key in `TEST_KEY`");
    insta::assert_snapshot!(messages[1], @"`http://HOST/v1/chat/completions` answered with status 401: no entry for ***; check the key in `TEST_KEY`");
}

#[test]
fn a_key_in_an_answer_is_taken_out() {
    let server = Server::start(|_, _| completion(&format!("your key is {KEY}!")));
    assert_eq!(ask(server.endpoint(), PATIENCE).0.unwrap().text, "your key is ***!");
}

#[test]
fn what_waiting_does_not_mend_is_not_tried_again() {
    let spent = r#"{"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}"#;
    let cases = [
        http(429, "", spent),
        http(404, "", r#"{"detail": "Not Found"}"#),
        http(307, "location: http://127.0.0.1:1/\r\n", ""),
        http(200, "", r#"{"choices": [{"message": {"content": "cut o"#),
        http(200, "", r#"{"choices": []}"#),
        http(200, "", r#"{"choices": [{"message": {"content": null}, "finish_reason": "content_filter"}]}"#),
        http(200, "", r#"{"choices": [{"message": {"content": ""}, "finish_reason": "length"}]}"#),
    ];
    let mut messages = String::new();
    for case in cases {
        let server = Server::start(move |_, _| case.clone());
        messages += &(message(&server) + "\n");
        assert_eq!(server.requests().len(), 1);
    }
    insta::assert_snapshot!(messages, @r#"
    `http://HOST/v1/chat/completions` answered with status 429: You exceeded your current quota; the account's quota is used up: add to it, or use another key
    `http://HOST/v1/chat/completions` answered with status 404: Not Found; check `base_url` and `model`
    `http://HOST/v1/chat/completions` answered with status 307; the address has moved: give the one it moved to
    `http://HOST/v1/chat/completions` answered with what is no chat completion (EOF while parsing a string at line 1 column 43): `{"choices": [{"message": {"content": "cut o`; is this the address of a server that answers chat completions in OpenAI's form?
    `http://HOST/v1/chat/completions` answered with an empty list of choices; is this the address of a server that answers chat completions in OpenAI's form?
    `http://HOST/v1/chat/completions` answered with no text (finish reason `content_filter`)
    `http://HOST/v1/chat/completions` used up `max_tokens` without an answer; raise it
    "#);
}

#[test]
fn a_silent_server_is_not_waited_for_without_end() {
    let server = Server::start(|_, _| {
        sleep(Duration::from_secs(2));
        completion("too late")
    });
    let backoff = Backoff { tries: 1, ..PATIENCE.backoff };
    let (reply, _) = ask(server.endpoint(), Patience { timeout: Duration::from_millis(200), backoff });
    let message = format!("{:#}", reply.unwrap_err()).replace(&server.base_url, "http://HOST/v1");
    insta::assert_snapshot!(message, @"`http://HOST/v1/chat/completions` did not answer within 0.2 s; raise `timeout_seconds`");
}

#[test]
fn a_server_that_is_not_there_is_named() {
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = Endpoint::openai(&format!("http://{address}/v1"), "small", "TEST_KEY", &|_| Some(KEY.into())).unwrap();
    let (reply, log) = ask(endpoint, PATIENCE);
    let message = format!("{:#}", reply.unwrap_err());
    assert!(
        message.starts_with(&format!("gave up after 3 tries: `http://{address}/v1/chat/completions` cannot be reached: ")),
        "{message}"
    );
    assert_eq!(log.lines().count(), 2);
}

#[test]
fn an_interrupt_does_not_wait_for_the_server() {
    let server = Server::start(|_, _| {
        sleep(Duration::from_secs(30));
        String::new()
    });
    let (cancel, start) = (Cancel::default(), Instant::now());
    let later = cancel.clone();
    std::thread::spawn(move || {
        sleep(Duration::from_millis(200));
        later.set();
    });
    let chat = Chat::new(server.endpoint(), PATIENCE).unwrap();
    let error = chat.ask(&Question::new("", "why?".into(), None, None), "", &cancel, &|_| ()).unwrap_err();
    assert!(error.is::<Cancelled>() && start.elapsed() < Duration::from_secs(10), "{error:#}");
}

#[test]
fn a_key_that_cannot_be_sent_is_not_shown() {
    let endpoint = Endpoint::openai("http://127.0.0.1:1/v1", "m", "TEST_KEY", &|_| Some("line-one\nline-two".into())).unwrap();
    let message = Chat::new(endpoint, PATIENCE).err().unwrap().to_string();
    insta::assert_snapshot!(message, @"the key in `TEST_KEY` holds characters that cannot be sent; is there a line break in it?");
}
