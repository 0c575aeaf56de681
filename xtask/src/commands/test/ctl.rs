//! The toolstack's commands over the control channel: one boot, many commands, a demo guest and a Linux guest.

mod back_ends;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use dom0::channel::message::Message;
use serde_json::Value;

use super::Tally;
use crate::artifacts::Artifacts;
use crate::commands::run::Hypervisor;
use crate::console::Console;
use crate::control::Client;
use crate::qemu::Machine;
use crate::{image, linux, xen};

const LIMIT: Duration = Duration::from_secs(60);

/// Runs them on each hypervisor that can be had; each step is a test, and what one needs of those before it is missing
/// where they failed.
pub(super) fn run(tally: &mut Tally, artifacts: &Artifacts) {
    for (on, name) in [(Hypervisor::Hv, "hv"), (Hypervisor::Xen, "Xen")] {
        if on == Hypervisor::Xen && xen::image().is_err() {
            continue;
        }
        let mut running = None;
        tally.test(&format!("dom0 listens for commands by ctl on {name}"), || {
            running = Some(Running::start(artifacts, on)?);
            Ok(())
        });
        let Some(mut running) = running else { continue };
        for (title, step) in STEPS {
            tally.test(&format!("{title} by ctl on {name}"), || {
                step(&mut running).with_context(|| format!("its console ended with:\n{}", running.machine.tail_now()))
            });
        }
    }
}

type Step = fn(&mut Running) -> Result<()>;

const STEPS: &[(&str, Step)] = &[
    ("what cannot be created is told in a line and leaves nothing", refusals),
    ("guests are created, listed, held and let go on", guests),
    ("a console is used", console),
    ("disks come and go", disks),
    ("network interfaces come and go", interfaces),
    ("figures are shown", figures),
    ("a guest comes with its kernel from the host", from_host),
    ("a guest that crashes is kept or started anew as its description asks", crashes),
    ("a guest is rebooted, shut down and waited for", ends),
    ("the demo kernel suspends, gives memory and a CPU back, and obeys a key", demo_obeys),
    ("Linux suspends and goes on", linux_suspends),
    ("Linux lets go of a disk and a network interface that it was lent", linux_devices),
    ("Linux gives memory and a virtual CPU back", linux_shrinks),
    ("Linux is sent a key and an interrupt", linux_keys),
    ("Linux goes on writing over a disk back end that is replaced", back_ends::disk_returns),
    ("Linux gets errors from a disk that is pulled, and goes on", back_ends::disk_is_pulled),
    ("a network goes on over a back end that is replaced", back_ends::network_returns),
    ("Linux starts from kernels packed with zstd and lz4", packed),
    ("everything is ended and its memory is free again", all_gone),
];

/// A machine with its control channel.
struct Running {
    machine: Console,
    folder: tempfile::TempDir,
    free_mib: u64,
    linux: bool,
}

fn described(name: &str, memory: u32, rest: &str) -> String {
    format!("name = \"{name}\"\nkernel = \"/boot/demo\"\nmemory = {memory}\n{rest}")
}

impl Running {
    fn start(artifacts: &Artifacts, on: Hypervisor) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let ramdisk = folder.path().join("ramdisk");
        let linux = linux::get().ok();
        let read = |path: &Path| std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()));
        let mut files = vec![
            ("boot/demo".to_owned(), read(&artifacts.kernel("demo"))?),
            ("boot/hv".to_owned(), read(&artifacts.kernel("hv"))?),
            ("boot/old".to_owned(), elf_of_32_bits()),
            ("boot/packed".to_owned(), b"BZh91AY&SY".to_vec()),
            ("disks/a.img".to_owned(), vec![0x5a; 1 << 20]),
            ("disks/big.img".to_owned(), vec![0xa5; 16 << 20]),
        ];
        let describe = |files: &mut Vec<(String, Vec<u8>)>, name: &str, text: String| {
            files.push((format!("xl/{name}.toml"), text.into_bytes()));
        };
        describe(&mut files, "demo", described("demo", 32, "maxvcpus = 2\nvcpus = 1\nvif = [\"\"]\n"));
        describe(&mut files, "pair", described("pair", 48, "vcpus = 2\n"));
        if let Some(linux) = &linux {
            files.push(("boot/linux".to_owned(), read(&linux.kernel)?));
            files.push(("boot/initrd".to_owned(), with_init(read(&linux.ramdisk)?)?));
            let text = "name = \"linux\"\nkernel = \"/boot/linux\"\nramdisk = \"/boot/initrd\"\nmemory = 192\n\
                        maxmem = 224\nvcpus = 2\nextra = \"console=hvc0 sysrq_always_enabled\"\n";
            describe(&mut files, "linux", text.to_owned());
        }
        std::fs::write(&ramdisk, image::make_ramdisk(&files)?)?;
        let socket = folder.path().join("control");
        let machine = Machine {
            kernel: if on == Hypervisor::Hv { artifacts.kernel("hv") } else { xen::image()? },
            command_line: "console=com1 com1=115200,8n1 dom0_mem=512M noreboot".to_owned(),
            modules: vec![(artifacts.kernel("dom0"), "stay".to_owned()), (ramdisk, String::new())],
            memory_mib: 1024,
            cpus: 2,
            network: true,
            control: Some(socket.clone()),
            ..Machine::default()
        };
        let machine = Console::start(machine.piped(), Duration::from_secs(600))?;
        let until = Instant::now() + LIMIT;
        while !socket.exists() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut running = Self { machine, folder, free_mib: 0, linux: linux.is_some() };
        running.free_mib = running.free()?;
        Ok(running)
    }

    fn client(&self) -> Result<Client> {
        Client::connect(&self.folder.path().join("control"))
    }

    /// What a command prints.
    fn ask(&self, line: &str) -> Result<String> {
        let (output, status, problem) = self.client()?.request(line, LIMIT)?;
        ensure!(status == 0, "\"{line}\" failed: {problem}");
        Ok(output)
    }

    /// The one line by which a command is refused, which must hold these words.
    fn refused(&self, line: &str, words: &[&str]) -> Result<()> {
        self.refused_with(&[], line, words)
    }

    fn refused_with(&self, files: &[(&str, &[u8])], line: &str, words: &[&str]) -> Result<()> {
        let mut client = self.client()?;
        files.iter().try_for_each(|(name, bytes)| client.bring(name, bytes))?;
        let (output, status, problem) = client.request(line, LIMIT)?;
        ensure!(status == 1 && output.is_empty(), "\"{line}\" was not refused: {output}");
        ensure!(problem.lines().count() == 1, "\"{line}\" takes more than one line: {problem}");
        for word in words {
            ensure!(problem.contains(word), "\"{line}\": \"{problem}\" does not say \"{word}\"");
        }
        Ok(())
    }

    /// Asks until what is printed holds these words.
    fn ask_until(&self, line: &str, right: impl Fn(&str) -> bool) -> Result<String> {
        let until = Instant::now() + LIMIT;
        loop {
            let output = self.ask(line)?;
            if right(&output) {
                return Ok(output);
            }
            ensure!(Instant::now() < until, "\"{line}\" still prints:\n{output}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn free(&self) -> Result<u64> {
        let info = self.ask("info")?;
        let line = info.lines().find(|line| line.starts_with("free_memory")).context("info without free_memory")?;
        Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)
    }

    /// The domain of this name in the list, as JSON.
    fn listed(&self, name: &str) -> Result<Option<Value>> {
        let Value::Array(rows) = serde_json::from_str(&self.ask("list --json")?)? else {
            bail!("list --json is no list");
        };
        Ok(rows.into_iter().find(|row| row["name"] == name))
    }

    /// Types at a guest's console and waits for a line that holds this, ignoring the keys' echo.
    fn type_at(&self, guest: &str, keys: &str, part: &str) -> Result<()> {
        let mut client = self.client()?;
        client.say(&Message::Request(format!("console {guest}")))?;
        client.say(&Message::Keys(keys.as_bytes().to_vec()))?;
        let until = Instant::now() + LIMIT;
        let mut seen = String::new();
        while !seen.contains(part) {
            match client.hear(until)? {
                Some(Message::Output(bytes)) => seen.push_str(&String::from_utf8_lossy(&bytes)),
                Some(Message::Done { problem, .. }) => bail!("the console was left ({problem}) after:\n{seen}"),
                Some(_) => {}
                None => bail!("no \"{part}\" came; the guest wrote:\n{seen}"),
            }
        }
        client.say(&Message::Leave)
    }
}

/// The first process of the Linux guest: one that powers off and reboots when it is asked to.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /sbin /etc
/bin/busybox --install -s /sbin
export PATH=/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod /modules/$module; done
exec /sbin/init
";
const INITTAB: &str = "hvc0::respawn:/sbin/sh\n::ctrlaltdel:/sbin/reboot\n";

/// A ramdisk with busybox, and behind it one that lets busybox be the first process; Linux unpacks both.
fn with_init(mut ramdisk: Vec<u8>) -> Result<Vec<u8>> {
    let entries = [
        ("etc".to_owned(), image::FOLDER, Vec::new()),
        ("etc/inittab".to_owned(), image::FILE, INITTAB.as_bytes().to_vec()),
        ("init".to_owned(), image::PROGRAM, INIT.as_bytes().to_vec()),
    ];
    ramdisk.resize(ramdisk.len().next_multiple_of(4), 0);
    ramdisk.extend(image::make_archive(&entries)?);
    Ok(ramdisk)
}

/// The head of an ELF file for a processor of 32 bits.
fn elf_of_32_bits() -> Vec<u8> {
    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0\x01\0\0\0".to_vec();
    file.resize(52, 0);
    file[40] = 52;
    file
}

fn refusals(on: &mut Running) -> Result<()> {
    let store = on.ask("xenstore-ls /")?;
    let create = |text: &str, words: &[&str]| on.refused_with(&[("x.toml", text.as_bytes())], "create x.toml", words);
    let kernel = |path: &str| format!("name = \"x\"\nkernel = \"{path}\"\nmemory = 16\n");
    create(&kernel("/boot/nothing"), &["/boot/nothing", "ramdisk"])?;
    create(&kernel("/boot/hv"), &["no Xen ELF notes"])?;
    create(&kernel("/boot/old"), &["64-bit"])?;
    create(&kernel("/boot/packed"), &["bzip2", "gzip"])?;
    create(&described("x", 1, ""), &["memory = 1", "out of range"])?;
    if on.linux {
        create(&kernel("/boot/linux"), &["MiB", "memory = "])?;
    }
    create(&described("x", 4096, ""), &["ENOMEM", "memory"])?;
    create(&described("x", 16, "disk = [\"phy:/dev/vdz,xvda,w\"]\n"), &["/dev/vdz"])?;
    create(&described("x", 16, "disk = [\"file:/disks/none,xvda,w\"]\n"), &["/disks/none"])?;
    create(&described("x", 16, "vif = [\"bridge=xenbr9\"]\n"), &["xenbr9"])?;
    create(&described("x", 16, "colour = \"red\"\n"), &["colour", "x.toml:4"])?;
    on.refused("create nothing", &["nothing", "ramdisk"])?;
    on.refused("destroy nobody", &["nobody"])?;
    on.refused("lst", &["lst", "help"])?;
    let after = on.ask("xenstore-ls /")?;
    ensure!(store == after, "the store held\n{store}\nand now holds\n{after}");
    let free = on.free()?;
    ensure!(free.abs_diff(on.free_mib) <= 1, "{} MiB were free, now {free}", on.free_mib);
    Ok(())
}

fn guests(on: &mut Running) -> Result<()> {
    on.ask("create /xl/demo.toml")?;
    on.refused("create /xl/demo.toml", &["demo", "already"])?;
    let row = on.listed("demo")?.context("demo is not listed")?;
    ensure!(row["memory_mib"] == 32, "it is listed as {row}");
    let number = row["domid"].to_string();
    ensure!(on.ask("domid demo")?.trim() == number, "domid is not {number}");
    ensure!(on.ask(&format!("domname {number}"))?.trim() == "demo", "domname {number} is not demo");
    on.ask("pause demo")?;
    let state = |row: Option<Value>| row.map(|row| row["state"].to_string()).unwrap_or_default();
    ensure!(state(on.listed("demo")?).contains('p'), "it is not listed as paused");
    on.ask("unpause demo")?;
    ensure!(!state(on.listed("demo")?).contains('p'), "it is still listed as paused");
    on.ask("rename demo sample")?;
    ensure!(on.ask("list sample")?.contains("sample"), "the new name is not listed");
    on.ask("rename sample demo")?;
    Ok(())
}

fn console(on: &mut Running) -> Result<()> {
    on.type_at("demo", "ps\r", "STATE")?;
    on.type_at("demo", "uptime\r", "up")
}

fn disks(on: &mut Running) -> Result<()> {
    on.ask("block-attach demo file:/disks/a.img,xvdb,r")?;
    on.refused("block-attach demo file:/disks/a.img,xvdb,r", &["xvdb"])?;
    on.ask_until("block-list demo", |list| list.contains("51728"))?;
    on.ask("block-detach --force demo xvdb")?;
    ensure!(!on.ask("block-list demo")?.contains("51728"), "the disk is still listed");
    on.refused("block-detach demo xvdb", &["xvdb"])?;
    let mut client = on.client()?;
    client.bring("mine.img", &[0x11; 3 * 512])?;
    let (_, status, problem) = client.request("block-attach demo file:mine.img,xvdc,r", LIMIT)?;
    ensure!(status == 0, "an image from the host is refused: {problem}");
    drop(client);
    ensure!(on.ask("block-list demo")?.contains("51744"), "the image from the host is not listed");
    on.ask("block-detach --force demo xvdc")?;
    on.refused_with(&[("q.img", b"QFI\xfb")], "block-attach demo file:q.img,xvdc,r", &["qcow2"])
}

fn interfaces(on: &mut Running) -> Result<()> {
    on.ask_until("network-list demo", |list| list.lines().nth(1).is_some_and(|row| row.contains(" 4 ")))?;
    on.ask("network-attach demo mac=00:16:3e:00:00:09")?;
    ensure!(on.ask("network-list demo")?.contains("00:16:3e:00:00:09"), "the interface is not listed");
    on.ask("network-detach --force demo 00:16:3e:00:00:09")?;
    ensure!(!on.ask("network-list demo")?.contains("00:16:3e:00:00:09"), "the interface is still listed");
    on.refused("network-attach demo bridge=none", &["none"])
}

fn figures(on: &mut Running) -> Result<()> {
    let vcpus = on.ask("vcpu-list demo")?;
    ensure!(vcpus.lines().count() == 3, "two virtual CPUs are listed as\n{vcpus}");
    on.ask("vcpu-pin demo all 1 0")?;
    ensure!(on.ask("vcpu-list demo")?.lines().skip(1).all(|row| row.ends_with("1 / 0")), "it is not pinned");
    on.ask("vcpu-pin demo all all all")?;
    on.refused("vcpu-set demo 3", &["maxvcpus"])?;
    on.refused("mem-set demo 64", &["maxmem"])?;
    on.type_at("demo", "ping 10.0.2.2\r", "3 of 3 answered")?;
    let Value::Array(rows) = serde_json::from_str(&on.ask("top --json")?)? else {
        bail!("top --json is no list");
    };
    let percent: f64 = rows.iter().filter_map(|row| row["cpu_percent"].as_f64()).sum();
    ensure!(rows.len() == 2 && percent <= 210.0, "top shows {rows:?}");
    let sent = rows.iter().filter_map(|row| row["net_tx_bytes"].as_u64()).sum::<u64>();
    ensure!(sent > 0, "the guest that asked the gateway has sent nothing: {rows:?}");
    ensure!(on.ask("uptime demo")?.lines().count() == 2, "uptime shows no row");
    on.ask("debug-keys q")?;
    ensure!(!on.ask("dmesg")?.is_empty(), "the hypervisor has said nothing");
    on.ask("xenstore-write /tool/test a")?;
    ensure!(on.ask("xenstore-read /tool/test")?.trim() == "a", "the node does not hold what was written");
    on.ask("xenstore-rm /tool/test")?;
    on.refused("xenstore-read /tool/test", &["/tool/test", "ENOENT"])
}

fn from_host(on: &mut Running) -> Result<()> {
    let mut client = on.client()?;
    let text = "name = \"brought\"\nkernel = \"mine\"\nmemory = 32\non_reboot = \"restart\"\n";
    client.bring("b.toml", text.as_bytes())?;
    let kernel = std::fs::read(Artifacts::build()?.kernel("demo"))?;
    client.bring("mine", &kernel)?;
    let (_, status, problem) = client.request("create -p b.toml", LIMIT)?;
    ensure!(status == 0, "create failed: {problem}");
    drop(client);
    let row = on.listed("brought")?.context("it is not listed")?;
    ensure!(row["state"].to_string().contains('p'), "it is not paused: {row}");
    on.ask("unpause brought")?;
    on.type_at("brought", "uptime\r", "up")?;
    on.ask("destroy brought")?;
    Ok(())
}

fn crashes(on: &mut Running) -> Result<()> {
    for (action, rest) in [("preserve", "on_crash = \"preserve\"\n"), ("restart", "on_crash = \"restart\"\n")] {
        let mut client = on.client()?;
        client.bring("c.toml", described("crasher", 32, rest).as_bytes())?;
        let (_, status, problem) = client.request("create c.toml", LIMIT)?;
        ensure!(status == 0, "create failed: {problem}");
        drop(client);
        let number = on.ask("domid crasher")?;
        on.type_at("crasher", "uptime\r", "up")?;
        let mut client = on.client()?;
        client.say(&Message::Request("console crasher".to_owned()))?;
        client.say(&Message::Keys(b"crash\r".to_vec()))?;
        drop(client);
        match action {
            "preserve" => {
                let kept = on.ask_until("list --json crasher", |list| list.contains("\"shutdown\":\"crash\""))?;
                ensure!(kept.contains("----c-"), "it is listed as {kept}");
            }
            _ => drop(on.ask_until("list --json", |list| {
                list.contains("crasher") && !list.contains(&format!("\"domid\":{},", number.trim()))
            })?),
        }
        on.ask("destroy crasher")?;
    }
    Ok(())
}

fn ends(on: &mut Running) -> Result<()> {
    let number = on.ask("domid demo")?;
    on.ask("reboot -w demo")?;
    ensure!(on.ask("domid demo")? != number, "it has the same number after its reboot");
    on.type_at("demo", "uptime\r", "up")?;
    on.ask("shutdown -w demo")?;
    ensure!(on.listed("demo")?.is_none(), "it is still listed");
    Ok(())
}

/// With two CPUs that meet, and processes that keep their registers, before and after everything.
fn demo_obeys(on: &mut Running) -> Result<()> {
    let works = |on: &Running, cpus: u32| {
        // A CPU that comes back is seen here a little before the guest uses it.
        on.type_at("pair", "sleep 1; smp 20\r", &format!("{cpus} of {cpus} CPUs met"))?;
        on.type_at("pair", "run float 100\r", "float: 0 of 4 processes")
    };
    on.ask("create /xl/pair.toml")?;
    works(on, 2)?;
    for _ in 0..3 {
        on.ask("suspend-cancel pair")?;
        works(on, 2)?;
    }
    on.ask("mem-set pair 24")?;
    on.ask_until("list --json pair", |list| list.contains("\"memory_mib\":24"))?;
    works(on, 2)?;
    on.ask("mem-set pair 48")?;
    on.ask_until("list --json pair", |list| list.contains("\"memory_mib\":48"))?;
    on.ask("vcpu-set pair 1")?;
    on.ask_until("list --json pair", |list| list.contains("\"vcpus\":1"))?;
    works(on, 1)?;
    on.ask("vcpu-set pair 2")?;
    on.ask_until("list --json pair", |list| list.contains("\"vcpus\":2"))?;
    works(on, 2)?;
    on.ask("sysrq pair t")?;
    on.type_at("pair", "\r", "idle/1")?;
    on.ask("shutdown -w pair")?;
    Ok(())
}

fn linux_suspends(on: &mut Running) -> Result<()> {
    if !on.linux {
        return Ok(());
    }
    on.ask("create /xl/linux.toml")?;
    on.type_at("linux", "echo rea''dy\r", "ready")?;
    for round in 0..3 {
        on.ask("suspend-cancel linux")?;
        on.type_at("linux", &format!("echo awake''{round}\r"), &format!("awake{round}"))?;
    }
    Ok(())
}

fn linux_devices(on: &mut Running) -> Result<()> {
    if !on.linux {
        return Ok(());
    }
    on.ask("block-attach linux file:/disks/a.img,xvdb,r")?;
    let read = "until [ -b /dev/xvdb ]; do sleep 0.1; done; tr -d Z </dev/xvdb | wc -c; wc -c </dev/xvdb";
    on.type_at("linux", &format!("{read}\r"), "\n0\r\n1048576")?;
    on.ask("block-detach linux xvdb")?;
    on.type_at("linux", "while [ -b /dev/xvdb ]; do sleep 0.1; done; echo go''ne\r", "gone")?;
    on.ask("network-attach linux mac=00:16:3e:00:00:0a")?;
    let up = "until ifconfig eth0 10.0.2.15 up 2>/dev/null; do sleep 0.1; done; ping -c 1 10.0.2.2";
    on.type_at("linux", &format!("{up}\r"), "1 packets received")?;
    on.ask("network-detach linux 0")?;
    on.type_at("linux", "ifconfig eth0 >/dev/null 2>&1 || echo pulled''out\r", "pulledout")
}

/// The node is there when Linux has heard of the CPU.
const TAKE_CPU_1: &str = "until echo 1 2>/dev/null >/sys/devices/system/cpu/cpu1/online; do sleep 0.2; done";

fn linux_shrinks(on: &mut Running) -> Result<()> {
    if !on.linux {
        return Ok(());
    }
    on.ask("mem-set linux 160")?;
    on.ask_until("list --json linux", |list| list.contains("\"memory_mib\":160"))?;
    on.ask("mem-set linux 220")?;
    on.ask_until("list --json linux", |list| list.contains("\"memory_mib\":220"))?;
    on.ask("vcpu-set linux 1")?;
    on.ask_until("list --json linux", |list| list.contains("\"vcpus\":1"))?;
    on.ask("vcpu-set linux 2")?;
    // Where nobody else does, as a distribution's rule for new CPUs would, the CPU is to be taken into use.
    on.type_at("linux", &format!("{TAKE_CPU_1} && echo us''ed\r"), "used")?;
    on.ask_until("list --json linux", |list| list.contains("\"vcpus\":2"))?;
    Ok(())
}

fn linux_keys(on: &mut Running) -> Result<()> {
    if !on.linux {
        return Ok(());
    }
    on.ask("sysrq linux m")?;
    on.type_at("linux", "\r", "Show Memory")?;
    on.ask("trigger linux nmi")?;
    on.type_at("linux", "\r", "NMI")?;
    on.ask("reboot -w linux")?;
    on.type_at("linux", "echo rea''dy\r", "ready")?;
    on.ask("shutdown -w linux")?;
    Ok(())
}

/// A bzImage around this packed kernel, with the unpacked length behind it.
fn bzimage(packed: &[u8], len: usize) -> Result<Vec<u8>> {
    let mut file = vec![0; 1024];
    file[0x1f1] = 1;
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x24c..0x250].copy_from_slice(&u32::try_from(packed.len() + 4)?.to_le_bytes());
    file.extend(packed);
    file.extend(u32::try_from(len)?.to_le_bytes());
    Ok(file)
}

/// Packs as `lz4 -l` does: blocks of 8 MiB, each behind its length.
fn lz4(kernel: &[u8]) -> Result<Vec<u8>> {
    let mut out = vec![0x02, 0x21, 0x4c, 0x18];
    for block in kernel.chunks(8 << 20) {
        let packed = lz4_flex::block::compress(block);
        out.extend(u32::try_from(packed.len())?.to_le_bytes());
        out.extend(packed);
    }
    Ok(out)
}

fn packed(on: &mut Running) -> Result<()> {
    if !on.linux {
        return Ok(());
    }
    let file = std::fs::read(linux::get()?.kernel)?;
    let kernel = dom0::toolstack::unpack::unpack(&file)?;
    let zstd = ruzstd::encoding::compress_to_vec(&*kernel, ruzstd::encoding::CompressionLevel::Fastest);
    for (packing, packed) in [("zstd", zstd), ("lz4", lz4(&kernel)?)] {
        let text = format!(
            "name = \"{packing}\"\nkernel = \"k\"\nramdisk = \"/boot/initrd\"\nmemory = 192\nextra = \"console=hvc0\"\n"
        );
        let mut client = on.client()?;
        client.bring("p.toml", text.as_bytes())?;
        client.bring("k", &bzimage(&packed, kernel.len())?)?;
        let (_, status, problem) = client.request("create p.toml", LIMIT)?;
        ensure!(status == 0, "create failed: {problem}");
        drop(client);
        on.type_at(packing, "echo rea''dy\r", "ready")?;
        on.ask(&format!("destroy {packing}"))?;
    }
    Ok(())
}

fn all_gone(on: &mut Running) -> Result<()> {
    let Value::Array(rows) = serde_json::from_str(&on.ask("list --json")?)? else {
        bail!("list --json is no list");
    };
    ensure!(rows.len() == 1, "there are still {rows:?}");
    let free = on.free()?;
    ensure!(free.abs_diff(on.free_mib) <= 1, "{} MiB were free at first, now {free}", on.free_mib);
    on.ask("poweroff")?;
    on.machine.finish(Duration::from_secs(5));
    Ok(())
}
