//! What all pmodules of a crash together want, sorted by who does it.
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use super::runner::{Ran, Why};
use super::{Edit, Veto};
use crate::report::{Annotation, Attribute, AttributeValue, Detail};

/// For the dump, while the process stands still.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DumpEdits {
    /// Memory to add.
    pub add: Vec<Range<u64>>,
    /// Threads whose stacks stay whole.
    pub keep: BTreeSet<i32>,
    /// Threads whose stacks are left out, even where another pmodule wants them kept.
    pub drop: BTreeSet<i32>,
}

/// Everything else.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// Remarks, in order.
    pub annotations: Vec<Annotation>,
    /// Attributes to set, in order: a later value of one key wins.
    pub attributes: Vec<(String, AttributeValue)>,
    /// Classifiers, each once.
    pub classifiers: Vec<String>,
    /// Components of the fingerprint, in order.
    pub fingerprint: Vec<String>,
    /// Memory to blank, each with the pmodule's name.
    pub memory: Vec<(String, Range<u64>)>,
    /// Registers to blank: pmodule, thread, register.
    pub registers: Vec<(String, i32, String)>,
    /// Arguments that are secrets.
    pub arguments: BTreeSet<usize>,
    /// Environment variables whose values are secrets.
    pub variables: BTreeSet<String>,
    /// The most detail that everyone allows, and who allows no more.
    pub detail: Option<(Detail, String)>,
    /// The first veto, with the pmodule's name.
    pub veto: Option<(String, Veto)>,
}

/// What is to be done to the dump's memory.
pub fn dump_edits(ran: &[Ran]) -> DumpEdits {
    let mut all = DumpEdits::default();
    for (_, edit) in edits(ran) {
        match edit {
            Edit::AddMemory(range) => all.add.push(range.clone()),
            Edit::KeepStack(thread) => drop(all.keep.insert(*thread)),
            Edit::DropStack(thread) => drop(all.drop.insert(*thread)),
            _ => {}
        }
    }
    all.keep.retain(|thread| !all.drop.contains(thread));
    all
}

/// What is to be done to the report and by the scrubber.
pub fn plan(ran: &[Ran]) -> Plan {
    let mut plan = Plan::default();
    for (pmodule, edit) in edits(ran) {
        let pmodule = pmodule.to_owned();
        match edit.clone() {
            Edit::Annotate { level, text } => plan.annotations.push(Annotation { pmodule, level, text }),
            Edit::Attribute { key, value } => plan.attributes.push((key, value)),
            Edit::Classifier(word) if plan.classifiers.contains(&word) => {}
            Edit::Classifier(word) => plan.classifiers.push(word),
            Edit::FingerprintComponent(text) => plan.fingerprint.push(text),
            Edit::BlankMemory(range) => plan.memory.push((pmodule, range)),
            Edit::BlankRegister { thread, register } => plan.registers.push((pmodule, thread, register)),
            Edit::BlankArgument(number) => drop(plan.arguments.insert(number)),
            Edit::BlankEnvironment(name) => drop(plan.variables.insert(name)),
            Edit::LowerDetail(detail) => {
                if plan.detail.as_ref().is_none_or(|(other, _)| detail < *other) {
                    plan.detail = Some((detail, pmodule));
                }
            }
            Edit::Veto(veto) => plan.veto = plan.veto.take().or(Some((pmodule, veto))),
            Edit::AddMemory(_) | Edit::KeepStack(_) | Edit::DropStack(_) => {}
        }
    }
    plan
}

/// The first failure that steps the report down: pmodule and why.
pub fn closed(ran: &[Ran]) -> Option<(&str, &Why)> {
    let failed = ran.iter().filter(|ran| ran.fails_closed);
    failed.filter_map(|ran| Some((ran.pmodule.as_str(), ran.result.as_ref().err()?))).next()
}

/// Sets attributes in a list: in place where the key is there, else behind.
pub fn set_attributes(attributes: &mut Vec<Attribute>, set: Vec<(String, AttributeValue)>) {
    let mut places: HashMap<String, usize> =
        attributes.iter().enumerate().map(|(place, attribute)| (attribute.key.clone(), place)).collect();
    for (key, value) in set {
        let new = Attribute { key, value, truncated: false };
        match places.get(&new.key).and_then(|&place| attributes.get_mut(place)) {
            Some(attribute) => *attribute = new,
            None => {
                places.insert(new.key.clone(), attributes.len());
                attributes.push(new);
            }
        }
    }
}

/// The values of `arguments` and `variables` in the strings that a process was started with, each with a zero behind.
/// What is not there has no value.
pub fn start_up_values(plan: &Plan, arguments: &str, environment: &str) -> Vec<String> {
    let of_arguments =
        arguments.split('\0').enumerate().filter(|(number, _)| plan.arguments.contains(number));
    let of_variables = environment.split('\0').filter_map(|variable| variable.split_once('='));
    let of_variables = of_variables.filter(|(name, _)| plan.variables.contains(*name));
    let values = of_arguments.map(|(_, value)| value).chain(of_variables.map(|(_, value)| value));
    values.filter(|value| !value.is_empty()).map(str::to_owned).collect()
}

fn edits(ran: &[Ran]) -> impl Iterator<Item = (&str, &Edit)> {
    let good = ran.iter().filter_map(|ran| Some((ran.pmodule.as_str(), ran.result.as_ref().ok()?)));
    good.flat_map(|(pmodule, edits)| edits.iter().map(move |edit| (pmodule, edit)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pmodule::Edits;
    use crate::report::AnnotationLevel;

    fn ran(pmodule: &str, list: Vec<Edit>) -> Ran {
        let mut edits = Edits::default();
        list.into_iter().for_each(|edit| edits.push(edit).unwrap());
        Ran { result: Ok(edits), ..Ran::missing(pmodule, false, why()) }
    }

    fn why() -> Why {
        Why { text: "killed by SIGSEGV".into(), own_words: false }
    }

    fn veto(reason: &str) -> Veto {
        Veto { reason: reason.into() }
    }

    #[test]
    fn wishes_are_sorted_and_merged() {
        let all = [
            ran(
                "a",
                vec![
                    Edit::Annotate { level: AnnotationLevel::Warning, text: "x".into() },
                    Edit::Attribute { key: "k".into(), value: 1.into() },
                    Edit::Classifier("oom".into()),
                    Edit::KeepStack(1),
                    Edit::KeepStack(2),
                    Edit::LowerDetail(Detail::Pointers),
                    Edit::BlankMemory(1..2),
                    Edit::AddMemory(3..4),
                ],
            ),
            ran(
                "b",
                vec![
                    Edit::Attribute { key: "k".into(), value: 2.into() },
                    Edit::Attribute { key: "new".into(), value: true.into() },
                    Edit::Classifier("oom".into()),
                    Edit::Classifier("gpu".into()),
                    Edit::DropStack(2),
                    Edit::LowerDetail(Detail::Minidump),
                    Edit::BlankRegister { thread: 1, register: "rax".into() },
                    Edit::FingerprintComponent("f".into()),
                    Edit::Veto(veto("first")),
                ],
            ),
            ran("c", vec![Edit::Veto(veto("second")), Edit::AddMemory(5..6)]),
            Ran::missing("d", false, why()),
        ];
        let dump = dump_edits(&all);
        assert_eq!(dump.add, [3..4, 5..6]);
        assert_eq!((dump.keep, dump.drop), (BTreeSet::from([1]), BTreeSet::from([2])));
        let plan = plan(&all);
        let remark = Annotation { pmodule: "a".into(), level: AnnotationLevel::Warning, text: "x".into() };
        assert_eq!(plan.annotations, [remark]);
        assert_eq!(plan.classifiers, ["oom", "gpu"]);
        assert_eq!(plan.fingerprint, ["f"]);
        assert_eq!(plan.memory, [("a".to_owned(), 1..2)]);
        assert_eq!(plan.registers, [("b".to_owned(), 1, "rax".to_owned())]);
        assert_eq!(plan.detail, Some((Detail::Pointers, "a".to_owned())));
        assert_eq!(plan.veto, Some(("b".to_owned(), veto("first"))));
        let mut attributes = vec![Attribute { key: "k".into(), value: 0.into(), truncated: true }];
        set_attributes(&mut attributes, plan.attributes);
        let set = |key: &str, value| Attribute { key: key.into(), value, truncated: false };
        assert_eq!(attributes, [set("k", 2.into()), set("new", true.into())]);
    }

    #[test]
    fn only_some_failures_step_down() {
        let fails = |pmodule, closed| Ran::missing(pmodule, closed, why());
        assert_eq!(closed(&[ran("a", vec![]), fails("b", false)]), None);
        assert_eq!(closed(&[fails("b", false), fails("c", true), fails("d", true)]), Some(("c", &why())));
    }

    #[test]
    fn values_of_the_start() {
        let plan = Plan {
            arguments: [1, 3, 9].into(),
            variables: ["TOKEN".to_owned(), "EMPTY".to_owned(), "NONE".to_owned()].into(),
            ..Plan::default()
        };
        let values = start_up_values(&plan, "game\0--key=1\0two\0three\0", "A=b\0TOKEN=x=y\0EMPTY=\0");
        assert_eq!(values, ["--key=1", "three", "x=y"]);
    }
}
