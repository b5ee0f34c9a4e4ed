//! Which pages of browsers are let in.

use forge_runtime::server::{Origin, Origins};

#[test]
fn pages_of_this_machine_are_let_in() {
    let origins = Origins::default();
    for origin in ["http://localhost", "http://localhost:3000", "https://LOCALHOST:1", "http://127.0.0.1:8080"] {
        assert!(origins.allow(origin), "{origin}");
    }
    for origin in ["http://[::1]:5173", "http://app.localhost", "http://127.1.2.3"] {
        assert!(origins.allow(origin), "{origin}");
    }
}

#[test]
fn other_pages_are_not() {
    let origins = Origins::default();
    for origin in ["http://evil.example", "http://localhost.evil.example", "http://evil.example:localhost", "null", ""]
    {
        assert!(!origins.allow(origin), "{origin}");
    }
    for origin in ["http://127.0.0.1.evil.example", "file://", "http://192.168.1.2", "http://localhost@evil.example"] {
        assert!(!origins.allow(origin), "{origin}");
    }
    for origin in
        ["http://notlocalhost", "ftp://localhost", "http://[::2]", "http://128.0.0.1", "http://localhost:80:x"]
    {
        assert!(!origins.allow(origin), "{origin}");
    }
}

#[test]
fn named_origins_are_exact() {
    let named = ["app://obsidian.md", "HTTPS://Chat.Example/", "null"].map(|text| text.parse().expect("an origin"));
    let origins = Origins::default().with(named);
    for origin in ["app://obsidian.md", "https://chat.example", "null", "http://localhost:1"] {
        assert!(origins.allow(origin), "{origin}");
    }
    for origin in ["http://chat.example", "https://chat.example:444", "https://chat.example.org"] {
        assert!(!origins.allow(origin), "{origin}");
    }
    assert!(Origins::default().with([Origin::Any]).allow("http://evil.example"));
    assert!(!Origins::default().with([Origin::None]).allow("http://localhost"));
}

#[test]
fn what_is_no_origin_is_refused() {
    for text in ["", "localhost:3000", "http://", "http://a/b", "http://*.example", "://x", "1x://y", "a b://c"] {
        assert!(text.parse::<Origin>().is_err(), "{text:?}");
    }
}
