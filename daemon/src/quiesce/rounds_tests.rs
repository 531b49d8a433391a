use super::*;

/// In KiB.
const MIB: u64 = 1024;

/// A disk of a model machine, in KiB and KiB a second.
#[derive(Clone, Copy, Debug, Default)]
struct Disk {
    dirty: u64,
    queue: u64,
    speed: u64,
    /// What writers make dirty, in pages a second.
    rate: u64,
    /// Of the next such KiB, in thousandths.
    begun: u64,
    /// Of a request: it is ended as a whole.
    clump: u64,
    /// Of the request at work, in thousandths.
    done: u64,
    written: u64,
}

/// `mib` dirty on a disk of `speed` MiB a second.
fn disk(mib: u64, speed: u64) -> Disk {
    Disk {
        dirty: mib * MIB,
        speed: speed * MIB,
        clump: 1280,
        ..Disk::default()
    }
}

#[derive(Debug, Default)]
struct Machine {
    disks: Vec<Disk>,
    /// What is dirty on a server, or on a disk that is left out.
    elsewhere: u64,
    /// What is written of it, in KiB a second.
    drain: u64,
    drained: u64,
    /// What programs write past the page cache, so far and in KiB a second.
    direct: u64,
    direct_rate: u64,
    woken: u32,
    rounds: u32,
}

impl Machine {
    fn sample(&self) -> Sample {
        Sample {
            dirty: self.elsewhere + self.disks.iter().map(|disk| disk.dirty).sum::<u64>(),
            writing: self.disks.iter().map(|disk| disk.queue).sum(),
            written: self.drained + self.disks.iter().map(|disk| disk.written).sum::<u64>(),
        }
    }

    fn look(&self, watched: bool) -> Activity {
        if !watched {
            return Activity::default();
        }
        let written = self.disks.iter().map(|disk| disk.written);
        Activity {
            in_flight: self.disks.iter().map(|disk| disk.queue).collect(),
            written: Some(self.direct + written.sum::<u64>()),
        }
    }

    fn wake(&mut self) {
        self.woken += 1;
        for disk in &mut self.disks {
            disk.queue += std::mem::take(&mut disk.dirty);
        }
    }

    fn pass(&mut self, ms: u64) {
        let drained = (self.drain * ms / 1000).min(self.elsewhere);
        self.elsewhere -= drained;
        self.drained += drained;
        self.direct += self.direct_rate * ms / 1000;
        for _ in 0..ms {
            for disk in &mut self.disks {
                disk.begun += disk.rate;
                disk.dirty += disk.begun / 1000;
                disk.begun %= 1000;
                disk.done = if disk.queue > 0 {
                    disk.done + disk.speed
                } else {
                    0
                };
                while disk.queue > 0 && disk.done >= disk.clump.min(disk.queue) * 1000 {
                    let ended = disk.clump.min(disk.queue);
                    disk.done -= ended * 1000;
                    disk.queue -= ended;
                    disk.written += ended;
                }
            }
        }
    }

    /// What is still to be written on the disk where that takes longest.
    fn longest_rest(&self) -> Duration {
        let rest = |disk: &Disk| match (disk.dirty + disk.queue, disk.speed) {
            (0, _) => Duration::ZERO,
            (_, 0) => Duration::MAX,
            (pages, speed) => Duration::from_millis(pages * 1000 / speed),
        };
        self.disks.iter().map(rest).max().unwrap_or_default()
    }

    /// How long is waited.
    fn run(&mut self, watched: bool) -> Duration {
        let started = Instant::now();
        let mut now = started;
        let mut rounds = Rounds::begin(now, self.sample(), &self.look(watched));
        self.wake();
        loop {
            let pause = match rounds.look(now, self.sample(), &self.look(watched)) {
                Next::Stop => return now - started,
                Next::Wait(pause) => pause,
                Next::Wake(pause) => {
                    self.wake();
                    pause
                }
                Next::Round => {
                    self.rounds += 1;
                    self.wake();
                    Duration::from_millis(1)
                }
            };
            now += pause;
            self.pass(pause.as_millis() as u64);
            assert!(now - started < Duration::from_secs(1000), "{self:?}");
        }
    }
}

fn machine(disks: &[Disk]) -> Machine {
    Machine {
        disks: disks.to_vec(),
        ..Machine::default()
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn little_is_not_waited_for() {
    let few = Sample {
        dirty: FEW,
        ..Sample::default()
    };
    assert!(!Rounds::pay(few));
    let more = Sample {
        dirty: FEW + 1,
        ..few
    };
    assert!(Rounds::pay(more));
}

#[test]
fn disks_are_waited_for_until_they_are_done_however_much_there_is() {
    for (mib, speed) in [(40, 20), (6000, 100), (40, 4), (4, 1)] {
        for watched in [true, false] {
            let mut machine = machine(&[disk(mib, speed)]);
            let waited = machine.run(watched);
            assert!(
                machine.longest_rest() <= ms(FEW * 1000 / (speed * MIB)),
                "{mib} MiB"
            );
            let least = ms(mib * 1000 / speed);
            assert!(waited < least + ms(150), "{waited:?} for {mib} MiB");
        }
    }
}

#[test]
fn the_slow_disk_among_fast_ones_is_waited_for() {
    let mut disks = [disk(40, 20); 8];
    disks[7].speed = 4 * MIB;
    // And what writers dirty meanwhile, everywhere.
    for disk in &mut disks {
        disk.rate = 200;
    }
    let mut machine = machine(&disks);
    let waited = machine.run(true);
    assert!(machine.longest_rest() < ms(50), "{machine:?}");
    assert!(waited < ms(11_000), "{waited:?}");
}

#[test]
fn a_disk_that_ends_a_request_every_few_seconds_is_waited_for() {
    let mut slow = disk(4, 1);
    slow.clump = 4096;
    let mut machine = machine(&[slow, disk(1, 100)]);
    machine.run(true);
    assert!(machine.longest_rest() < ms(100), "{machine:?}");
}

#[test]
fn writers_half_as_fast_as_the_disks_make_shorter_and_shorter_rounds() {
    let mut busy = disk(40, 20);
    busy.rate = 10 * MIB;
    let mut machine = machine(&[busy; 4]);
    let waited = machine.run(true);
    assert!(machine.rounds >= 3, "{} rounds", machine.rounds);
    assert!(machine.longest_rest() < ms(50), "{machine:?}");
    assert!(waited < ms(5_000), "{waited:?}");
}

#[test]
fn writers_as_fast_as_the_disk_are_not_waited_for() {
    let mut busy = disk(50, 20);
    busy.rate = 20 * MIB;
    let waited = machine(&[busy]).run(true);
    assert!(waited <= ms(3_000), "{waited:?}");
}

#[test]
fn a_trickle_of_writes_does_not_keep_it_waiting() {
    let mut trickle = disk(40, 20);
    trickle.rate = MIB;
    let waited = machine(&[trickle; 4]).run(true);
    assert!(waited < ms(2_200), "{waited:?}");
}

#[test]
fn writers_on_a_fast_disk_are_written_back_while_a_slow_one_is_waited_for() {
    let mut fast = disk(10, 100);
    fast.rate = 20 * MIB;
    let mut machine = machine(&[disk(40, 4), fast]);
    let waited = machine.run(true);
    assert!(machine.longest_rest() < ms(50), "{machine:?}");
    assert!(machine.woken > 5 && waited < ms(13_000), "{waited:?}");
}

#[test]
fn a_disk_that_writes_nothing_is_not_waited_for_long() {
    let mut machine = machine(&[disk(50, 0)]);
    let waited = machine.run(true);
    assert!(waited >= DEAD && waited < DEAD * 2, "{waited:?}");
}

#[test]
fn what_is_dirty_on_no_disk_of_ours_is_not_waited_for_long() {
    let mut machine = machine(&[disk(10, 100)]);
    machine.elsewhere = 100 * MIB;
    let waited = machine.run(true);
    assert!(waited < CALLED_AGAIN + ms(500), "{waited:?}");
    assert_eq!(machine.longest_rest(), Duration::ZERO);
}

#[test]
fn what_is_written_on_no_disk_of_ours_is_not_waited_for_either() {
    // 4 GiB on a disk that is left out, and nothing on ours.
    let mut machine = machine(&[disk(0, 100)]);
    (machine.elsewhere, machine.drain) = (4096 * MIB, 100 * MIB);
    let waited = machine.run(true);
    assert!(waited < CALLED_AGAIN + ms(500), "{waited:?}");
}

#[test]
fn what_programs_write_past_the_page_cache_is_no_write_back() {
    let mut machine = machine(&[disk(100, 20)]);
    machine.direct_rate = 500 * MIB;
    machine.run(true);
    assert_eq!(machine.longest_rest(), Duration::ZERO, "{machine:?}");
}

#[test]
fn what_becomes_dirty_while_others_write_is_written_back() {
    let mut ours = disk(40, 20);
    ours.rate = 5 * MIB;
    let mut machine = machine(&[ours]);
    (machine.elsewhere, machine.drain) = (2048 * MIB, 100 * MIB);
    machine.run(true);
    assert!(machine.longest_rest() < ms(400), "{machine:?}");
}

#[test]
fn rounds_that_get_hardly_shorter_are_bounded_in_number() {
    let mut busy = disk(40, 20);
    busy.rate = 20 * MIB * 85 / 100;
    let mut machine = machine(&[busy]);
    machine.run(true);
    assert!(machine.rounds < MOST_ROUNDS, "{machine:?}");
}

#[test]
fn a_disk_that_is_never_idle_for_its_readers_and_syncs_is_not_waited_for_long() {
    let started = Instant::now();
    let sample = |written| Sample {
        dirty: 10 * FEW,
        writing: 0,
        written,
    };
    let disk = |written| Activity {
        in_flight: vec![1],
        written: Some(written),
    };
    let mut rounds = Rounds::begin(started, sample(0), &disk(0));
    let mut now = started;
    let mut looks = 0;
    while rounds.look(now, sample(looks), &disk(looks)) != Next::Stop {
        now += ms(10);
        // A page a look.
        looks += 4;
    }
    assert!(now - started <= WINDOW + ms(10));
}

#[test]
fn journals_are_committed_before_a_round_that_lasts_and_not_behind_data() {
    let started = Instant::now();
    let sample = |dirty, writing| Sample {
        dirty,
        writing,
        written: 0,
    };
    let disk = |in_flight| Activity {
        in_flight: vec![in_flight],
        written: Some(0),
    };
    let (busy, idle) = (disk(2 * HARDLY_BUSY), disk(0));
    let unknown = Activity {
        written: None,
        ..idle.clone()
    };
    let mut rounds = Rounds::begin(started, sample(10 * MUCH, 0), &idle);
    assert!(!rounds.wants_commit(started, sample(10 * MUCH, 2 * MUCH), &busy));
    assert!(!rounds.wants_commit(started, sample(10 * MUCH, 2 * MUCH), &unknown));
    assert!(!rounds.wants_commit(started, sample(MUCH / 2, 0), &idle));
    assert!(rounds.wants_commit(started, sample(10 * MUCH, 0), &idle));
    // The next round soon after.
    assert!(!rounds.wants_commit(started + YOUNG / 2, sample(10 * MUCH, 0), &idle));
    // However much is on its way to other disks.
    assert!(rounds.wants_commit(started + YOUNG, sample(10 * MUCH, 9 * MUCH), &idle));
}

#[test]
fn flushers_that_have_not_begun_are_waited_for() {
    let started = Instant::now();
    let dirty = Sample {
        dirty: 100 * MIB,
        ..Sample::default()
    };
    let idle = Activity {
        in_flight: vec![0],
        written: Some(0),
    };
    let mut rounds = Rounds::begin(started, dirty, &idle);
    let mut now = started;
    while rounds.look(now, dirty, &idle) != Next::Stop {
        now += ms(10);
    }
    assert!(now - started >= CALLED_AGAIN);
}

#[test]
fn a_round_that_wrote_but_did_not_get_on_is_over_sooner() {
    let started = Instant::now();
    let mut sample = Sample {
        dirty: 100 * MIB,
        ..Sample::default()
    };
    let mut disk = Activity {
        in_flight: vec![0],
        written: Some(0),
    };
    let mut rounds = Rounds::begin(started, sample, &disk);
    // Written as fast as writers dirty it.
    sample.written = 50 * MIB;
    disk.written = Some(sample.written);
    let mut now = started;
    while rounds.look(now, sample, &disk) != Next::Stop {
        now += ms(10);
    }
    assert!(now - started >= BEGIN && now - started < BEGIN + ms(100));
}
