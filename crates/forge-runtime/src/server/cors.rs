//! Pages of browsers: which origins may use the server (Fetch standard, CORS protocol).
//!
//! A browser says from which page a request comes. Pages of this machine are let in, others only where the user names them:
//! anything that a person looks at could otherwise use the model, and the page behind a name that suddenly resolves to this
//! machine (DNS rebinding) could read the answers. Programs that are no browsers send no origin and are not concerned.

use std::net::Ipv4Addr;
use std::str::FromStr;

use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::api_error::ApiError;

/// Methods of the routes.
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, OPTIONS");
/// Seconds for which a browser need not ask again.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
/// Asked by Chrome before a public page may reach a private address.
const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
/// The answer to [`REQUEST_PRIVATE_NETWORK`].
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// Pages that may use the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origins {
    loopback: bool,
    any: bool,
    named: Vec<String>,
}

impl Default for Origins {
    /// Pages of this machine.
    fn default() -> Self {
        Self { loopback: true, any: false, named: Vec::new() }
    }
}

/// What [`Origins::with`] takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `*`: every page there is.
    Any,
    /// `none`: not even pages of this machine.
    None,
    /// `scheme://host`, `scheme://host:port`, or `null`, which files and sandboxed frames have.
    Page(String),
}

impl FromStr for Origin {
    type Err = String;

    /// # Errors
    /// What an origin looks like.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "*" => return Ok(Self::Any),
            "none" => return Ok(Self::None),
            // Files have no host.
            "null" | "file://" => return Ok(Self::Page(text.into())),
            _ => {}
        }
        let text = text.strip_suffix('/').unwrap_or(text);
        let page = text.split_once("://").filter(|(scheme, host)| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
                && !host.is_empty()
                && host.chars().all(|c| c.is_ascii_graphic() && !"/?#@*,\\\"".contains(c))
        });
        match page {
            // Browsers write schemes and hosts so.
            Some(_) => Ok(Self::Page(text.to_ascii_lowercase())),
            None => Err("an origin is scheme://host or scheme://host:port, *, null, or none".into()),
        }
    }
}

impl Origins {
    /// Lets in pages of these origins too.
    #[must_use]
    pub fn with(mut self, origins: impl IntoIterator<Item = Origin>) -> Self {
        for origin in origins {
            match origin {
                Origin::Any => self.any = true,
                Origin::None => self.loopback = false,
                Origin::Page(page) => self.named.push(page),
            }
        }
        self
    }

    /// Whether pages of this origin, as a browser writes it, are let in.
    pub fn allow(&self, origin: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        self.any || self.named.contains(&origin) || (self.loopback && is_loopback(&origin))
    }
}

/// Whether an origin is a page of this machine. Names below `localhost` resolve to nothing else (RFC 6761).
fn is_loopback(origin: &str) -> bool {
    let Some(authority) = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) else {
        return false;
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (authority, ""),
    };
    port.bytes().all(|b| b.is_ascii_digit())
        && (host == "localhost"
            || host.ends_with(".localhost")
            || host == "[::1]"
            || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback()))
}

/// Answers what browsers ask beforehand, and lets through what comes from an allowed page or from no page.
pub(super) async fn check(State(origins): State<std::sync::Arc<Origins>>, request: Request, next: Next) -> Response {
    let Some(origin) = request.headers().get(ORIGIN).cloned() else {
        return next.run(request).await;
    };
    if !origin.to_str().is_ok_and(|origin| origins.allow(origin)) {
        let origin = String::from_utf8_lossy(origin.as_bytes()).into_owned();
        let mut response = ApiError::forbidden(format!(
            "pages of {origin:?} may not use this server; start it with --cors ORIGIN to let them"
        ))
        .into_response();
        response.headers_mut().append(VARY, const { HeaderValue::from_static("origin") });
        return response;
    }
    let asks = request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if request.method() == Method::OPTIONS && asks {
        preflight(request.headers())
    } else {
        let mut response = next.run(request).await;
        response.headers_mut().insert(ACCESS_CONTROL_EXPOSE_HEADERS, const { HeaderValue::from_static("*") });
        response
    };
    let headers = response.headers_mut();
    if origins.any {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, const { HeaderValue::from_static("*") });
    } else {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.append(VARY, const { HeaderValue::from_static("origin") });
    }
    response
}

fn preflight(asked: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    // Those that it asks for: `*` would leave out Authorization.
    if let Some(names) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    if asked.get(REQUEST_PRIVATE_NETWORK).is_some_and(|value| value == "true") {
        headers.insert(ALLOW_PRIVATE_NETWORK, const { HeaderValue::from_static("true") });
    }
    for name in [ACCESS_CONTROL_REQUEST_METHOD, ACCESS_CONTROL_REQUEST_HEADERS] {
        headers.append(VARY, name.into());
    }
    response
}
