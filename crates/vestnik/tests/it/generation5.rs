//! A site of generation 5 and its clients, for tests: signed JSON-RPC, tokens, connections.

use std::collections::VecDeque;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tungstenite::Message;
use vestnik_core::{ChannelId, Clock};

use crate::raw::{self, Answer};
use crate::sign::{sign, sign_token};
use crate::websocket::Subscriber;

/// The name of the site.
pub(crate) const HOST: &str = "QmF0OaN8hVYt3kzq1WcUe5RxLd7SgPjI";

/// Unix seconds.
pub(crate) fn now_s() -> i64 {
    i64::try_from(Clock::System.unix_s()).expect("a time of this century")
}

/// Base64 with the alphabet for addresses, without padding.
pub(crate) fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let byte = |at: usize| usize::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        text.extend((0..=group.len()).map(|at| char::from(ALPHABET[bits >> (18 - 6 * at) & 63])));
    }
    text
}

/// A token with these header and claims, signed with the test key.
pub(crate) fn token_with(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| base64url(value.to_string().as_bytes());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = base64url(&sign_token(&signed));
    format!("{signed}.{signature}")
}

/// A token with these claims as PHP makes it: of this site, for 12 hours, unless they say otherwise.
pub(crate) fn token_of(claims: Value) -> String {
    let now_s = now_s();
    let mut all = json!({"iss": HOST, "iat": now_s, "exp": now_s + 43_200});
    for (name, value) in claims.as_object().expect("claims are an object") {
        all[name] = value.clone();
    }
    token_with(&json!({"typ": "JWT", "alg": "HS256"}), &all)
}

/// The token of a signed-in user, with the channels of the site's shared kind.
pub(crate) fn token(user: i64, channels: &[ChannelId]) -> String {
    let channels: Vec<_> = channels.iter().map(ToString::to_string).collect();
    token_of(json!({"sub": user.to_string(), "chan": channels.join(",")}))
}

/// The request of a site, byte for byte as PHP sends it (json-rpc.md §4.1).
pub(crate) fn api_request(target: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAccept: */*\r\n\
         Accept-Language: en\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// Where a site called `host` sends `body`.
pub(crate) fn api_target(host: &str, body: &str) -> String {
    format!("/bitrix/api/?hostId={host}&signature={}&hostname=portal.test", sign(body))
}

/// Sends what a site called `host` sends.
pub(crate) fn api_of(address: SocketAddr, host: &str, body: &str) -> Answer {
    raw::exchange(address, api_request(&api_target(host, body), body.as_bytes()))
}

/// Sends what the site sends.
pub(crate) fn api(address: SocketAddr, body: &str) -> Answer {
    api_of(address, HOST, body)
}

/// The JSON of an answer to a site, which is an object or an array as PHP needs it.
pub(crate) fn answer_json(answer: &Answer) -> Value {
    let json: Value = serde_json::from_slice(&answer.body).expect("an answer of JSON");
    assert!(json.is_object() || json.is_array(), "PHP dies at a scalar: {json}");
    json
}

/// A call of the site; the result.
pub(crate) fn call(address: SocketAddr, method: &str, params: &Value) -> Value {
    let request = json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string();
    let answer = api(address, &request);
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut answer = answer_json(&answer);
    assert_eq!(answer["jsonrpc"], "2.0", "{answer}");
    answer["result"].take()
}

/// Messages of the site, in one request as PHP sends them.
pub(crate) fn publish_all(address: SocketAddr, params: &[Value]) {
    let batch: Vec<_> = params
        .iter()
        .map(|params| json!({"jsonrpc": "2.0", "method": "publish", "params": params}))
        .collect();
    let answer = api(address, &Value::from(batch).to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
    for answer in answer_json(&answer).as_array().expect("a batch is answered by an array") {
        assert!(answer.get("result").is_some(), "{answer}");
    }
}

/// One message of the site.
pub(crate) fn publish(address: SocketAddr, params: &Value) {
    publish_all(address, std::slice::from_ref(params));
}

/// The body of the event number `n`.
pub(crate) fn event(n: u64) -> Value {
    json!({"module_id": "im", "command": "test", "params": {"n": n}})
}

/// A client with an open JSON-RPC connection.
pub(crate) struct RpcClient {
    pub(crate) subscriber: Subscriber,
    /// Objects that came and were not asked for yet.
    waiting: VecDeque<Value>,
    calls: u64,
    /// Text pings that came.
    pub(crate) pings: u64,
    /// How many objects each packet held.
    pub(crate) packets: Vec<usize>,
}

impl RpcClient {
    /// Connects with a query.
    pub(crate) fn open(address: SocketAddr, query: &str) -> Self {
        let subscriber = Subscriber::open(address, query);
        Self { subscriber, waiting: VecDeque::new(), calls: 0, pings: 0, packets: Vec::new() }
    }

    /// Connects as web clients do.
    pub(crate) fn connect(address: SocketAddr, token: &str) -> Self {
        Self::open(address, &format!("token={token}&jsonRpc=true&revision=19"))
    }

    /// Comes back as web clients do.
    pub(crate) fn reconnect(address: SocketAddr, token: &str, mid: &str) -> Self {
        Self::open(address, &format!("token={token}&jsonRpc=true&mid={mid}&revision=19"))
    }

    /// Sends a text.
    pub(crate) fn say(&mut self, text: impl Into<String>) {
        self.subscriber.send(Message::text(text.into()));
    }

    /// The next text that is no ping; pings are answered.
    pub(crate) fn next_text(&mut self) -> String {
        loop {
            match self.subscriber.next() {
                Message::Text(text) if text == "ping" => {
                    self.pings += 1;
                    self.say("pong");
                }
                Message::Text(text) => {
                    assert!(!text.is_empty(), "an empty frame breaks old clients");
                    return text.as_str().to_owned();
                }
                other => panic!("only text is sent: {other:?}"),
            }
        }
    }

    /// The next object of a packet.
    fn next(&mut self) -> Value {
        loop {
            if let Some(object) = self.waiting.pop_front() {
                return object;
            }
            self.read();
        }
    }

    fn read(&mut self) {
        let text = self.next_text();
        match serde_json::from_str(&text).expect("JSON") {
            Value::Array(objects) => {
                self.packets.push(objects.len());
                assert!(!objects.is_empty(), "an empty array says nothing");
                self.waiting.extend(objects);
            }
            object => {
                self.packets.push(1);
                self.waiting.push_back(object);
            }
        }
    }

    /// The parameters of the next message.
    pub(crate) fn message(&mut self) -> Value {
        let mut packet = self.next();
        assert_eq!(packet["method"], "incoming.message", "{packet}");
        assert_eq!(packet["jsonrpc"], "2.0");
        assert_eq!(packet.get("id"), None, "a message wants no answer");
        let params = packet["params"].take();
        assert!(params["body"].is_object(), "{params}");
        assert_eq!(params["mid"].as_str().map(str::len), Some(26), "{params}");
        params
    }

    /// The numbers of the next events, with their ids.
    pub(crate) fn numbers(&mut self, count: usize) -> Vec<u64> {
        (0..count)
            .map(|_| self.message()["body"]["params"]["n"].as_u64().expect("a numbered event"))
            .collect()
    }

    /// Calls a method; the whole answer. Messages that come meanwhile wait.
    pub(crate) fn call(&mut self, method: &str, params: &Value) -> Value {
        self.calls += 1;
        let id = self.calls;
        self.say(
            json!({"jsonrpc": "2.0", "method": method, "params": params, "id": id}).to_string(),
        );
        self.answer_to(&json!(id))
    }

    /// The answer to the request `id`.
    pub(crate) fn answer_to(&mut self, id: &Value) -> Value {
        loop {
            let at = self.waiting.iter().position(|it| it.get("id") == Some(id));
            if let Some(answer) = at.and_then(|at| self.waiting.remove(at)) {
                return answer;
            }
            self.read();
        }
    }

    /// The result of a call that succeeds.
    pub(crate) fn result(&mut self, method: &str, params: &Value) -> Value {
        let mut answer = self.call(method, params);
        assert_eq!(answer.get("error"), None, "{answer}");
        answer["result"].take()
    }

    /// The code of a call that fails.
    pub(crate) fn error(&mut self, method: &str, params: &Value) -> i64 {
        let answer = self.call(method, params);
        assert_eq!(answer.get("result"), None, "{answer}");
        answer["error"]["code"].as_i64().unwrap_or_else(|| panic!("no error: {answer}"))
    }

    /// Fails if a message came before the answer to a question asked now.
    pub(crate) fn heard_nothing(&mut self) {
        assert_eq!(self.result("ping", &json!({})), "pong");
        assert!(self.waiting.is_empty(), "{:?}", self.waiting);
    }
}
