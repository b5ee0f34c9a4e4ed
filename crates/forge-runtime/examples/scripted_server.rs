//! A server whose model thinks, says something and calls a function twice, whatever it is asked: for clients in other languages.
//! Prints its address, and serves until its input ends.

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/common/dialects.rs"]
mod dialects;
#[path = "../tests/common/http.rs"]
mod http;

fn main() {
    let server = dialects::answering(dialects::ANSWER);
    println!("http://{}", server.address());
    // Whoever started it holds the other end.
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
}
