//! The server over real sockets: its dialects, its clients, what it refuses; forms and grammars of calls. One program, as each would
//! compile server and client again.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/dialects.rs"]
mod dialects;
#[path = "../common/families.rs"]
mod families;
#[path = "../common/http.rs"]
mod http;
#[path = "../common/schema.rs"]
mod schema;

mod admission;
mod agent;
mod basics;
mod choices;
mod clients;
mod connections;
mod cors;
mod forms;
mod gate;
mod grammar;
mod messages;
mod page;
mod prompts;
mod responses;
mod slots;
mod tool_calls;
mod tool_forms;
mod tool_grammars;
mod tool_reader;
mod wire;
