//! How is Chromium driven? One browser a test, always closed, with a page object that sees into the Shadow DOM.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::actions::{InputSource, KeyAction, KeyActions};
use fantoccini::key::Key;
use fantoccini::{Client, ClientBuilder};
use futures::FutureExt;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

const CHROMEDRIVER: &str = "/usr/bin/chromedriver";
const CHROMIUM: &str = "/usr/bin/chromium";
/// How long a page may take to get somewhere; generous, for machines that compile meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);

/// One browser at a time: two of them starve each other on small machines.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A browser's window.
pub(crate) struct Page {
    client: Client,
    name: &'static str,
}

/// Runs `test` with a fresh browser; closes it whatever happens. Says so and returns when there is no chromedriver.
pub(crate) async fn browse(name: &'static str, test: impl AsyncFnOnce(&Page)) {
    if !Path::new(CHROMEDRIVER).exists() {
        eprintln!("{name}: skipped: {CHROMEDRIVER} is not installed (Debian: chromium, chromium-driver)");
        return;
    }
    let _one = ONE_AT_A_TIME.lock().await;
    let profile = tempfile::tempdir().unwrap();
    let driver = Driver::start();
    let client = connect(&driver, profile.path()).await;
    let page = Page { client: client.clone(), name };
    let outcome = std::panic::AssertUnwindSafe(test(&page)).catch_unwind().await;
    if outcome.is_err() {
        page.keep_picture("failed").await;
    }
    client.close().await.unwrap();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// A chromedriver process on a free port.
struct Driver {
    child: Child,
    port: u16,
}

impl Driver {
    fn start() -> Self {
        let mut child = Command::new(CHROMEDRIVER)
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines
            .map_while(Result::ok)
            .find_map(|line| {
                line.split_once("started successfully on port ")?.1.trim_end_matches('.').parse().ok()
            })
            .expect("chromedriver names its port");
        Self { child, port }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn connect(driver: &Driver, profile: &Path) -> Client {
    let profile = format!("--user-data-dir={}", profile.display());
    let arguments = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        &profile,
    ];
    let capabilities = json!({
        "browserName": "chrome",
        "goog:chromeOptions": { "binary": CHROMIUM, "args": arguments },
    });
    let Value::Object(capabilities) = capabilities else { unreachable!("written as an object") };
    ClientBuilder::new(HttpConnector::new())
        .capabilities(capabilities)
        .connect(&format!("http://127.0.0.1:{}", driver.port))
        .await
        .unwrap()
}

/// In every script: `$` and `$$` look inside the chat's Shadow DOM where there is one; `visible` is what a person sees.
const PRELUDE: &str = "const root = document.querySelector('attune-chat')?.shadowRoot ?? document;\
    const $ = (s) => root.querySelector(s); const $$ = (s) => [...root.querySelectorAll(s)];\
    const visible = (s) => Boolean($(s)?.checkVisibility());";

impl Page {
    /// Opens an address in a window of this size. The size is the page's, which a headless window's own is not.
    pub(crate) async fn open(&self, url: &str, (width, height): (u32, u32)) {
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            json!({
                "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false,
            }),
        )
        .await;
        self.client.goto(url).await.unwrap();
    }

    /// The value of an expression.
    pub(crate) async fn get(&self, expression: &str) -> Value {
        self.run(&format!("return {expression};")).await
    }

    /// Runs statements.
    pub(crate) async fn run(&self, statements: &str) -> Value {
        let script = format!("{PRELUDE}{statements}");
        self.client.execute(&script, vec![]).await.unwrap_or_else(|error| panic!("{statements}: {error}"))
    }

    /// Waits until an expression is true.
    pub(crate) async fn until(&self, expression: &str) {
        let since = Instant::now();
        while self.get(&format!("Boolean({expression})")).await != json!(true) {
            if since.elapsed() > PATIENCE {
                let text = self.text_of_everything().await;
                panic!("{}: never came true: {expression}; the page says: {text}", self.name);
            }
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    }

    /// Waits for an element and clicks it.
    pub(crate) async fn click(&self, selector: &str) {
        let quoted = json!(selector);
        self.until(&format!("visible({quoted}) && !$({quoted}).disabled")).await;
        self.run(&format!("$({quoted}).click();")).await;
    }

    /// Clicks the button with this text.
    pub(crate) async fn press(&self, label: &str) {
        let find = format!(
            "$$('button').find((b) => b.innerText.trim() === {} && b.checkVisibility())",
            json!(label)
        );
        self.until(&find).await;
        self.run(&format!("{find}.click();")).await;
    }

    /// The text of an element, as people see it.
    pub(crate) async fn text(&self, selector: &str) -> String {
        let text = self.get(&format!("$({})?.innerText ?? null", json!(selector))).await;
        text.as_str().unwrap_or_else(|| panic!("{}: no {selector}", self.name)).to_owned()
    }

    /// Replaces what is in a field.
    pub(crate) async fn fill(&self, selector: &str, text: &str) {
        self.until(&format!("visible({})", json!(selector))).await;
        let script = format!(
            "const field = $({}); field.focus(); field.value = {};\
             field.dispatchEvent(new Event('input', {{ bubbles: true }}));\
             field.dispatchEvent(new Event('change', {{ bubbles: true }}));",
            json!(selector),
            json!(text)
        );
        self.run(&script).await;
    }

    /// Replaces what is in the field with this label.
    pub(crate) async fn fill_labelled(&self, label: &str, text: &str) {
        let find = format!("$$('label').find((l) => l.innerText.trim() === {})", json!(label));
        self.until(&find).await;
        let id = self.get(&format!("{find}.htmlFor")).await;
        self.fill(&format!("#{}", id.as_str().unwrap()), text).await;
    }

    /// Asks a question in the chat and waits until its answer is finished.
    pub(crate) async fn ask(&self, question: &str) {
        let turns = self.get("$$('.turn').length").await.as_u64().unwrap();
        self.fill(".composer textarea", question).await;
        self.click(".send").await;
        self.until(&format!("$$('.turn').length === {} && $('.log').ariaBusy === 'false'", turns + 1)).await;
    }

    /// Types on the keyboard, into whatever has the focus.
    pub(crate) async fn keys(&self, text: &str) {
        let mut actions = KeyActions::new("keyboard".into());
        for value in text.chars() {
            actions = actions.then(KeyAction::Down { value }).then(KeyAction::Up { value });
        }
        self.client.perform_actions(actions).await.unwrap();
    }

    /// Presses a key that has no character.
    pub(crate) async fn key(&self, key: Key) {
        self.keys(&String::from(char::from(key))).await;
    }

    /// Presses Tab until an expression about `active`, the focused element, is true; a person would find it so too.
    pub(crate) async fn tab_to(&self, expression: &str) {
        for _ in 0..60 {
            let focused = format!(
                "(() => {{ const active = root.activeElement; return active && ({expression}); }})()"
            );
            if self.get(&format!("Boolean({focused})")).await == json!(true) {
                return;
            }
            self.key(Key::Tab).await;
        }
        panic!("{}: Tab never reaches {expression}", self.name);
    }

    /// Whether the page can be scrolled sideways.
    pub(crate) async fn is_too_wide(&self) -> bool {
        let page = "document.documentElement.scrollWidth > document.documentElement.clientWidth";
        let log = "($('.log')?.scrollWidth ?? 0) > ($('.log')?.clientWidth ?? 0)";
        self.get(&format!("{page} || {log}")).await == json!(true)
    }

    /// Nothing is shown that is the text of a missing value; and a picture of the page is kept in the folder that
    /// `ATTUNE_SCREENSHOTS` names, if it names one.
    pub(crate) async fn look(&self, label: &str) {
        let text = self.text_of_everything().await;
        let slips: Vec<_> = text
            .lines()
            .filter(|line| ["null", "undefined", "NaN", "[object Object]"].contains(&line.trim()))
            .collect();
        assert!(slips.is_empty(), "{}, {label}: {slips:?} in {text}", self.name);
        self.keep_picture(label).await;
    }

    async fn text_of_everything(&self) -> String {
        let text = self.get("(root.body ?? root.querySelector('.chat')).innerText").await;
        text.as_str().unwrap_or_default().to_owned()
    }

    async fn keep_picture(&self, label: &str) {
        let Some(folder) = std::env::var_os("ATTUNE_SCREENSHOTS").map(PathBuf::from) else {
            return;
        };
        std::fs::create_dir_all(&folder).unwrap();
        let name = format!("{}-{label}.png", self.name.replace(' ', "-"));
        std::fs::write(folder.join(name), self.client.screenshot().await.unwrap()).unwrap();
    }

    async fn devtools(&self, command: &str, parameters: Value) {
        self.client.issue_cmd(Devtools { command: command.to_owned(), parameters }).await.unwrap();
    }
}

/// A command of the `DevTools` protocol, which chromedriver passes on.
#[derive(Debug)]
struct Devtools {
    command: String,
    parameters: Value,
}

impl fantoccini::wd::WebDriverCompatibleCommand for Devtools {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/goog/cdp/execute", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (reqwest::Method, Option<String>) {
        (reqwest::Method::POST, Some(json!({ "cmd": self.command, "params": self.parameters }).to_string()))
    }
}
