//! What Linux says about memory: of the process, of the machine, and of the control groups that the process is in.

use std::path::{Component, Path, PathBuf};

/// Resident pages of the process, by `/proc/self/statm` (proc_pid_statm(5)).
pub(super) fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_whitespace().nth(1)?.parse().ok()
}

/// Bytes of memory that the machine has, by `/proc/meminfo` (proc_meminfo(5)).
pub(super) fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

/// Bytes that a file of [`limit_files`] allows; none when it sets no limit.
pub(super) fn allowed(limit: &str) -> Option<u64> {
    // Version 2 says `max` for none; version 1 a number that no machine has.
    limit.trim().parse().ok()
}

/// The files that may say how much memory the process's control groups allow, by `/proc/self/cgroup` (cgroups(7)): those of
/// its own group and of all above, each of which can be the narrowest. Inside a container most are not there, and the
/// uppermost is the container's.
pub(super) fn limit_files(cgroup: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in cgroup.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let (roots, names): (&[&str], &[&str]) = match controllers {
            "" => (&["/sys/fs/cgroup", "/sys/fs/cgroup/unified"], &["memory.max", "memory.high"]),
            list if list.split(',').any(|controller| controller == "memory") => {
                (&["/sys/fs/cgroup/memory"], &["memory.limit_in_bytes"])
            }
            _ => continue,
        };
        for root in roots {
            for group in groups(path) {
                files.extend(names.iter().map(|name| Path::new(root).join(&group).join(name)));
            }
        }
    }
    files
}

/// A group and all above it, without the leading slash. A path that leaves the view of the process says nothing.
fn groups(path: &str) -> Vec<PathBuf> {
    let path = Path::new(path.trim_start_matches('/'));
    let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let own = if is_plain { path } else { Path::new("") };
    own.ancestors().map(Path::to_path_buf).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_the_second_number_in_pages() {
        assert_eq!(resident_pages("20000 3172 1500 50 0 1200 0\n"), Some(3172));
        assert_eq!(resident_pages(""), None);
    }

    #[test]
    fn the_machines_memory_is_told_in_kib() {
        assert_eq!(total("MemTotal:       24731672 kB\nMemFree: 1 kB\n"), Some(24_731_672 << 10));
        assert_eq!(total("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn a_control_group_may_set_no_limit() {
        assert_eq!(allowed("2147483648\n"), Some(2 << 30));
        assert_eq!(allowed("max\n"), None);
    }

    #[test]
    fn the_limits_of_all_groups_above_count() {
        let files = limit_files("0::/system.slice/linkspan.service\n");
        for file in [
            "/sys/fs/cgroup/system.slice/linkspan.service/memory.max",
            "/sys/fs/cgroup/system.slice/memory.max",
            "/sys/fs/cgroup/memory.max",
            "/sys/fs/cgroup/memory.high",
        ] {
            assert!(files.contains(&PathBuf::from(file)), "{file} of {files:?}");
        }
        assert_eq!(
            limit_files("8:pids:/a\n4:cpu,memory:/docker/c0ffee\n"),
            ["docker/c0ffee/", "docker/", ""]
                .map(|group| PathBuf::from(format!("/sys/fs/cgroup/memory/{group}memory.limit_in_bytes")))
        );
        assert_eq!(limit_files("4:memory:/../other\n").len(), 1, "only what the process sees as the root");
        assert_eq!(limit_files("nonsense"), Vec::<PathBuf>::new());
    }
}
