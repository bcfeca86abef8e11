//! Drives headless Chromium through pages: `tests/clients/browser.mjs` is the other half.

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::clients;

/// A running browser; ended when dropped.
pub(crate) struct Browser(Rc<RefCell<Driver>>);

struct Driver {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    pages: usize,
}

/// A page with cookies of its own: to the server, another browser.
pub(crate) struct Page {
    driver: Rc<RefCell<Driver>>,
    name: String,
    base: String,
}

impl Browser {
    /// Starts it.
    ///
    /// # Panics
    /// When the folder of clients is not prepared, Node or Chromium is missing.
    pub(crate) fn start() -> Self {
        let folder = clients::folder();
        assert!(
            folder.join("node_modules/axe-core").is_dir(),
            "run `npm ci` in {}",
            folder.display()
        );
        let mut child = Command::new("node")
            .arg(folder.join("browser.mjs"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("`node` must be installed for the tests of pages");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Self(Rc::new(RefCell::new(Driver { child, input, output, pages: 0 })))
    }

    /// A new page for the server at `base`, such as `http://127.0.0.1:8895`.
    pub(crate) fn page(&self, base: impl std::fmt::Display) -> Page {
        let name = {
            let mut driver = self.0.borrow_mut();
            driver.pages += 1;
            driver.pages.to_string()
        };
        let page = Page { driver: Rc::clone(&self.0), name, base: format!("http://{base}") };
        page.call(json!({"do": "open"}));
        page
    }
}

impl Driver {
    fn call(&mut self, command: &Value) -> Result<Value, String> {
        let input = self.input.as_mut().expect("it takes commands until it is dropped");
        writeln!(input, "{command}").expect("the driver reads its input");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the driver writes UTF-8");
        assert!(!line.is_empty(), "the driver of the browser has ended");
        let mut answer: Value = serde_json::from_str(&line).expect("the driver writes JSON");
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer["result"].take()),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Its browser ends with it.
        self.input = None;
        let until = Instant::now() + Duration::from_secs(10);
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > until {
                let _ = self.child.kill();
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.wait();
    }
}

/// A text as a script writes it.
pub(crate) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

impl Page {
    fn call(&self, mut command: Value) -> Value {
        command["page"] = json!(self.name);
        let done = self.driver.borrow_mut().call(&command);
        done.unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// Opens an address of the server and waits until it is loaded.
    pub(crate) fn go(&self, path: &str) {
        self.call(json!({"do": "go", "url": format!("{}{path}", self.base)}));
    }

    /// Runs a script, the body of an async function; returns what it returns.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.call(json!({"do": "run", "script": script}))
    }

    /// Runs a script that leads to another page; returns when that is loaded.
    pub(crate) fn leave(&self, script: &str) {
        self.call(json!({"do": "leave", "script": script}));
    }

    /// Sets size and colour scheme; 0 keeps the size.
    pub(crate) fn look(&self, width: u32, scheme: &str) {
        self.call(json!({"do": "look", "width": width, "scheme": scheme}));
    }

    /// Presses a key.
    pub(crate) fn key(&self, key: &str) {
        self.call(json!({"do": "key", "key": key}));
    }

    /// The cookies of this page.
    pub(crate) fn cookies(&self) -> Vec<Value> {
        self.call(json!({"do": "cookies"})).as_array().cloned().unwrap_or_default()
    }

    /// Keeps a picture in `target/screenshots`.
    pub(crate) fn screenshot(&self, name: &str) {
        self.call(json!({"do": "screenshot", "file": screenshots().join(format!("{name}.png"))}));
    }

    /// Fails when axe finds anything serious.
    pub(crate) fn is_accessible(&self) {
        let found = self.call(json!({"do": "axe"}));
        assert_eq!(found, json!([]), "axe on {}", self.path());
    }

    /// What the browser complained of since it was last asked: scripts that failed, things refused.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let found = self.call(json!({"do": "complaints"}));
        serde_json::from_value(found).expect("texts")
    }

    /// The path of the page.
    pub(crate) fn path(&self) -> String {
        self.text_of("location.pathname + location.search")
    }

    /// A text that an expression yields.
    pub(crate) fn text_of(&self, expression: &str) -> String {
        let value = self.run(&format!("return {expression}"));
        value.as_str().unwrap_or_else(|| panic!("{expression}: {value}")).to_owned()
    }

    /// Whether an expression holds.
    pub(crate) fn holds(&self, expression: &str) -> bool {
        self.run(&format!("return Boolean({expression})")) == json!(true)
    }

    /// Waits until an expression holds.
    ///
    /// # Panics
    /// When it does not within 30 s.
    pub(crate) fn until(&self, expression: &str) {
        let until = Instant::now() + Duration::from_secs(30);
        while !self.holds(expression) {
            assert!(
                Instant::now() < until,
                "never: {expression}\n{}",
                self.text_of("document.body.innerText")
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The text of the element that a selector finds.
    pub(crate) fn text(&self, selector: &str) -> String {
        self.text_of(&format!("document.querySelector({}).innerText.trim()", quoted(selector)))
    }

    /// Whether the element is there and can be seen.
    pub(crate) fn is_visible(&self, selector: &str) -> bool {
        self.holds(&format!("document.querySelector({})?.checkVisibility()", quoted(selector)))
    }

    /// Whether the control cannot be used.
    pub(crate) fn is_disabled(&self, selector: &str) -> bool {
        self.holds(&format!("document.querySelector({}).matches(':disabled')", quoted(selector)))
    }

    /// What stands in a field.
    pub(crate) fn value(&self, selector: &str) -> String {
        self.text_of(&format!("document.querySelector({}).value", quoted(selector)))
    }

    /// Enters a text as a person does: the page hears of it.
    pub(crate) fn enter(&self, selector: &str, text: &str) {
        self.run(&format!(
            "const it = document.querySelector({}); it.focus(); it.value = {};
             it.dispatchEvent(new Event('input', {{ bubbles: true }}));
             it.dispatchEvent(new Event('change', {{ bubbles: true }}))",
            quoted(selector),
            quoted(text)
        ));
    }

    /// Presses a button, link or switch that stays on the page.
    pub(crate) fn click(&self, selector: &str) {
        self.run(&format!("document.querySelector({}).click()", quoted(selector)));
    }

    /// Presses something that leads to another page.
    pub(crate) fn follow(&self, selector: &str) {
        self.leave(&format!("document.querySelector({}).click()", quoted(selector)));
    }
}

/// Where pictures of pages are kept for whoever wants to look.
fn screenshots() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/screenshots")
}
