//! How much memory the system would still give.

use std::path::{Path, PathBuf};

/// Bytes that this process may still take: the least of what the machine can give without swapping (`MemAvailable`) and of what the
/// limits of its control groups leave, caches of files not counted as taken. None where the system does not say.
pub fn available_memory() -> Option<u64> {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let of_machine = read(Path::new("/proc/meminfo")).and_then(|text| field(&text, "MemAvailable:")).map(|kib| kib * 1024);
    let of_groups = read(Path::new("/proc/self/cgroup")).and_then(|groups| left_in_groups(&groups, &read));
    of_machine.into_iter().chain(of_groups).min()
}

/// The number after a name in lines of names and numbers.
fn field(text: &str, name: &str) -> Option<u64> {
    let mut words =
        text.lines().map(str::split_whitespace).find_map(|mut words| (words.next() == Some(name)).then_some(words))?;
    words.next()?.parse().ok()
}

/// The least that the memory limits of control groups, of version 1 or 2, leave. A group's ancestors limit it too.
fn left_in_groups(groups: &str, read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let number = |path: PathBuf| read(&path)?.trim().parse::<u64>().ok();
    let left = |folder: &Path, [limit, usage, caches @ ..]: [&str; 4]| {
        // `max`, where there is no limit, is no number.
        let (limit, usage) = (number(folder.join(limit))?, number(folder.join(usage))?);
        let stat = read(&folder.join("memory.stat")).unwrap_or_default();
        let cached: u64 = caches.into_iter().filter_map(|name| field(&stat, name)).sum();
        Some(limit.saturating_sub(usage.saturating_sub(cached)))
    };
    let of_line = |line: &str| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let (root, names) = match controllers {
            "" => ("/sys/fs/cgroup", ["memory.max", "memory.current", "inactive_file", "active_file"]),
            _ if controllers.split(',').any(|name| name == "memory") => (
                "/sys/fs/cgroup/memory",
                ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "total_active_file"],
            ),
            _ => return None,
        };
        let group = Path::new(root).join(path.trim_start_matches('/'));
        group.ancestors().take_while(|folder| folder.starts_with(root)).filter_map(|folder| left(folder, names)).min()
    };
    groups.lines().filter_map(of_line).min()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn left(groups: &str, files: &[(&str, &str)]) -> Option<u64> {
        let files: HashMap<PathBuf, String> = files.iter().map(|(path, text)| (path.into(), (*text).to_string())).collect();
        left_in_groups(groups, &|path| files.get(path).cloned())
    }

    #[test]
    fn the_tightest_limit_of_a_group_and_its_ancestors_counts_without_cached_files() {
        let files = [
            ("/sys/fs/cgroup/job/memory.max", "1000\n"),
            ("/sys/fs/cgroup/job/memory.current", "700\n"),
            ("/sys/fs/cgroup/job/memory.stat", "anon 400\ninactive_file 200\nactive_file 60\n"),
            ("/sys/fs/cgroup/job/run/memory.max", "max\n"),
            ("/sys/fs/cgroup/job/run/memory.current", "650\n"),
        ];
        assert_eq!(left("0::/job/run\n", &files), Some(560));
        assert_eq!(left("0::/elsewhere\n", &files), None);
    }

    #[test]
    fn limits_of_version_1_are_read_where_the_memory_controller_is() {
        let files = [
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "5000\n"),
            ("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "4096\n"),
            ("/sys/fs/cgroup/memory/a/memory.usage_in_bytes", "5000\n"),
            ("/sys/fs/cgroup/memory/a/memory.stat", "inactive_file 1\ntotal_inactive_file 1904\n"),
        ];
        assert_eq!(left("9:name=systemd:/\n4:cpu,memory:/a\n", &files), Some(1000));
        assert_eq!(left("4:memory:/\n", &files), Some(9_223_372_036_854_766_712));
    }

    #[test]
    fn this_machine_has_some_memory_left() {
        if Path::new("/proc/meminfo").exists() {
            assert!(available_memory().is_some_and(|bytes| bytes > 1 << 20));
        }
    }
}
