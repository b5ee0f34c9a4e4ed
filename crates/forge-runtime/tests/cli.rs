//! The command line, as processes: this file's binary is the program under test when `HASH_MODEL` is set, else the test that
//! starts it.

mod common;
mod terminal;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitCode, Output, Stdio};
use std::time::Duration;

use common::{HashModel, INFO, assets};
use forge_runtime::gpu::Source;
use forge_runtime::verify::Checks;
use forge_runtime::{ModelInfo, cli, weights::Weights};
use libtest_mimic::{Arguments, Trial};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// A program without kernels.
static CHECKS: Checks = Checks {
    forge_version: "0",
    source: &Source::new("", &[]),
    slots: 1,
    kernels: &[],
    costs: &[],
    matrices: &[],
    tuning: &common::NO_TUNING,
};

const HEADER: &str = r#"{"x":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}"#;

fn weights() -> Vec<u8> {
    [&(HEADER.len() as u64).to_le_bytes()[..], HEADER.as_bytes(), b"123456789"].concat()
}

/// A test, given a folder with the weights in it.
type Test = fn(&Path);

fn main() -> ExitCode {
    if std::env::var_os("HASH_MODEL").is_some() {
        return program();
    }
    let tests: [(&str, Test); 17] = [
        ("generate", generate),
        ("generate_reads_stdin", generate_reads_stdin),
        ("sampling_is_repeatable", sampling_is_repeatable),
        ("tokenize", tokenize),
        ("logits", logits),
        ("perplexity", perplexity),
        ("info_bench_verify", info_bench_verify),
        ("chat", chat),
        ("chat_on_a_terminal", terminal::lines_are_edited_and_conversations_kept),
        ("chat_interrupted", terminal::an_interrupt_ends_the_answer_alone),
        ("serve", serve),
        ("serve_with_a_key", serve_with_a_key),
        ("what_was_served_is_known_to_the_next", what_was_served_is_known_to_the_next),
        ("errors", errors),
        ("help", help),
        ("a_closed_pipe_is_quiet", a_closed_pipe_is_quiet),
        ("weights_are_looked_for", weights_are_looked_for),
    ];
    let trials = tests.into_iter().map(|(name, test)| {
        Trial::test(name, move || {
            let folder = tempfile::tempdir()?;
            std::fs::write(folder.path().join("weights.safetensors"), weights())?;
            test(folder.path());
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

fn program() -> ExitCode {
    let file = weights();
    let header = &file[..8 + HEADER.len()];
    let digest: String = Sha256::digest(header).iter().map(|byte| format!("{byte:02x}")).collect();
    let info = ModelInfo { weights_bytes: file.len() as u64, weights_header_sha256: digest.leak(), ..INFO };
    let info: &'static ModelInfo = Box::leak(Box::new(info));
    cli::run(info, &CHECKS, assets("demo"), move |options| {
        Weights::open(&options.weights, info)?;
        let model = HashModel { context: options.context_for(info)?, ..HashModel::new() };
        let pace = std::env::var("PACE").ok().and_then(|pace| pace.parse().ok()).unwrap_or(0);
        let script = std::env::var("SCRIPT").unwrap_or_default();
        let mut script = common::text("demo").tokenizer.encode(&script, false)?;
        if !script.is_empty() {
            script.push(2047);
        }
        Ok(HashModel { script, pace: Duration::from_millis(pace), ..model })
    })
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(args).env("HASH_MODEL", "1").env("FORGE_WEIGHTS", folder).env_remove("SCRIPT");
    command
}

fn run(command: &mut Command) -> Output {
    command.output().expect("runs")
}

fn stdout(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).expect("UTF-8");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn generate(folder: &Path) {
    let output = run(command(folder, &["generate", "Hi"]).env("SCRIPT", "Once upon a time"));
    assert_eq!(stdout(&output), "Once upon a time\n");
    let notes = stderr(&output);
    assert!(notes.contains("tokens/s") && notes.contains("context 256 of 512") && !notes.contains('\x1b'), "{notes}");
    let output =
        run(command(folder, &["generate", "--raw", "--max-tokens", "2", "Hi"]).env("SCRIPT", "Once upon a time"));
    assert!("Once upon a time".starts_with(stdout(&output).trim_end()));
    let output = run(command(folder, &["generate", "--context", "64", "--", "-5 is a number"]).env("SCRIPT", "yes"));
    assert_eq!(stdout(&output), "yes\n");
    assert!(stderr(&output).contains("context 64 of 512"));
}

fn generate_reads_stdin(folder: &Path) {
    let mut child = command(folder, &["generate", "-"])
        .env("SCRIPT", "one line\n")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    child.stdin.take().expect("stdin").write_all("Tell me\n".as_bytes()).expect("writes");
    assert_eq!(stdout(&child.wait_with_output().expect("ends")), "one line\n");
}

fn sampling_is_repeatable(folder: &Path) {
    let text = |seed: &str| {
        stdout(&run(&mut command(
            folder,
            &["generate", "--temperature", "2", "--max-tokens", "20", "--seed", seed, "Hi"],
        )))
    };
    assert_eq!(text("1"), text("1"));
    assert_ne!(text("1"), text("2"));
}

fn tokenize(folder: &Path) {
    let cases: Value = serde_json::from_slice(common::read("demo", "tokenizer_cases.json")).expect("fixture");
    let json =
        |args: &[&str]| -> Value { serde_json::from_str(&stdout(&run(&mut command(folder, args)))).expect("JSON") };
    let case = &cases["strings"][4];
    let text = case["text"].as_str().expect("text");
    assert_eq!(json(&["tokenize", text])["ids"], case["ids"]);
    assert_eq!(json(&["tokenize", "--no-special", text])["ids"], case["ids_no_special"]);
    let case = &cases["chats"][2];
    let file = folder.join("messages.json");
    std::fs::write(&file, case["messages"].to_string()).expect("writes");
    let answer = json(&["tokenize", "--chat", file.to_str().expect("UTF-8")]);
    assert_eq!((&answer["ids"], &answer["rendered"]), (&case["ids"], &case["rendered"]));
    let case = &cases["chats"][3];
    let answer = json(&["tokenize", "--no-generation-prompt", "--chat", file.to_str().expect("UTF-8")]);
    assert_eq!(answer["ids"], case["ids"]);
}

fn logits(folder: &Path) {
    let [prefill, decode] = ["prefill.safetensors", "decode.safetensors"].map(|name| folder.join(name));
    let ids = "1,2,3,4,5,6,7,8,9,10";
    run(&mut command(folder, &["logits", "--ids", ids, "-o", prefill.to_str().expect("UTF-8")]));
    run(&mut command(folder, &["logits", "--ids", ids, "--decode", "-o", decode.to_str().expect("UTF-8")]));
    let [prefill, decode] = [prefill, decode].map(|path| std::fs::read(path).expect("was written"));
    assert_eq!(prefill, decode);
    let header = u64::from_le_bytes(prefill[..8].try_into().expect("8 bytes")) as usize;
    let json: Value = serde_json::from_slice(&prefill[8..8 + header]).expect("JSON");
    assert_eq!(json["logits"]["shape"], serde_json::json!([10, 2048]));
    assert_eq!((prefill.len() - 8 - header, header % 8), (10 * 2048 * 4, 0));
}

fn perplexity(folder: &Path) {
    let [text, source] = ["text.txt", "source.safetensors"].map(|name| folder.join(name));
    std::fs::write(&text, "Once upon a time there was a little fox. ".repeat(20)).expect("writes");
    let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let measure = |args: &[&str]| {
        let args: Vec<&str> =
            ["perplexity", "--tokens", "50", "--window", "16"].into_iter().chain(args.to_vec()).collect();
        stdout(&run(command(folder, &args).arg(&text)))
    };
    let json = |args: &[&str]| -> Value { serde_json::from_str(&measure(args)).expect("JSON") };
    let saved = json(&["--json", "--save", &path(&source)]);
    assert_eq!((&saved["tokens"], &saved["window"], &saved["against"]), (&50.into(), &16.into(), &Value::Null));
    // Logits between 0 and 8, of 2048 tokens, that know nothing of the text.
    assert!((1000.0..100_000.0).contains(&saved["perplexity"].as_f64().expect("a number")), "{saved}");
    let same = json(&["--json", "--against", &path(&source)]);
    assert_eq!(same["perplexity"], saved["perplexity"]);
    let against = &same["against"];
    let [top, mean] = ["same_top", "kl_mean"].map(|key| against[key].as_f64().expect("a number"));
    assert!(top == 1.0 && mean < 1e-9 && against["perplexity"] == saved["perplexity"], "{same}");
    let text_of_both = measure(&["--against", &path(&source)]);
    assert!(text_of_both.starts_with("50 tokens in windows of 16\nperplexity  "), "{text_of_both}");
    assert!(text_of_both.contains("\nsame top    100.00%\n"), "{text_of_both}");
    let missing = command(folder, &["perplexity", "/nowhere/text.txt"]).output().expect("runs");
    assert!(!missing.status.success() && stderr(&missing).contains("/nowhere/text.txt: "), "{}", stderr(&missing));
    let other = command(folder, &["perplexity", "--tokens", "49", "--window", "16", "--against"])
        .args([&source, &text])
        .output();
    assert!(stderr(&other.expect("runs")).contains("it is of another text, window or tokenizer"));
    let none = command(folder, &["imatrix", "-o", "/nowhere/imatrix.gguf"]).arg(&text).output().expect("runs");
    assert!(stderr(&none).contains("this model has no kernels"), "{}", stderr(&none));
}

fn info_bench_verify(folder: &Path) {
    let text = stdout(&run(&mut command(folder, &["info", "--context", "100"])));
    for words in [
        "hash-model (hash)",
        "2048 tokens",
        "256 tokens by default, trained for 512",
        "memory at 100",
        "temperature 0.7",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let options = ["bench", "--prompt", "32", "--gen", "8", "--rows", "1", "--repeat", "2"];
    let text = stdout(&run(&mut command(folder, &options)));
    for words in ["prompt 32 |", "generate 8 |", "generate 8 for each of 1 |"] {
        assert!(text.contains(&format!("| hash-model | {words}")), "{words}: {text}");
    }
    let text = stdout(&run(&mut command(folder, &["verify"])));
    assert!(text.contains("no record to compare with"), "{text}");
}

fn chat(folder: &Path) {
    let mut child = command(folder, &["chat", "--system", "Be brief."])
        .env("SCRIPT", "Hello!")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    child.stdin.take().expect("stdin").write_all(b"Hi\nAnd again\n/new\nHi\n").expect("writes");
    assert_eq!(stdout(&child.wait_with_output().expect("ends")), "Hello!\nHello!\nHello!\n");
}

/// Waits until a server listens: what else it writes to stderr, and its address.
fn listening(child: &mut Child) -> (BufReader<ChildStderr>, String) {
    let mut notes = BufReader::new(child.stderr.take().expect("stderr"));
    let mut line = String::new();
    while !line.contains("listening on http://") {
        line.clear();
        assert_ne!(notes.read_line(&mut line).expect("reads"), 0, "it ended");
    }
    let address = line.split("http://").nth(1).expect("an address").split(';').next().expect("an address");
    (notes, address.to_owned())
}

fn serve(folder: &Path) {
    let mut child = command(folder, &["serve", "--port", "0"]).stderr(Stdio::piped()).spawn().expect("starts");
    let (mut notes, address) = listening(&mut child);
    let mut stream = std::net::TcpStream::connect(&address).expect("connects");
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("sends");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("reads");
    assert!(reply.starts_with("HTTP/1.1 200") && reply.ends_with("{\"status\":\"ok\"}"), "{reply}");
    // A port in use is an error before the model is loaded.
    let port = address.rsplit(':').next().expect("a port");
    let refused = run(&mut command(folder, &["serve", "--port", port]));
    assert_eq!(refused.status.code(), Some(1));
    let misspelt = run(&mut command(folder, &["serve", "--cors", "localhost:3000"]));
    assert_eq!(misspelt.status.code(), Some(2));
    assert!(stderr(&misspelt).contains("an origin is scheme://host"), "{}", stderr(&misspelt));
    assert!(stderr(&refused).starts_with(&format!("error: {address}: ")), "{}", stderr(&refused));
    // Beyond this machine it wants a key.
    let open = run(&mut command(folder, &["serve", "--host", "0.0.0.0", "--port", "0"]));
    assert_eq!(open.status.code(), Some(1));
    assert!(stderr(&open).contains("--host 0.0.0.0 lets in everybody who reaches the port"), "{}", stderr(&open));
    for (args, words) in [
        (&["--host", "nowhere"][..], "neither an IP address nor localhost"),
        (&["--api-key", ""], "a key is one or more visible ASCII characters"),
        (&["--api-key", "k", "--no-key"], "cannot be used with"),
        (&["--max-body", "0"], "a number from 1 to 1024"),
        (&["--cache-dir", "x", "--cache-disk", "0G"], "a number with K, M, G or T behind it"),
        (&["--cache-dir", "x", "--cache-disk", "20"], "a number with K, M, G or T behind it"),
        (&["--cache-disk", "20G"], "--cache-dir"),
    ] {
        let output = run(&mut command(folder, &[&["serve"][..], args].concat()));
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(words), "{args:?}: {}", stderr(&output));
    }
    let broken = run(command(folder, &["serve", "--port", "0"]).env("FORGE_API_KEY", "two words"));
    assert!(stderr(&broken).contains("FORGE_API_KEY: a key is"), "{}", stderr(&broken));
    let help = stdout(&run(&mut command(folder, &["serve", "--help"])));
    for option in
        ["--cors", "--allow-host", "--api-key", "--no-key", "--queue", "--max-body", "--connections", "--grace"]
    {
        assert!(help.contains(option), "{option}: {help}");
    }
    let mut line = String::new();
    notes.read_line(&mut line).expect("reads");
    assert!(line.contains(" GET /health 200 "), "{line}");
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("runs");
    assert!(killed.success());
    assert!(child.wait().expect("ends").success(), "a server that is told to stop has not failed");
}

/// A key in the environment, a name that is an address, and no log.
fn serve_with_a_key(folder: &Path) {
    let args = ["serve", "--host", "localhost", "--port", "0", "--quiet"];
    let mut child =
        command(folder, &args).env("FORGE_API_KEY", "my-key").stderr(Stdio::piped()).spawn().expect("starts");
    let (mut notes, address) = listening(&mut child);
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    for (key, status) in
        [("", 401), ("authorization: Bearer other\r\n", 401), ("authorization: Bearer my-key\r\n", 200)]
    {
        let mut stream = std::net::TcpStream::connect(&address).expect("connects");
        let request = format!("GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{key}\r\n");
        stream.write_all(request.as_bytes()).expect("sends");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("reads");
        assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{key}: {reply}");
    }
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("runs");
    assert!(killed.success() && child.wait().expect("ends").success());
    let mut rest = String::new();
    notes.read_to_string(&mut rest).expect("reads");
    assert_eq!(rest, "", "nothing is logged");
}

/// Servers one after the other with the same files; and one of other weights of the same shapes.
fn what_was_served_is_known_to_the_next(folder: &Path) {
    let place = tempfile::tempdir().expect("a folder");
    let cache = place.path().join("cache");
    let other = place.path().join("other");
    std::fs::create_dir(&other).expect("a folder");
    let mut bytes = weights();
    *bytes.last_mut().expect("a byte") ^= 1;
    std::fs::write(other.join("weights.safetensors"), bytes).expect("writes");
    let run = |weights: &Path| {
        let args = ["serve", "--port", "0", "--cache-dir", cache.to_str().expect("UTF-8"), "--cache-disk", "1M"];
        let mut child = command(folder, &args);
        let mut child = child.env("FORGE_WEIGHTS", weights).stderr(Stdio::piped()).spawn().expect("starts");
        let (mut notes, address) = listening(&mut child);
        let body =
            format!(r#"{{"prompt": "{}", "max_tokens": 9, "temperature": 1, "seed": 3}}"#, "A story. ".repeat(12));
        let mut stream = std::net::TcpStream::connect(&address).expect("connects");
        let head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length:";
        stream.write_all(format!("{head} {}\r\n\r\n{body}", body.len()).as_bytes()).expect("sends");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("reads");
        let reply: Value = serde_json::from_str(reply.split("\r\n\r\n").nth(1).expect("a body")).expect("JSON");
        let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("runs");
        assert!(killed.success() && child.wait().expect("ends").success());
        let mut log = String::new();
        notes.read_to_string(&mut log).expect("reads");
        let timings = &reply["timings"];
        let cached = (timings["cache_n"].clone(), timings["cache_tier"].clone());
        (reply["choices"][0]["text"].clone(), reply["usage"]["prompt_tokens"].as_u64(), cached, log)
    };
    let (text, _, (count, tier), log) = run(folder);
    assert_eq!((count.as_u64(), tier.as_str()), (Some(0), None), "{log}");
    assert!(log.contains(" cached=0 ") && log.contains(" miss=new "), "{log}");
    let (again, prompt, (count, tier), log) = run(folder);
    assert_eq!((again, tier.as_str()), (text, Some("disk")), "{log}");
    // All but the last, whose row gives the first choice.
    assert!(count.as_u64() > Some(30) && count.as_u64() == prompt.map(|prompt| prompt - 1), "{log}");
    assert!(log.contains(&format!(" cached={count} ")) && log.contains(" from=disk"), "{log}");
    let (_, _, (count, _), log) = run(&other);
    assert_eq!(count.as_u64(), Some(0), "of other weights: {log}");
}

fn errors(folder: &Path) {
    let broken = folder.join("broken.json");
    std::fs::write(&broken, "{").expect("writes");
    let broken = broken.to_str().expect("UTF-8");
    for (args, words) in [
        (
            &["generate", "--context", "513", "x"][..],
            "a context of 513 tokens was asked for; this model has from 1 to 512",
        ),
        (&["generate", "--top-p", "2", "x"], "top_p is 2, which is not above 0 and at most 1"),
        (&["generate", "--repeat-penalty", "0.001", "x"], "repeat_penalty is 0.001, which is not from 0.01 to 100"),
        (&["logits", "--ids", "1,5000", "-o", "/dev/null"], "token id 5000 is outside the vocabulary of 2048"),
        (&["logits", "--ids", "1", "-o", "/no/such/folder/x"], "/no/such/folder/x: No such file or directory"),
        (&["logits", "--ids", "1", "--experts", "-o", "/dev/null"], "this model has no experts to choose"),
        (&["tokenize", "--chat", "/no/such/file"], "/no/such/file: No such file or directory"),
        (&["tokenize", "--chat", broken], "broken.json: EOF while parsing"),
        (&["bench", "--prompt", "600"], "the prompt is 600 tokens long, which does not fit the context of 256 tokens"),
        (
            &["profile", "--prompt", "300"],
            "the prompt is 300 tokens long, which does not fit the context of 256 tokens",
        ),
        (&["profile"], "this model has no kernels"),
        (&["bench", "--rows", "1,9"], "--rows 9: this program holds "),
        (&["profile", "--rows", "0"], "--rows 0: this program holds "),
        (&["tune"], "this model has no matrix-vector kernels"),
    ] {
        let output = run(&mut command(folder, args));
        let text = stderr(&output);
        let last = text.lines().last().unwrap_or_default();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
        assert!(last.starts_with("error: ") && last.contains(words), "{args:?}: {text}");
    }
    for args in [
        &["generate"][..],
        &["nonsense"],
        &["profile", "--bandwidth", "0"],
        &["logits", "--ids", "x", "-o", "y"],
        &["generate", "--max-tokens", "many", "x"],
    ] {
        assert_eq!(run(&mut command(folder, args)).status.code(), Some(2), "{args:?}");
    }
    let long = "story ".repeat(500);
    let output = run(&mut command(folder, &["generate", &long]));
    assert!(stderr(&output).contains("does not fit the context of 256 tokens"));
    // The weights of another program.
    let other = folder.join("other");
    std::fs::write(&other, b"not these").expect("writes");
    let output = run(command(folder, &["generate", "x"]).env("FORGE_WEIGHTS", &other));
    assert!(stderr(&output).contains("is not the file this program was generated for: its length is 9 bytes"));
}

fn help(folder: &Path) {
    let text = stdout(&run(&mut command(folder, &["--help"])));
    for words in [
        "Examples:",
        "generate",
        "chat",
        "serve",
        "logits",
        "tokenize",
        "info",
        "bench",
        "perplexity",
        "imatrix",
        "profile",
        "verify",
        "hash-model",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(stdout(&run(&mut command(folder, &["generate", "--help"]))).contains("--repeat-penalty"));
    assert!(stdout(&run(&mut command(folder, &["profile", "--help"]))).contains("profile --context 4096"));
}

fn a_closed_pipe_is_quiet(folder: &Path) {
    let mut child = command(folder, &["generate", "Hi"])
        .env("SCRIPT", "one two three four five six seven eight nine ten")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ends");
    assert!(output.status.success());
    assert!(!stderr(&output).contains("error"), "{}", stderr(&output));
}

fn weights_are_looked_for(folder: &Path) {
    let file = folder.join("weights.safetensors");
    let output = run(command(folder, &["generate", "--weights", file.to_str().expect("UTF-8"), "x"])
        .env("FORGE_WEIGHTS", "/no/such/file")
        .env("SCRIPT", "a"));
    assert_eq!(stdout(&output), "a\n");
    let output = run(command(folder, &["generate", "x"]).env_remove("FORGE_WEIGHTS"));
    let text = stderr(&output);
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights.safetensors");
    assert!(text.contains("no weights file: looked at ") && text.contains(project.to_str().expect("UTF-8")), "{text}");
}
