//! What the toolstack writes, a real front end and a real back end find each other by.

use std::cell::RefCell;
use std::rc::Rc;

use dom0::ids::DomId;
use dom0::toolstack::build::Built;
use dom0::toolstack::config;
use dom0::toolstack::nodes::{self, DevicePaths, Entry};
use dom0::xenstore::tree::Caller;
use dom0::xenstore::{LocalStore, Path, Quota, Server};
use pv_abi::Mfn;
use pv_bus::{Port, Store, Transaction};

const TEXT: &str = r#"
name = "demo"
kernel = "/boot/demo"
memory = 64
vcpus = 2
disk = ["format=raw, vdev=xvda, access=ro, target=/dev/vda"]
vif = ["mac=00:16:3e:00:00:07"]
"#;

fn entries() -> Vec<Entry> {
    let config = config::parse("demo.toml", TEXT).expect("good");
    let built = Built {
        domain: DomId(3),
        store_frame: Mfn(0x100),
        store_port: Port(1),
        console_frame: Mfn(0x101),
        console_port: Port(2),
    };
    let mut entries = nodes::home(&config, &built, "uuid");
    entries.extend(nodes::disk(DomId(3), &config.disks[0]));
    entries.extend(nodes::vif(DomId(3), 0, &config.vifs[0]));
    entries
}

fn store() -> (Rc<RefCell<Server>>, LocalStore) {
    let server = Rc::new(RefCell::new(Server::new(Quota::default())));
    let mut local = LocalStore::connect(server.clone(), 0);
    for entry in entries() {
        local.write(Transaction::NONE, &entry.path, entry.value.as_bytes()).expect("written");
        if let Some(perms) = &entry.perms {
            local.set_permissions(Transaction::NONE, &entry.path, perms).expect("set");
        }
    }
    (server, local)
}

#[test]
fn both_halves_of_a_device_point_at_each_other() {
    let (_, mut store) = store();
    for (kind, number) in [("vbd", 51712), ("vif", 0)] {
        let paths = DevicePaths::new(DomId(3), kind, number);
        assert_eq!(store.text(&format!("{}/backend", paths.front)), Some(paths.back.clone()));
        assert_eq!(store.text(&format!("{}/frontend", paths.back)), Some(paths.front.clone()));
        assert_eq!(store.text(&format!("{}/frontend-id", paths.back)).as_deref(), Some("3"));
        assert_eq!(store.text(&format!("{}/state", paths.front)).as_deref(), Some("1"));
    }
    assert_eq!(store.text("/local/domain/0/backend/vbd/3/51712/mode").as_deref(), Some("r"));
    assert_eq!(store.text("/local/domain/3/device/vif/0/mac").as_deref(), Some("00:16:3e:00:00:07"));
}

#[test]
fn a_guest_writes_its_front_ends_and_reads_its_back_ends_and_nothing_else() {
    let (server, _) = store();
    let server = server.borrow();
    let guest = Caller::domain(DomId(3));
    let perms = |path: &str| {
        let path = Path::resolve(path, DomId(0)).expect("a path");
        server.tree().peek(&path).expect("there").perms.clone()
    };
    assert!(guest.writes(&perms("/local/domain/3/device/vbd/51712/state")));
    assert!(guest.writes(&perms("/local/domain/3/control/shutdown")));
    assert!(guest.reads(&perms("/local/domain/0/backend/vbd/3/51712/state")));
    assert!(!guest.writes(&perms("/local/domain/0/backend/vbd/3/51712/state")));
    assert!(guest.reads(&perms("/local/domain/3/memory/target")));
    for path in
        ["/local/domain/3", "/local/domain/3/device", "/local/domain/3/console/ring-ref", "/local/domain/3/name"]
    {
        assert!(!guest.writes(&perms(path)), "{path}");
    }
    assert!(!Caller::domain(DomId(4)).reads(&perms("/local/domain/3/device/vif/0/mac")));
}
