//! The choice of the next token from the logits.

use forge_spec::Role;

use super::Lowering;
use crate::families::{Family, Sample, SampleBest, SampleCollect, SampleDraw};
use crate::plan::{Arg, Choice, SamplerBuffer, Step};

/// Tokens that one threadgroup looks at, where the vocabulary is small.
const SHARE: usize = 1024;
/// Most threadgroups that share the vocabulary.
const GROUPS: usize = 64;

impl Lowering<'_> {
    pub(super) fn sample(&mut self) -> Vec<Step> {
        let vocab = self.graph.config.vocab_size;
        let sample = Sample { vocab, groups: vocab.div_ceil(SHARE).min(GROUPS), slots: self.slots() };
        let steps: [(&str, Family); 3] = [
            ("sample_best", SampleBest(sample).into()),
            ("sample_collect", SampleCollect(sample).into()),
            ("sample_draw", SampleDraw(sample).into()),
        ];
        let all = [
            (Role::Logits, Arg::Logits),
            (Role::Seen, Arg::Sampler(SamplerBuffer::Seen)),
            (Role::LogitBias, Arg::Sampler(SamplerBuffer::LogitBias)),
            (Role::Times, Arg::Sampler(SamplerBuffer::Times)),
            (Role::Allowed, Arg::Sampler(SamplerBuffer::Allowed)),
            (Role::Best, Arg::Sampler(SamplerBuffer::Best)),
            (Role::Count, Arg::Sampler(SamplerBuffer::Count)),
            (Role::Candidates, Arg::Sampler(SamplerBuffer::Candidates)),
            (Role::NextToken, Arg::Sampler(SamplerBuffer::NextToken)),
            (Role::Chosen, Arg::Chosen),
            (Role::Step, Arg::Params),
        ];
        let mut step = |(name, family): (&str, Family)| {
            let id = self.kernels.add(name, family);
            let has = |role| self.kernels.list[id].bindings.iter().any(|binding| binding.role == role);
            Step::new(Choice::Fixed(id)).bind_all(all.into_iter().filter(|(role, _)| has(*role)))
        };
        steps.into_iter().map(&mut step).collect()
    }
}
