//! A server whose model thinks, says something and calls a function, whatever it is asked: for clients in other languages.
//! Prints its address, and serves until its input ends. With `--hostile` it says slowly what would harm a page that took it for HTML.

use std::time::Duration;

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/common/dialects.rs"]
mod dialects;
#[path = "../tests/common/http.rs"]
mod http;

const HOSTILE: &str = "<think>\nHow to break a page?\n</think>\n\nLet me try: <img src=x onerror=alert(1)><script>alert(2)</script> and go on.\n\
    <tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"<b>Oslo</b>\"}}\n</tool_call>";

fn main() {
    let model = if std::env::args().any(|argument| argument == "--hostile") {
        common::HashModel { pace: Duration::from_millis(30), ..dialects::scripted(HOSTILE) }
    } else {
        dialects::scripted(dialects::ANSWER)
    };
    let text = dialects::text_of(dialects::TEMPLATE);
    let server = http::Server::with_text(model, text, forge_runtime::server::Limits::default());
    println!("http://{}", server.address());
    // Whoever started it holds the other end.
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
}
