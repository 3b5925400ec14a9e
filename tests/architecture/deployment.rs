//! Would the deployment files start what they describe? (No container engine runs here, so their meaning is checked.)

use std::collections::BTreeMap;
use std::path::Path;

use attune::config::{AccessMode, Config, Overrides};
use attune::telemetry::Metrics;
use regex::Regex;
use serde_yaml_ng::Value;

use super::files::{root, text, texts};

/// Labels that Prometheus adds to every series, and the one histograms have.
const OWN_LABELS: &[&str] = &["job", "instance", "le"];

fn yaml(path: &str) -> Value {
    let mut value: Value =
        serde_yaml_ng::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    value.apply_merge().unwrap_or_else(|error| panic!("{path}: {error}"));
    value
}

fn services() -> BTreeMap<String, Value> {
    let services = serde_yaml_ng::from_value(yaml("docker-compose.yml")["services"].clone());
    let services: BTreeMap<String, Value> = services.unwrap();
    assert!(["attune", "prometheus", "grafana", "postgres"].iter().all(|name| services.contains_key(*name)));
    services
}

fn strings(value: &Value) -> Vec<String> {
    value.as_sequence().into_iter().flatten().map(|item| item.as_str().unwrap().to_owned()).collect()
}

/// `source:target[:mode]` of every mount.
fn mounts(service: &Value) -> Vec<(String, String, bool)> {
    let split = |mount: &String| {
        let parts: Vec<&str> = mount.split(':').collect();
        (parts[0].to_owned(), parts[1].to_owned(), parts.get(2) == Some(&"ro"))
    };
    strings(&service["volumes"]).iter().map(split).collect()
}

#[test]
fn every_service_can_be_started_watched_and_restarted() {
    for (name, service) in services() {
        assert!(service.get("build").is_some() || service.get("image").is_some(), "{name} has no image");
        if service.get("build").is_none() {
            let image = service["image"].as_str().unwrap();
            let tag = image.split_once(':').map_or("", |(_, tag)| tag);
            assert!(tag.contains(|c: char| c.is_ascii_digit()), "{name}: {image} is not pinned");
        }
        assert_eq!(service["restart"], Value::from("unless-stopped"), "{name}");
        assert!(service["logging"]["options"].get("max-size").is_some(), "{name}: logs grow without end");
        let check = &service["healthcheck"];
        assert_eq!(strings(&check["test"])[0], "CMD", "{name}: a health check without a shell");
        assert!(check.get("start_period").is_some(), "{name}");
        for other in strings(&service["depends_on"]) {
            assert!(services().contains_key(&other), "{name} depends on {other}");
        }
    }
}

#[test]
fn volumes_are_declared_and_used_and_mounted_files_exist() {
    let declared: BTreeMap<String, Value> =
        serde_yaml_ng::from_value(yaml("docker-compose.yml")["volumes"].clone()).unwrap();
    let mut used = Vec::new();
    for (name, service) in services() {
        for (source, target, read_only) in mounts(&service) {
            assert!(target.starts_with('/'), "{name}: {target}");
            if let Some(path) = source.strip_prefix("./") {
                assert!(root().join(path).exists(), "{name} mounts {source}, which is not there");
                assert!(read_only, "{name} can write to {source}");
            } else {
                assert!(declared.contains_key(&source), "{name} mounts the undeclared volume {source}");
                used.push(source);
            }
        }
    }
    assert!(declared.keys().all(|volume| used.contains(volume)), "of {declared:?} only {used:?} are used");
}

#[test]
fn ports_are_published_on_loopback_only() {
    let mut count = 0;
    for (name, service) in services() {
        for port in strings(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name} publishes {port}");
            count += 1;
        }
    }
    assert!(count >= 3, "only {count} ports are published");
}

#[test]
fn no_secret_is_written_down() {
    let secret = Regex::new("(?i)password|secret|token|api_key|database__url").unwrap();
    for (name, service) in services() {
        let environment: BTreeMap<String, Value> =
            serde_yaml_ng::from_value(service["environment"].clone()).unwrap_or_default();
        for (key, value) in environment {
            let referred = value.as_str().is_some_and(|value| value.starts_with("${"));
            assert!(!secret.is_match(&key) || value.is_null() || referred, "{name}: {key} has a value");
        }
    }
}

#[test]
fn the_container_runs_without_rights_and_never_open_to_the_network() {
    let image = text("Dockerfile");
    let user = image.lines().filter_map(|line| line.strip_prefix("USER ")).next_back();
    assert!(user.is_some_and(|user| !user.starts_with('0') && !user.starts_with("root")), "USER {user:?}");

    let services = services();
    let (config, ..) =
        mounts(&services["attune"]).into_iter().find(|(_, to, _)| to.ends_with("attune.toml")).unwrap();
    let config = Config::load(Some(&root().join(config)), &Overrides::default()).unwrap();
    assert_ne!(config.access.mode, AccessMode::Open);
    assert!(!config.server.address().unwrap().ip().is_loopback(), "the published port would reach nobody");

    let targets: Vec<_> = mounts(&services["attune"]).into_iter().map(|(_, target, _)| target).collect();
    for folder in &config.docs.paths {
        assert!(
            targets.contains(&folder.to_string_lossy().into_owned()),
            "{} is not mounted",
            folder.display()
        );
    }
    for state in ["ATTUNE_DATA_DIR=", "ATTUNE_MODELS__CACHE="] {
        let line = image.lines().find(|line| line.contains(state)).unwrap_or_else(|| panic!("no {state}"));
        let folder = line.split_once(state).unwrap().1.split_whitespace().next().unwrap();
        assert!(targets.contains(&folder.to_owned()), "{folder} is not a volume");
    }
}

#[test]
fn prometheus_scrapes_the_address_that_is_served() {
    let config = Config::load(Some(&root().join("deploy/attune.toml")), &Overrides::default()).unwrap();
    let port = config.telemetry.metrics_listen.unwrap().rsplit_once(':').unwrap().1.to_owned();
    let jobs = yaml("deploy/prometheus/prometheus.yml")["scrape_configs"].clone();
    let job = jobs.as_sequence().unwrap().iter().find(|job| job["job_name"] == "attune").unwrap();
    assert_eq!(strings(&job["static_configs"][0]["targets"]), [format!("attune:{port}")]);
    assert!(
        strings(&services()["attune"]["healthcheck"]["test"]).concat().contains(&format!(":{port}/readyz"))
    );
}

/// Every query of the rules and the dashboard, with where it stands.
fn expressions() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (path, text) in texts("deploy") {
        let path = path.to_string_lossy().into_owned();
        let is_data = [".yml", ".json"].iter().any(|ending| path.ends_with(ending));
        if is_data {
            // JSON is YAML.
            collect(&serde_yaml_ng::from_str(&text).unwrap(), &path, &mut found);
        }
    }
    assert!(found.len() > 40, "only {} expressions", found.len());
    found
}

fn collect(value: &Value, place: &str, found: &mut Vec<(String, String)>) {
    match value {
        Value::Mapping(map) => {
            for (key, value) in map {
                match (key.as_str(), value.as_str()) {
                    (Some("expr"), Some(expression)) => found.push((place.to_owned(), expression.to_owned())),
                    _ => collect(value, place, found),
                }
            }
        }
        Value::Sequence(items) => items.iter().for_each(|item| collect(item, place, found)),
        _ => {}
    }
}

/// The labels a metric is declared with, its histogram series included.
fn labels(name: &str) -> Option<&'static [&'static str]> {
    let declared = |name: &str| Metrics::DECLARED.iter().find(|(declared, _)| *declared == name);
    let of_histogram =
        || ["_bucket", "_sum", "_count"].iter().find_map(|end| declared(name.strip_suffix(end)?));
    declared(name).or_else(of_histogram).map(|(_, labels)| *labels)
}

#[test]
fn rules_and_dashboard_name_metrics_and_labels_that_exist() {
    let series = Regex::new(r"\b(attune_\w+)(?:\{([^}]*)\})?").unwrap();
    let matcher = Regex::new(r"(\w+)\s*(?:=~|!~|!=|=)").unwrap();
    let by = Regex::new(r"\bby \(([^)]*)\)").unwrap();
    for (place, expression) in expressions() {
        let mut known: Vec<&str> = OWN_LABELS.to_vec();
        for found in series.captures_iter(&expression) {
            let labels = labels(&found[1]).unwrap_or_else(|| panic!("{place}: no metric {}", &found[1]));
            known.extend(labels);
            for label in matcher.captures_iter(found.get(2).map_or("", |matchers| matchers.as_str())) {
                let label = label.get(1).unwrap().as_str();
                assert!(
                    labels.contains(&label) || OWN_LABELS.contains(&label),
                    "{place}: {label} in {expression}"
                );
            }
        }
        for list in by.captures_iter(&expression) {
            for label in list[1].split(',').map(str::trim) {
                assert!(known.contains(&label), "{place}: by ({label}) in {expression}");
            }
        }
    }
}

#[test]
fn every_metric_is_shown_or_watched() {
    let all: String = expressions().into_iter().map(|(_, expression)| expression + "\n").collect();
    for (name, _) in Metrics::DECLARED {
        assert!(all.contains(name), "{name} is in no rule and no panel");
    }
}

#[test]
fn alerts_say_what_happened_and_how_bad_it_is() {
    let mut names = Vec::new();
    for group in yaml("deploy/prometheus/rules/attune.yml")["groups"].as_sequence().unwrap() {
        for rule in group["rules"].as_sequence().unwrap() {
            let name = rule["alert"].as_str().unwrap().to_owned();
            assert!(["page", "ticket"].contains(&rule["labels"]["severity"].as_str().unwrap()), "{name}");
            assert!(rule["annotations"]["summary"].is_string(), "{name}");
            assert!(rule["annotations"]["description"].is_string(), "{name}");
            assert!(!names.contains(&name), "{name} twice");
            names.push(name);
        }
    }
    assert!(names.len() >= 9, "{names:?}");
}

#[test]
fn grafana_finds_its_datasource_and_its_dashboards() {
    let source = yaml("deploy/grafana/provisioning/datasources/prometheus.yml")["datasources"][0].clone();
    let dashboard: serde_json::Value =
        serde_json::from_str(&text("deploy/grafana/dashboards/attune.json")).unwrap();
    let uid = source["uid"].as_str().unwrap();
    let mut ids = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(panel["type"] == "row" || panel["datasource"]["uid"] == uid, "{}", panel["title"]);
        assert!(!ids.contains(&panel["id"]), "panel {} twice", panel["id"]);
        ids.push(panel["id"].clone());
    }
    let host = source["url"].as_str().unwrap().split(['/', ':']).nth(3).unwrap().to_owned();
    assert!(services().contains_key(&host), "the datasource's host {host} is no service");

    let provider = yaml("deploy/grafana/provisioning/dashboards/attune.yml")["providers"][0].clone();
    let folder = provider["options"]["path"].as_str().unwrap().to_owned();
    let mounted = mounts(&services()["grafana"]).into_iter().find(|(_, target, _)| *target == folder);
    let (source, ..) = mounted.unwrap_or_else(|| panic!("{folder} is not mounted"));
    assert!(root().join(source).join("attune.json").exists());
}

#[test]
fn ci_runs_what_the_readme_promises() {
    let ci = text(".ci/run");
    assert!(ci.contains("make test"));
    for script in [".ci/run", ".ci/deny", "tests/prepare.sh"] {
        assert!(is_executable(&root().join(script)), "{script} can not be executed");
    }
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(path: &Path) -> bool {
    path.exists()
}
