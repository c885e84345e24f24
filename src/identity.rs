//! Who a client is: accounts with argon2id passwords, or, without any account, whoever comes from loopback.
//!
//! Verifying a password costs tens of milliseconds of CPU and 19 MiB on purpose. So that a storm of reconnecting
//! clients does not spend that again and again, an account remembers a keyed hash of the password that was right.
//! Wrong passwords and unknown users always pay, and pay the same: time tells nobody which of the two it was.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::thread::available_parallelism;

use arc_swap::ArcSwap;
use argon2::password_hash::phc::{PasswordHash, Salt};
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params};
use blake2::Blake2bMac512;
use blake2::digest::{KeyInit, Mac};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The account of AMQP clients where no users are configured, as in RabbitMQ.
const GUEST: &str = "guest";

/// Who a connection acts for, and where it may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The account's name; `anonymous` for an MQTT or HTTP client that gave none.
    pub user: Arc<str>,
    vhosts: Option<Arc<[Arc<str>]>>,
}

/// What a client says of itself.
#[derive(Clone, Copy)]
pub enum Credentials<'a> {
    /// Nothing: MQTT without a user name, HTTP without `Authorization`.
    Anonymous,
    /// A user name and a password.
    Password {
        /// The user name.
        user: &'a str,
        /// The password, any bytes.
        password: &'a [u8],
    },
}

/// Why a client is turned away. The fault is the client's, and trying again with the same credentials is useless, unless
/// it is said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The user does not exist or the password is wrong: which of them is not said.
    #[error("user name or password is wrong")]
    BadCredentials,
    /// Users are configured and the client gave no name.
    #[error("a user name and a password are needed")]
    NoCredentials,
    /// No users are configured, and the client is not on this machine.
    #[error("without [users], clients are let in from loopback only")]
    NotLocal,
    /// The machine could not do it: no fault of the client's, who may try again.
    #[error("the password could not be verified")]
    NotVerified,
}

/// An account as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// What the password must hash to.
    pub password: PasswordText,
    /// The vhosts that the account may enter; none named: all.
    pub vhosts: Option<Vec<Arc<str>>>,
}

/// An argon2id hash in PHC form; `argon2id$…` is taken as well as `$argon2id$…`.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordText(PasswordHash);

/// A text is no argon2id hash. The text itself is not repeated: it may be a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no argon2id hash; make one with `linkspan hash-password`")]
pub struct NotAHash;

/// A password could not be hashed: the system gave no randomness, or no memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the password could not be hashed: {0}")]
pub struct HashFailed(Box<str>);

/// Everybody who may come in.
pub struct Users {
    accounts: ArcSwap<BTreeMap<Arc<str>, Known>>,
    remembering: [u8; 64],
    verifying: Arc<Semaphore>,
}

/// Leave to verify one password. It is given back when the password is verified, not when whoever asked for it is gone:
/// what is computed costs as much when nobody waits for it any more.
pub struct Verifier {
    users: Arc<Users>,
    _permit: OwnedSemaphorePermit,
}

struct Known {
    identity: Identity,
    password: PasswordHash,
    /// Keyed hash of the one password that was found right.
    remembered: OnceLock<[u8; 64]>,
}

impl Identity {
    /// Whether this user may open the vhost.
    pub fn may_enter(&self, vhost: &str) -> bool {
        self.vhosts.as_ref().is_none_or(|allowed| allowed.iter().any(|name| **name == *vhost))
    }

    fn everywhere(user: &str) -> Self {
        Self { user: user.into(), vhosts: None }
    }
}

impl Users {
    /// The accounts of a configuration; with none, `guest`/`guest` and anonymous clients come in from loopback.
    pub fn new<'a>(accounts: impl IntoIterator<Item = (&'a Arc<str>, &'a Account)>) -> Self {
        let mut remembering = [0; 64];
        for part in remembering.chunks_mut(Salt::RECOMMENDED_LENGTH) {
            part.copy_from_slice(Salt::generate().as_ref());
        }
        Self {
            accounts: ArcSwap::from_pointee(known(accounts)),
            remembering,
            verifying: Arc::new(Semaphore::new(cores())),
        }
    }

    /// From now on lets these accounts in, and no others; who is in already stays.
    pub fn replace<'a>(&self, accounts: impl IntoIterator<Item = (&'a Arc<str>, &'a Account)>) {
        self.accounts.store(Arc::new(known(accounts)));
    }

    /// Whether no account is configured, so that only loopback is let in.
    pub fn is_open(&self) -> bool {
        self.accounts.load().is_empty()
    }

    /// Answers without the cost of [`Verifier::verify`] where that is possible: when there are no accounts, no
    /// credentials, or these were verified before. None: ask for a [`Users::verifier`].
    pub fn recall(&self, who: Credentials<'_>, peer: IpAddr) -> Option<Result<Identity, Denied>> {
        if self.is_open() {
            return Some(open(who, peer));
        }
        let Credentials::Password { user, password } = who else {
            return Some(Err(Denied::NoCredentials));
        };
        let accounts = self.accounts.load();
        let known = accounts.get(user)?;
        let remembered = known.remembered.get()?;
        self.keyed(known, password).verify_slice(remembered).ok()?;
        Some(Ok(known.identity.clone()))
    }

    /// Waits until one more password may be verified: as many at once as there are cores, whatever a burst of connections
    /// would like.
    ///
    /// # Errors
    /// When nothing is verified any more.
    pub async fn verifier(self: &Arc<Self>) -> Result<Verifier, Denied> {
        let permit = Arc::clone(&self.verifying).acquire_owned().await.map_err(|_| Denied::NotVerified)?;
        Ok(Verifier { users: Arc::clone(self), _permit: permit })
    }

    /// How many passwords are being verified.
    #[cfg(test)]
    pub(crate) fn being_verified(&self) -> usize {
        cores() - self.verifying.available_permits()
    }

    fn verify(&self, who: Credentials<'_>, peer: IpAddr) -> Result<Identity, Denied> {
        if let Some(answer) = self.recall(who, peer) {
            return answer;
        }
        let Credentials::Password { user, password } = who else {
            return Err(Denied::NoCredentials);
        };
        let accounts = self.accounts.load_full();
        let known = accounts.get(user);
        // An unknown user is verified against somebody else's hash, and refused whatever comes out.
        let hash = known.or_else(|| accounts.values().next()).ok_or(Denied::BadCredentials)?;
        let right = Argon2::default().verify_password(password, &hash.password).is_ok();
        let known = known.filter(|_| right).ok_or(Denied::BadCredentials)?;
        known.remembered.get_or_init(|| self.keyed(known, password).finalize().into_bytes().into());
        Ok(known.identity.clone())
    }

    fn keyed(&self, known: &Known, password: &[u8]) -> Blake2bMac512 {
        let mut mac = Blake2bMac512::new(&self.remembering.into());
        let user = known.identity.user.as_bytes();
        mac.update(&user.len().to_le_bytes());
        mac.update(user);
        mac.update(password);
        mac
    }
}

impl Verifier {
    /// Verifies credentials: tens of milliseconds of CPU and as much memory as the hash asks for (19 MiB by default).
    /// Call it where blocking is allowed.
    ///
    /// # Errors
    /// Why the client is turned away; an unknown user takes as long as a wrong password.
    pub fn verify(self, who: Credentials<'_>, peer: IpAddr) -> Result<Identity, Denied> {
        self.users.verify(who, peer)
    }
}

fn known<'a>(accounts: impl IntoIterator<Item = (&'a Arc<str>, &'a Account)>) -> BTreeMap<Arc<str>, Known> {
    let known = |(user, account): (&Arc<str>, &Account)| {
        let identity = Identity { user: user.clone(), vhosts: account.vhosts.as_deref().map(Arc::from) };
        let known = Known { identity, password: account.password.0.clone(), remembered: OnceLock::new() };
        (user.clone(), known)
    };
    accounts.into_iter().map(known).collect()
}

fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// Without accounts: guest/guest and anonymous clients, from this machine only.
fn open(who: Credentials<'_>, peer: IpAddr) -> Result<Identity, Denied> {
    if !peer.to_canonical().is_loopback() {
        return Err(Denied::NotLocal);
    }
    match who {
        Credentials::Anonymous => Ok(Identity::everywhere("anonymous")),
        Credentials::Password { user: GUEST, password: b"guest" } => Ok(Identity::everywhere(GUEST)),
        Credentials::Password { .. } => Err(Denied::BadCredentials),
    }
}

impl PasswordText {
    /// Reads a hash as `linkspan hash-password` prints it.
    ///
    /// # Errors
    /// The text is no complete argon2id hash with parameters in range.
    pub fn parse(text: &str) -> Result<Self, NotAHash> {
        let hash = match text.strip_prefix('$') {
            Some(_) => PasswordHash::new(text),
            None => PasswordHash::new(&format!("${text}")),
        };
        let hash = hash.map_err(|_| NotAHash)?;
        let complete =
            hash.algorithm == Algorithm::Argon2id.ident() && hash.salt.is_some() && hash.hash.is_some();
        match Params::try_from(&hash) {
            Ok(_) if complete => Ok(Self(hash)),
            _ => Err(NotAHash),
        }
    }
}

impl fmt::Debug for PasswordText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordText(…)")
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.accounts.load().keys()).finish()
    }
}

/// Hashes a password with argon2id, a random salt and OWASP's parameters; the text goes into `[users]`.
///
/// # Errors
/// The system gave no randomness or no memory.
pub fn hash_password(password: &[u8]) -> Result<String, HashFailed> {
    let hash: PasswordHash =
        Argon2::default().hash_password(password).map_err(|error| HashFailed(error.to_string().into()))?;
    let text = hash.to_string();
    Ok(text.trim_start_matches('$').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const REMOTE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn cheap(password: &[u8]) -> PasswordText {
        let argon2 = Argon2::from(Params::new(8, 1, 1, None).unwrap());
        PasswordText(argon2.hash_password(password).unwrap())
    }

    type Row<'a> = (&'a str, &'a [u8], Option<&'a [&'a str]>);

    fn users(accounts: &[Row<'_>]) -> Users {
        let accounts: Vec<(Arc<str>, Account)> = accounts
            .iter()
            .map(|(user, password, vhosts)| {
                let vhosts = vhosts.map(|names| names.iter().map(|n| (*n).into()).collect());
                ((*user).into(), Account { password: cheap(password), vhosts })
            })
            .collect();
        Users::new(accounts.iter().map(|(user, account)| (user, account)))
    }

    fn login<'a>(user: &'a str, password: &'a [u8]) -> Credentials<'a> {
        Credentials::Password { user, password }
    }

    #[test]
    fn without_users_loopback_comes_in_as_guest_or_anonymous() {
        let users = users(&[]);
        assert!(users.is_open());
        let mapped = IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
        for peer in [LOCAL, IpAddr::V6(Ipv6Addr::LOCALHOST), mapped] {
            assert_eq!(&*users.verify(Credentials::Anonymous, peer).unwrap().user, "anonymous");
            assert_eq!(&*users.verify(login("guest", b"guest"), peer).unwrap().user, "guest");
            assert_eq!(users.verify(login("guest", b"other"), peer), Err(Denied::BadCredentials));
            assert_eq!(users.verify(login("root", b"guest"), peer), Err(Denied::BadCredentials));
        }
        assert_eq!(users.verify(Credentials::Anonymous, REMOTE), Err(Denied::NotLocal));
        assert_eq!(users.verify(login("guest", b"guest"), REMOTE), Err(Denied::NotLocal));
    }

    #[test]
    fn with_users_nobody_comes_in_without_a_password() {
        let users = users(&[("sensor", b"s3cret", None)]);
        assert!(!users.is_open());
        assert_eq!(users.verify(Credentials::Anonymous, LOCAL), Err(Denied::NoCredentials));
        assert_eq!(users.verify(login("guest", b"guest"), LOCAL), Err(Denied::BadCredentials));
        assert_eq!(users.verify(login("sensor", b""), LOCAL), Err(Denied::BadCredentials));
        assert_eq!(&*users.verify(login("sensor", b"s3cret"), REMOTE).unwrap().user, "sensor");
    }

    #[test]
    fn an_unknown_user_is_refused_even_with_the_password_that_time_is_spent_on() {
        let users = users(&[("sensor", b"s3cret", None)]);
        assert_eq!(users.verify(login("nobody", b"s3cret"), LOCAL), Err(Denied::BadCredentials));
        assert_eq!(
            users.recall(login("nobody", b"s3cret"), LOCAL),
            None,
            "unknown users pay like wrong passwords"
        );
    }

    #[test]
    fn a_verified_password_is_remembered_and_only_that_one() {
        let users = users(&[("a", b"one", None), ("b", b"two", None)]);
        assert_eq!(users.recall(login("a", b"one"), LOCAL), None);
        users.verify(login("a", b"one"), LOCAL).unwrap();
        assert_eq!(&*users.recall(login("a", b"one"), LOCAL).unwrap().unwrap().user, "a");
        assert_eq!(users.recall(login("a", b"two"), LOCAL), None);
        assert_eq!(users.recall(login("b", b"one"), LOCAL), None);
        assert_eq!(users.verify(login("a", b"two"), LOCAL), Err(Denied::BadCredentials));
        assert!(users.recall(login("a", b"one"), LOCAL).is_some(), "a wrong password forgets nothing");
    }

    #[test]
    fn no_more_passwords_are_verified_at_once_than_there_are_cores() {
        use std::future::Future;
        use std::pin::pin;
        use std::task::{Context, Poll, Waker};

        let users = Arc::new(users(&[("a", b"one", None)]));
        let mut cx = Context::from_waker(Waker::noop());
        let mut ask = || match pin!(users.verifier()).poll(&mut cx) {
            Poll::Ready(verifier) => verifier.ok(),
            Poll::Pending => None,
        };
        let cores = cores();
        let mut given: Vec<Verifier> = std::iter::from_fn(&mut ask).take(cores + 1).collect();
        assert_eq!(given.len(), cores);
        let refused = given.pop().unwrap().verify(login("a", b"two"), LOCAL);
        assert_eq!(refused, Err(Denied::BadCredentials));
        assert!(ask().is_some(), "who is done makes room, right or wrong");
    }

    #[test]
    fn a_user_enters_the_vhosts_it_is_given_or_all() {
        let users = users(&[("a", b"p", Some(&["/", "lab"])), ("b", b"p", None)]);
        let a = users.verify(login("a", b"p"), LOCAL).unwrap();
        assert!(a.may_enter("/") && a.may_enter("lab") && !a.may_enter("shop"));
        assert!(users.verify(login("b", b"p"), LOCAL).unwrap().may_enter("shop"));
    }

    #[test]
    fn a_hash_is_read_with_and_without_the_first_dollar() {
        let text = hash_password(b"s3cret").unwrap();
        assert!(text.starts_with("argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
        let short = PasswordText::parse(&text).unwrap();
        assert_eq!(short, PasswordText::parse(&format!("${text}")).unwrap());
        let account = Account { password: short, vhosts: None };
        let users = Users::new([(&"sensor".into(), &account)]);
        assert!(users.verify(login("sensor", b"s3cret"), LOCAL).is_ok());
        assert_ne!(text, hash_password(b"s3cret").unwrap(), "each hash has a salt of its own");
    }

    #[test]
    fn what_is_no_complete_argon2id_hash_is_refused() {
        let good = hash_password(b"x").unwrap();
        let cut = good.rsplit_once('$').unwrap().0;
        for text in ["", "$", "secret", "argon2id$", cut, &good.replace("argon2id", "argon2i"), "$2b$12$abc"]
        {
            assert_eq!(PasswordText::parse(text), Err(NotAHash), "{text}");
        }
    }

    #[test]
    fn hashes_and_passwords_do_not_show_in_debug_output() {
        let users = users(&[("sensor", b"s3cret", None)]);
        assert_eq!(format!("{users:?}"), "{\"sensor\"}");
        assert_eq!(format!("{:?}", cheap(b"s3cret")), "PasswordText(…)");
    }
}
