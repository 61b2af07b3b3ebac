//! An emulated machine, and the scripts that run in it.

use std::{
    cell::RefCell,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use base64::Engine as _;
use weir_tests::{Namespace, until};

use crate::image::Image;

/// A machine that has said nothing for so long hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Processors, and so queues of each network card.
const PROCESSORS: u32 = 2;
const MEMORY: &str = "2G";

/// A machine that QEMU emulates without the help of the processor; it is gone when dropped.
pub(crate) struct Guest {
    qemu: Child,
    channel: RefCell<BufReader<UnixStream>>,
    console: PathBuf,
}

impl Guest {
    /// Boots an image with a network card at each of these TAP devices of a namespace, and waits
    /// until it takes scripts. The sockets and logs are in `directory`.
    pub(crate) fn boot(
        image: &Image,
        namespace: &Namespace,
        taps: &[&str],
        directory: &Path,
    ) -> Result<Self> {
        let (socket, console) = (directory.join("channel"), directory.join("console.log"));
        let mut qemu = namespace.command("qemu-system-x86_64");
        qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        qemu.args(["-machine", "q35,accel=tcg", "-cpu", "max", "-m", MEMORY]);
        qemu.args(["-smp", &PROCESSORS.to_string()]);
        qemu.arg("-kernel").arg(&image.kernel).arg("-initrd").arg(&image.initramfs);
        qemu.args(["-append", "console=ttyS0 quiet panic=-1"]);
        qemu.arg("-serial").arg(format!("file:{}", console.display()));
        let channel = format!("socket,id=channel,server=on,wait=off,path={}", socket.display());
        qemu.args(["-device", "virtio-serial-pci", "-chardev", &channel]);
        qemu.args(["-device", "virtserialport,chardev=channel"]);
        for (number, tap) in taps.iter().enumerate() {
            let host = format!("tap,id=n{number},ifname={tap},script=no,downscript=no");
            // By the DMA interface, without which Linux has no zero-copy AF_XDP for the card.
            let card = format!(
                "virtio-net-pci,netdev=n{number},mac=52:54:00:00:00:0{number},mq=on,\
                 iommu_platform=on,disable-legacy=on"
            );
            qemu.args(["-netdev", &format!("{host},queues={PROCESSORS}"), "-device", &card]);
        }
        let errors = fs::File::create(directory.join("qemu.log"))?;
        qemu.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let mut qemu = qemu.spawn().context("cannot start QEMU")?;
        let connected = until("QEMU listens", START_TIMEOUT, || {
            if let Some(status) = qemu.try_wait()? {
                let said = fs::read_to_string(directory.join("qemu.log"))?;
                return Ok(Err(anyhow!("QEMU ended at its start: {status}\n{said}")));
            }
            Ok(Ok(UnixStream::connect(&socket)?))
        });
        let stream = match connected.and_then(|connected| connected) {
            Ok(stream) => stream,
            Err(error) => {
                qemu.kill().ok();
                qemu.wait().ok();
                return Err(error);
            }
        };
        let guest = Self { qemu, channel: RefCell::new(BufReader::new(stream)), console };
        {
            let mut channel = guest.channel.borrow_mut();
            channel.get_mut().set_read_timeout(Some(ANSWER_TIMEOUT))?;
            let line = guest.line(&mut channel)?;
            ensure!(line == "ready", "the machine said {line:?}\n{}", guest.console());
        }
        Ok(guest)
    }

    /// Runs a script of the shell in there, and gives what it wrote.
    ///
    /// # Errors
    /// If it fails, or the machine has crashed.
    pub(crate) fn run(&self, script: &str) -> Result<String> {
        let mut channel = self.channel.borrow_mut();
        let line = base64::engine::general_purpose::STANDARD.encode(script) + "\n";
        channel.get_mut().write_all(line.as_bytes()).with_context(|| self.console())?;
        let answer = self.line(&mut channel)?;
        let (status, length) = answer.split_once(' ').context("no answer of the machine's")?;
        let mut said = vec![0; length.parse()?];
        channel.read_exact(&mut said).with_context(|| self.console())?;
        let said = String::from_utf8_lossy(&said).into_owned();
        ensure!(status == "0", "in the machine, this ended with {status}: {script}\n{said}");
        Ok(said)
    }

    /// Writes a file in there.
    pub(crate) fn write(&self, path: &str, text: &str) -> Result<()> {
        let text = base64::engine::general_purpose::STANDARD.encode(text);
        self.run(&format!("umask 077; echo {text} | base64 -d > {path}"))?;
        Ok(())
    }

    fn line(&self, channel: &mut BufReader<UnixStream>) -> Result<String> {
        let mut line = String::new();
        channel.read_line(&mut line).with_context(|| self.console())?;
        ensure!(line.ends_with('\n'), "the machine has ended\n{}", self.console());
        Ok(line.trim().to_owned())
    }

    /// The end of what its kernel said.
    fn console(&self) -> String {
        let text = fs::read(&self.console).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<_> = text.lines().collect();
        format!("its console:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.qemu.kill().ok();
        self.qemu.wait().ok();
    }
}
