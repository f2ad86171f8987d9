//! What can be measured on this machine: everything but the kernel's own part.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::domains::{self, Guest};
use super::measure::{Bench, Pipe, Sample, Way};
use super::stage::{self, Stage};
use super::work;
use crate::report::say;

/// Everything that was measured in one place.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// By work, ours and theirs.
    pub(crate) pairs: BTreeMap<String, [Sample; 2]>,
    /// How many guests the rows with many have.
    pub(crate) many: usize,
    /// Start and end of a program that is given nothing to do, and of `/bin/true` in turn with it.
    pub(crate) starts: Vec<(String, [Sample; 2])>,
    /// Peak memory in KiB: what, and of each program.
    pub(crate) memory: Vec<(String, Vec<u64>)>,
    pub(crate) growth: Vec<Growth>,
    /// What the place tells of itself.
    pub(crate) facts: Vec<(String, String)>,
}

/// How one thing grows with another.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Growth {
    /// The file of its plot.
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) along: String,
    /// Each curve with its name.
    pub(crate) curves: Vec<(String, Vec<Point>)>,
}

/// A point of a curve.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Point {
    /// How many.
    pub(crate) count: usize,
    pub(crate) seconds: f64,
    /// In KiB, of the program of the pipe that needed most.
    pub(crate) peak: Option<u64>,
}

/// How much is done.
#[derive(Debug, Clone, Copy)]
struct Extent {
    rounds: usize,
    many: usize,
    most_loaded: usize,
    most_domains: usize,
}

impl Extent {
    fn of(quick: bool) -> Self {
        if quick {
            Self { rounds: 5, many: 30, most_loaded: 100, most_domains: 1000 }
        } else {
            Self { rounds: 25, many: 1000, most_loaded: 10_000, most_domains: 100_000 }
        }
    }
}

/// How aa-load is told to merge.
const MERGE: &[&str] = &["--merge"];

/// The programs of both sides, and where they work.
struct Sides<'a> {
    tools: &'a Path,
    original: &'a Path,
    stage: &'a Stage,
    load: Vec<OsString>,
}

impl Sides<'_> {
    fn tool(&self, name: &str) -> PathBuf {
        self.tools.join(name)
    }

    /// A call of either helper.
    fn helper(program: &Path, words: &[&str], guest: &Guest) -> Pipe {
        let mut all: Vec<OsString> = vec![program.into()];
        all.extend(words.iter().map(OsString::from));
        all.extend(["-u".into(), guest.profile().into()]);
        Pipe::program(all).reads(&guest.xml)
    }

    fn theirs(&self, words: &[&str], guest: &Guest) -> Pipe {
        Self::helper(self.original, words, guest)
    }

    /// derive, render and load of a guest, or of all in a directory.
    fn start(&self, xml: &Path, render: &[&str], load: &[&str]) -> Pipe {
        let mut loads = self.load.clone();
        loads.extend(load.iter().map(OsString::from));
        stage::start(self.tools, &loads, xml, render)
    }

    /// A host on which this guest never started, and whose kernel takes it.
    fn never_started(&self, guest: &Guest) -> Result<()> {
        self.stage.forget(&guest.profile())?;
        self.stage.holds(&guest.profile(), None)
    }
}

/// Measures everything, in the stage's namespace.
pub(super) fn measure(stage: &Stage, tools: &Path, original: &Path, quick: bool) -> Result<Measured> {
    stage.mount()?;
    let extent = Extent::of(quick);
    let sides = Sides { tools, original, stage, load: stage.aa_load(tools) };
    let mut bench = Bench::new(&stage.dir)?;
    let mut measured = Measured { many: extent.many, ..Measured::default() };
    starts(&mut bench, &sides, extent, &mut measured)?;
    one_guest(&mut bench, &sides, extent, &mut measured)?;
    many_guests(&mut bench, &sides, extent, &mut measured)?;
    loaded(&mut bench, &sides, extent, &mut measured)?;
    growth(&mut bench, &sides, extent, &mut measured)?;
    Ok(measured)
}

/// Keeps a pair of samples and shows them.
fn keep(measured: &mut Measured, id: &str, samples: [Sample; 2]) -> Result<()> {
    let what = work::find(id).map_or(id, |work| work.what);
    let [ours, theirs] = &samples;
    say!(
        "{what}: {:.2} ms against {:.2} ms, {:.1} times",
        ours.wall() * 1e3,
        theirs.wall() * 1e3,
        theirs.wall() / ours.wall()
    )?;
    measured.pairs.insert(id.to_owned(), samples);
    Ok(())
}

fn starts(bench: &mut Bench, sides: &Sides<'_>, extent: Extent, measured: &mut Measured) -> Result<()> {
    let rounds = extent.rounds * 4;
    let floor = || Way::plain(Pipe::program(["/bin/true"]));
    keep(measured, "floor", bench.in_turn(rounds, &[floor(), floor()])?)?;
    for tool in crate::workspace::TOOLS {
        let words: [OsString; 2] = [sides.tool(tool).into(), "--help".into()];
        let samples = bench.in_turn(rounds, &[Way::plain(Pipe::program(words)), floor()])?;
        measured.starts.push((tool.to_owned(), samples));
    }
    Ok(())
}

fn one_guest(bench: &mut Bench, sides: &Sides<'_>, extent: Extent, measured: &mut Measured) -> Result<()> {
    let stage = sides.stage;
    let guests = stage.dir.join("guests");
    let disks = domains::chain(&stage.dir.join("images"), "one", 2)?;
    let top: Vec<PathBuf> = disks.first().cloned().into_iter().collect();
    let plugged = stage.dir.join("images/plugged.img");
    fs::write(&plugged, [0; 4096])?;
    let guest = domains::write(&guests, 1, &top)?;
    let with_plugged =
        domains::write(&stage.dir, 1, &[top.as_slice(), std::slice::from_ref(&plugged)].concat())?;
    let rounds = extent.rounds;

    let derive: [OsString; 2] = [sides.tool("aa-derive").into(), guest.xml.clone().into()];
    let derive = Pipe::program(derive);
    let dry = sides.theirs(&["-d", "-c"], &guest);
    stage.forget(&guest.profile())?;
    measured.memory.push(("`aa-derive`, one domain".into(), bench.peaks(&derive)?.1));
    measured.memory.push(("`virt-aa-helper -d -c`, one domain".into(), bench.peaks(&dry)?.1));
    keep(measured, "derive", bench.in_turn(rounds * 2, &[Way::plain(derive), Way::plain(dry)])?)?;

    let never = || sides.never_started(&guest);
    let create = || Way::new(never, [sides.theirs(&["-c"], &guest)]);
    for (id, render, load) in [
        ("first", [].as_slice(), [].as_slice()),
        ("first-minimal", &["--minimal"], &[]),
        ("first-merge", &[], MERGE),
        ("first-merge-minimal", &["--minimal"], MERGE),
    ] {
        let ours = Way::new(never, [sides.start(&guest.xml, render, load)]);
        keep(measured, id, bench.in_turn(rounds, &[ours, create()])?)?;
    }
    let empty = || {
        never()?;
        stage.forget_bases()
    };
    let ours = Way::new(empty, [sides.start(&guest.xml, &[], MERGE)]);
    keep(measured, "first-of-host", bench.in_turn(rounds, &[ours, create()])?)?;
    measured.memory.push(("first start".into(), bench.peaks(&sides.start(&guest.xml, &[], &[]))?.1));

    let prepare = Bench::new(&stage.dir.join("guests")).map(std::cell::RefCell::new)?;
    let once = |pipe: Pipe| prepare.borrow_mut().once(&Way::plain(pipe)).map(drop);
    let started = |render: &'static [&'static str]| {
        let (once, guest) = (&once, &guest);
        move || {
            never()?;
            once(sides.start(&guest.xml, render, &[]))
        }
    };
    let in_force = || {
        // Longer policy that was written before would show behind this.
        stage.forget_what_was_written()?;
        started(&[])()?;
        hold_what_was_written(stage)
    };
    let restart = Way::new(in_force, [sides.start(&guest.xml, &[], &[])]);
    keep(measured, "restart", bench.in_turn(rounds, &[restart, create()])?)?;

    let disk = plugged.to_string_lossy().into_owned();
    let append = || {
        let before = || {
            never()?;
            once(sides.theirs(&["-c"], &guest))
        };
        Way::new(before, [sides.theirs(&["-r", "-F", &disk], &with_plugged)])
    };
    for (id, render, load) in [
        ("plug", [].as_slice(), [].as_slice()),
        ("plug-minimal", &["--minimal"], &[]),
        ("plug-merge", &[], MERGE),
        ("plug-merge-minimal", &["--minimal"], MERGE),
    ] {
        let ours = Way::new(started(render), [sides.start(&with_plugged.xml, render, load)]);
        keep(measured, id, bench.in_turn(rounds, &[ours, append()])?)?;
    }

    let dropin = sides.tool("virt-aa-helper");
    let calls = |program: &Path| {
        let of_run = "/var/lib/libvirt/qemu";
        let appended = [
            format!("{of_run}/domain-2-bench-1/{{,**}}"),
            format!("{of_run}/channel/target/domain-2-bench-1/{{,**}}"),
            format!("{of_run}/domain-2-bench-1/master-key.aes"),
        ];
        let mut pipes = vec![Sides::helper(program, &["-c"], &guest)];
        pipes.extend(appended.iter().map(|what| Sides::helper(program, &["-r", "-F", what], &guest)));
        Way::new(never, pipes)
    };
    keep(measured, "calls", bench.in_turn(rounds, &[calls(&dropin), calls(sides.original)])?)?;

    let mut remove = sides.load.clone();
    remove.extend(["remove".into(), guest.profile().into()]);
    let delete = || {
        let before = || {
            never()?;
            once(sides.theirs(&["-c"], &guest))
        };
        Way::new(before, [sides.theirs(&["-D"], &guest)])
    };
    let ours = Way::new(|| stage.holds(&guest.profile(), None), [Pipe::program(remove)]);
    keep(measured, "unload", bench.in_turn(rounds, &[ours, delete()])?)?;
    Ok(())
}

/// The kernel holds exactly what was last written to it.
fn hold_what_was_written(stage: &Stage) -> Result<()> {
    let written = stage.replaced()?;
    for profile in aa_load::blob::parse(&written)? {
        stage.holds(profile.name, Some(&profile.sha256()))?;
    }
    Ok(())
}

fn many_guests(bench: &mut Bench, sides: &Sides<'_>, extent: Extent, measured: &mut Measured) -> Result<()> {
    let stage = sides.stage;
    let dir = stage.dir.join("many");
    let guests = make(stage, &dir, extent.many)?;
    let never = || {
        stage.forget_what_was_written()?;
        guests.iter().try_for_each(|guest| sides.never_started(guest))
    };
    say!("{} domains, one after another, with the original …", guests.len())?;
    let each = |words: &[&str]| guests.iter().map(|guest| sides.theirs(words, guest)).collect::<Vec<_>>();
    let mut theirs = Sample::default();
    theirs.push(bench.once(&Way::new(never, each(&["-c"])))?);
    let mut dry = Sample::default();
    dry.push(bench.once(&Way::new(never, each(&["-d", "-c"])))?);

    let derive: [OsString; 2] = [sides.tool("aa-derive").into(), dir.clone().into()];
    let render: [OsString; 2] = [sides.tool("aa-render").into(), "--stdout".into()];
    let [sample] = bench.in_turn(extent.rounds.min(7), &[Way::plain(Pipe::program(derive).into(render))])?;
    keep(measured, "derive-many", [sample, dry])?;

    for (id, render, load) in [
        ("cold-minimal", ["--minimal"].as_slice(), [].as_slice()),
        ("cold", &[], &[]),
        ("cold-merge", &[], MERGE),
        // The last: it writes all of them at once, and that is what the kernel holds from then on.
        ("direct", &[], &["--direct"]),
    ] {
        let mut sample = Sample::default();
        sample.push(bench.once(&Way::new(never, [sides.start(&dir, render, load)]))?);
        keep(measured, id, [sample, theirs.clone()])?;
    }
    hold_what_was_written(stage)?;
    let [sample] = bench.in_turn(3, &[Way::plain(sides.start(&dir, &[], &[]))])?;
    keep(measured, "warm", [sample, theirs])?;
    measured
        .memory
        .push((format!("{} profiles, warm", extent.many), bench.peaks(&sides.start(&dir, &[], &[]))?.1));
    never()?;
    stage.holds_nothing()?;
    fs::remove_dir_all(dir)?;
    Ok(())
}

/// A host with more and more guests: from their definitions to the kernel.
fn loaded(bench: &mut Bench, sides: &Sides<'_>, extent: Extent, measured: &mut Measured) -> Result<()> {
    let stage = sides.stage;
    let dir = stage.dir.join("loaded");
    let mut curves = [("cold", Vec::new()), ("warm", Vec::new()), ("`aa-load status`", Vec::new())];
    let mut status = sides.load.clone();
    status.push("status".into());
    let status = Pipe::program(status);
    for count in [1, 10, 100, 1000, 10_000].into_iter().filter(|&count| count <= extent.most_loaded) {
        stage.holds_nothing()?;
        stage.forget_what_was_written()?;
        let guests = make(stage, &dir, count)?;
        guests.iter().try_for_each(|guest| sides.never_started(guest))?;
        let pipe = sides.start(&dir, &["--minimal"], MERGE);
        let cold = bench.peaks(&pipe)?;
        // All of them in one write, which is what the kernel holds from then on.
        let direct = sides.start(&dir, &["--minimal"], &["--merge", "--direct"]);
        bench.once(&Way::plain(direct))?;
        hold_what_was_written(stage)?;
        let warm = bench.peaks(&pipe)?;
        let status = bench.peaks(&status)?;
        for ((name, points), (took, peaks)) in curves.iter_mut().zip([cold, warm, status]) {
            let peak = peaks.into_iter().max();
            say!("{count} guests loaded, {name}: {:.3} s, {} KiB", took.wall, peak.unwrap_or_default())?;
            points.push(Point { count, seconds: took.wall, peak });
        }
        guests.iter().try_for_each(|guest| stage.forget(&guest.profile()))?;
    }
    stage.holds_nothing()?;
    fs::remove_dir_all(&dir)?;
    measured.growth.push(Growth {
        id: "loaded".into(),
        title: "Guests of a host: derived, rendered (--minimal) and loaded (--merge)".into(),
        along: "guests".into(),
        curves: curves.into_iter().map(|(name, points)| (name.to_owned(), points)).collect(),
    });
    Ok(())
}

/// Makes guests 1 to `count` in a directory of their own.
fn make(stage: &Stage, dir: &Path, count: usize) -> Result<Vec<Guest>> {
    fs::create_dir_all(dir)?;
    let images = stage.dir.join("images");
    let overlays = (0..count.min(100))
        .map(|number| domains::chain(&images, &format!("many-{number}"), 2))
        .collect::<Result<Vec<_>>>()?;
    (1..=count)
        .map(|number| {
            let disks = overlays.get(number % overlays.len()).and_then(|chain| chain.first());
            domains::write(dir, number, disks.map(std::slice::from_ref).unwrap_or_default())
        })
        .collect()
}

fn growth(bench: &mut Bench, sides: &Sides<'_>, extent: Extent, measured: &mut Measured) -> Result<()> {
    let stage = sides.stage;
    let images = stage.dir.join("images");
    let derive = |xml: &Path| Pipe::program::<OsString>([sides.tool("aa-derive").into(), xml.into()]);
    let dry = |guest: &Guest| sides.theirs(&["-d", "-c"], guest);

    let mut points = Vec::new();
    let dir = stage.dir.join("growing");
    for count in [1, 10, 100, 1000, 10_000, 100_000].into_iter().filter(|&count| count <= extent.most_domains)
    {
        make(stage, &dir, count)?;
        let render: [OsString; 2] = [sides.tool("aa-render").into(), "--stdout".into()];
        let pipe = derive(&dir).into(render);
        let (took, peaks) = bench.peaks(&pipe)?;
        let peak = peaks.into_iter().max();
        // The longest are run once, with the little that GNU time takes.
        let seconds = if count > 1000 {
            took.wall
        } else {
            {
                let [sample] = bench.in_turn(5, &[Way::plain(pipe)])?;
                sample.wall()
            }
        };
        say!("{count} domains: {seconds:.3} s, {} KiB", peak.unwrap_or_default())?;
        points.push(Point { count, seconds, peak });
    }
    fs::remove_dir_all(&dir)?;
    measured.growth.push(Growth {
        id: "domains".into(),
        title: "Domains in a directory, derived and rendered".into(),
        along: "domains".into(),
        curves: vec![("both programs".into(), points)],
    });

    let chains: &[(&str, &str, &[usize], &str)] = &[
        ("disks", "Disks of one domain", &[1, 10, 100, 300, 1000], "disks"),
        ("chain", "Images in the backing chain of one disk", &[1, 2, 5, 10, 50, 100, 200], "images"),
    ];
    for (id, title, counts, along) in chains {
        let mut curves = [("aa-derive", Vec::new()), ("libvirt's helper", Vec::new())];
        for &count in *counts {
            let disks: Vec<PathBuf> = if *id == "disks" {
                (0..count)
                    .map(|disk| domains::chain(&images, &format!("disk-{disk}"), 1))
                    .collect::<Result<Vec<_>>>()?
                    .concat()
            } else {
                domains::chain(&images, "deep", count)?.into_iter().take(1).collect()
            };
            let guest = domains::write(&stage.dir, 2, &disks)?;
            let pipes = [derive(&guest.xml), dry(&guest)];
            let rounds = extent.rounds.min(9);
            let samples = bench.in_turn(rounds, &pipes.clone().map(Way::plain))?;
            for ((pipe, sample), (_, points)) in pipes.iter().zip(&samples).zip(&mut curves) {
                let peak = bench.peaks(pipe)?.1.into_iter().max();
                points.push(Point { count, seconds: sample.wall(), peak });
            }
            let [ours, theirs] = &samples;
            say!("{count} {along}: {:.2} ms against {:.2} ms", ours.wall() * 1e3, theirs.wall() * 1e3)?;
        }
        measured.growth.push(Growth {
            id: (*id).to_owned(),
            title: (*title).to_owned(),
            along: (*along).to_owned(),
            curves: curves.into_iter().map(|(name, points)| (name.to_owned(), points)).collect(),
        });
    }
    Ok(())
}
