//! The house rules that a machine can check: see `ARCHITECTURE.md`.

#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/release.rs"]
mod release;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use imports::Use;

const MAX_LINES: usize = 600;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a folder with one of these endings, sorted.
fn files(folder: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                if !path.ends_with("node_modules") {
                    folders.push(path);
                }
            } else if endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<PathBuf> {
    files("src", &[".rs"])
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// Lines with their numbers, without comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(at, line)| (at + 1, line)).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// A row of the table in the documentation of `src/lib.rs`.
struct Row {
    modules: Vec<String>,
    /// Why its modules may not use those of later rows.
    why: String,
}

/// The rows, from the top.
fn rows() -> Vec<Row> {
    let text = read(&root().join("src/lib.rs"));
    let table = text.split("```").nth(1).expect("lib.rs holds the table of rows");
    let lines = table.lines().skip(1).filter_map(|line| line.strip_prefix("//! ")).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (modules, rest) = line.split_once(" | ").unwrap_or((line, ""));
            let (_, why) = rest.split_once(": ").unwrap_or_else(|| panic!("a row without a reason: {line}"));
            Row { modules: modules.split_whitespace().map(str::to_owned).collect(), why: why.to_owned() }
        })
        .collect()
}

/// Fails if there are findings, and reports all of them.
fn none(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}:\n{}", findings.join("\n"));
}

fn uses() -> Vec<Use> {
    imports::read(&root().join("src"), &sources())
}

#[test]
fn imports_point_to_earlier_rows() {
    let rows = rows();
    let last = rows.len() - 1;
    let row_of = |module: &str| rows.iter().position(|row| row.modules.iter().any(|one| one == module));
    let mut findings = Vec::new();
    for found in uses() {
        let (Some(own), used) = (found.from.first(), &found.to[0]) else { continue };
        let (Some(row), Some(other)) = (row_of(own), row_of(used)) else { continue };
        // In the last row, `cli` may use `node`.
        let permitted = own == used || other < row || (row == last && other == last && own == "cli");
        if !permitted {
            let why = &rows[row].why;
            findings.push(format!("{}: `{own}` may not use `{}`: {why}", name(&found.file), found.path));
        }
    }
    none("a row may import rows above it, never its own, never below", &findings);
}

/// Circles that stay, each with its reason.
const CIRCLES: [(&[&str], &str); 8] = [
    (
        &["cluster::actions", "cluster::control", "cluster::questions", "cluster::revocations", "cluster::slowest"],
        "the control channel names who handles its messages, and they answer over it",
    ),
    (
        &[
            "cluster::adapter::inbound",
            "cluster::adapter::library",
            "cluster::adapter::peer",
            "cluster::adapter::receive",
        ],
        "what arrives is handed to the reader of its format, which delivers through the same object",
    ),
    (&["contract::model", "contract::namespace"], "a namespace has an index of its rooms, which is made of the model"),
    (
        &["engine::edge::hub", "engine::edge::session", "engine::edge::sids"],
        "the hub knows every connection, and a connection leaves the hub when it ends",
    ),
    (
        &["engine::native::msgpack_packet", "engine::native::packet"],
        "a packet is read and written in either encoding, and both encodings have the same kinds and mistakes",
    ),
    (
        &[
            "engine::native::polling",
            "engine::native::sender",
            "engine::native::write_queue",
            "engine::native::write_scheduler",
        ],
        "a connection's queue, its transport and its turn to write wake each other",
    ),
    (&HANDLERS, "the table of routes names every handler, and a handler is called with the table's types"),
    (&["redis::health", "redis::report"], "the health is reported whenever it changes, and the report reads it"),
];

/// The handlers of the API, with the table of its routes.
const HANDLERS: [&str; 15] = [
    "http::access",
    "http::actions",
    "http::ask",
    "http::connections",
    "http::drain",
    "http::emit",
    "http::events",
    "http::history",
    "http::openapi",
    "http::owners",
    "http::revocations",
    "http::rooms",
    "http::route",
    "http::state",
    "http::users",
];

#[test]
fn modules_beside_each_other_form_no_circle() {
    let uses = uses();
    let circles = imports::circles(&uses);
    let findings: Vec<String> = circles
        .iter()
        .filter(|circle| !CIRCLES.iter().any(|(known, _)| known == circle))
        .flat_map(|circle| imports::inside(circle, &uses))
        .collect();
    none("modules that use each other in a circle: move what both need into a third", &findings);
    let gone = CIRCLES.iter().filter(|(known, _)| !circles.iter().any(|circle| circle == known));
    none("circles that are listed and gone", &gone.map(|(known, _)| known.join(", ")).collect::<Vec<_>>());
}

#[test]
fn every_module_is_in_a_row() {
    let declared: BTreeSet<String> = code(&read(&root().join("src/lib.rs")))
        .filter_map(|(_, line)| line.split("mod ").nth(1)?.strip_suffix(';').map(str::to_owned))
        .collect();
    let listed: BTreeSet<String> = rows().into_iter().flat_map(|row| row.modules).collect();
    let missing: Vec<_> = declared.difference(&listed).cloned().collect();
    none("modules that are in no row of src/lib.rs", &missing);
}

#[test]
fn no_file_is_too_long() {
    let mut all = sources();
    all.extend(files("tests", &[".rs", ".js"]));
    let findings: Vec<_> = all
        .iter()
        .map(|path| (name(path), read(path).lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(name, lines)| format!("{name}: {lines} lines, at most {MAX_LINES}: split it by noun"))
        .collect();
    none("long files", &findings);
}

/// With `autotests = false`, Cargo does not look for tests itself.
#[test]
fn every_file_of_tests_is_built() {
    let manifest: toml::Table = read(&root().join("Cargo.toml")).parse().unwrap();
    let programs: Vec<&str> =
        manifest["test"].as_array().unwrap().iter().map(|test| test["name"].as_str().unwrap()).collect();
    let main = read(&root().join("tests/main.rs"));
    let files = fs::read_dir(root().join("tests")).unwrap().map(|entry| entry.unwrap().path());
    let findings: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|end| end == "rs") && !path.ends_with("main.rs"))
        .filter(|path| {
            let part = path.file_stem().unwrap().to_str().unwrap();
            !programs.contains(&part) && !main.lines().any(|line| line == format!("mod {part};"))
        })
        .map(|path| name(&path))
        .collect();
    none("tests that nothing runs: add them to tests/main.rs", &findings);
}

#[test]
fn map_of_the_tests_names_every_file() {
    let map = read(&root().join("tests/README.md"));
    let folders = ["tests/js/edge", "tests/js/contracts", "tests/js/complete", "tests/js/cluster", "tests/js/harness"];
    let mut all: Vec<PathBuf> = folders.into_iter().flat_map(|folder| files(folder, &[".js"])).collect();
    // `fuzz/README.md` lists the fuzz targets.
    all.extend(files("tests", &[".rs"]).into_iter().filter(|path| !name(path).starts_with("tests/fuzz/")));
    let missing = |path: &String| !map.contains(&format!("`{path}`")) && path != "main.rs";
    let short = |path: &PathBuf| name(path)["tests/".len()..].to_owned();
    let findings: Vec<_> = all.iter().map(short).filter(missing).collect();
    none("files that tests/README.md does not name: add a line for each", &findings);
}

#[test]
fn modules_are_files_beside_their_folders() {
    let findings: Vec<_> = sources().iter().filter(|path| path.ends_with("mod.rs")).map(|path| name(path)).collect();
    none("`part.rs` beside `part/`, never `mod.rs`", &findings);
}

#[test]
fn nothing_is_left_open_or_switched_off() {
    // Spelled so that this file does not match itself.
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("#[ig", "nore"),
        concat!(".sk", "ip("),
        concat!("skip", ": true"),
        concat!(".on", "ly("),
    ];
    let mut all = sources();
    all.extend(files("tests", &[".js", ".rs", ".json"]));
    all.extend(files("scripts", &[""]));
    all.extend(files("contracts", &[".toml"]));
    let mut findings = Vec::new();
    for path in all {
        for (at, line) in read(&path).lines().enumerate() {
            // The mark `.skip` counts only outside Rust, where iterators and serde also have `skip`.
            let rust = path.extension().is_some_and(|end| end == "rs");
            for mark in marks.iter().filter(|mark| line.contains(**mark) && !(rust && mark.starts_with('.'))) {
                findings.push(format!("{}:{}: {mark}", name(&path), at + 1));
            }
        }
    }
    none("left open or switched off", &findings);
}

#[test]
fn rust_knows_no_application() {
    let mut words = BTreeSet::new();
    for path in files("contracts", &[".toml"]) {
        let contract: toml::Table = read(&path).parse().unwrap();
        let app = contract["name"].as_str().unwrap().to_owned();
        words.extend([format!("\"{app}\""), format!("{app}.toml"), format!("embedded:{app}")]);
        for part in ["client", "server"] {
            let Some(events) = contract.get(part).and_then(toml::Value::as_table) else { continue };
            // Event names without `:` and `-`, such as "message", are general words that any code may contain.
            words.extend(events.keys().filter(|event| event.contains([':', '-'])).map(|event| format!("\"{event}\"")));
        }
    }
    let mut findings = Vec::new();
    for path in sources() {
        for (number, line) in code(&read(&path)) {
            for word in words.iter().filter(|word| line.contains(word.as_str())) {
                findings.push(format!("{}:{number}: {word}", name(&path)));
            }
        }
    }
    none("names of applications in Rust code: they belong in contracts/*.toml", &findings);
}

#[test]
fn the_library_of_an_engine_stays_in_it() {
    let mut findings = Vec::new();
    for path in sources() {
        let file = name(&path);
        if file.starts_with("src/engine/socketioxide") {
            continue;
        }
        for (number, line) in code(&read(&path)) {
            // The project's own module `engine::socketioxide` may be used.
            let line = line.replace("engine::socketioxide::", "").replace("super::socketioxide::", "");
            if line.contains("socketioxide::") || line.contains("socketioxide_") || line.contains("engineioxide::") {
                findings.push(format!("{file}:{number}: {}", line.trim()));
            }
        }
    }
    none("types of socketioxide outside engine/socketioxide", &findings);
}

#[test]
fn no_registry_host_and_no_path_of_a_workplace_is_named() {
    // Spelled so that this file does not match itself.
    let hosts = [
        concat!("index.", "crates.io"),
        concat!("static.", "crates.io"),
        concat!("registry.", "npmjs"),
        concat!("pypi", ".org"),
        concat!("python", "hosted"),
        concat!("deb.", "debian"),
        concat!("proxy.", "golang"),
    ];
    let mut all = vec![root().join("Makefile"), root().join("README.md"), root().join("Cargo.toml")];
    all.extend(["src", "contracts", "scripts", "nginx", "docs", ".ci"].into_iter().flat_map(|dir| files(dir, &[""])));
    all.extend(files("tests", &[".js", ".rs", ".json", ".npmrc"]));
    let mut findings = Vec::new();
    for path in all {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for host in hosts.iter().filter(|host| text.contains(**host)) {
            findings.push(format!("{}: {host}", name(&path)));
        }
        for (at, line) in text.lines().enumerate() {
            let alone = |start: usize| !line[..start].ends_with(|c: char| c.is_alphanumeric() || "._-}$".contains(c));
            if line.find(concat!("/wo", "rk/")).is_some_and(alone) {
                findings.push(format!("{}:{}: a path of one machine", name(&path), at + 1));
            }
        }
    }
    none("names that belong to one place", &findings);
}

#[test]
fn lock_files_name_no_host_and_are_there() {
    assert!(root().join("Cargo.lock").exists());
    for path in ["tests/js/package-lock.json", "docs/site/package-lock.json"] {
        let lock = read(&root().join(path));
        assert!(!lock.contains("\"resolved\""), "{path}: remove the `resolved` members (see .npmrc)");
    }
}

#[test]
fn the_papers_are_there_and_show_the_two_commands() {
    for paper in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE", "Makefile", ".ci/run"] {
        assert!(root().join(paper).exists(), "{paper} is missing");
    }
    let readme = read(&root().join("README.md"));
    let screen: Vec<_> = readme.lines().take(40).collect();
    for command in ["make run", "make test"] {
        assert!(screen.iter().any(|line| line.contains(command)), "README.md's first screen does not show `{command}`");
    }
    let changelog = read(&root().join("CHANGELOG.md"));
    assert!(changelog.contains("## [Unreleased]"), "CHANGELOG.md follows Keep a Changelog");
}

/// The names between backticks in `docs/security.md` that are tests: a file, or a sentence, perhaps shortened by `…`.
#[test]
fn every_test_that_the_security_paper_names_is_there() {
    let paper = read(&root().join("docs/security.md"));
    let tests: Vec<PathBuf> = [files("src", &[".rs"]), files("tests", &[".rs", ".test.js"])].concat();
    let sentences: String = tests.iter().map(|path| read(path)).collect();
    let named: Vec<&str> = paper.split('`').skip(1).step_by(2).collect();
    // A name in backticks is taken for a test function in Rust, or for the title of a test in JavaScript.
    let function = |name: &&&str| name.matches('_').count() >= 3 && !name.contains(['/', '.', '{', ' ']);
    let title = |name: &&&str| name.matches(' ').count() >= 4 && !name.contains("= ");
    let file = |name: &&&str| name.starts_with("tests/") || name.starts_with("src/");
    let functions: Vec<String> =
        named.iter().filter(function).map(|name| format!("fn {}", name.trim_end_matches('…'))).collect();
    let titles = named.iter().filter(title).map(|&name| name.to_owned());
    let files: Vec<&str> = named.iter().filter(file).copied().collect();
    assert!(functions.len() >= 12 && files.len() >= 15, "{functions:?} {files:?}");
    let unknown = functions.into_iter().chain(titles).filter(|text| !sentences.contains(text));
    let tests_nothing = |path: &&str| {
        let path = root().join(path);
        let has_test = |text: String| ["test]", "test(", "on_both_engines!"].iter().any(|mark| text.contains(mark));
        !path.exists() || (path.is_file() && !has_test(read(&path)))
    };
    let missing = files.into_iter().filter(tests_nothing).map(str::to_owned);
    none("docs/security.md names tests that exist", &unknown.chain(missing).collect::<Vec<_>>());
}

/// The Redis commands that a Lua script calls, in lower case.
fn called(script: &str) -> impl Iterator<Item = String> {
    let calls =
        script.split("redis.").skip(1).filter_map(|rest| rest.strip_prefix("call(").or(rest.strip_prefix("pcall(")));
    let named = calls.filter_map(|rest| rest.strip_prefix('\'').or(rest.strip_prefix('"')));
    named.map(|rest| rest.split(['\'', '"']).next().unwrap_or("").to_ascii_lowercase())
}

#[test]
fn every_command_of_a_script_is_among_the_rights_that_the_manual_lists() {
    let manual = read(&root().join("docs/redis.md"));
    let rights = manual.split("## Rights").nth(1).and_then(|text| text.split("```").nth(1)).expect("a rule in a block");
    let mut findings = BTreeSet::new();
    for path in files("src", &[".lua"]) {
        let script = read(&path);
        let missing =
            called(&script).filter(|command| !rights.split_whitespace().any(|right| right == format!("+{command}")));
        findings.extend(missing.map(|command| format!("{}: +{command}", name(&path))));
    }
    none("nodes need these rights too: add them to docs/redis.md", &findings.into_iter().collect::<Vec<_>>());
}

/// Beginnings of comments that leave the subject unnamed.
const RIDDLES: [&str; 10] = [
    "So many",
    "So long",
    "At most so many",
    "For so long",
    "Whoever",
    "Nobody",
    "What is",
    "Theirs",
    "Those of",
    "Those who",
];

/// The text of a comment that fills a line. `None` for other lines.
fn comment<'a>(path: &Path, line: &'a str) -> Option<&'a str> {
    let marks: &[&str] = match path.extension().and_then(|end| end.to_str()) {
        Some("rs") => &["///", "//!", "//"],
        Some("js" | "mjs" | "ts") => &["/**", "//", "* "],
        Some("lua") => &["--"],
        _ => &["#", "{{- /*"],
    };
    let line = line.trim_start();
    marks.iter().find_map(|mark| line.strip_prefix(mark)).map(str::trim)
}

/// Every file of this project that may have comments.
fn commented() -> Vec<PathBuf> {
    let endings = [
        ".rs",
        ".js",
        ".mjs",
        ".ts",
        ".lua",
        ".toml",
        ".yaml",
        ".tpl",
        ".conf",
        ".sh",
        ".py",
        "Makefile",
        "Dockerfile",
    ];
    let folders =
        ["src", "tests", "benchmarks", "charts", "contracts", "docs", "examples", "k8s", "nginx", "packaging"];
    let mut all: Vec<PathBuf> = folders.into_iter().flat_map(|folder| files(folder, &endings)).collect();
    all.extend(files("scripts", &[""]));
    all.extend(files(".ci", &[""]));
    let single = ["Makefile", "Dockerfile", "build.rs", "compose.yaml", "roomcast.example.toml", "Cargo.toml"];
    all.extend(single.map(|file| root().join(file)));
    // Inputs of fuzzers and output of builds are left out.
    let is_ours = |path: &PathBuf| {
        !path.components().any(|part| ["corpus", "found", "target"].map(AsRef::as_ref).contains(&part.as_os_str()))
    };
    all.into_iter().filter(is_ours).collect()
}

#[test]
fn sentences_of_comments_name_their_subject() {
    let mut findings = Vec::new();
    for path in commented() {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (at, line) in text.lines().enumerate() {
            let Some(comment) = comment(&path, line) else { continue };
            let begins = |opening: &str| {
                let after = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric());
                let sentences = comment.split(". ").chain(comment.split("! "));
                sentences.filter_map(|sentence| sentence.strip_prefix(opening)).any(after)
            };
            if let Some(opening) = RIDDLES.into_iter().find(|opening| begins(opening)) {
                findings.push(format!("{}:{}: a sentence begins with \"{opening}\"", name(&path), at + 1));
            }
        }
    }
    none("name the subject: who or what does the thing, and how many", &findings);
}

#[test]
fn comments_are_not_wider_than_the_code() {
    const WIDTH: usize = 120;
    let mut wide = Vec::new();
    // The macro of the metrics takes each HELP text as one line.
    let is_prose = |path: &PathBuf| !path.ends_with("telemetry/metrics.rs");
    for path in sources().into_iter().chain(files("tests", &[".rs"])).filter(is_prose) {
        let text = read(&path);
        let mut in_block = false;
        for (number, line) in text.lines().enumerate() {
            let Some(comment) = line.trim_start().strip_prefix("//") else { continue };
            // Tables and examples between two such lines are as wide as they are.
            in_block ^= comment.contains("```");
            if !in_block && line.chars().count() > WIDTH {
                wide.push(format!("{}:{}", name(&path), number + 1));
            }
        }
    }
    none("a comment has at most 120 columns, as the code that rustfmt formats", &wide);
}

/// The name of the type or function that a line declares.
fn declared(line: &str) -> Option<&str> {
    let words = ["fn ", "struct ", "enum ", "trait ", "type ", "const ", "static ", "mod "];
    let is_before = |before: &str| before.is_empty() || before.starts_with("pub");
    let rest = words.iter().find_map(|word| line.split_once(word).filter(|(before, _)| is_before(before)))?.1;
    rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next()
}

/// The letters of a text in lower case, without articles.
fn letters(text: &str) -> String {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !["The", "A", "An", "the"].contains(word));
    words.collect::<String>().to_lowercase()
}

#[test]
fn first_lines_of_doc_comments_say_something() {
    let mut findings = Vec::new();
    for path in sources() {
        let text = read(&path);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate() {
            let Some(first) = line.strip_prefix("///").or(line.strip_prefix("//!")).map(str::trim) else { continue };
            if at > 0 && lines[at - 1].starts_with(&line[..3]) {
                continue;
            }
            let is_sentence = first.starts_with(|c: char| !c.is_lowercase()) || first.starts_with("socketioxide");
            // `roomcast` is the program's name.
            if !is_sentence && !first.starts_with("roomcast") {
                findings.push(format!("{}:{}: begins in the middle of a sentence", name(&path), at + 1));
            }
            let item = lines[at..].iter().find(|line| !line.starts_with("///") && !line.starts_with("#["));
            let item = item.filter(|_| line.starts_with("///")).and_then(|line| declared(line));
            if item.is_some_and(|item| letters(item) == letters(first)) {
                findings.push(format!("{}:{}: says no more than the name", name(&path), at + 1));
            }
        }
    }
    none("the first line of a doc comment says what the item promises", &findings);
}

/// Names that more than one public type may have, each with the reason.
const SHARED_NAMES: [(&str, &str); 0] = [];

/// The name of the type that a line declares for other modules. `None` for other lines.
fn public_type(line: &str) -> Option<&str> {
    let line = line.trim_start().strip_prefix("pub")?;
    let line = line.strip_prefix('(').and_then(|rest| rest.split_once(')')).map_or(line, |(_, rest)| rest);
    let (kind, rest) = line.strip_prefix(' ')?.split_once(' ')?;
    let is_type = ["struct", "enum", "trait", "type", "union"].contains(&kind);
    let name_of_type = rest.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next()?;
    (is_type && !name_of_type.is_empty()).then_some(name_of_type)
}

#[test]
fn one_public_type_name_means_one_thing() {
    assert_eq!(public_type("    pub(super) struct Queue<T> {"), Some("Queue"));
    assert_eq!(public_type("pub fn queue() -> Queue {"), None);
    let mut declared: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in sources() {
        for (number, line) in code(&read(&path)) {
            if let Some(name_of_type) = public_type(line) {
                declared.entry(name_of_type.to_owned()).or_default().push(format!("{}:{number}", name(&path)));
            }
        }
    }
    let is_shared = |name: &str| SHARED_NAMES.iter().any(|(shared, _)| *shared == name);
    let twice = declared.iter().filter(|(name, places)| places.len() > 1 && !is_shared(name));
    let twice = twice.map(|(name, places)| format!("`{name}`: {}", places.join(", ")));
    let unused = SHARED_NAMES.iter().filter(|(name, _)| declared.get(*name).is_none_or(|places| places.len() < 2));
    let unused = unused.map(|(name, _)| format!("`{name}` is listed and has one meaning"));
    let findings: Vec<_> = twice.chain(unused).collect();
    none("a public type name that two types have: rename one, or list the name with a reason", &findings);
}
