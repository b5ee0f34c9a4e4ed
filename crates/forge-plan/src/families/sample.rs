//! The choice of the next token, in three steps.

use forge_spec::{Dim, Operation, Role, Vocabulary};

use super::{KernelFamily, Launch, ONE, ROW_THREADS, Rows};
use crate::binding::{Binding, Element, Extent, Touch};

/// Constants of the sampling kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Length of a row of logits.
    pub vocab: usize,
    /// Threadgroups that share the vocabulary.
    pub groups: usize,
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
        Binding::read(Role::Logits, Element::F32, Extent::Fixed(vec![self.vocab]))
    }

    fn seen(self) -> Binding {
        // A bit for each token.
        Binding::read(Role::Seen, Element::U32, Extent::Fixed(vec![self.vocab.div_ceil(32)]))
    }

    fn best(self) -> Binding {
        Binding::read(Role::Best, Element::U32, Extent::Fixed(vec![self.groups, 2]))
    }

    fn count(self) -> Binding {
        Binding::read(Role::Count, Element::AtomicU32, Extent::Fixed(Vec::new()))
    }

    fn candidates(self) -> Binding {
        Binding::read(Role::Candidates, Element::Candidate, Extent::Fixed(vec![self.vocab]))
    }

    fn launch(self, threadgroup_bytes: u32, groups: usize) -> Launch {
        Launch { threads: ROW_THREADS, threadgroup_bytes, grid: [Dim::Const(groups), ONE, ONE] }
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
        vec![s.logits(), s.seen().touching(Touch::Never), written(s.best()), written(s.count()), Binding::params()]
    }

    fn launch(&self) -> Launch {
        self.0.launch(64, self.0.groups)
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        Operation::SampleBest(self.0.vocabulary())
    }

    fn rows(&self) -> Rows {
        Rows::One
    }
}

impl KernelFamily for SampleCollect {
    fn bindings(&self) -> Vec<Binding> {
        let s = self.0;
        let list = [s.logits(), s.seen(), s.best(), updated(s.count()), written(s.candidates())];
        list.into_iter().map(|binding| binding.touching(Touch::Never)).chain([Binding::params()]).collect()
    }

    fn launch(&self) -> Launch {
        self.0.launch(0, self.0.groups)
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        Operation::SampleCollect(self.0.vocabulary())
    }

    fn rows(&self) -> Rows {
        Rows::One
    }
}

impl KernelFamily for SampleDraw {
    fn bindings(&self) -> Vec<Binding> {
        let s = self.0;
        let word = |role| Binding::write(role, Element::U32, Extent::Fixed(Vec::new()));
        vec![
            s.best(),
            s.count().touching(Touch::Never),
            s.candidates().touching(Touch::Never),
            updated(s.seen()).touching(Touch::One),
            word(Role::NextToken),
            word(Role::Chosen),
            Binding::params(),
        ]
    }

    fn launch(&self) -> Launch {
        self.0.launch(64, 1)
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        Operation::SampleDraw(self.0.vocabulary())
    }

    fn rows(&self) -> Rows {
        Rows::One
    }
}
