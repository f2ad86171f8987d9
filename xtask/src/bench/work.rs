//! What is measured, against what, and how much faster it should be.

/// One row of the tables.
#[derive(Debug)]
pub(super) struct Work {
    /// What the guest's script calls it.
    pub(super) id: &'static str,
    pub(super) what: &'static str,
    pub(super) against: &'static str,
    /// So many times faster at least.
    pub(super) at_least: Option<f64>,
    pub(super) aim: Option<f64>,
    /// Why not, where it is not reached.
    pub(super) why: &'static str,
}

const fn work(id: &'static str, what: &'static str, against: &'static str) -> Work {
    Work { id, what, against, at_least: None, aim: None, why: "" }
}

impl Work {
    const fn at_least(mut self, times: f64) -> Self {
        self.at_least = Some(times);
        self
    }

    const fn aim(mut self, times: f64) -> Self {
        self.aim = Some(times);
        self
    }

    const fn why(mut self, why: &'static str) -> Self {
        self.why = why;
        self
    }
}

/// Of everything that compiles libvirt's abstraction.
const COMPILE: &str = "Nearly all of it is one compile of libvirt's abstraction, with the flags that are fastest and keep \
    the bytes (of parser 4.1.0 there are none); the original takes one compile too, so the ratio cannot be much more than that \
    of the two sets of flags, times the cores where there are many profiles. `--minimal` has less to compile, and `--merge` nothing.";
/// Of everything that compiles a minimal profile.
const MINIMAL: &str = "Most of it is the compile of the minimal profile; three programs, two runs of the parser and the writes \
    that are safe on the disk are the rest.";
/// Of everything that merges.
const MERGE: &str = "No compile is left in it: the starts of three programs and of one run of the parser, which loads, are most.";
/// Of what is paid once.
const ONCE: &str = "Paid once for each base of a host, and again when an include, the parser or the features change: the base is \
    compiled under three names, so that what was found out of two is tried with the third.";
/// Of what hardly runs.
const START: &str = "The start of the program is more than half of it.";

/// All of it.
pub(super) const ALL: &[Work] = &[
    work("derive", "`aa-derive`, one domain", "`virt-aa-helper -d -c`").at_least(15.0).why(START),
    work(
        "derive-many",
        "`aa-derive DIR \\| aa-render --stdout`, MANY domains",
        "the same, one after another",
    )
    .at_least(150.0)
    .aim(500.0)
    .why("It is the reading of XML, of image headers and of links in paths, on all cores: more cores, more times faster."),
    work("first", "first start: derive, render, load, with libvirt's abstraction", "`virt-aa-helper -c`")
        .at_least(3.0)
        .why(COMPILE),
    work("first-minimal", "first start with `--minimal`", "`virt-aa-helper -c`")
        .at_least(10.0)
        .aim(20.0)
        .why(MINIMAL),
    work("first-merge", "first start with `aa-load --merge`, libvirt's abstraction", "`virt-aa-helper -c`")
        .at_least(3.0)
        .why(MERGE),
    work("first-merge-minimal", "first start with `--minimal` and `aa-load --merge`", "`virt-aa-helper -c`")
        .at_least(10.0)
        .aim(20.0)
        .why(MERGE),
    work("first-of-host", "the first guest of a host, with `aa-load --merge`, empty cache", "`virt-aa-helper -c`")
        .why(ONCE),
    work("restart", "restart of an unchanged guest", "`virt-aa-helper -c`").at_least(20.0),
    work("plug", "one disk plugged in, with libvirt's abstraction", "`virt-aa-helper -r -F`")
        .at_least(5.0)
        .aim(15.0)
        .why(COMPILE),
    work("plug-minimal", "one disk plugged in, with `--minimal`", "`virt-aa-helper -r -F`")
        .at_least(5.0)
        .aim(15.0)
        .why(MINIMAL),
    work("plug-merge", "one disk plugged in, with `aa-load --merge`, libvirt's abstraction", "`virt-aa-helper -r -F`")
        .at_least(5.0)
        .aim(15.0)
        .why(MERGE),
    work("plug-merge-minimal", "one disk plugged in, with `--minimal` and `aa-load --merge`", "`virt-aa-helper -r -F`")
        .at_least(5.0)
        .aim(15.0)
        .why(MERGE),
    work(
        "calls",
        "one start as libvirtd drives it, `-c` and three `-F`: our `virt-aa-helper`",
        "the same calls",
    )
    .at_least(8.0)
    .aim(20.0)
    .why("Only the first of the four calls compiles; that one compile is nearly all of it."),
    work("unload", "`aa-load remove`", "`virt-aa-helper -D`").at_least(15.0),
    work("cold", "MANY profiles loaded, cold", "`virt-aa-helper -c`, one after another")
        .at_least(5.0)
        .why(COMPILE),
    work("cold-minimal", "the same with `--minimal`", "`virt-aa-helper -c`, one after another").at_least(5.0),
    work("direct", "the same with `aa-load --direct`", "`virt-aa-helper -c`, one after another")
        .at_least(5.0)
        .why(COMPILE),
    work("cold-merge", "MANY profiles loaded, cold, with `aa-load --merge`", "`virt-aa-helper -c`, one after another")
        .at_least(5.0)
        .why(MERGE),
    work("warm", "MANY profiles loaded, warm", "`virt-aa-helper -c`, one after another").at_least(50.0),
    work("confine", "`aa-confine` and `/bin/true` under a profile", "`aa-exec` of AppArmor"),
    work("floor", "`/bin/true`", "`/bin/true` again: how much two equal samples differ"),
];

/// The row of that name.
pub(super) fn find(id: &str) -> Option<&'static Work> {
    ALL.iter().find(|work| work.id == id)
}
