//! Do the sources keep the rules of ARCHITECTURE.md that the compiler does not know?

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use regex::Regex;

use super::files::{root, texts};

/// A file may hold this many lines before its tests.
const MAX_LINES: usize = 500;

/// One door per heavy dependency: the crate, and the beginnings of the paths that may name it.
const DOORS: &[(&str, &[&str])] = &[
    ("actix_web", &["src/api", "src/web", "src/app", "src/access"]),
    ("actix_cors", &["src/api", "src/web", "src/app"]),
    ("mistralrs", &["src/generation.rs", "src/generation/mistralrs"]),
    ("tantivy", &["src/retrieval"]),
    (
        "candle_core",
        &[
            "src/retrieval.rs",
            "src/retrieval/encoder",
            "src/models",
            "src/generation/mistralrs",
            "src/nn",
            "src/sft",
            "src/reward",
            "src/policy",
            "src/improve",
        ],
    ),
    ("candle_nn", &["src/retrieval/encoder", "src/models", "src/nn"]),
    ("candle_transformers", &["src/retrieval/encoder", "src/models", "src/nn"]),
    ("sqlx", &["src/ledger"]),
    ("prometheus", &["src/telemetry"]),
];

/// Modules that speak HTTP or start the program; nothing below them may know them.
const EDGES: &[&str] = &["src/api", "src/web", "src/app", "src/cli", "src/main"];

/// The part of a source file before its tests, without comment lines. Strings stay: what is looked for does not occur in
/// them.
fn code(text: &str) -> String {
    let product = text.split("#[cfg(test)]").next().unwrap_or_default();
    let uncommented = |line: &&str| !line.trim_start().starts_with("//");
    product.lines().filter(uncommented).collect::<Vec<_>>().join("\n")
}

/// Every source of the product with its path. Tests in a file of their own (`foo/tests.rs`) are none.
fn sources() -> Vec<(String, String)> {
    let sources: Vec<_> = texts("src")
        .into_iter()
        .filter(|(path, _)| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|(path, text)| (path.to_string_lossy().into_owned(), text))
        .filter(|(path, _)| !path.ends_with("/tests.rs") && !path.contains("/tests/"))
        .collect();
    assert!(sources.len() > 10, "the walk found only {} sources", sources.len());
    sources
}

/// Whether a path of `name` begins here: `name::`, `::name::`, but not `self::name::`.
fn names_crate(code: &str, name: &str) -> bool {
    Regex::new(&format!(r"(^|[^:\w])(::)?{name}::")).unwrap().is_match(code)
}

#[test]
fn one_door_per_heavy_dependency() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let code = code(&text);
        for (name, doors) in DOORS {
            if names_crate(&code, name) && !doors.iter().any(|door| path.starts_with(door)) {
                wrong.push(format!("{path} names {name}; its door is {doors:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn crate_names_are_told_from_modules() {
    assert!(names_crate("use sqlx::Row;", "sqlx"));
    assert!(names_crate("let a = ::sqlx::query();", "sqlx"));
    assert!(!names_crate("use self::sqlx::Row;", "sqlx"));
    assert!(!names_crate("use my_sqlx::Row;", "sqlx"));
}

#[test]
fn the_domain_knows_nothing_else_of_the_program() {
    let uses = Regex::new(r"crate::(\w+)").unwrap();
    for (path, text) in sources().iter().filter(|(path, _)| path.starts_with("src/domain")) {
        for found in uses.captures_iter(&code(text)) {
            assert_eq!(&found[1], "domain", "{path}");
        }
    }
}

#[test]
fn nothing_but_the_edges_knows_http() {
    let uses = Regex::new(r"crate::(api|web|app|cli)\b").unwrap();
    for (path, text) in sources() {
        if !EDGES.iter().any(|edge| path.starts_with(edge)) {
            let found = uses.find(&code(&text)).map(|found| found.as_str().to_owned());
            assert_eq!(found, None, "{path}");
        }
    }
}

#[test]
fn files_stay_short_enough_to_read() {
    let mut long = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().take_while(|line| line.trim() != "#[cfg(test)]").count();
        if lines > MAX_LINES {
            long.push(format!("{path} has {lines} lines before its tests; split it"));
        }
    }
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn every_module_begins_with_the_question_it_answers() {
    let mut mute = Vec::new();
    for (path, text) in sources() {
        let first = text.lines().next().unwrap_or_default();
        let named = ["src/lib.rs", "src/main.rs"].contains(&path.as_str());
        if !first.starts_with("//! ") || !(named || first.contains('?')) {
            mute.push(format!("{path} begins with {first:?}"));
        }
    }
    assert!(mute.is_empty(), "{mute:#?}");
}

#[test]
fn no_module_is_called_by_what_it_is_not() {
    for (path, _) in sources() {
        let name = Path::new(&path).file_stem().unwrap().to_string_lossy().into_owned();
        assert!(!["mod", "util", "utils", "common", "helpers", "misc"].contains(&name.as_str()), "{path}");
    }
}

#[test]
fn the_product_does_not_panic_on_purpose() {
    let panics = Regex::new(r"\.unwrap\(\)|\.expect\(|\b(panic|todo|unimplemented)!").unwrap();
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let code = code(&text);
        let reasoned = ["unwrap_used", "expect_used", "clippy::panic"].iter().any(|lint| code.contains(lint));
        if let Some(found) = panics.find(&code).filter(|_| !reasoned) {
            wrong.push(format!("{path}: {} without #[expect(…, reason = …)]", found.as_str()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The features of every package that a build with these kinds of dependencies compiles.
fn features(kinds: &str) -> BTreeMap<String, BTreeSet<String>> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--prefix=none", "--no-dedupe", "--format={p}\t{f}", "--edges", kinds])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let mut features: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in String::from_utf8(tree.stdout).unwrap().lines() {
        let (package, list) = line.split_once('\t').unwrap();
        let package = package.split(" (").next().unwrap().to_owned();
        features.entry(package).or_default().insert(list.trim_end_matches(" (*)").to_owned());
    }
    features
}

#[test]
fn tests_and_product_share_one_compiled_engine() {
    let (product, tests) = (features("normal,build"), features("normal,build,dev"));
    assert!(product.keys().any(|package| package.starts_with("mistralrs ")), "{} packages", product.len());
    for (package, features) in &product {
        assert_eq!(
            Some(features),
            tests.get(package),
            "{package}: a test-only dependency turns features on; turn them on in Cargo.toml for everybody, \
             else `make run` and `make test` each compile the engine"
        );
    }
}
