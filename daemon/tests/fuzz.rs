//! The fuzz targets of `tests/fuzz` on a fixed pseudo-random sequence: on any toolchain, the same every time.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[expect(unreachable_pub, reason = "it is the library of the fuzz targets")]
#[path = "../../tests/fuzz/src/lib.rs"]
mod targets;

/// A xorshift generator: no dependency, no seed from outside.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }

    /// Bytes of any kind.
    fn noise(&mut self, longest: usize) -> Vec<u8> {
        let length = self.below(longest + 1);
        (0..length).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    /// Pieces of what a parser knows, in any order, with now and then a byte changed.
    fn text(&mut self, pieces: &[&str], most: usize) -> Vec<u8> {
        let count = self.below(most + 1);
        let mut text: Vec<u8> = (0..count)
            .flat_map(|_| pieces[self.below(pieces.len())].bytes())
            .collect();
        if !text.is_empty() && self.below(3) == 0 {
            let at = self.below(text.len());
            text[at] = self.next().to_le_bytes()[0];
        }
        text
    }
}

const SEED: u64 = 0x0dd5_eed5_0f5e_ed50;

#[test]
fn messages_are_decoded_by_their_length_alone() {
    let mut dice = Dice(SEED);
    for _ in 0..20_000 {
        targets::vss(&dice.noise(24));
    }
}

#[test]
fn no_line_of_a_mount_table_is_skipped_or_fatal() {
    let whole = [
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n",
        "36 22 0:31 /sub\\040vol /mnt/a\\011b rw shared:7 master:2 - btrfs /dev/sdb rw,subvol=/sub\\040vol\n",
        "41 22 0:40 /@/a /a rw - btrfs /dev/sdb rw,subvolid=256,subvol=/@/a\n",
        "42 22 0:41 /@/b /b rw - btrfs /dev/sdb rw,subvolid=257,subvol=/@/b\n",
        "43 22 0:41 /@/a /a/c rw - btrfs /dev/sdb rw,subvolid=256,subvol=/@/a\n",
        "50 22 0:50 / /tank rw - zfs tank/name with blanks rw,xattr\n",
        "51 22 0:51 / /tank/a rw - fuse.x one two  ro,user_id=0 three\n",
        "99 22 0:50 / /mnt/\\134 ro - overlay none rw,lowerdir=/a\\054b,upperdir=/c\n",
    ];
    let parts = [
        "22 ",
        "1 ",
        "8:1 ",
        "/ ",
        "/mnt\\040 ",
        "rw ",
        "shared:1 ",
        "- ",
        "ext4 ",
        "zfs ",
        "btrfs ",
        "0:40 ",
        "0:41 ",
        "ro",
        "rw,subvolid=256",
        "/dev/sda",
        " ",
        "\n",
        "\\",
        "\\777",
        ":",
    ];
    let mut dice = Dice(SEED);
    for _ in 0..5_000 {
        targets::mountinfo(&dice.noise(200));
        targets::mountinfo(&dice.text(&whole, 6));
        targets::mountinfo(&dice.text(&parts, 30));
    }
    // Tables of any length, up to some 300 KB, and lines of up to some 20 KB.
    for _ in 0..40 {
        targets::mountinfo(&dice.text(&whole, 4_000));
        let long = " ".repeat(dice.below(10_000)) + &"x".repeat(dice.below(10_000));
        let pieces = [&whole[..], &[long.as_str()]].concat();
        targets::mountinfo(&dice.text(&pieces, 8));
        targets::mountinfo(&dice.text(&[parts.as_slice(), &[long.as_str()]].concat(), 30));
    }
}

#[test]
fn no_sequence_of_events_leaves_anything_frozen_or_lies_to_the_host() {
    let mut dice = Dice(SEED);
    for _ in 0..20_000 {
        targets::session(&dice.noise(200));
    }
}

#[test]
fn a_configuration_is_within_its_bounds_or_refused_in_one_line() {
    let parts = [
        "[limits]\n",
        "hold = ",
        "freeze = ",
        "flush = ",
        "1",
        "0",
        "600",
        "-",
        "\n",
        "[filesystems]\n",
        "exclude_mount_points = ",
        "exclude_types = ",
        "[\"/srv\"]",
        "[\"srv\"]",
        "[]",
        "include_devices = ",
        "foreign_freeze = ",
        "strictness = ",
        "\"flush-only\"",
        "[hooks]\n",
        "total = ",
        "limit = ",
        "enabled = ",
        "true",
        "[hooks.by_name.\"10 \u{1b}x\"]\n",
        "on_failure = ",
        "\"continue\"",
        "[metrics]\n",
        "textfile = ",
        "\"/run/a.prom\"",
        "hooks.by_name.a.limit = 3\n",
        "limits.hold = 0x1f\n",
        "\"accept\"",
        "\"fail\"",
        "\"",
        "#",
        "=",
        "x = 1\n",
        "\\u0000",
        "é",
    ];
    let mut dice = Dice(SEED);
    for _ in 0..5_000 {
        targets::config(&dice.noise(100));
        targets::config(&dice.text(&parts, 12));
    }
}
