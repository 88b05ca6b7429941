//! What goes wrong between us and the kernel, each with the remedy.

use std::io;

use nix::errno::Errno;

/// Why rules could not be made, removed or read.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The caller may not change (or even read) the rules of this network namespace.
    #[error(
        "cannot {action}: not permitted ({errno}); run as root or with CAP_NET_ADMIN in the network namespace \
         (container: securityContext.capabilities.add: [NET_ADMIN]; shell: sudo)"
    )]
    NotPermitted {
        /// What was being done.
        action: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The kernel lacks a part that the rules need.
    #[error(
        "cannot {action}: this kernel does not offer it ({errno}); Linux 5.2 or later with nf_tables, nft_chain_nat and \
         nft_redir is needed (try `modprobe -a nf_tables nft_chain_nat nft_redir` on the host); where it has the tables before \
         nf_tables instead, the programs of iptables-legacy are used if they are installed"
    )]
    Unsupported {
        /// What was being done.
        action: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The kernel refused for another reason.
    #[error(
        "cannot {action}: the kernel refused: {errno}{detail}; compare `weft capture print | nft -c -f -` and the kernel log"
    )]
    Refused {
        /// What was being done.
        action: String,
        /// The kernel's answer.
        errno: Errno,
        /// The kernel's own words, when it sent any.
        detail: String,
    },
    /// The netlink socket itself failed.
    #[error(
        "cannot {action} over netlink: {source}; a sandbox or seccomp profile that forbids NETLINK_NETFILTER sockets has this effect"
    )]
    Socket {
        /// What was being done.
        action: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The rules are more than one transaction may hold here.
    #[error(
        "cannot {action}: too many rules for one transaction ({errno}); merge excluded or included networks, or raise the \
         sysctl net.core.wmem_max on the host"
    )]
    TooMany {
        /// What was being done.
        action: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The programs by which the legacy tables are changed are not there.
    #[error(
        "cannot {action}: there is no program {program}; install the package iptables (1.6.2 or later), or capture by the \
         CNI plugin, which uses the node's programs"
    )]
    NoProgram {
        /// What was being done.
        action: String,
        /// The one that was looked for.
        program: &'static str,
    },
    /// One of those programs failed.
    #[error("cannot {action}: {program} failed: {problem}; compare `iptables-legacy-save -t nat` and the kernel log")]
    Program {
        /// What was being done.
        action: String,
        /// Which one.
        program: String,
        /// What it said, on one line.
        problem: String,
    },
    /// Somebody else keeps changing our rules.
    #[error("cannot {action}: another process has been changing the rules of this network namespace for {seconds} s")]
    Locked {
        /// What was being done.
        action: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The kernel's answer could not be understood.
    #[error(
        "cannot {action}: the kernel's answer is malformed ({problem}); please report this with the output of `uname -r`"
    )]
    Malformed {
        /// What was being done.
        action: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The rules of the namespace changed every time they were read.
    #[error(
        "cannot {action}: the rules changed during each of {attempts} attempts; find who keeps changing them with `nft monitor`"
    )]
    Unsteady {
        /// What was being done.
        action: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// The rules asked for make no sense.
    #[error("invalid capture rules: {field} {value}: {problem}")]
    Invalid {
        /// The field of [`Rules`](super::Rules).
        field: &'static str,
        /// Its value.
        value: String,
        /// What is wrong, and what is allowed.
        problem: &'static str,
    },
}

impl CaptureError {
    /// The error for the kernel's answer `errno` to `action`; `detail` is what it said besides.
    pub(super) fn answered(action: &str, errno: Errno, detail: Option<&str>) -> Self {
        let action = action.to_owned();
        match errno {
            Errno::EPERM | Errno::EACCES => Self::NotPermitted { action, errno },
            Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT => {
                Self::Unsupported { action, errno }
            }
            _ => Self::Refused { action, errno, detail: detail.map(|words| format!(" ({words})")).unwrap_or_default() },
        }
    }

    /// The error for a failed system call on the netlink socket.
    pub(super) fn socket(action: &str, source: io::Error) -> Self {
        let errno = source.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw);
        match errno {
            Errno::EPERM | Errno::EACCES | Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT => {
                Self::answered(action, errno, None)
            }
            Errno::EMSGSIZE => Self::TooMany { action: action.to_owned(), errno },
            _ => Self::Socket { action: action.to_owned(), source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_of_the_kernel_leads_to_its_remedy() {
        for (errno, remedy) in [
            (Errno::EPERM, "CAP_NET_ADMIN"),
            (Errno::EOPNOTSUPP, "modprobe"),
            (Errno::ENOENT, "Linux 5.2"),
            (Errno::EINVAL, "nft -c -f"),
        ] {
            let error = CaptureError::answered("add chain outbound", errno, Some("why")).to_string();
            assert!(error.starts_with("cannot add chain outbound: "), "{error}");
            assert!(error.contains(remedy), "{errno:?}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
