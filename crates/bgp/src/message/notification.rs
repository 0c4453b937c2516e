//! NOTIFICATION: why a session ends (RFC 4271 §4.5, RFC 4486, RFC 8538, RFC 9003, RFC 9687).

use std::fmt;

use serde::Serialize;

/// What a NOTIFICATION says.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Notification {
    /// The code and its subcode.
    pub code: Code,
    /// The subcode's octet.
    pub subcode: u8,
    /// The data.
    pub data: Vec<u8>,
}

/// The code of a NOTIFICATION.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// 1: error in a message's header.
    Header,
    /// 2: error in an OPEN.
    Open,
    /// 3: error in an UPDATE.
    Update,
    /// 4: nothing came for the hold time.
    HoldTimer,
    /// 5: a message that does not fit the state (RFC 6608).
    StateMachine,
    /// 6: the session ends.
    Cease,
    /// 7: error in a ROUTE-REFRESH (RFC 7313).
    Refresh,
    /// 8: nothing could be sent (RFC 9687).
    SendHoldTimer,
    /// Any other.
    Other(u8),
}

impl Notification {
    /// A NOTIFICATION without data.
    #[must_use]
    pub fn new(code: Code, subcode: u8) -> Self {
        Self {
            code,
            subcode,
            data: Vec::new(),
        }
    }

    /// A NOTIFICATION with data.
    #[must_use]
    pub fn with_data(code: Code, subcode: u8, data: impl Into<Vec<u8>>) -> Self {
        Self {
            code,
            subcode,
            data: data.into(),
        }
    }

    /// A Cease with a text for people (RFC 9003), cut to 255 octets.
    #[must_use]
    pub fn cease_with_text(subcode: u8, text: &str) -> Self {
        let mut end = text.len().min(TEXT_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = text.get(..end).unwrap_or_default();
        let mut data = vec![u8::try_from(text.len()).unwrap_or(u8::MAX)];
        data.extend_from_slice(text.as_bytes());
        Self::with_data(Code::Cease, subcode, data)
    }

    /// This Cease within a Hard Reset, which ends forwarding even where both sides keep it over
    /// NOTIFICATIONs (RFC 8538 §3.1).
    #[must_use]
    pub fn into_hard_reset(self) -> Self {
        let mut data = vec![self.code.octet(), self.subcode];
        data.extend(self.data);
        Self::with_data(Code::Cease, cease::HARD_RESET, data)
    }

    /// Whether this is a Hard Reset.
    #[must_use]
    pub fn is_hard_reset(&self) -> bool {
        self.code == Code::Cease && self.subcode == cease::HARD_RESET
    }

    /// Whether the other of two connections stays.
    pub(crate) fn is_collision(&self) -> bool {
        self.code == Code::Cease && self.subcode == cease::COLLISION
    }

    /// The text for people in a Cease for a shutdown or reset, control characters replaced.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let texts = [cease::SHUTDOWN, cease::RESET];
        if self.code != Code::Cease || !texts.contains(&self.subcode) {
            return None;
        }
        let (length, rest) = self.data.split_first()?;
        let text = rest
            .get(..usize::from(*length))
            .filter(|text| !text.is_empty())?;
        let shown = |letter: char| {
            if letter.is_control() {
                '\u{fffd}'
            } else {
                letter
            }
        };
        Some(String::from_utf8_lossy(text).chars().map(shown).collect())
    }

    fn name(&self) -> Option<&'static str> {
        Some(match (self.code, self.subcode) {
            (Code::Header, 1) => "connection not synchronized",
            (Code::Header, 2) => "bad message length",
            (Code::Header, 3) => "bad message type",
            (Code::Open, 1) => "unsupported version number",
            (Code::Open, 2) => "bad peer AS",
            (Code::Open, 3) => "bad BGP identifier",
            (Code::Open, 4) => "unsupported optional parameter",
            (Code::Open, 6) => "unacceptable hold time",
            (Code::Open, 7) => "unsupported capability",
            (Code::Open, 11) => "role mismatch",
            (Code::Update, 1) => "malformed attribute list",
            (Code::Update, 2) => "unrecognized well-known attribute",
            (Code::Update, 3) => "missing well-known attribute",
            (Code::Update, 4) => "attribute flags error",
            (Code::Update, 5) => "attribute length error",
            (Code::Update, 6) => "invalid ORIGIN attribute",
            (Code::Update, 8) => "invalid NEXT_HOP attribute",
            (Code::Update, 9) => "optional attribute error",
            (Code::Update, 10) => "invalid network field",
            (Code::Update, 11) => "malformed AS_PATH",
            (Code::HoldTimer, _) => "hold timer expired",
            (Code::StateMachine, 1) => "unexpected message in OpenSent",
            (Code::StateMachine, 2) => "unexpected message in OpenConfirm",
            (Code::StateMachine, 3) => "unexpected message in Established",
            (Code::Cease, 1) => "maximum number of prefixes reached",
            (Code::Cease, 2) => "administrative shutdown",
            (Code::Cease, 3) => "peer de-configured",
            (Code::Cease, 4) => "administrative reset",
            (Code::Cease, 5) => "connection rejected",
            (Code::Cease, 6) => "other configuration change",
            (Code::Cease, 7) => "connection collision resolution",
            (Code::Cease, 8) => "out of resources",
            (Code::Cease, 9) => "hard reset",
            (Code::Cease, 10) => "BFD down",
            (Code::Refresh, 1) => "invalid message length",
            (Code::SendHoldTimer, _) => "send hold timer expired",
            _ => return None,
        })
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let category = match self.code {
            Code::Header => "message header error",
            Code::Open => "OPEN message error",
            Code::Update => "UPDATE message error",
            Code::HoldTimer | Code::SendHoldTimer => "",
            Code::StateMachine => "finite state machine error",
            Code::Cease => "cease",
            Code::Refresh => "ROUTE-REFRESH message error",
            Code::Other(code) => return write!(f, "code {code}, subcode {}", self.subcode),
        };
        match (category, self.name()) {
            ("", Some(name)) => f.write_str(name)?,
            (category, Some(name)) => write!(f, "{category}: {name}")?,
            (category, None) if self.subcode == 0 => f.write_str(category)?,
            (category, None) => write!(f, "{category}: subcode {}", self.subcode)?,
        }
        if let Some(text) = self.text() {
            write!(f, " ({text})")?;
        }
        if self.is_hard_reset()
            && let [code, subcode, data @ ..] = self.data.as_slice()
        {
            let inner = Self::with_data(Code::from_octet(*code), *subcode, data);
            if !inner.is_hard_reset() {
                write!(f, " ({inner})")?;
            }
        }
        Ok(())
    }
}

impl Code {
    /// The code's octet.
    #[must_use]
    pub fn octet(self) -> u8 {
        match self {
            Self::Header => 1,
            Self::Open => 2,
            Self::Update => 3,
            Self::HoldTimer => 4,
            Self::StateMachine => 5,
            Self::Cease => 6,
            Self::Refresh => 7,
            Self::SendHoldTimer => 8,
            Self::Other(code) => code,
        }
    }

    /// Reads the code's octet.
    #[must_use]
    pub fn from_octet(octet: u8) -> Self {
        match octet {
            1 => Self::Header,
            2 => Self::Open,
            3 => Self::Update,
            4 => Self::HoldTimer,
            5 => Self::StateMachine,
            6 => Self::Cease,
            7 => Self::Refresh,
            8 => Self::SendHoldTimer,
            code => Self::Other(code),
        }
    }
}

/// Subcodes of a Cease (RFC 4486, RFC 8538).
pub(crate) mod cease {
    pub(crate) const MAX_PREFIXES: u8 = 1;
    pub(crate) const SHUTDOWN: u8 = 2;
    pub(crate) const DECONFIGURED: u8 = 3;
    pub(crate) const RESET: u8 = 4;
    pub(crate) const CONFIGURATION: u8 = 6;
    pub(crate) const COLLISION: u8 = 7;
    pub(crate) const HARD_RESET: u8 = 9;
}

const TEXT_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let shutdown = Notification::cease_with_text(2, "maintenance\n until 5");
        let cases = [
            (Notification::new(Code::HoldTimer, 0), "hold timer expired"),
            (
                Notification::new(Code::Open, 2),
                "OPEN message error: bad peer AS",
            ),
            (Notification::new(Code::Update, 0), "UPDATE message error"),
            (
                Notification::new(Code::Update, 77),
                "UPDATE message error: subcode 77",
            ),
            (Notification::new(Code::Other(99), 1), "code 99, subcode 1"),
            (
                shutdown.clone(),
                "cease: administrative shutdown (maintenance\u{fffd} until 5)",
            ),
            (
                shutdown.into_hard_reset(),
                "cease: hard reset (cease: administrative shutdown (maintenance\u{fffd} until 5))",
            ),
        ];
        for (notification, words) in cases {
            assert_eq!(notification.to_string(), words);
        }
    }

    #[test]
    fn long_texts_are_cut_between_letters() {
        let notification = Notification::cease_with_text(4, &"é".repeat(200));
        assert_eq!(notification.data.len(), 255);
        assert_eq!(notification.text(), Some("é".repeat(127)));
    }
}
