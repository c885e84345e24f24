//! Two processes, one directory.

use linkspan_integration_tests::process::{Folder, Process, command};

#[test]
fn the_second_process_on_a_directory_refuses_and_names_the_first() {
    let folder = Folder::new();
    let mut first = Process::start(folder.path(), &[]);
    first.door("amqp");
    let mut second = command(folder.path());
    second.env("LINKSPAN_LEDGER", "another.redb");
    let (status, said) = Process::spawn(second).exit();
    assert!(!status.success(), "{status}: {said}");
    assert!(said.contains("backends.local.path"), "which key it is: {said}");
    assert!(said.contains(&format!("process {}", first.id())), "who has it ({}): {said}", first.id());
    first.kill();
    let mut third = Process::start(folder.path(), &[]);
    third.door("amqp");
}
