//! Every state that a model can get into, breadth first: so the way to a bad one that is shown is a shortest one.

use std::fmt::{Debug, Write as _};
use std::hash::Hash;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

/// One thing that may happen next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Move<S> {
    /// What happens, for whoever reads a trace.
    pub(crate) label: Label,
    pub(crate) to: S,
    /// It happens sooner or later if it stays possible. Deaths, errors and other programs are no such thing: they may stay away.
    pub(crate) fair: bool,
    /// A promise that this breaks.
    pub(crate) broken: Option<&'static str>,
}

/// Who does what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Label {
    pub(crate) who: &'static str,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    Text(&'static str),
    Step(hv_vssd::quiesce::protocol::Step),
    Returned(&'static str, hv_vssd::quiesce::protocol::Called),
}

/// What is searched.
pub(crate) trait Model {
    type State: Copy + Debug + Eq + Hash;

    fn start(&self) -> Self::State;

    /// Everything that may happen next.
    fn moves(&self, state: &Self::State, moves: &mut Vec<Move<Self::State>>);

    /// All have done what they had to, and nothing of ours is frozen. From every state, however unlucky, such a one must be reachable by
    /// fair moves alone: then it is reached in the end.
    fn is_settled(&self, state: &Self::State) -> bool;
}

/// What a search came to.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) states: usize,
    /// The first promise that is broken, and a shortest way there.
    pub(crate) broken: Option<Broken>,
}

#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) promise: &'static str,
    pub(crate) trace: String,
}

/// What is said of a state from which no settled one can be reached.
pub(crate) const NEVER_SETTLED: &str = "something stays frozen, or is never done";

/// Searches all of it; more than `limit` states are a mistake in the model.
pub(crate) fn search<M: Model>(model: &M, limit: usize) -> Found {
    let mut states = vec![model.start()];
    let mut numbers: HashMap<M::State, usize> = HashMap::new();
    numbers.insert(model.start(), 0);
    let mut came_by: Vec<Option<(usize, Label)>> = vec![None];
    // Backwards.
    let mut fair: Vec<(u32, u32)> = Vec::new();
    let mut moves = Vec::new();
    let mut at = 0;
    while at < states.len() {
        moves.clear();
        model.moves(&states[at], &mut moves);
        for step in &moves {
            if let Some(promise) = step.broken {
                let mut trace = trace(&states, &came_by, at);
                line(&mut trace, step.label, &step.to);
                return Found {
                    states: states.len(),
                    broken: Some(Broken { promise, trace }),
                };
            }
            let next = states.len();
            let number = match numbers.entry(step.to) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => {
                    states.push(step.to);
                    came_by.push(Some((at, step.label)));
                    *new.insert(next)
                }
            };
            if step.fair && number != at {
                fair.push((u32::try_from(number).unwrap(), u32::try_from(at).unwrap()));
            }
        }
        assert!(states.len() <= limit, "more than {limit} states");
        at += 1;
    }
    let lost = first_lost(model, &states, fair);
    let broken = lost.map(|lost| Broken {
        promise: NEVER_SETTLED,
        trace: trace(&states, &came_by, lost) + &outlook(model, states[lost]),
    });
    Found {
        states: states.len(),
        broken,
    }
}

/// The first state from which no settled one can be reached.
fn first_lost<M: Model>(
    model: &M,
    states: &[M::State],
    mut fair: Vec<(u32, u32)>,
) -> Option<usize> {
    fair.sort_unstable();
    let mut settles: Vec<bool> = states.iter().map(|state| model.is_settled(state)).collect();
    let mut waiting: Vec<usize> = (0..states.len()).filter(|at| settles[*at]).collect();
    while let Some(at) = waiting.pop() {
        let first = fair.partition_point(|(to, _)| (*to as usize) < at);
        let into = fair[first..].iter();
        for (_, from) in into.take_while(|(to, _)| *to as usize == at) {
            if !std::mem::replace(&mut settles[*from as usize], true) {
                waiting.push(*from as usize);
            }
        }
    }
    settles.iter().position(|settles| !settles)
}

/// What becomes of such a state when nothing more goes wrong: until nothing happens any more, or only the same again.
fn outlook<M: Model>(model: &M, from: M::State) -> String {
    let mut states = vec![from];
    let mut came_by = vec![None];
    let mut moves = Vec::new();
    let mut at = 0;
    loop {
        moves.clear();
        model.moves(&states[at], &mut moves);
        let before = states.len();
        for step in moves.iter().filter(|step| step.fair) {
            if !states.contains(&step.to) {
                states.push(step.to);
                came_by.push(Some((at, step.label)));
            }
        }
        let is_end = moves.iter().all(|step| !step.fair || step.to == states[at]);
        if is_end || (states.len() == before && at + 1 == states.len()) || at > 1_000 {
            return format!("  then\n{}", trace(&states, &came_by, at));
        }
        at += 1;
    }
}

fn trace<S: Debug>(states: &[S], came_by: &[Option<(usize, Label)>], mut at: usize) -> String {
    let mut way = Vec::new();
    while let Some((before, label)) = came_by[at] {
        way.push((label, at));
        at = before;
    }
    let mut text = String::new();
    for (label, at) in way.into_iter().rev() {
        line(&mut text, label, &states[at]);
    }
    text
}

fn line<S: Debug>(text: &mut String, label: Label, state: &S) {
    let what = match label.what {
        What::Text(text) => text.to_owned(),
        What::Step(step) => format!("{step:?}"),
        What::Returned(call, called) => format!("{call} returns: {called:?}"),
    };
    writeln!(text, "  {:<9} {what:<32} {state:?}", label.who).unwrap();
}
