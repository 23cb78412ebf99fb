//! What pmodules want, put into effect on a report; what failed of them, put into words.
#![forbid(unsafe_code)]

use crate::dump::Layout;
use crate::error::{Error, Result};
use crate::pmodule::plan::{self, Plan};
use crate::pmodule::runner::{Ran, Session, Why};
use crate::pmodule::{Blank, Veto};
use crate::report::Report;
use crate::scrub::{self, Policy, Receipt, Wish};

use super::captured::Meta;

/// A remark in two forms: with a pmodule's own words, which were scrubbed, and without, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remark {
    pub(super) report: String,
    pub(super) log: String,
}

impl From<Error> for Remark {
    fn from(error: Error) -> Self {
        Self::plain(error.to_string())
    }
}

impl Remark {
    fn plain(text: String) -> Self {
        Self { report: text.clone(), log: text }
    }

    /// `why`, with `before` before it and `after` behind.
    fn of(why: &Why, before: &str, after: &str, policy: &Policy, receipt: &mut Receipt) -> Self {
        let join = |text: &str| format!("{before}{text}{after}");
        if !why.own_words {
            return Self::plain(join(&why.text));
        }
        let mut words = why.text.clone();
        scrub::text(&mut words, policy, receipt);
        Self { report: join(&words), log: join("for a reason that the report has") }
    }

    /// The same behind other words.
    pub(super) fn behind(self, before: &str) -> Self {
        Self { report: format!("{before}{}", self.report), log: format!("{before}{}", self.log) }
    }

    /// Adds it to both lists of notes.
    pub(super) fn note(self, report: &mut Report, meta: &mut Meta) {
        report.notes.push(self.report);
        meta.notes.push(self.log);
    }
}

/// Annotations, attributes, classifiers.
pub(super) fn add_to_report(report: &mut Report, plan: &Plan) {
    report.annotations.extend(plan.annotations.iter().cloned());
    report.classifiers.extend(plan.classifiers.iter().cloned());
    plan::set_attributes(&mut report.attributes, plan.attributes.clone());
}

/// What is to be blanked, and the values whose copies are to go with it: `blanked` are texts in that memory.
pub(super) fn add_to_policy(policy: &mut Policy, plan: &Plan, blanked: &[String]) {
    let memory = plan.memory.iter().map(|(pmodule, range)| (pmodule, Wish::Memory(range.clone())));
    let registers = plan.registers.iter().map(|(pmodule, thread, register)| {
        (pmodule, Wish::Register { thread: thread.unsigned_abs(), register: register.clone() })
    });
    for (pmodule, wish) in memory.chain(registers) {
        let rule = rule(pmodule);
        match policy.wishes.last_mut() {
            Some((last, wishes)) if *last == rule => wishes.push(wish),
            _ => policy.wishes.push((rule, vec![wish])),
        }
    }
    policy.known.extend_from_slice(blanked);
    let values = plan::start_up_values(plan, &policy.argument_strings, &policy.environment_strings);
    policy.known.extend(values.iter().flat_map(|value| parts(value)));
    policy.known.sort();
    policy.known.dedup();
}

/// Known values have a longest length; a longer one is known by its parts.
fn parts(mut value: &str) -> Vec<String> {
    const LONGEST: usize = 4096;
    let mut parts = Vec::new();
    while !value.is_empty() {
        let (part, rest) = value.split_at(value.floor_char_boundary(LONGEST));
        parts.push(part.to_owned());
        value = rest;
    }
    parts
}

/// What to say of those whose result is missing. Those that step the report down are left out.
pub(super) fn failures(ran: &[Ran], policy: &Policy, receipt: &mut Receipt) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for failed in ran.iter().filter(|ran| !ran.fails_closed) {
        if let Err(why) = &failed.result {
            let before = format!("pmodule {} failed: ", failed.pmodule);
            remarks.push(Remark::of(why, &before, "; its result is missing", policy, receipt));
        }
    }
    if ran.iter().any(|ran| ran.unconfined) {
        remarks.push(Remark::plain("pmodules ran without a filter: this kernel has no seccomp".into()));
    }
    remarks
}

/// Why a pmodule steps the report down, if one does.
pub(super) fn stepped_down(ran: &[Ran], policy: &Policy, receipt: &mut Receipt) -> Option<Remark> {
    let (pmodule, why) = plan::closed(ran)?;
    Some(Remark::of(why, &format!("pmodule {pmodule}: "), "", policy, receipt))
}

/// Has the scrub hooks look at a scrubbed dump, and blanks what they name.
///
/// # Errors
/// The first that failed, or that named what is not there.
pub(super) fn scrub_hooks(
    session: &mut Session<'_>,
    dump: &mut [u8],
    layout: &Layout,
    policy: &Policy,
    receipt: &mut Receipt,
) -> Result<(), Remark> {
    for heard in session.scrub(dump) {
        let before = format!("pmodule {}: ", heard.pmodule);
        let blanks = heard.result.map_err(|why| Remark::of(&why, &before, "", policy, receipt))?;
        let wishes: Vec<Wish> = blanks.iter().map(wish).collect();
        scrub::blank(dump, layout, &rule(&heard.pmodule), &wishes, receipt).map_err(|_| {
            Remark::plain(format!("{before}named memory, a thread or a register that may not be blanked"))
        })?;
    }
    Ok(())
}

/// What those say that have a say in the finished report.
pub(super) enum Ruling {
    /// It is not to be stored.
    Veto { pmodule: String, reason: String },
    /// One failed that redacts.
    StepDown(Remark),
    /// It may go.
    Go,
}

/// Asks for verdicts. Failures that change nothing become notes.
pub(super) fn verdict(
    session: &mut Session<'_>,
    report: &mut Report,
    meta: &mut Meta,
    policy: &Policy,
    receipt: &mut Receipt,
) -> Ruling {
    let mut ruling = Ruling::Go;
    for heard in session.verdict(report) {
        match heard.result {
            Ok(Some(Veto { reason })) => return Ruling::Veto { pmodule: heard.pmodule, reason },
            Ok(None) => {}
            Err(why) if heard.fails_closed => {
                let before = format!("pmodule {}: ", heard.pmodule);
                ruling = Ruling::StepDown(Remark::of(&why, &before, "", policy, receipt));
            }
            Err(why) => {
                let before = format!("pmodule {} failed: ", heard.pmodule);
                Remark::of(&why, &before, "; its verdict is missing", policy, receipt).note(report, meta);
            }
        }
    }
    ruling
}

/// How receipts name a pmodule.
fn rule(pmodule: &str) -> String {
    format!("pmodule:{pmodule}")
}

fn wish(blank: &Blank) -> Wish {
    match blank {
        Blank::Memory(range) => Wish::Memory(range.clone()),
        Blank::Register { thread, register } => {
            Wish::Register { thread: *thread, register: register.clone() }
        }
        Blank::Stack(thread) => Wish::Stack(*thread),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_words_are_scrubbed_and_kept_from_the_log() {
        let (policy, mut receipt) = (Policy::default(), Receipt::default());
        let ran = |fails_closed, text: &str, own_words| {
            Ran::missing("x", fails_closed, Why { text: text.into(), own_words })
        };
        let all = [ran(false, "no level for bob@example.org", true), ran(false, "killed by SIGSEGV", false)];
        let remarks = failures(&all, &policy, &mut receipt);
        assert_eq!(
            remarks[0].report,
            "pmodule x failed: no level for ***************; its result is missing"
        );
        assert_eq!(
            remarks[0].log,
            "pmodule x failed: for a reason that the report has; its result is missing"
        );
        assert_eq!(remarks[1].report, remarks[1].log);
        assert_eq!(remarks[1].log, "pmodule x failed: killed by SIGSEGV; its result is missing");
        assert_eq!(stepped_down(&all, &policy, &mut receipt), None);
        let closed = [ran(true, "did not end within 250 ms", false)];
        assert_eq!(failures(&closed, &policy, &mut receipt), []);
        let down = stepped_down(&closed, &policy, &mut receipt).unwrap();
        assert_eq!(down.log, "pmodule x: did not end within 250 ms");
    }

    #[test]
    fn long_values_come_in_parts() {
        let value = "é".repeat(5000);
        let parts = parts(&value);
        assert!(parts.iter().all(|part| part.len() <= 4096));
        assert_eq!((parts.len(), parts.concat()), (3, value));
    }

    #[test]
    fn wishes_of_one_pmodule_share_a_rule() {
        let plan = Plan {
            memory: vec![("a".into(), 1..2), ("a".into(), 3..4), ("b".into(), 5..6)],
            registers: vec![("b".into(), 7, "rax".into())],
            variables: ["TOKEN".to_owned()].into(),
            ..Plan::default()
        };
        let mut policy = Policy { environment_strings: "TOKEN=abc\0".into(), ..Policy::default() };
        add_to_policy(&mut policy, &plan, &["field".to_owned()]);
        let rules: Vec<_> =
            policy.wishes.iter().map(|(rule, wishes)| (rule.as_str(), wishes.len())).collect();
        assert_eq!(rules, [("pmodule:a", 2), ("pmodule:b", 2)]);
        assert_eq!(policy.known, ["abc", "field"]);
    }

    #[test]
    fn every_register_that_may_be_named_can_be_blanked() {
        let thread = crate::dump::layout::ThreadEntry { id: 1, context: 0..1232, stack: Default::default() };
        let layout = Layout { processor: 9, threads: vec![thread], ..Layout::default() };
        for register in crate::pmodule::REGISTERS {
            let mut dump = vec![1; 1232];
            let wish = Wish::Register { thread: 1, register: register.to_owned() };
            let blanked = scrub::blank(&mut dump, &layout, "x", &[wish], &mut Receipt::default());
            assert!(blanked.is_ok() && dump.contains(&0), "{register}");
        }
    }
}
