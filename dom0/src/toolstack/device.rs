//! Disks and network interfaces as a guest description writes them.
//!
//! Source: Xen `xl-disk-configuration(5)`, `xl-network-configuration(5)`.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;

/// What is behind a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskTarget {
    /// A device of this domain, such as `/dev/vda`.
    Physical(String),
    /// A file of this domain's ramdisk. Writes go to a copy and end with the guest.
    File(String),
}

/// A guest's disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// What is behind it.
    pub target: DiskTarget,
    /// The guest's name for it, such as `xvda`.
    pub vdev: String,
    /// The number of that name on the wire.
    pub number: u32,
    /// Whether the guest may write.
    pub writable: bool,
}

impl Disk {
    /// Reads `format=raw, vdev=xvda, access=rw, target=/dev/vda`, the same without the names in xl's order (target,
    /// format, vdev, access), or the older `phy:/dev/vda,xvda,w` and `file:/disks/a.img,xvda,r`.
    ///
    /// # Errors
    /// One phrase that names what is wrong and the cure.
    pub fn parse(text: &str) -> Result<Self, String> {
        let old = text.strip_prefix("phy:").or_else(|| text.strip_prefix("file:"));
        let parts = match old {
            Some(rest) => DiskParts::old(rest)?,
            None => DiskParts::new(text)?,
        };
        let target = parts.target.ok_or("no target: add target=/dev/vda")?;
        let vdev = parts.vdev.ok_or("no vdev: add vdev=xvda")?;
        let number = virtual_device(&vdev)
            .ok_or_else(|| format!("vdev={vdev} is not known: use xvda to xvdz, sda to sdp or hda to hdd"))?;
        let target = if target.starts_with("/dev/") || text.starts_with("phy:") {
            DiskTarget::Physical(target)
        } else {
            DiskTarget::File(target)
        };
        Ok(Self { target, vdev, number, writable: parts.writable })
    }
}

/// Checks that a file is a raw image: one whose first byte is the disk's first byte.
///
/// # Errors
/// One phrase that names what it is instead, and the cure.
pub fn check_image(path: &str, bytes: &[u8]) -> Result<(), String> {
    let kinds: [(&[u8], &str); 3] = [(b"QFI\xfb", "qcow2"), (b"KDMV", "vmdk"), (b"vhdxfile", "vhdx")];
    match kinds.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        Some((_, kind)) => Err(format!(
            "{path} is a {kind} image and only raw ones are served: qemu-img convert -O raw makes one of it"
        )),
        None => Ok(()),
    }
}

struct DiskParts {
    target: Option<String>,
    vdev: Option<String>,
    writable: bool,
}

impl DiskParts {
    fn old(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',').map(str::trim);
        let target = parts.next().filter(|part| !part.is_empty()).map(ToString::to_string);
        let vdev = parts.next().map(ToString::to_string);
        let writable = access(parts.next().unwrap_or("w"))?;
        match parts.next() {
            None => Ok(Self { target, vdev, writable }),
            Some(more) => Err(format!("\"{more}\" is too much: write phy:TARGET,VDEV,ACCESS")),
        }
    }

    fn new(text: &str) -> Result<Self, String> {
        let mut found = Self { target: None, vdev: None, writable: true };
        let mut place = 0;
        for part in text.split(',').map(str::trim) {
            let (key, value) = match part.split_once('=') {
                Some((key, value)) => (key.trim(), value.trim()),
                None => {
                    let key = ["target", "format", "vdev", "access"].get(place);
                    place += 1;
                    (*key.ok_or_else(|| format!("\"{part}\" is too much: write target, format, vdev, access"))?, part)
                }
            };
            found.set(key, value)?;
        }
        Ok(found)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "target" => self.target = Some(value.to_string()),
            "vdev" => self.vdev = Some(value.to_string()),
            "access" => self.writable = access(value)?,
            "format" if matches!(value, "raw" | "") => {}
            "format" => {
                return Err(format!("format={value} is not served: convert the image to format=raw"));
            }
            "backendtype" if matches!(value, "phy" | "file") => {}
            _ => {
                return Err(format!("unknown key \"{key}\": known are target, format, vdev, access, backendtype"));
            }
        }
        Ok(())
    }
}

fn access(text: &str) -> Result<bool, String> {
    match text {
        "rw" | "w" | "" => Ok(true),
        "ro" | "r" => Ok(false),
        _ => Err(format!("access={text} is not known: write access=rw or access=ro")),
    }
}

/// The number that stands for a disk's name (Xen `docs/misc/vbd-interface.txt`).
fn virtual_device(name: &str) -> Option<u32> {
    let digits = name.find(|letter: char| letter.is_ascii_digit()).unwrap_or(name.len());
    let (stem, partition) = name.split_at(digits);
    let partition: u32 = if partition.is_empty() { 0 } else { partition.parse().ok()? };
    let letter = |prefix: &str| {
        let rest = stem.strip_prefix(prefix)?.as_bytes();
        (rest.len() == 1 && rest[0].is_ascii_lowercase()).then(|| u32::from(rest[0] - b'a'))
    };
    if let Some(disk) = letter("xvd") {
        return match (disk, partition) {
            (0..16, 0..16) => Some(202 << 8 | disk << 4 | partition),
            (_, 0..256) => Some(1 << 28 | disk << 8 | partition),
            _ => None,
        };
    }
    if let Some(disk) = letter("sd") {
        return (disk < 16 && partition < 16).then_some(8 << 8 | disk << 4 | partition);
    }
    let disk = letter("hd")?;
    let major = if disk < 2 { 3 } else { 22 };
    (disk < 4 && partition < 64).then_some(major << 8 | (disk & 1) << 6 | partition)
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Whether frames to it go to more than one station.
    pub fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2)?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        (parts.next().is_none() && bytes[0] & 1 == 0).then_some(Self(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// The bridge a guest is on when its description names none.
pub const DEFAULT_BRIDGE: &str = "xenbr0";

/// A guest's network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vif {
    /// Its address.
    pub mac: Mac,
    /// The bridge it is plugged into.
    pub bridge: String,
}

/// A network interface whose address may still have to be made up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedVif {
    mac: Option<Mac>,
    bridge: String,
}

impl Vif {
    /// Reads `mac=00:16:3e:…, bridge=xenbr0`; both may be left out.
    ///
    /// # Errors
    /// One phrase that names what is wrong and the cure.
    pub fn parse(text: &str) -> Result<ParsedVif, String> {
        let mut found = ParsedVif { mac: None, bridge: DEFAULT_BRIDGE.to_string() };
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match part.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
                Some(("mac", value)) => {
                    let mac = Mac::parse(value).ok_or_else(|| {
                        format!("mac={value} is no address of one station: write mac=00:16:3e:xx:xx:xx")
                    })?;
                    found.mac = Some(mac);
                }
                Some(("bridge", value)) => found.bridge = value.to_string(),
                _ => {
                    return Err(format!("unknown key \"{part}\": known are mac=… and bridge=…"));
                }
            }
        }
        Ok(found)
    }
}

impl ParsedVif {
    /// Gives an interface without an address one in Xen's range that its guest and place always get again.
    pub fn with_default_mac(self, guest: &str, index: usize) -> Vif {
        let made_up = || {
            let seed = guest.bytes().chain(index.to_le_bytes());
            let [a, b, c, _] = seed
                .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
                .to_le_bytes();
            Mac([0x00, 0x16, 0x3e, a & 0x7f, b, c])
        };
        Vif { mac: self.mac.unwrap_or_else(made_up), bridge: self.bridge }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_ways_to_write_a_disk_mean_the_same() {
        let named = Disk::parse("format=raw, vdev=xvda, access=rw, target=/dev/vda").expect("good");
        assert_eq!(Disk::parse("/dev/vda,raw,xvda,rw"), Ok(named.clone()));
        assert_eq!(Disk::parse("phy:/dev/vda,xvda,w"), Ok(named.clone()));
        assert_eq!(named.number, 51712);
        let file = Disk::parse("file:/disks/a.img,xvdb,r").expect("good");
        assert_eq!((file.target, file.writable), (DiskTarget::File("/disks/a.img".into()), false));
    }

    #[test]
    fn a_disk_that_cannot_be_served_is_refused_with_the_cure() {
        for (text, cure) in [
            ("vdev=xvda", "target="),
            ("target=/dev/vda", "vdev=xvda"),
            ("target=/dev/vda,vdev=foo", "xvda to xvdz"),
            ("target=/a,vdev=xvda,format=qcow2", "format=raw"),
            ("target=/a,vdev=xvda,access=maybe", "access=rw"),
            ("target=/a,vdev=xvda,size=4", "known are"),
            ("/a,raw,xvda,rw,more", "too much"),
        ] {
            let problem = Disk::parse(text).expect_err(text);
            assert!(problem.contains(cure), "{text}: {problem}");
        }
    }

    #[test]
    fn an_image_that_is_not_raw_is_refused_by_its_kind() {
        let problem = check_image("/disks/a.img", b"QFI\xfb\0\0\0\x03").expect_err("qcow2");
        assert!(problem.contains("/disks/a.img is a qcow2 image") && problem.contains("convert -O raw"), "{problem}");
        assert_eq!(check_image("/disks/a.img", b"\xeb\x3c\x90MSDOS5.0"), Ok(()));
        assert_eq!(check_image("/disks/a.img", b"QF"), Ok(()));
    }

    #[test]
    fn disk_names_have_the_numbers_of_the_interface() {
        let numbers =
            [("xvda", 51712), ("xvdb1", 51729), ("xvdz", (1 << 28) | (25 << 8)), ("sda1", 2049), ("hdc", 5632)];
        for (name, number) in numbers {
            assert_eq!(virtual_device(name), Some(number), "{name}");
        }
    }

    #[test]
    fn a_group_address_is_no_address_for_a_guest() {
        assert!(Vif::parse("mac=01:00:5e:00:00:01").is_err());
        assert!(Vif::parse("mac=00:16:3e:0:0:1").is_err());
        assert!(Vif::parse("model=e1000").is_err());
    }
}
