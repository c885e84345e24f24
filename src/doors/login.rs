//! How every door finds out who a client is.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::task::spawn_blocking;

use crate::identity::{Credentials, Denied, Identity, Users};

/// Judges what a client says of itself. A password that was not verified lately is verified on a thread that may take
/// its time, for the hash is slow on purpose; that thread holds the [`Verifier`](crate::identity::Verifier), so that a
/// client that hangs up meanwhile does not make room for the next hash before its own is done.
///
/// # Errors
/// Why the client is turned away.
pub(super) async fn judge(
    users: &Arc<Users>,
    who: Credentials<'_>,
    peer: IpAddr,
) -> Result<Identity, Denied> {
    if let Some(answer) = users.recall(who, peer) {
        return answer;
    }
    let Credentials::Password { user, password } = who else { return Err(Denied::NoCredentials) };
    let (user, password) = (user.to_owned(), password.to_vec());
    let verifier = users.verifier().await?;
    let verified = spawn_blocking(move || {
        verifier.verify(Credentials::Password { user: &user, password: &password }, peer)
    });
    verified.await.unwrap_or(Err(Denied::NotVerified))
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::net::Ipv4Addr;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use super::*;
    use crate::identity::{Account, PasswordText, hash_password};

    #[tokio::test]
    async fn a_client_that_hangs_up_does_not_give_its_place_to_the_next_password_at_once() {
        let password = PasswordText::parse(&hash_password(b"secret").unwrap()).unwrap();
        let name: Arc<str> = "ann".into();
        let account = Account { password, vhosts: None };
        let users = Arc::new(Users::new([(&name, &account)]));
        let guess = Credentials::Password { user: "ann", password: b"guessed" };
        let mut asking = Box::pin(judge(&users, guess, Ipv4Addr::LOCALHOST.into()));
        let first = asking.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(first, Poll::Pending));
        drop(asking);
        assert_eq!(users.being_verified(), 1, "the hash is still being computed");
        let done = async {
            while users.being_verified() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), done)
            .await
            .expect("its place is given back when it is done");
    }
}
