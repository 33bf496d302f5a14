//! Drives headless Chromium as a reader would: real mouse, wheel and keyboard events, and the page's own DOM to look
//! at.
//!
//! Speaks the Chrome DevTools protocol (<https://chromedevtools.github.io/devtools-protocol/>) over the browser's pipe
//! (`--remote-debugging-pipe`: JSON messages that end with NUL on file descriptors 3 and 4), so that no port is opened
//! and no driver is needed.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest wait for an answer or a condition: a shared machine under load starts a browser in a few seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page.
pub struct Chromium {
    child: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    last_id: u64,
    problems: Vec<String>,
    _profile: TempDir,
}

impl Chromium {
    /// Starts a browser with a fresh profile and a window of `width` by `height` pixels.
    ///
    /// # Errors
    /// If Chromium is not installed or does not start.
    pub fn start(width: u32, height: u32, flags: &[&str]) -> Result<Self> {
        let program = std::env::var("CHROMIUM").unwrap_or_else(|_| "chromium".to_owned());
        let profile = TempDir::new()?;
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null", &program])
            .args(["--headless", "--no-sandbox", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--remote-debugging-pipe", "--force-prefers-reduced-motion"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(flags)
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().context("the browser has no input")?;
        let output = child.stdout.take().context("the browser has no output")?;
        let (sender, messages) = channel();
        thread::spawn(move || {
            for message in BufReader::new(output).split(0) {
                let Ok(bytes) = message else { return };
                let Ok(message) = serde_json::from_slice(&bytes) else { return };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self {
            child,
            input,
            messages,
            session: None,
            last_id: 0,
            problems: Vec::new(),
            _profile: profile,
        };
        browser.attach(width, height).with_context(|| {
            format!("{program:?} does not answer; tests/servers/chromium.sh installs it, CHROMIUM names another one")
        })?;
        Ok(browser)
    }

    /// Runs a script in every page before its own scripts.
    pub fn before_each_page(&mut self, script: &str) -> Result<()> {
        self.call("Page.addScriptToEvaluateOnNewDocument", json!({ "source": script }))?;
        Ok(())
    }

    /// Opens a file.
    pub fn open(&mut self, page: &Path) -> Result<()> {
        let page = page.canonicalize().with_context(|| format!("{} cannot be opened", page.display()))?;
        let answer = self.call("Page.navigate", json!({ "url": format!("file://{}", page.display()) }))?;
        ensure!(answer.get("errorText").is_none(), "{} cannot be opened: {answer}", page.display());
        self.wait_until("document.readyState === 'complete'")
    }

    /// Returns the value of a JavaScript expression.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let arguments = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", arguments)?;
        if let Some(exception) = answer.get("exceptionDetails") {
            bail!("{expression} throws {exception}");
        }
        Ok(answer["result"]["value"].clone())
    }

    /// Returns the text of the first element that matches a selector.
    pub fn text(&mut self, selector: &str) -> Result<String> {
        let text = self.evaluate(&format!("document.querySelector({selector:?})?.innerText ?? null"))?;
        Ok(text.as_str().with_context(|| format!("nothing matches {selector:?}"))?.trim().to_owned())
    }

    /// Returns an attribute of the first element that matches a selector.
    pub fn attribute(&mut self, selector: &str, name: &str) -> Result<Option<String>> {
        let value = self.evaluate(&format!("document.querySelector({selector:?}).getAttribute({name:?})"))?;
        Ok(value.as_str().map(str::to_owned))
    }

    /// Waits until an expression is true.
    pub fn wait_until(&mut self, expression: &str) -> Result<()> {
        let start = Instant::now();
        while self.evaluate(expression)? != Value::Bool(true) {
            ensure!(
                start.elapsed() < PATIENCE,
                "{expression} is still not true; problems: {:?}",
                self.problems
            );
            // One frame.
            self.evaluate("new Promise((resume) => setTimeout(resume, 16))")?;
        }
        Ok(())
    }

    /// Moves the mouse.
    pub fn hover(&mut self, x: f64, y: f64) -> Result<()> {
        self.mouse("mouseMoved", json!({ "x": x, "y": y }))
    }

    /// Clicks the middle of the first element that matches a selector, after scrolling it into view.
    pub fn click(&mut self, selector: &str) -> Result<()> {
        let [x, y, width, height] = self.bounds(selector)?;
        self.click_at(x + width / 2.0, y + height / 2.0)
    }

    /// Clicks a place.
    pub fn click_at(&mut self, x: f64, y: f64) -> Result<()> {
        self.hover(x, y)?;
        for kind in ["mousePressed", "mouseReleased"] {
            self.mouse(kind, json!({ "x": x, "y": y, "button": "left", "clickCount": 1 }))?;
        }
        Ok(())
    }

    /// Presses the mouse at one place, moves it to another and releases it.
    pub fn drag(&mut self, from: (f64, f64), to: (f64, f64)) -> Result<()> {
        self.hover(from.0, from.1)?;
        self.mouse("mousePressed", json!({ "x": from.0, "y": from.1, "button": "left", "clickCount": 1 }))?;
        for step in 1..=5 {
            let share = f64::from(step) / 5.0;
            let (x, y) = (from.0 + share * (to.0 - from.0), from.1 + share * (to.1 - from.1));
            self.mouse("mouseMoved", json!({ "x": x, "y": y, "button": "left", "buttons": 1 }))?;
            // The page follows once a frame.
            self.evaluate("new Promise((resume) => requestAnimationFrame(resume))")?;
        }
        self.mouse("mouseReleased", json!({ "x": to.0, "y": to.1, "button": "left", "clickCount": 1 }))
    }

    /// Turns the wheel by pixels; negative turns zoom in.
    pub fn wheel(&mut self, x: f64, y: f64, pixels: f64) -> Result<()> {
        self.mouse("mouseWheel", json!({ "x": x, "y": y, "deltaX": 0, "deltaY": pixels }))
    }

    /// Types into the focused element.
    pub fn type_text(&mut self, text: &str) -> Result<()> {
        self.call("Input.insertText", json!({ "text": text }))?;
        Ok(())
    }

    /// Presses a key, such as `Escape` or `+`.
    pub fn press(&mut self, key: &str) -> Result<()> {
        for kind in ["keyDown", "keyUp"] {
            self.call("Input.dispatchKeyEvent", json!({ "type": kind, "key": key }))?;
        }
        Ok(())
    }

    /// Returns left, top, width and height of the first element that matches a selector, after scrolling it into view.
    pub fn bounds(&mut self, selector: &str) -> Result<[f64; 4]> {
        let bounds = self.evaluate(&format!(
            "(() => {{ const found = document.querySelector({selector:?}); if (!found) return null; \
             found.scrollIntoView({{ block: 'nearest' }}); const box = found.getBoundingClientRect(); \
             return [box.x, box.y, box.width, box.height]; }})()"
        ))?;
        let bounds: Option<[f64; 4]> = serde_json::from_value(bounds)?;
        let bounds = bounds.with_context(|| format!("nothing matches {selector:?}"))?;
        ensure!(bounds[2] > 0.0 && bounds[3] > 0.0, "{selector:?} is not visible");
        Ok(bounds)
    }

    /// Returns a picture of an element as PNG in base64.
    pub fn picture(&mut self, selector: &str) -> Result<String> {
        let [x, y, width, height] = self.bounds(selector)?;
        let clip = json!({ "x": x, "y": y, "width": width, "height": height, "scale": 1 });
        let answer = self.call("Page.captureScreenshot", json!({ "format": "png", "clip": clip }))?;
        Ok(answer["data"].as_str().context("the screenshot has no data")?.to_owned())
    }

    /// Returns what went wrong in the page so far: errors on the console, exceptions, refused content, network
    /// requests.
    pub fn problems(&mut self) -> Result<&[String]> {
        // An answer comes after all events before it.
        self.evaluate("0")?;
        Ok(&self.problems)
    }

    fn attach(&mut self, width: u32, height: u32) -> Result<()> {
        let targets = self.call("Target.getTargets", json!({}))?;
        let targets = targets["targetInfos"].as_array().context("the browser lists no targets")?;
        let page =
            targets.iter().find(|target| target["type"] == "page").context("the browser has no page")?;
        let arguments = json!({ "targetId": page["targetId"], "flatten": true });
        let answer = self.call("Target.attachToTarget", arguments)?;
        self.session = answer["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.call(&format!("{domain}.enable"), json!({}))?;
        }
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size)?;
        Ok(())
    }

    fn mouse(&mut self, kind: &str, mut arguments: Value) -> Result<()> {
        arguments["type"] = kind.into();
        self.call("Input.dispatchMouseEvent", arguments)?;
        Ok(())
    }

    fn call(&mut self, method: &str, arguments: Value) -> Result<Value> {
        self.last_id += 1;
        let id = self.last_id;
        let mut message = json!({ "id": id, "method": method, "params": arguments });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let mut bytes = serde_json::to_vec(&message)?;
        bytes.push(0);
        self.input.write_all(&bytes)?;
        self.input.flush()?;
        loop {
            let answer =
                self.messages.recv_timeout(PATIENCE).with_context(|| format!("no answer to {method}"))?;
            if answer["id"] == id {
                ensure!(answer.get("error").is_none(), "{method} failed: {}", answer["error"]);
                return Ok(answer["result"].clone());
            }
            self.note(&answer);
        }
    }

    fn note(&mut self, event: &Value) {
        let details = &event["params"];
        let wrong = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => details["type"] == "error",
            Some("Log.entryAdded") => details["entry"]["level"] == "error",
            Some("Network.requestWillBeSent") => {
                let url = details["request"]["url"].as_str().unwrap_or_default();
                !(url.starts_with("file:") || url.starts_with("data:") || url.starts_with("about:"))
            }
            _ => false,
        };
        if wrong {
            self.problems.push(details.to_string());
        }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // Either may fail when the browser is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
