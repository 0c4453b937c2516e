//! A file of the journal.

#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use margay_journal::Journal;

fuzz_target!(|data: &[u8]| {
    let folder = margay_fuzz::scratch().join("journal");
    fs::create_dir_all(&folder).expect("the scratch folder can be written");
    let journal = Journal::new(&folder);
    let file = folder.join("0.json");
    fs::write(&file, data).expect("the scratch folder can be written");
    // Under a name that no attachment gives it makes no sense, whatever it holds, and keeps nothing back.
    let content = journal.read().expect("the folder can be read");
    assert_eq!((content.entries.len(), content.damaged.len()), (0, 1));
    if let Ok(release) = serde_json::from_slice::<margay_journal::Release>(data) {
        let path = journal.write(&release).expect("the folder can be written");
        let content = journal.read().expect("the folder can be read");
        assert_eq!(content.entries.len(), 1);
        assert_eq!(content.entries[0].release, release);
        fs::remove_file(path).expect("it is there");
    }
});
