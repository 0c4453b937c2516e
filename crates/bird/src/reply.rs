//! What comes out of the control socket, taken apart.
//!
//! A line is `CODE-text`, `CODE text` or ` text`: the last line of a reply has a space after the code, a
//! line without one has that of the line before. Lines that begin with `+` come unasked.

/// A whole reply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// Its lines with their codes, the last included.
    pub lines: Vec<(u16, String)>,
}

/// Octets of a control socket on their way to replies.
#[derive(Debug, Default)]
pub struct Replies {
    octets: Vec<u8>,
    reply: Reply,
}

/// What is no reply of BIRD's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A line does not begin as BIRD's do.
    #[error("{0:?} is no line of BIRD's; does another program answer on its socket?")]
    Line(String),
    /// A line does not end.
    #[error(
        "a line of more than {LINE_MAX} octets is none of BIRD's; does another program answer on its socket?"
    )]
    Long,
}

impl Replies {
    /// Takes in octets; the replies that are complete now.
    ///
    /// # Errors
    /// It is not BIRD that talks; nothing after that makes sense.
    pub fn push(&mut self, octets: &[u8]) -> Result<Vec<Reply>, ReplyError> {
        let mut done = Vec::new();
        for part in octets.split_inclusive(|octet| *octet == b'\n') {
            self.octets.extend_from_slice(part);
            if self.octets.len() > LINE_MAX {
                return Err(ReplyError::Long);
            }
            if part.last() == Some(&b'\n') {
                let line = std::mem::take(&mut self.octets);
                let line = String::from_utf8_lossy(&line);
                done.extend(self.line(line.trim_end_matches(['\n', '\r']))?);
            }
        }
        Ok(done)
    }

    fn line(&mut self, line: &str) -> Result<Option<Reply>, ReplyError> {
        let wrong = || ReplyError::Line(line.chars().take(80).collect());
        if line.starts_with('+') {
            return Ok(None);
        }
        if let Some(text) = line.strip_prefix(' ') {
            let (code, _) = self.reply.lines.last().ok_or_else(wrong)?;
            self.reply.lines.push((*code, text.to_owned()));
            return Ok(None);
        }
        let (code, rest) = line.split_at_checked(4).ok_or_else(wrong)?;
        if !code.bytes().all(|octet| octet.is_ascii_digit()) {
            return Err(wrong());
        }
        let code = code.parse().map_err(|_| wrong())?;
        if let Some(text) = rest.strip_prefix('-') {
            self.reply.lines.push((code, text.to_owned()));
            return Ok(None);
        }
        let text = match rest.strip_prefix(' ') {
            Some(text) => text,
            None if rest.is_empty() => "",
            None => return Err(wrong()),
        };
        self.reply.lines.push((code, text.to_owned()));
        Ok(Some(std::mem::take(&mut self.reply)))
    }
}

impl Reply {
    /// The code of the last line.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.lines.last().map_or(0, |(code, _)| *code)
    }

    /// What went wrong, in BIRD's words: codes from 8000 on are errors.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        let last = self.lines.last().filter(|(code, _)| *code >= ERRORS)?;
        Some(&last.1)
    }

    /// Whether BIRD has taken its configuration: at once, or it is about to.
    #[must_use]
    pub fn configured(&self) -> bool {
        CONFIGURED.contains(&self.code())
    }

    /// Whether a restarted BIRD still waits for what its peers have to tell.
    #[must_use]
    pub fn recovers(&self) -> bool {
        self.lines.iter().any(|(code, _)| *code == RECOVERY)
    }
}

/// Longer lines are none of BIRD's.
const LINE_MAX: usize = 1 << 20;
const ERRORS: u16 = 8000;
/// Reconfigured; reconfiguration in progress; queued; undone in favour of this one.
const CONFIGURED: [u16; 4] = [3, 4, 5, 6];
const RECOVERY: u16 = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_make_replies_however_they_arrive() {
        let text = "0001 BIRD 2.0.12 ready.\n1000-BIRD 2.0.12\n1011-Router ID is 10.0.0.1\n \
                    Hostname is vm\n0024-Graceful restart recovery in progress\n\
                    0013 Daemon is up and running\n9001 syntax error, unexpected CF_SYM_UNDEFINED\n";
        let whole = Replies::default().push(text.as_bytes()).unwrap();
        let mut replies = Replies::default();
        let mut slowly = Vec::new();
        for octet in text.as_bytes() {
            slowly.extend(replies.push(&[*octet]).unwrap());
        }
        assert_eq!(whole, slowly);
        let [greeting, status, error] = whole.as_slice() else {
            panic!("{whole:?}");
        };
        assert_eq!(greeting.code(), 1);
        assert_eq!(status.lines.len(), 5);
        assert_eq!(status.lines[2], (1011, "Hostname is vm".to_owned()));
        assert!(status.recovers() && status.error().is_none());
        assert!(error.error().unwrap().starts_with("syntax error"));
    }

    #[test]
    fn what_is_not_birds_is_told() {
        for (text, wrong) in [
            ("HTTP/1.1 400 Bad Request\n", "HTTP"),
            (" first\n", "first"),
            ("00\n", "00"),
            ("0001x\n", "0001x"),
            ("äöü\n", "äöü"),
        ] {
            let error = Replies::default().push(text.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(wrong), "{error}");
        }
        let long = vec![b'x'; LINE_MAX + 1];
        assert_eq!(Replies::default().push(&long), Err(ReplyError::Long));
        assert_eq!(Replies::default().push(b"+ log\n"), Ok(Vec::new()));
    }

    #[test]
    fn a_configuration_is_taken_or_not() {
        let reply = |text: &str| Replies::default().push(text.as_bytes()).unwrap().remove(0);
        assert!(reply("0002-Reading configuration from x\n0003 Reconfigured\n").configured());
        let refused = reply("0002-Reading configuration from x\n8002 x:3:1 syntax error\n");
        assert!(!refused.configured());
        assert_eq!(refused.error(), Some("x:3:1 syntax error"));
    }
}
