//! Passwords of sessions, out of files.

use std::path::Path;

use margay_bgp::Password;
use margay_model::resource::bgp::SecretKeyRef;

/// The password that a reference names: the content of `<directory>/<name>/<key>`, as a mounted secret
/// looks, without the line's end.
///
/// # Errors
/// Why there is none, in words that name the file and never what is in it.
pub fn password(directory: &Path, reference: &SecretKeyRef) -> Result<Password, String> {
    let (name, key) = (reference.name.as_str(), reference.key.as_str());
    let plain = |part: &str| !part.is_empty() && part != ".." && part != "." && !part.contains('/');
    if !plain(name) || !plain(key) {
        return Err(format!(
            "secret {name:?} with key {key:?} is no file's name"
        ));
    }
    let path = directory.join(name).join(key);
    let text = std::fs::read_to_string(&path).map_err(|error| {
        format!(
            "{}: {error}; put the password there, or mount the secret",
            path.display()
        )
    })?;
    Password::new(text.trim_end_matches(['\r', '\n']))
        .map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(name: &str, key: &str) -> SecretKeyRef {
        SecretKeyRef {
            name: name.to_owned(),
            key: key.to_owned(),
            ..SecretKeyRef::default()
        }
    }

    #[test]
    fn passwords_are_files_below_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("bgp")).unwrap();
        std::fs::write(directory.path().join("bgp/tor"), "secret\n").unwrap();
        std::fs::write(directory.path().join("bgp/empty"), "\n").unwrap();
        let read = |name: &str, key: &str| password(directory.path(), &reference(name, key));
        assert_eq!(read("bgp", "tor").unwrap().as_bytes(), b"secret");
        for (name, key, hint) in [
            ("bgp", "lost", "bgp/lost"),
            ("bgp", "empty", "1 to 80"),
            ("..", "tor", "no file's name"),
            ("bgp", "../bgp/tor", "no file's name"),
            ("", "tor", "no file's name"),
        ] {
            let reason = read(name, key).unwrap_err();
            assert!(
                reason.contains(hint) && !reason.contains("secret\n"),
                "{reason}"
            );
        }
    }
}
