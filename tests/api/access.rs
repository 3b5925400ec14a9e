//! Who may do what, in every mode.

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use attune::config::AccessMode;
use attune::domain::Role;

use crate::harness::{Setup, TestApp, answer, asking, check_error};

const EMPLOYEE: usize = 0;
const CURATOR: usize = 1;
const OPERATOR: usize = 2;
const SITE: &str = "https://intranet.example";

async fn with_people() -> TestApp {
    let people: [(&str, &[&str], Role); 3] =
        [("erin", &["hr"], Role::Employee), ("cleo", &[], Role::Curator), ("olga", &[], Role::Operator)];
    Setup::default()
        .people(&people)
        .config(|config| config.access.widget.origins = vec![SITE.into()])
        .start()
        .await
}

/// Every call, with the least role that may make it; `None` needs nobody.
fn calls() -> Vec<(Method, &'static str, Option<Value>, Option<Role>)> {
    use Role::{Curator, Employee, Operator};
    let (get, post, put) = (|| Method::GET, || Method::POST, || Method::PUT);
    vec![
        (get(), "/livez", None, None),
        (get(), "/readyz", None, None),
        (get(), "/health", None, None),
        (get(), "/openapi.json", None, None),
        (get(), "/", None, None),
        (get(), "/console", None, None),
        (get(), "/widget/v1.js", None, None),
        (post(), "/v1/chat/completions", Some(asking("Where?")), Some(Employee)),
        (get(), "/v1/models", None, Some(Employee)),
        (get(), "/v1/models/attune", None, Some(Employee)),
        (get(), "/v1/me", None, Some(Employee)),
        (
            post(),
            "/v1/comparisons",
            Some(json!({"messages": [{"role": "user", "content": "Where?"}]})),
            Some(Employee),
        ),
        (get(), "/v1/comparisons/none", None, Some(Employee)),
        (post(), "/v1/comparisons/none/vote", Some(json!({"choice": "tie"})), Some(Employee)),
        (put(), "/v1/feedback/none", Some(json!({"rating": "up"})), Some(Employee)),
        (get(), "/v1/feedback/none", None, Some(Employee)),
        (get(), "/v1/answers", None, Some(Employee)),
        (get(), "/v1/answers/none", None, Some(Employee)),
        (get(), "/v1/search?q=x", None, Some(Employee)),
        (get(), "/v1/passages/none", None, Some(Employee)),
        (get(), "/v1/comparisons", None, Some(Curator)),
        (get(), "/v1/feedback", None, Some(Curator)),
        (get(), "/v1/demonstrations", None, Some(Curator)),
        (post(), "/v1/demonstrations", Some(json!({"prompt": "a", "response": "b"})), Some(Curator)),
        (get(), "/v1/demonstrations/none", None, Some(Curator)),
        (put(), "/v1/demonstrations/none", Some(json!({"prompt": "a", "response": "b"})), Some(Curator)),
        (Method::DELETE, "/v1/demonstrations/none", None, Some(Curator)),
        (post(), "/v1/demonstrations/none/restore", None, Some(Curator)),
        (get(), "/v1/documents", None, Some(Curator)),
        (get(), "/v1/documents/none", None, Some(Curator)),
        (put(), "/v1/documents/one", Some(json!({"text": "x"})), Some(Curator)),
        (Method::DELETE, "/v1/documents/none", None, Some(Curator)),
        (get(), "/v1/export?format=sft", None, Some(Curator)),
        (post(), "/v1/import?format=sft", None, Some(Curator)),
        (post(), "/v1/score", Some(json!({"text_1": "a", "text_2": "b"})), Some(Employee)),
        (post(), "/v1/rerank", Some(json!({"query": "a", "documents": ["b"]})), Some(Employee)),
        (get(), "/v1/generations", None, Some(Curator)),
        (get(), "/v1/generations/none", None, Some(Curator)),
        (post(), "/v1/generations/none/promote", None, Some(Operator)),
        (post(), "/v1/rollback", None, Some(Operator)),
        (get(), "/v1/runs", None, Some(Curator)),
        (get(), "/v1/runs/none", None, Some(Curator)),
        // Well-formed, yet never started: a value out of range is refused only after the role.
        (post(), "/v1/runs", Some(json!({"stage": "sft", "sft": {"rank": 0}})), Some(Operator)),
        (post(), "/v1/runs/none/cancel", None, Some(Operator)),
        (get(), "/metrics", None, Some(Operator)),
        (post(), "/v1/widget/token", Some(json!({"user": "ada", "origin": SITE})), Some(Operator)),
    ]
}

#[tokio::test]
async fn each_call_asks_for_its_role() {
    let app = with_people().await;
    for (method, path, body, least) in calls() {
        let send = async |person: Option<usize>| {
            let request = app.request(method.clone(), path);
            let request =
                person.into_iter().fold(request, |request, person| request.bearer_auth(&app.tokens[person]));
            answer(body.iter().fold(request, RequestBuilder::json)).await
        };
        let Some(least) = least else {
            assert!(send(None).await.0.is_success(), "{method} {path} without anybody");
            continue;
        };
        check_error(send(None).await, 401, "invalid_api_key");
        for (person, role) in
            [(EMPLOYEE, Role::Employee), (CURATOR, Role::Curator), (OPERATOR, Role::Operator)]
        {
            let (status, body) = send(Some(person)).await;
            let refused = body["error"]["code"] == "forbidden";
            assert_eq!(refused, role < least, "{method} {path} as {role}: {status} {body}");
            assert!(
                !status.is_server_error() && status != StatusCode::UNAUTHORIZED,
                "{method} {path}: {status}"
            );
        }
    }
}

#[tokio::test]
async fn the_list_of_calls_above_is_whole() {
    let app = TestApp::start().await;
    let (_, document) = app.get("/openapi.json").await;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let pattern: Vec<&str> = path.split('/').collect();
        for method in methods.as_object().unwrap().keys() {
            let listed = calls().iter().any(|(m, p, ..)| {
                let segments: Vec<&str> = p.split('?').next().unwrap().split('/').collect();
                m.as_str().eq_ignore_ascii_case(method)
                    && segments.len() == pattern.len()
                    && segments.iter().zip(&pattern).all(|(s, p)| p.starts_with('{') || s == p)
            });
            assert!(listed, "{method} {path} is in no role test");
        }
    }
}

#[tokio::test]
async fn a_person_sees_their_own_answers_and_a_curator_all() {
    let app = with_people().await;
    for person in [EMPLOYEE, CURATOR] {
        answer(app.by(person, Method::POST, "/v1/chat/completions").json(&asking("Where?"))).await;
    }
    let users = async |person, path: &str| {
        let (_, page) = answer(app.by(person, Method::GET, path)).await;
        page["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["user"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(users(EMPLOYEE, "/v1/answers").await, ["erin"]);
    assert_eq!(users(CURATOR, "/v1/answers").await, ["cleo", "erin"]);
    assert_eq!(users(CURATOR, "/v1/answers?user=erin").await, ["erin"]);
    check_error(answer(app.by(EMPLOYEE, Method::GET, "/v1/answers?user=cleo")).await, 403, "forbidden");
    let (_, me) = answer(app.by(EMPLOYEE, Method::GET, "/v1/me")).await;
    assert_eq!(
        (&me["user"], &me["role"], &me["groups"]),
        (&json!("erin"), &json!("employee"), &json!(["hr"]))
    );
}

#[tokio::test]
async fn wrong_credentials_are_unauthorised() {
    let app = with_people().await;
    let known = app.tokens[EMPLOYEE].clone();
    for header in
        ["Bearer att-0000", "Bearer ", "Basic YTpi", &known, &format!("Bearer {known}x"), "Bearer attw-x.y"]
    {
        let request = app.request(Method::GET, "/v1/me").header("authorization", header);
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["www-authenticate"], "Bearer", "{header}");
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{header}");
    }
}

#[tokio::test]
async fn a_widget_token_serves_one_person_on_one_site_for_what_the_widget_does() {
    let app = with_people().await;
    let grant = json!({"user": "ada", "groups": ["hr"], "origin": SITE});
    let (_, made) = answer(app.by(OPERATOR, Method::POST, "/v1/widget/token").json(&grant)).await;
    assert_eq!(made["expires_in"], 900);
    let token = made["token"].as_str().unwrap().to_owned();
    let from = async |origin: Option<&str>, method: Method, path: &str, body: Value| {
        let request = app.request(method, path).bearer_auth(&token).json(&body);
        answer(origin.into_iter().fold(request, |request, origin| request.header("origin", origin))).await
    };
    let (status, me) = from(Some(SITE), Method::GET, "/v1/me", json!({})).await;
    assert_eq!((status, &me["user"], &me["role"]), (StatusCode::OK, &json!("ada"), &json!("employee")));
    let (status, said) = from(Some(SITE), Method::POST, "/v1/chat/completions", asking("Where?")).await;
    assert_eq!(status, StatusCode::OK);
    let feedback = format!("/v1/feedback/{}", said["id"].as_str().unwrap());
    assert_eq!(from(Some(SITE), Method::PUT, &feedback, json!({"rating": "up"})).await.0, StatusCode::OK);
    check_error(from(Some(SITE), Method::GET, "/v1/answers", json!({})).await, 403, "forbidden");
    check_error(from(Some(SITE), Method::GET, "/v1/search?q=x", json!({})).await, 403, "forbidden");
    check_error(from(None, Method::GET, "/v1/me", json!({})).await, 401, "invalid_api_key");
    check_error(
        from(Some("https://evil.example"), Method::GET, "/v1/me", json!({})).await,
        401,
        "invalid_api_key",
    );
    check_error(
        from(Some("https://evil.example"), Method::POST, "/v1/chat/completions", asking("?")).await,
        403,
        "forbidden",
    );
    let elsewhere = json!({"user": "ada", "origin": "https://evil.example"});
    let refused = answer(app.by(OPERATOR, Method::POST, "/v1/widget/token").json(&elsewhere)).await;
    assert_eq!(check_error(refused, 400, "invalid_request").as_deref(), Some("origin"));
}

#[tokio::test]
async fn another_sites_page_gets_the_widgets_rights_at_most() {
    let app = with_people().await;
    let from = async |origin: &str, method: Method, path: &str| {
        app.by(OPERATOR, method, path).header("origin", origin).json(&asking("Where?")).send().await.unwrap()
    };
    let chat = from(SITE, Method::POST, "/v1/chat/completions").await;
    assert_eq!(chat.status(), StatusCode::OK);
    assert_eq!(chat.headers()["access-control-allow-origin"], SITE);
    assert!(chat.headers()["access-control-expose-headers"].to_str().unwrap().contains("x-request-id"));
    assert_eq!(from(SITE, Method::GET, "/v1/export?format=sft").await.status(), StatusCode::FORBIDDEN);
    let evil = from("https://evil.example", Method::POST, "/v1/chat/completions").await;
    assert_eq!(evil.status(), StatusCode::FORBIDDEN);
    assert!(!evil.headers().contains_key("access-control-allow-origin"));
    assert_eq!(from(&app.base, Method::POST, "/v1/chat/completions").await.status(), StatusCode::OK);

    let preflight = async |origin: &str| {
        let request = app.request(Method::OPTIONS, "/v1/chat/completions").header("origin", origin);
        let request = request.header("access-control-request-method", "POST");
        request.header("access-control-request-headers", "authorization,content-type").send().await.unwrap()
    };
    let allowed = preflight(SITE).await;
    assert!(allowed.status().is_success() && allowed.headers()["access-control-allow-origin"] == SITE);
    assert!(!preflight("https://evil.example").await.headers().contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn open_mode_keeps_other_sites_and_other_names_out() {
    let app = TestApp::start().await;
    let me = async |header: &str, value: &str| {
        answer(app.request(Method::GET, "/v1/me").header(header, value)).await
    };
    assert_eq!(me("x-any", "thing").await.1["role"], "operator");
    assert_eq!(me("host", "localhost:8080").await.0, StatusCode::OK);
    check_error(me("host", "rebound.example").await, 403, "forbidden");
    check_error(me("origin", "https://evil.example").await, 403, "forbidden");
    check_error(me("origin", "null").await, 403, "forbidden");
    check_error(
        answer(app.request(Method::GET, "/metrics").header("host", "rebound.example")).await,
        403,
        "forbidden",
    );
}

#[tokio::test]
async fn a_trusted_proxy_names_the_person() {
    let start = async |trusted: &str| {
        let trusted = trusted.parse().unwrap();
        let setup = Setup::default().config(|config| {
            config.access.mode = AccessMode::Proxy;
            config.access.proxy.trusted = vec![trusted];
            config.access.proxy.curator_groups = vec!["writers".into()];
        });
        setup.start().await
    };
    let me = async |app: &TestApp| {
        let request = app.request(Method::GET, "/v1/me").header("x-forwarded-user", "ada");
        answer(request.header("x-forwarded-groups", "hr, writers")).await
    };
    let trusting = start("127.0.0.0/8").await;
    let (_, ada) = me(&trusting).await;
    assert_eq!(
        (&ada["user"], &ada["role"], &ada["groups"]),
        (&json!("ada"), &json!("curator"), &json!(["hr", "writers"]))
    );
    check_error(trusting.get("/v1/me").await, 401, "invalid_api_key");
    check_error(me(&start("10.0.0.0/8").await).await, 401, "invalid_api_key");
}

#[tokio::test]
async fn a_signed_token_names_the_person() {
    let keys = tempfile::tempdir().unwrap();
    let file = keys.path().join("secret");
    std::fs::write(&file, "0123456789abcdef0123456789abcdef\n").unwrap();
    let setup = Setup::default().config(|config| {
        config.access.mode = AccessMode::Jwt;
        config.access.jwt.hs256_secret_file = Some(file);
    });
    let app = setup.start().await;
    let me = async |secret: &[u8], expires_in: i64| {
        let exp = attune::domain::now().seconds() + expires_in;
        let claims = json!({"sub": "ada", "groups": ["hr"], "exp": exp});
        let key = jsonwebtoken::EncodingKey::from_secret(secret);
        let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
        answer(app.request(Method::GET, "/v1/me").bearer_auth(token)).await
    };
    assert_eq!(me(b"0123456789abcdef0123456789abcdef", 60).await.1["user"], "ada");
    check_error(me(b"0123456789abcdef0123456789abcdef", -60).await, 401, "invalid_api_key");
    check_error(me(b"another secret of thirty-two by.", 60).await, 401, "invalid_api_key");
}

#[tokio::test]
async fn pages_and_data_carry_their_security_headers() {
    let app =
        Setup::default().config(|config| config.access.widget.origins = vec![SITE.into()]).start().await;
    let headers = async |path: &str| app.request(Method::GET, path).send().await.unwrap().headers().clone();
    let page = headers("/").await;
    let policy = page["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("script-src 'self'") && !policy.contains("unsafe"), "{policy}");
    assert!(policy.contains(&format!("frame-ancestors 'self' {SITE}")), "{policy}");
    let data = headers("/v1/me").await;
    assert_eq!(
        (&data["x-content-type-options"], &data["cache-control"]),
        (&"nosniff".parse().unwrap(), &"no-store".parse().unwrap())
    );
    assert!(data["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
}
