//! The syntax of names and labels.

/// Whether a text is one label of a DNS name (RFC 1123): at most 63 of `a-z0-9-`, no `-` at the ends.
pub fn is_dns_label(text: &str) -> bool {
    text.len() <= 63 && is_label_of_any_length(text)
}

/// Whether a text is a DNS name in lower case (RFC 1123) of at most 253 characters.
pub fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label_of_any_length)
}

/// Whether a text can be a label or annotation key: an optional DNS name and `/`, then at most 63
/// characters of `A-Za-z0-9_.-` that begin and end alphanumerically.
pub fn is_label_key(text: &str) -> bool {
    let (prefix, name) = text
        .split_once('/')
        .map_or((None, text), |(prefix, name)| (Some(prefix), name));
    prefix.is_none_or(is_dns_subdomain) && !name.is_empty() && is_label_value(name)
}

/// Whether a text can be a label value: empty, or at most 63 characters of `A-Za-z0-9_.-` that begin and
/// end alphanumerically.
pub fn is_label_value(text: &str) -> bool {
    text.len() <= 63
        && text.bytes().all(is_name_byte)
        && !text.starts_with(['-', '_', '.'])
        && !text.ends_with(['-', '_', '.'])
}

/// Whether a text can be the name of a network interface: at most 15 of `A-Za-z0-9_.-`.
pub fn is_interface_name(text: &str) -> bool {
    (1..=15).contains(&text.len()) && text.bytes().all(is_name_byte)
}

/// Whether a text can be the name of a network interface with `*` standing for any characters.
pub fn is_interface_pattern(text: &str) -> bool {
    (1..=15).contains(&text.len()) && text.bytes().all(|byte| is_name_byte(byte) || byte == b'*')
}

/// Whether a text can name a port: at most 128 of `A-Za-z0-9_.-`.
pub fn is_port_name(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(is_name_byte)
}

/// Whether a text is a MAC address: six hexadecimal bytes separated by `:`.
pub fn is_mac(text: &str) -> bool {
    let mut groups = 0;
    let well_formed = text.split(':').all(|group| {
        groups += 1;
        group.len() == 2 && group.bytes().all(|byte| byte.is_ascii_hexdigit())
    });
    well_formed && groups == 6
}

/// Whether a text is a BGP community: `aa:nn` of 16 bits each (RFC 1997) or `aa:nn:mm` of 32 bits each
/// (RFC 8092).
pub fn is_community(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let decimal = |part: &&str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && (part.len() == 1 || !part.starts_with('0'))
    };
    parts.iter().all(decimal)
        && match parts.len() {
            2 => parts.iter().all(|part| part.parse::<u16>().is_ok()),
            3 => parts.iter().all(|part| part.parse::<u32>().is_ok()),
            _ => false,
        }
}

fn is_label_of_any_length(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert!(is_dns_subdomain("node.cp-h1"));
        assert!(is_dns_subdomain("node--1-k8s-web--0-eth0"));
        assert!(!is_dns_subdomain("a..b"));
        assert!(!is_dns_subdomain("-a"));
        assert!(!is_dns_subdomain("A"));
        assert!(!is_dns_subdomain(""));
        assert!(!is_dns_subdomain(&"a".repeat(254)));
        assert!(is_dns_label(&"a".repeat(63)));
        assert!(!is_dns_label(&"a".repeat(64)));
        assert!(!is_dns_label("a.b"));
    }

    #[test]
    fn labels() {
        assert!(is_label_key("projectcalico.org/created-by"));
        assert!(is_label_key("A_b.c"));
        assert!(!is_label_key("a/b/c"));
        assert!(!is_label_key("/b"));
        assert!(!is_label_key("a/"));
        assert!(is_label_value(""));
        assert!(!is_label_value("-a"));
        assert!(!is_label_value("a b"));
    }

    #[test]
    fn other_texts() {
        assert!(is_mac("ca:fe:1d:52:bb:e9"));
        assert!(!is_mac("ca:fe:1d:52:bb"));
        assert!(is_community("65535:0"));
        assert!(!is_community("65536:0"));
        assert!(is_community("63400:300:4294967295"));
        assert!(!is_community("+1:2"));
        assert!(!is_interface_name("a234567890123456"));
        assert!(is_interface_pattern("eth*"));
    }
}
