//! `weir top` leaves the terminal as it found it, however it is ended.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use weir_tests::{Lab, Node, Settings, node::binary, process, until};

/// What a terminal is told to show another screen, and the first one again.
const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";

/// `weir top` in a terminal of its own, which `script` makes.
struct Top {
    script: Child,
    shown: Arc<Mutex<String>>,
    directory: tempfile::TempDir,
}

impl Top {
    fn start(socket: &Path) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let (at, weir) = (directory.path().display(), binary()?);
        // The terminal's settings before and after, and the process that is to be told to end.
        let line = format!(
            "stty rows 24 cols 80; stty -g > {at}/before; \
             sh -c 'echo $$ > {at}/pid; exec {} --socket {} top'; \
             echo $? > {at}/status; stty -g > {at}/after",
            weir.display(),
            socket.display(),
        );
        let mut command = Command::new("script");
        command.args(["--quiet", "--command", &line, "/dev/null"]).env("TERM", "xterm");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut script = command.spawn().context("script of util-linux is missing")?;
        let mut output = script.stdout.take().context("no pipe")?;
        let shown = Arc::<Mutex<String>>::default();
        let page = Arc::clone(&shown);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..length]);
                page.lock().expect("no panic").push_str(&text);
            }
        });
        let top = Self { script, shown, directory };
        until("weir top is on the screen", Duration::from_secs(20), || {
            ensure!(top.shown().contains(ENTER) && top.shown().contains("sessions"), "not yet");
            Ok(())
        })?;
        ensure!(!top.shown().contains(LEAVE), "it has ended already: {}", top.shown());
        Ok(top)
    }

    fn shown(&self) -> String {
        self.shown.lock().expect("no panic").clone()
    }

    fn file(&self, name: &str) -> Result<String> {
        let text = fs::read_to_string(self.directory.path().join(name));
        Ok(text.with_context(|| format!("no {name}"))?.trim().to_owned())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.file("pid")?.parse()?).context("no process")?;
        Ok(kill_process(pid, signal)?)
    }

    fn press(&mut self, key: &[u8]) -> Result<()> {
        let keyboard = self.script.stdin.as_mut().context("no pipe")?;
        keyboard.write_all(key)?;
        Ok(keyboard.flush()?)
    }

    fn has_put_the_terminal_back(mut self) -> Result<()> {
        process::wait(&mut self.script, Duration::from_secs(20)).with_context(|| self.shown())?;
        ensure!(self.file("status")? == "0", "it ended with {}", self.file("status")?);
        let (before, after) = (self.file("before")?, self.file("after")?);
        ensure!(!before.is_empty() && before == after, "stty: {before} is now {after}");
        until("the first screen is back", Duration::from_secs(5), || {
            let shown = self.shown();
            ensure!(shown.rfind(LEAVE) > shown.rfind(ENTER), "{shown}");
            ensure!(shown.contains("\x1b[?25h"), "the cursor stays hidden");
            Ok(())
        })
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        self.script.kill().ok();
        self.script.wait().ok();
    }
}

#[test]
fn it_ends_with_its_terminal() -> Result<()> {
    let lab = Lab::new()?;
    let node = Node::start(&lab.node, Settings::default())?;
    let mut top = Top::start(&node.socket_path())?;
    let process = Path::new("/proc").join(top.file("pid")?);
    top.script.kill()?;
    until("weir top ends", Duration::from_secs(20), || {
        ensure!(!process.exists(), "it goes on without a terminal");
        Ok(())
    })
}

#[test]
fn a_key_or_a_signal_ends_it_and_the_terminal_is_as_before() -> Result<()> {
    let lab = Lab::new()?;
    let node = Node::start(&lab.node, Settings::default())?;
    for key in [b"q".as_slice(), b"\x03"] {
        let mut top = Top::start(&node.socket_path())?;
        top.press(key)?;
        top.has_put_the_terminal_back().with_context(|| format!("after {key:?}"))?;
    }
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let top = Top::start(&node.socket_path())?;
        top.signal(signal)?;
        top.has_put_the_terminal_back().with_context(|| format!("after {signal:?}"))?;
    }
    Ok(())
}
