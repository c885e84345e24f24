//! The system calls that the standard library does not offer: every `unsafe` of this program is here.

use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// An edge-triggered epoll instance; its tokens are chosen by the caller.
pub struct Epoll(OwnedFd);

/// Buffer for the events of one wait.
pub struct Events(Vec<libc::epoll_event>);

/// What became possible on the socket with this token.
pub struct Event {
    pub token: usize,
    pub writable: bool,
    /// Readable, closed or failed: reading tells which.
    pub readable: bool,
}

impl Events {
    pub fn with_capacity(n: usize) -> Events {
        Events(vec![libc::epoll_event { events: 0, u64: 0 }; n])
    }

    pub fn iter(&self, n: usize) -> impl Iterator<Item = Event> + '_ {
        self.0[..n].iter().map(|e| {
            let (flags, token) = (e.events, e.u64 as usize);
            let out = libc::EPOLLOUT as u32;
            Event { token, writable: flags & out != 0, readable: flags & !out != 0 }
        })
    }
}

impl Epoll {
    pub fn new() -> std::io::Result<Epoll> {
        // SAFETY: takes no pointer; a non-negative answer is a descriptor that nobody else owns.
        unsafe {
            match libc::epoll_create1(libc::EPOLL_CLOEXEC) {
                fd if fd >= 0 => Ok(Epoll(OwnedFd::from_raw_fd(fd))),
                _ => Err(std::io::Error::last_os_error()),
            }
        }
    }

    pub fn add(&self, s: &TcpStream, token: usize) -> std::io::Result<()> {
        let mut ev = libc::epoll_event {
            events: (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET) as u32,
            u64: token as u64,
        };
        // SAFETY: both descriptors are open as long as their owners are borrowed, `ev` lives through the call.
        match unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_ADD, s.as_raw_fd(), &mut ev) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    }

    pub fn remove(&self, s: &TcpStream) {
        // SAFETY: both descriptors are open as long as their owners are borrowed; DEL reads no event.
        unsafe {
            libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_DEL, s.as_raw_fd(), std::ptr::null_mut());
        }
    }

    /// Waits at most `wait_ns`; returns how many of `events` were written.
    pub fn wait(&self, events: &mut Events, wait_ns: u64) -> usize {
        let ts = libc::timespec {
            tv_sec: (wait_ns / 1_000_000_000) as i64,
            tv_nsec: (wait_ns % 1_000_000_000) as i64,
        };
        // SAFETY: the kernel writes at most `events.len()` entries into a buffer of that length and reads `ts`,
        // which lives through the call; no signal mask is given.
        let n = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.0.as_raw_fd(),
                events.0.as_mut_ptr(),
                events.0.len() as i32,
                &ts as *const libc::timespec,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        n.max(0) as usize
    }
}

/// Waits until either socket has something to read (or has ended); says which.
pub fn poll_readable(a: &TcpStream, b: &TcpStream) -> (bool, bool) {
    let fd = |s: &TcpStream| libc::pollfd { fd: s.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut fds = [fd(a), fd(b)];
    // SAFETY: the array has the length that is given and lives through the call.
    unsafe { libc::poll(fds.as_mut_ptr(), 2, -1) };
    (fds[0].revents != 0, fds[1].revents != 0)
}

/// Sets a socket's buffer sizes where they are above 0.
pub fn buffer_sizes(s: &TcpStream, receive: i32, send: i32) {
    for (opt, v) in [(libc::SO_RCVBUF, receive), (libc::SO_SNDBUF, send)] {
        if v > 0 {
            // SAFETY: the option's value is an int of four bytes that lives through the call.
            unsafe {
                libc::setsockopt(
                    s.as_raw_fd(),
                    libc::SOL_SOCKET,
                    opt,
                    &v as *const i32 as *const libc::c_void,
                    size_of::<i32>() as libc::socklen_t,
                )
            };
        }
    }
}

/// Lets this thread's sleeps end within a microsecond of their time.
pub fn short_timer_slack() {
    // SAFETY: takes numbers only and changes nothing but this thread's timers.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1000) };
}

/// Signals a whole process group.
pub fn kill_group(leader: u32, signal: i32) {
    // SAFETY: takes numbers only.
    unsafe { libc::kill(-(leader as i32), signal) };
}

/// Lets a write to a closed pipe end the program quietly (`loadgen report | head`).
pub fn die_of_closed_pipes() {
    // SAFETY: the default disposition runs no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Clock ticks a second, in which the kernel counts CPU time.
pub fn ticks_per_second() -> f64 {
    // SAFETY: takes a number and returns one.
    unsafe { libc::sysconf(libc::_SC_CLK_TCK) as f64 }
}

/// Bytes of a memory page.
pub fn page_size() -> u64 {
    // SAFETY: takes a number and returns one.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u64 }
}

/// CPU seconds that this process has used.
pub fn self_cpu_seconds() -> f64 {
    // SAFETY: rusage is plain numbers, for which all zeroes is a value; the kernel writes one of them.
    let usage = unsafe {
        let mut r: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut r);
        r
    };
    let t = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    t(usage.ru_utime) + t(usage.ru_stime)
}

/// Raises the limit of open files as far as this process may.
pub fn raise_open_files() {
    let mut r = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel reads and writes one rlimit, which lives through both calls.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut r);
        r.rlim_cur = r.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &r);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;

    fn pair() -> (TcpStream, TcpStream) {
        let l = TcpListener::bind("127.0.0.1:0").unwrap();
        let a = TcpStream::connect(l.local_addr().unwrap()).unwrap();
        (a, l.accept().unwrap().0)
    }

    #[test]
    fn epoll_reports_the_token_that_became_readable() {
        let ((mut a, b), ep) = (pair(), Epoll::new().unwrap());
        ep.add(&b, 7).unwrap();
        let mut evs = Events::with_capacity(4);
        let n = ep.wait(&mut evs, 0);
        assert!(evs.iter(n).all(|e| e.writable && !e.readable));
        a.write_all(b"x").unwrap();
        let n = ep.wait(&mut evs, 1_000_000_000);
        assert!(evs.iter(n).any(|e| e.token == 7 && e.readable));
        ep.remove(&b);
        a.write_all(b"y").unwrap();
        assert_eq!(ep.wait(&mut evs, 1_000_000), 0);
    }

    #[test]
    fn poll_says_which_socket_is_readable() {
        let ((mut a, b), (_c, d)) = (pair(), pair());
        a.write_all(b"x").unwrap();
        assert_eq!(poll_readable(&b, &d), (true, false));
    }
}
