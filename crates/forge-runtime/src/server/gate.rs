//! Who may ask: names the server goes by, keys, and the form of what is sent.
//!
//! A page whose name is made to resolve to this machine (DNS rebinding) is of the server's own origin to the browser, which then
//! shows it every answer; only the name in `Host` tells. Names that nobody can register in the public DNS are no such names.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::api_error::ApiError;

/// Domains that the public DNS has no names in (RFC 6761, RFC 6762, RFC 8375, and ICANN's reservation of `internal`).
const PRIVATE: [&str; 4] = [".localhost", ".local", ".internal", ".home.arpa"];

/// Names by which the server may be called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    any: bool,
    named: Vec<String>,
}

impl Hosts {
    /// Lets clients use this name too; `*` lets them use any.
    #[must_use]
    pub fn with(mut self, names: impl IntoIterator<Item = String>) -> Self {
        for name in names {
            match name.as_str() {
                "*" => self.any = true,
                _ => self.named.push(name.to_ascii_lowercase()),
            }
        }
        self
    }

    /// Whether a `Host` header, `name` or `name:port`, may stand in a request: addresses, names without a dot, names in
    /// [domains that cannot be registered](PRIVATE), and those that the user named.
    pub fn allow(&self, host: &str) -> bool {
        if self.any {
            return true;
        }
        if let Some(rest) = host.strip_prefix('[') {
            return rest.split_once(']').is_some_and(|(address, port)| {
                address.parse::<Ipv6Addr>().is_ok() && port.strip_prefix(':').unwrap_or(port).bytes().all(is_digit)
            });
        }
        let (name, port) = host.split_once(':').unwrap_or((host, ""));
        if !port.bytes().all(is_digit) {
            return false;
        }
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let allowed = name.parse::<Ipv4Addr>().is_ok()
            || PRIVATE.iter().any(|domain| name.ends_with(domain))
            || !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        allowed || self.named.contains(&name)
    }
}

fn is_digit(byte: u8) -> bool {
    byte.is_ascii_digit()
}

/// Keys, one of which every request must bring; without any, none is asked for. Only their digests are kept.
#[derive(Clone, Default)]
pub struct ApiKeys(Vec<[u8; 32]>);

impl std::fmt::Debug for ApiKeys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "ApiKeys({})", self.0.len())
    }
}

/// A key as a user gives it.
#[derive(Clone)]
pub struct ApiKey([u8; 32]);

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ApiKey")
    }
}

impl FromStr for ApiKey {
    type Err = String;

    /// # Errors
    /// A key that no header could hold.
    fn from_str(key: &str) -> Result<Self, String> {
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("a key is one or more visible ASCII characters".into());
        }
        Ok(Self(Sha256::digest(key).into()))
    }
}

impl FromIterator<ApiKey> for ApiKeys {
    fn from_iter<T: IntoIterator<Item = ApiKey>>(keys: T) -> Self {
        Self(keys.into_iter().map(|ApiKey(digest)| digest).collect())
    }
}

impl ApiKeys {
    /// Whether none is asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `key` is one of them. How long it takes tells nothing about them.
    pub fn allow(&self, key: &[u8]) -> bool {
        let given: [u8; 32] = Sha256::digest(key).into();
        let differs = |known: &[u8; 32]| known.iter().zip(given).fold(0, |all, (a, b)| all | (a ^ b));
        self.0.iter().fold(false, |found, known| found | (differs(known) == 0))
    }
}

/// Refuses requests that go to a name that is not this server's.
pub(super) async fn check_host(State(hosts): State<Arc<Hosts>>, request: Request, next: Next) -> Response {
    let in_target = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let in_header = request.headers().get_all(HOST).iter().map(|host| host.as_bytes());
    for host in in_target.into_iter().chain(in_header).filter(|host| !host.is_empty()) {
        let host = String::from_utf8_lossy(host);
        if !hosts.allow(&host) {
            let words = format!("this server does not go by {host:?}; start it with --allow-host NAME if it should");
            return ApiError::forbidden(words).into_response();
        }
    }
    next.run(request).await
}

/// Refuses requests without a key where one is asked for. `/health` is for everybody, and so is the page, which asks for the key itself.
pub(super) async fn check_key(State(keys): State<Arc<ApiKeys>>, request: Request, next: Next) -> Response {
    if keys.is_empty() || is_open(&request) || key(request.headers()).is_some_and(|key| keys.allow(key)) {
        return next.run(request).await;
    }
    let words = match key(request.headers()) {
        None => "this server asks for a key: authorization: Bearer KEY",
        Some(_) => "the key is none of this server's",
    };
    ApiError::unauthorized(words.into()).into_response()
}

/// Whether a request needs no key.
fn is_open(request: &Request) -> bool {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    matches!(request.uri().path(), "/health" | "/v1/health") || reads && request.uri().path() == "/"
}

/// The key of a request, as OpenAI's clients send it or as Anthropic's do.
fn key(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
    let bearer = bearer.and_then(|value| value.split_at_checked(7));
    match bearer {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer ") => Some(key.trim_ascii()),
        _ => headers.get("x-api-key").map(|value| value.as_bytes()),
    }
}

/// Refuses bodies from pages that are not said to be JSON: browsers send no others without asking first.
pub(super) async fn check_type(request: Request, next: Next) -> Response {
    let headers = request.headers();
    if request.method() == Method::POST
        && headers.contains_key(ORIGIN)
        && !headers.get(CONTENT_TYPE).is_some_and(is_json)
    {
        return ApiError::wrong_type("a page's request needs content-type: application/json".into()).into_response();
    }
    next.run(request).await
}

fn is_json(value: &axum::http::HeaderValue) -> bool {
    let media = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media == "application/json" || media.strip_prefix("application/").is_some_and(|rest| rest.ends_with("+json"))
}
