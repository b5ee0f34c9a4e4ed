//! The choice of the next token, in three steps.

use forge_spec::{Dim, Operation, Role, Vocabulary};

use super::{Body, KernelFamily, Launch, ONE, ROW_THREADS, Rows, SHARE_POSITIONS};
use crate::binding::{Binding, Element, Extent, Touch};
use crate::call::{Call, Constant, Position, Value};

/// Constants of the sampling kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Length of a row of logits.
    pub vocab: usize,
    /// Threadgroups that share the vocabulary.
    pub groups: usize,
    /// Sequences of the program, each of which chooses one token a step at most.
    pub slots: usize,
}

/// Step 1: the best of each share of the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleBest(pub Sample);
/// Step 2: tokens that may be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleCollect(pub Sample);
/// Step 3: filters and draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleDraw(pub Sample);

impl Sample {
    fn logits(self) -> Binding {
        Binding::read(Role::Logits, Element::F32, Extent::Rows(vec![self.vocab]))
    }

    fn seen(self) -> Binding {
        // A bit for each token.
        Binding::read(Role::Seen, Element::U32, self.each(vec![self.vocab.div_ceil(32)]))
    }

    /// What only some rows want, and is touched for those alone.
    fn wishes(self) -> [Binding; 3] {
        [
            Binding::read(Role::LogitBias, Element::F32, self.each(vec![self.vocab])),
            self.times(),
            Binding::read(Role::Allowed, Element::U32, self.each(vec![self.vocab.div_ceil(32)])),
        ]
        .map(|binding| binding.touching(Touch::Never))
    }

    fn times(self) -> Binding {
        Binding::read(Role::Times, Element::U32, self.each(vec![self.vocab]))
    }

    fn best(self) -> Binding {
        Binding::read(Role::Best, Element::U32, self.each(vec![self.groups, 2]))
    }

    fn count(self) -> Binding {
        Binding::read(Role::Count, Element::AtomicU32, self.each(Vec::new()))
    }

    fn candidates(self) -> Binding {
        Binding::read(Role::Candidates, Element::Candidate, self.each(vec![self.vocab]))
    }

    /// So much for each slot.
    fn each(self, shape: Vec<usize>) -> Extent {
        Extent::Slots { slots: self.slots, shape }
    }

    fn launch(self, threadgroup_bytes: u32, groups: usize) -> Launch {
        Launch { threads: ROW_THREADS, threadgroup_bytes, grid: [Dim::Const(groups), Dim::Rows, ONE] }
    }

    /// A call of a function of the vocabulary, its shares and the sequences.
    fn call(self, function: &'static str, arguments: Vec<Value>) -> Call {
        Call { function, constants: [self.vocab, self.groups, self.slots].map(Constant::Size).into(), arguments }
    }

    fn vocabulary(self) -> Vocabulary {
        Vocabulary { tokens: self.vocab, groups: self.groups }
    }
}

/// A binding that is written.
fn written(binding: Binding) -> Binding {
    Binding::write(binding.role, binding.element, binding.extent)
}

/// A binding that is read and written.
fn updated(binding: Binding) -> Binding {
    Binding::update(binding.role, binding.element, binding.extent)
}

impl KernelFamily for SampleBest {
    fn bindings(&self) -> Vec<Binding> {
        let s = self.0;
        let [bias, times, allowed] = s.wishes();
        let seen = s.seen().touching(Touch::Never);
        vec![s.logits(), seen, bias, times, allowed, written(s.best()), written(s.count()), Binding::params()]
    }

    fn launch(&self) -> Launch {
        self.0.launch(64, self.0.groups)
    }

    fn title(&self) -> String {
        "the highest logit".to_owned()
    }

    fn body(&self) -> Body<'_> {
        let wishes = [Role::LogitBias, Role::Times, Role::Allowed];
        let bound = [&[Role::Logits, Role::Seen], &wishes[..], &[Role::Best, Role::Count]].concat();
        let bound: Vec<Value> = bound.into_iter().map(Value::Bound).collect();
        let rest = [Value::Shared, Value::Row(Position::GroupY)];
        Body::Call(self.0.call("best_logit", [&bound[..], &rest, &SHARE_POSITIONS].concat()))
    }

    fn shared_integers(&self) -> bool {
        true
    }

    fn sources(&self) -> &'static [&'static str] {
        &["sample"]
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        Operation::SampleBest(self.0.vocabulary())
    }

    fn rows(&self) -> Rows {
        Rows::Few
    }
}

impl KernelFamily for SampleCollect {
    fn bindings(&self) -> Vec<Binding> {
        let s = self.0;
        let [bias, times, allowed] = s.wishes();
        let list = [s.logits(), s.seen(), bias, times, allowed, s.best(), updated(s.count()), written(s.candidates())];
        list.into_iter().map(|binding| binding.touching(Touch::Never)).chain([Binding::params()]).collect()
    }

    fn launch(&self) -> Launch {
        self.0.launch(0, self.0.groups)
    }

    fn title(&self) -> String {
        "tokens that may be drawn".to_owned()
    }

    fn body(&self) -> Body<'_> {
        let wishes = [Role::LogitBias, Role::Times, Role::Allowed];
        let bound = [&[Role::Logits, Role::Seen], &wishes[..], &[Role::Best, Role::Count, Role::Candidates]].concat();
        let bound: Vec<Value> = bound.into_iter().map(Value::Bound).collect();
        let rest = [Value::Row(Position::GroupY), Value::At(Position::Group2), Value::At(Position::Thread)];
        Body::Call(self.0.call("collect_candidates", [&bound[..], &rest].concat()))
    }

    fn sources(&self) -> &'static [&'static str] {
        &["sample"]
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        Operation::SampleCollect(self.0.vocabulary())
    }

    fn rows(&self) -> Rows {
        Rows::Few
    }
}

impl KernelFamily for SampleDraw {
    fn bindings(&self) -> Vec<Binding> {
        let s = self.0;
        let chosen = Binding::write(Role::Chosen, Element::U32, Extent::Rows(Vec::new()));
        vec![
            s.best(),
            s.count().touching(Touch::Never),
            s.candidates().touching(Touch::Never),
            updated(s.seen()).touching(Touch::One),
            updated(s.times()).touching(Touch::Never),
            written(Binding::next_token(s.slots)),
            chosen,
            Binding::params(),
        ]
    }

    fn launch(&self) -> Launch {
        self.0.launch(64, 1)
    }

    fn title(&self) -> String {
        "filters and draw".to_owned()
    }

    fn body(&self) -> Body<'_> {
        let bound = [Role::Best, Role::Count, Role::Candidates, Role::Seen, Role::Times, Role::NextToken, Role::Chosen];
        let rest = [Value::Shared, Value::Row(Position::GroupY)];
        let arguments = [&bound.map(Value::Bound)[..], &rest, &SHARE_POSITIONS].concat();
        Body::Call(self.0.call("draw_token", arguments))
    }

    fn shared_integers(&self) -> bool {
        true
    }

    fn sources(&self) -> &'static [&'static str] {
        &["sample"]
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        Operation::SampleDraw(self.0.vocabulary())
    }

    fn rows(&self) -> Rows {
        Rows::Few
    }
}
