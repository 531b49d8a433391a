//! smoke
use std::time::Instant;
use tests::{agent::Agent, assets::Kernel, guest::*, host::Operation};
fn go(kernel: Kernel) {
    let t = Instant::now();
    let mut g = Guest::boot(&Plan {
        kernel,
        with_hv_vssd: false,
        disks: &[
            Disk::new(FsKind::Ext4),
            Disk::new(FsKind::Xfs),
            Disk::new(FsKind::Btrfs),
        ],
        name: "smoke".into(),
    })
    .unwrap();
    println!("boot {:?}", t.elapsed());
    g.sh("for i in ext4:vda xfs:vdb btrfs:vdc; do mkdir -p /mnt/${i%:*}; mount -t ${i%:*} /dev/${i#*:} /mnt/${i%:*}; done; cat /proc/mounts >&2").unwrap();
    println!("mounted {:?}", t.elapsed());
    g.plug_in().unwrap();
    println!("{:?}", g.host().unwrap().negotiate().unwrap());
    Agent::CDaemon.start(&mut g).unwrap();
    println!("registered {:?}", t.elapsed());
    for d in ["/mnt/ext4", "/mnt/xfs", "/mnt/btrfs"] {
        g.start_writer(d).unwrap();
    }
    for _ in 0..3 {
        for op in [Operation::HOT_BACKUP, Operation::FREEZE] {
            println!("{:?} {:?}", op, g.host().unwrap().request(op).unwrap());
        }
        std::thread::sleep(std::time::Duration::from_millis(500));
        for d in ["/mnt/ext4", "/mnt/xfs", "/mnt/btrfs"] {
            println!("{:?}", g.writer(d).unwrap());
        }
        println!("{:?}", g.host().unwrap().request(Operation::THAW).unwrap());
        std::thread::sleep(std::time::Duration::from_millis(500));
        for d in ["/mnt/ext4", "/mnt/xfs", "/mnt/btrfs"] {
            println!("{:?}", g.writer(d).unwrap());
        }
    }
    println!("log {}", Agent::CDaemon.log(&g).unwrap());
    println!("end {:?}", t.elapsed());
}
#[test]
fn v6_1() {
    go(Kernel::V6_1)
}
#[test]
fn v6_12() {
    go(Kernel::V6_12)
}
