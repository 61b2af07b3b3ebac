//! Whether the kernel takes the programs, tried without a pin and without an interface.

use aya::{
    EbpfLoader,
    programs::{ProgramError, SkReuseport, SocketFilter},
};
use weir_common::guard::name;

use super::{GuardError, OBJECT, error::is_refusal, load_xdp, program, raise_memlock};

/// Loads the programs and lets go of them at once. Says which guard the kernel takes: the full
/// one, or the one of older kernels.
///
/// # Errors
///
/// As [`super::Guard::load`].
pub fn try_load() -> Result<&'static str, GuardError> {
    raise_memlock();
    let mut ebpf = EbpfLoader::new().load(OBJECT).map_err(GuardError::load)?;
    let guard = load_xdp(&mut ebpf, false)?;
    let reuseport: &mut SkReuseport = program(&mut ebpf, name::REUSEPORT)?;
    reuseport.load().map_err(|error| GuardError::program(name::REUSEPORT, error))?;
    let steer: &mut SocketFilter = program(&mut ebpf, name::STEER)?;
    steer.load().map_err(|error| GuardError::program(name::STEER, error))?;
    Ok(guard)
}

impl GuardError {
    /// Whether permission is missing, rather than a feature.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// The error without the verifier's log, and the log's last lines.
    #[must_use]
    pub fn explain(&self) -> (String, Vec<String>) {
        let Self::Program { program, source } = self else {
            return (self.to_string(), Vec::new());
        };
        match source.as_ref() {
            error @ ProgramError::LoadError { io_error, verifier_log } if !is_refusal(error) => {
                let log = tail(&verifier_log.to_string());
                let what = match (io_error.raw_os_error(), log.is_empty()) {
                    (Some(libc::E2BIG), _) => "it is too long for this kernel",
                    (Some(libc::ENOMEM), _) => "there is not enough (locked) memory for it",
                    (Some(libc::EINVAL), true) => "this kernel lacks a feature that it uses",
                    _ => "the kernel's verifier refuses it",
                };
                (format!("cannot use the eBPF program {program}: {what} ({io_error})"), log)
            }
            _ => (self.to_string(), Vec::new()),
        }
    }
}

/// The lines of a verifier's log that tell why: the last ones that are no statistics.
fn tail(log: &str) -> Vec<String> {
    let tells = |line: &&str| {
        !line.is_empty()
            && !line.starts_with("processed ")
            && !line.starts_with("verification time")
    };
    let lines: Vec<&str> = log.lines().map(str::trim).filter(tells).collect();
    lines.iter().skip(lines.len().saturating_sub(3)).map(|line| (*line).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_in_the_last_lines_that_are_no_statistics() {
        let log = "0: R1=ctx()\n1: (61) r2 = *(u32 *)(r1 +0)\n2: (71) r0 = *(u8 *)(r2 +0)\n\
                   invalid access to packet, off=0 size=1, R2(id=0,off=0,r=0)\n\
                   R2 offset is outside of the packet\n\
                   processed 3 insns (limit 1000000) max_states_per_insn 0\n";
        let tail = tail(log);
        assert_eq!(tail.len(), 3);
        assert_eq!(tail[2], "R2 offset is outside of the packet");
        assert!(super::tail("").is_empty());
    }
}
