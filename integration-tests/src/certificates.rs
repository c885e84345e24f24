//! Certificates for tests of TLS, made by openssl.

use std::path::PathBuf;
use std::process::Command;

use crate::process::Folder;

/// Two authorities, `ca` and `other`, and certificates by the first: for `broker`, whose name is `localhost`, and for
/// `client`. Each is `<name>.pem`, its key `<name>.key`.
#[derive(Debug)]
pub struct Certificates(Folder);

impl Certificates {
    /// Fresh ones.
    #[allow(clippy::new_without_default, reason = "it runs programs")]
    pub fn new() -> Self {
        let made = Self(Folder::new());
        for (name, subject) in [("ca", "/CN=test-ca"), ("other", "/CN=other-ca")] {
            made.openssl(&format!(
                "req -x509 -newkey rsa:2048 -nodes -days 2 -keyout {name}.key -out {name}.pem -subj {subject}"
            ));
        }
        made.0.write("names", "subjectAltName=DNS:localhost\n");
        for name in ["broker", "client"] {
            made.openssl(&format!(
                "req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN=localhost"
            ));
            made.openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out {name}.pem -extfile names"
            ));
        }
        made
    }

    /// Where a file of them is, such as `ca.pem`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What a broker needs beside its configuration, to show its certificate and to ask for one of a client.
    pub(crate) fn of_broker(&self) -> [(&'static str, String); 3] {
        ["ca.pem", "broker.pem", "broker.key"]
            .map(|name| (name, std::fs::read_to_string(self.path(name)).expect("openssl made it")))
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(self.0.path())
            .output()
            .unwrap_or_else(|error| {
                panic!("openssl makes certificates for tests: {error}; apt-get install openssl")
            });
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
