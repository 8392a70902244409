//! Tests that the examples of `docs/hooks.md` work.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use roomcast::hooks::RequestSigner;
use serde_json::{Value, json};

/// The example of `docs/hooks.md` in this language that defines `verify`.
fn sample(language: &str) -> String {
    let page = include_str!("../../docs/hooks.md");
    let blocks = page.split("```").skip(1).step_by(2);
    let mut found = blocks.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n'));
    let sample = found.find(|block| block.contains("verify")).expect("the page has a sample").to_owned();
    assert!(found.next().is_none());
    sample
}

/// Runs a program on standard input and reads JSON from its output.
fn run(program: &str, args: &[&str], input: &str) -> Value {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Requests, and whether each was signed by the node.
fn cases() -> (Value, Vec<bool>) {
    let now = SystemTime::now();
    let body = r#"{"id":"é"}"#;
    let sign = |secrets: &[&str], at| {
        RequestSigner::new(secrets.iter().map(|secret| secret.as_bytes())).sign(body.as_bytes(), at).unwrap()
    };
    let good = sign(&["right"], now);
    let seconds = now.duration_since(UNIX_EPOCH).unwrap().as_secs();
    let all = [
        (good.clone(), body, true),
        (sign(&["right", "old"], now), body, true),
        (sign(&["new", "right"], now), body, true),
        (sign(&["wrong"], now), body, false),
        (good.clone(), r#"{"id":"e"}"#, false),
        (sign(&["right"], now - Duration::from_secs(600)), body, false),
        (sign(&["right"], now + Duration::from_secs(600)), body, false),
        (good.replace(&format!("t={seconds}"), &format!("t={}", seconds + 1)), body, false),
        (good.replace("v1=", "v2="), body, false),
        (format!("t={seconds}"), body, false),
        (format!("t={seconds},v1="), body, false),
        (format!("t={seconds},v1=é"), body, false),
        (format!("t={seconds},v1"), body, false),
        (format!("t={seconds},t=0,v1=00"), body, false),
        (String::new(), body, false),
    ];
    let expected = all.iter().map(|(_, _, expected)| *expected).collect();
    (all.iter().map(|(signature, body, _)| json!([signature, body])).collect(), expected)
}

fn check(program: &str, args: &[&str], code: &str) {
    let (cases, expected) = cases();
    let code = code.replace("CASES", &serde_json::to_string(&cases.to_string()).unwrap());
    assert_eq!(run(program, args, &code), json!(expected));
}

#[test]
fn python_tells_the_nodes_requests_from_others() {
    let driver = "\nimport json\nprint(json.dumps([verify(s, b.encode(), b'right') for s, b in json.loads(CASES)]))\n";
    check("python3", &["-"], &(sample("python") + driver));
}

#[test]
fn node_js_tells_the_nodes_requests_from_others() {
    let driver =
        "\nconsole.log(JSON.stringify(JSON.parse(CASES).map(([s, b]) => verify(s, Buffer.from(b), 'right'))));\n";
    check("node", &["-"], &(sample("js") + driver));
}
