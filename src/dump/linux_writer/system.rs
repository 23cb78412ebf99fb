//! What a dump says about the machine: processor and operating system, nothing that tells one machine from another.
#![forbid(unsafe_code)]

use std::sync::OnceLock;

use minidump_common::format::{CPU_INFORMATION, MINIDUMP_SYSTEM_INFO, PlatformId, ProcessorArchitecture};

/// The lines of `/proc/cpuinfo` that may go into a dump. Others may name the machine: Arm's `Serial` does.
const CPU_LINES: [&str; 16] = [
    "processor",
    "vendor_id",
    "cpu family",
    "model",
    "model name",
    "stepping",
    "microcode",
    "cache size",
    "siblings",
    "cpu cores",
    "flags",
    "bugs",
    "bogomips",
    "clflush size",
    "cache_alignment",
    "address sizes",
];
/// Where systems say which one they are, the first that exists.
const RELEASES: [&str; 2] = ["/etc/lsb-release", "/etc/os-release"];
/// The most that is taken of one of them.
const MOST_RELEASE: usize = 16 << 10;

/// The machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct System {
    /// Name, release, version and machine of the kernel (uname(2)).
    pub(super) kernel: String,
    /// Allow-listed lines of `/proc/cpuinfo`, for the first processor.
    pub(super) cpu: String,
    /// `/etc/lsb-release` or `/etc/os-release`.
    pub(super) release: Vec<u8>,
    processors: u8,
    family: u16,
    revision: u16,
    vendor: String,
}

/// This machine, read once.
pub(super) fn get() -> &'static System {
    static SYSTEM: OnceLock<System> = OnceLock::new();
    SYSTEM.get_or_init(read)
}

/// Reads about this machine. What cannot be read is empty.
fn read() -> System {
    let kernel = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
        text.trim_end().to_owned()
    };
    let names = ["ostype", "osrelease", "version"].map(kernel);
    let mut release = RELEASES.iter().find_map(|path| std::fs::read(path).ok()).unwrap_or_default();
    release.truncate(MOST_RELEASE);
    let cpu = std::fs::read("/proc/cpuinfo").unwrap_or_default();
    System { kernel: format!("{} {}", names.join(" "), std::env::consts::ARCH), release, ..cpu_of(&cpu) }
}

fn cpu_of(cpuinfo: &[u8]) -> System {
    let mut system = System::default();
    let text = String::from_utf8_lossy(cpuinfo);
    let (mut model, mut stepping) = (0, 0);
    let mut first = true;
    for line in text.lines() {
        let Some((name, value)) = line.split_once(':').map(|(name, value)| (name.trim(), value.trim()))
        else {
            first &= system.cpu.is_empty();
            continue;
        };
        if name == "processor" {
            system.processors = system.processors.saturating_add(1);
        }
        if !first || !CPU_LINES.contains(&name) {
            continue;
        }
        let number = || value.parse::<u16>().unwrap_or_default();
        match name {
            "cpu family" => system.family = number(),
            "model" => model = number(),
            "stepping" => stepping = number(),
            "vendor_id" => system.vendor = value.to_owned(),
            _ => {}
        }
        system.cpu.push_str(line);
        system.cpu.push('\n');
    }
    system.revision = model << 8 | stepping & 0xff;
    system
}

impl System {
    /// The SystemInfo stream. `kernel` is where its string lies.
    pub(super) fn info(&self, kernel: u32) -> MINIDUMP_SYSTEM_INFO {
        // X86CpuInfo begins with the 12 bytes of the vendor's name.
        let mut data = [0; 24];
        self.vendor.bytes().take(12).zip(&mut data).for_each(|(byte, place)| *place = byte);
        MINIDUMP_SYSTEM_INFO {
            processor_architecture: ProcessorArchitecture::PROCESSOR_ARCHITECTURE_AMD64 as u16,
            processor_level: self.family,
            processor_revision: self.revision,
            number_of_processors: self.processors,
            product_type: 0,
            major_version: 0,
            minor_version: 0,
            build_number: 0,
            platform_id: PlatformId::Linux as u32,
            csd_version_rva: kernel,
            suite_mask: 0,
            reserved2: 0,
            cpu: CPU_INFORMATION { data },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_lines_of_the_first_processor() {
        let text = b"processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\nmodel name\t: A: B\n\
            stepping\t: 7\nSerial\t\t: 00000000deadbeef\nmicrocode\t: 0x1\n\nprocessor\t: 1\nmodel\t\t: 9\n\n";
        let system = cpu_of(text);
        assert_eq!(
            system.cpu,
            "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\nmodel name\t: A: B\n\
             stepping\t: 7\nmicrocode\t: 0x1\n"
        );
        assert_eq!((system.processors, system.family, system.revision), (2, 6, 85 << 8 | 7));
        let info = system.info(7);
        assert_eq!((&info.cpu.data[..13], info.csd_version_rva), (&b"GenuineIntel\0"[..], 7));
        assert_eq!(cpu_of(b"\xff:\n::\n"), System::default());
        assert!(read().kernel.starts_with("Linux "));
    }
}
