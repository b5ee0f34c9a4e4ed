//! What holds of every plan: arguments are the kernels' bindings, extents fit, nothing is read before it was written, every
//! kernel is scheduled, the device's limits are kept. A plan that breaks one of these is a fault of Forge's, found before
//! anything is rendered.

use std::collections::BTreeSet;

use forge_formats::Format as Stored;
use forge_spec::Role;

use crate::PlanError;
use crate::binding::{Access, Binding, Element, Extent};
use crate::families::Rows;
use crate::kernel::{Kernel, KernelId};
use crate::packed::stored;
use crate::plan::{
    Arg, BufferPlan, Choice, Counts, Place, Plan, SamplerBuffer, Schedule, Segment, Stage, StatePlan, Step, Steps,
    Visit,
};

/// Most threads of a threadgroup on every Apple-silicon GPU.
const MAX_THREADS: u32 = 1024;
/// Bytes of threadgroup memory on every Apple-silicon GPU.
const MAX_THREADGROUP_BYTES: u32 = 32 * 1024;
/// Buffer arguments of one kernel in Metal.
const MAX_BINDINGS: usize = 31;

/// Checks a plan.
///
/// # Errors
/// [`PlanError::Invalid`] names the kernel and what is wrong with it.
pub fn check(plan: &Plan) -> Result<(), PlanError> {
    for kernel in &plan.kernels {
        limits(kernel)?;
    }
    let mut scheduled = BTreeSet::new();
    let paths = [
        (&plan.decode, &plan.decode_buffers, &[Rows::One, Rows::Few, Rows::Any][..]),
        (&plan.prefill, &plan.prefill_buffers, &[Rows::Any][..]),
    ];
    for (schedule, buffers, rows) in paths {
        for step in schedule.steps() {
            for id in step.kernels(&plan.tables) {
                scheduled.insert(id);
                if !rows.contains(&plan.kernels[id].family.rows()) {
                    return Err(invalid(&plan.kernels[id], "it is for another number of rows than its step"));
                }
                let checked = Bound { plan, kernel: &plan.kernels[id], step, buffers };
                checked.counts()?;
                checked.roles()?;
                checked.extents()?;
            }
            tables(plan, step)?;
        }
        segments(plan, schedule)?;
        order(plan, schedule)?;
    }
    match (0..plan.kernels.len()).find(|id| !scheduled.contains(id)) {
        Some(id) => Err(invalid(&plan.kernels[id], "no step runs it")),
        None => Ok(()),
    }
}

fn invalid(kernel: &Kernel, what: impl Into<String>) -> PlanError {
    PlanError::Invalid { kernel: kernel.name.clone(), what: what.into() }
}

/// Threads, threadgroup memory, bindings.
fn limits(kernel: &Kernel) -> Result<(), PlanError> {
    let launch = &kernel.launch;
    if launch.threads == 0 || launch.threads > MAX_THREADS || !launch.threads.is_multiple_of(32) {
        return Err(invalid(kernel, format!("{} threads a threadgroup", launch.threads)));
    }
    if launch.threadgroup_bytes > MAX_THREADGROUP_BYTES {
        return Err(invalid(kernel, format!("{} bytes of threadgroup memory", launch.threadgroup_bytes)));
    }
    if kernel.bindings.len() > MAX_BINDINGS {
        return Err(invalid(kernel, format!("{} buffer arguments", kernel.bindings.len())));
    }
    let roles: BTreeSet<Role> = kernel.bindings.iter().map(|binding| binding.role).collect();
    if roles.len() < kernel.bindings.len() {
        return Err(invalid(kernel, "two buffer arguments of one name"));
    }
    Ok(())
}

/// Layers share a grid, so the kernels of a table have to.
fn tables(plan: &Plan, step: &Step) -> Result<(), PlanError> {
    for choice in step.choices() {
        let Choice::PerLayer(table) = choice else { continue };
        let kernels = &plan.tables[table].kernels;
        let grid = plan.kernels[kernels[0]].launch.grid;
        if let Some(&id) = kernels.iter().find(|&&id| plan.kernels[id].launch.grid != grid) {
            return Err(invalid(&plan.kernels[id], "another grid than that of other layers' kernels"));
        }
    }
    Ok(())
}

/// A kernel and a step that runs it.
struct Bound<'a> {
    plan: &'a Plan,
    kernel: &'a Kernel,
    step: &'a Step,
    buffers: &'a [BufferPlan],
}

impl Bound<'_> {
    /// Arguments are the bindings, by name. Where a step has a kernel for one row and another for several, the latter reads the
    /// rows' records, its last argument, and the former none.
    fn roles(&self) -> Result<(), PlanError> {
        let bindings: Vec<&str> = self.kernel.bindings.iter().map(|binding| binding.role.name()).collect();
        let records = Role::Step.name();
        let alone = self.step.few.is_some() && self.kernel.is_for_one_row();
        let bound = self.step.args.keys().filter(|role| !(alone && **role == Role::Step));
        let mut args: Vec<&str> = bound.map(|role| role.name()).collect();
        args.sort_by_key(|name| bindings.iter().position(|binding| binding == name));
        if args == bindings {
            if self.step.few.is_some() && !alone && args.last() != Some(&records) {
                return Err(invalid(self.kernel, format!("{records} is not the last of its arguments")));
            }
            return Ok(());
        }
        let lists = [args, bindings].map(|list| list.join(", "));
        Err(invalid(self.kernel, format!("bound are {}; its arguments are {}", lists[0], lists[1])))
    }

    /// Every argument holds what the kernel expects there.
    fn extents(&self) -> Result<(), PlanError> {
        for binding in &self.kernel.bindings {
            self.extent(binding, self.step.args[&binding.role])?;
        }
        Ok(())
    }

    /// An indirect grid has its threadgroups in a buffer, one that the kernel itself leaves alone; no other grid has.
    fn counts(&self) -> Result<(), PlanError> {
        let wrong = |what: String| Err(invalid(self.kernel, what));
        let Some(counts) = self.step.counts else {
            return match self.kernel.launch.is_indirect() {
                true => wrong("its grid is indirect, and its step names no threadgroup counts".into()),
                false => Ok(()),
            };
        };
        let Counts { place, word } = counts;
        if !self.kernel.launch.is_indirect() {
            return wrong(format!("its step has threadgroup counts in {place:?}, but its grid is not indirect"));
        }
        if self.step.few.is_some() {
            return wrong("its grid is indirect, and its step has another kernel for few tokens".into());
        }
        let has_room = |buffer: &BufferPlan| buffer.place == place && buffer.width >= word + Counts::WORDS;
        if place.element(self.plan.kv) != Element::U32 || !self.buffers.iter().any(has_room) {
            return wrong(format!("its threadgroup counts are no three words from word {word} of {place:?} on"));
        }
        let writes = |binding: &&Binding| {
            binding.access.writes() && self.step.args.get(&binding.role) == Some(&Arg::Buffer(place))
        };
        match self.kernel.bindings.iter().find(writes) {
            Some(binding) => wrong(format!("{}: it writes its own threadgroup counts", binding.role.name())),
            None => Ok(()),
        }
    }

    fn extent(&self, binding: &Binding, arg: Arg) -> Result<(), PlanError> {
        let wrong = |found: String| {
            let name = binding.role.name();
            Err(invalid(self.kernel, format!("{name}: {found} is bound to {:?} {:?}", binding.element, binding.extent)))
        };
        let words = binding.words();
        match arg {
            Arg::Layer(_) | Arg::Model(_) | Arg::NextGamma => self.tensors(binding, arg),
            Arg::Buffer(place) => match self.buffers.iter().find(|buffer| buffer.place == place) {
                Some(buffer) if buffer.width >= words && self.is_of(binding, place) => Ok(()),
                Some(buffer) => wrong(match place.element(self.plan.kv) {
                    Element::U32 => format!("{place:?} of {} words", buffer.width),
                    Element::Cache(kv) => format!("{place:?} of {} {} a position", buffer.width, kv.name()),
                    _ => format!("{place:?} of {} floats a row", buffer.width),
                }),
                None => wrong(format!("{place:?}, which is not allocated,")),
            },
            Arg::LayerPart { place, width } => {
                let all = width * self.plan.layers.len();
                let fits = self.buffers.iter().any(|buffer| buffer.place == place && buffer.width >= all);
                if fits && words <= width { Ok(()) } else { wrong(format!("a layer's {width} floats of {place:?}")) }
            }
            Arg::Keys(slot) | Arg::Values(slot) => {
                let layers = self.plan.layers.iter().filter_map(|layer| layer.states.get(slot));
                let mut widths = layers.filter_map(|&state| Some(self.plan.states[state].kv()?.width()));
                let is_cache = matches!(binding.element, Element::Cache(kv) if kv == self.plan.kv);
                if is_cache && matches!(binding.extent, Extent::Positions(_)) && widths.any(|width| width == words) {
                    Ok(())
                } else {
                    wrong(format!("the cache of slot {slot}"))
                }
            }
            Arg::Latents(slot) => {
                let layers = self.layers();
                let states = layers.iter().filter_map(|&layer| self.plan.layers[layer].states.get(slot));
                let mut widths = states.map(|&state| self.plan.states[state].latents());
                let is_cache = matches!(binding.element, Element::Cache(kv) if kv == self.plan.kv);
                if is_cache
                    && matches!(binding.extent, Extent::Positions(_))
                    && widths.all(|width| width == Some(words))
                {
                    Ok(())
                } else {
                    wrong(format!("the latents of slot {slot}"))
                }
            }
            Arg::State(slot) => {
                let layers = self.layers();
                let states = layers.iter().filter_map(|&layer| self.plan.layers[layer].states.get(slot));
                let mut states = states.map(|&state| self.plan.states[state]);
                let is_state = binding.element == Element::F32 && matches!(binding.extent, Extent::State { .. });
                if is_state && states.all(|state| state == StatePlan::Recurrent { width: words }) {
                    Ok(())
                } else {
                    wrong(format!("the recurrent state of slot {slot}"))
                }
            }
            Arg::Params if binding.element == Element::Params => Ok(()),
            Arg::Logits if binding.element == Element::F32 && words == self.plan.config.vocab_size => Ok(()),
            Arg::Sampler(SamplerBuffer::NextToken) | Arg::Chosen if words == 1 => Ok(()),
            Arg::Sampler(buffer) if words <= self.sampler_words(buffer) => Ok(()),
            Arg::Params | Arg::Logits | Arg::Sampler(_) | Arg::Chosen => wrong(format!("{arg:?}")),
        }
    }

    /// Whether a place holds such elements, for each row or for each position as the kernel has it. What holds positions is as wide
    /// as a position: the next one follows at once.
    fn is_of(&self, binding: &Binding, place: Place) -> bool {
        let positions = matches!(binding.extent, Extent::Positions(_));
        let word = if binding.element == Element::AtomicU32 { Element::U32 } else { binding.element };
        word == place.element(self.plan.kv) && positions == place.holds_positions()
    }

    /// Words that the program allocates for a buffer of the sampler.
    fn sampler_words(&self, buffer: SamplerBuffer) -> usize {
        let vocab = self.plan.config.vocab_size;
        match buffer {
            SamplerBuffer::Seen | SamplerBuffer::Allowed => vocab.div_ceil(32),
            SamplerBuffer::LogitBias | SamplerBuffer::Times => vocab,
            SamplerBuffer::Best => 2 * vocab,
            SamplerBuffer::Count | SamplerBuffer::NextToken => 1,
            SamplerBuffer::Candidates => 3 * vocab,
        }
    }

    /// The packed tensors of the layers that run this kernel have the format and shape that it was made for.
    fn tensors(&self, binding: &Binding, arg: Arg) -> Result<(), PlanError> {
        let field = match (arg, self.plan.first_norm) {
            (Arg::Layer(field), _) => (true, field),
            (Arg::NextGamma, Some(norm)) => (true, norm),
            (Arg::Model(field), _) => (false, field),
            (_, _) => (false, self.plan.final_norm),
        };
        let expected = match binding.element {
            Element::Packed(format) => Some(stored(format)),
            Element::F32 => Some(Stored::F32),
            _ => None,
        };
        let fits = |layer: Option<usize>| {
            let tensor = self.plan.weights.tensors.iter().find(|t| (t.layer, t.field) == (layer, field.1));
            tensor.is_some_and(|t| Some(t.format) == expected && t.rows * t.cols == binding.words())
        };
        let wrong = |whose: String| {
            let name = binding.role.name();
            Err(invalid(self.kernel, format!("{name}: {whose} is not {:?} {:?}", binding.element, binding.extent)))
        };
        if !field.0 {
            let name = &self.plan.model_fields[field.1].name;
            return if fits(None) { Ok(()) } else { wrong(name.clone()) };
        }
        match self.layers().into_iter().find(|&layer| !fits(Some(layer))) {
            Some(layer) => wrong(format!("layers.{layer}.{}", self.plan.layer_fields[field.1].name)),
            None => Ok(()),
        }
    }

    /// Layers in which this step runs this kernel.
    fn layers(&self) -> Vec<usize> {
        let runs = |choice: Choice, layer: usize| match choice {
            Choice::Fixed(id) => std::ptr::eq(&self.plan.kernels[id], self.kernel),
            Choice::PerLayer(table) => {
                std::ptr::eq(&self.plan.kernels[self.plan.tables[table].kernels[layer]], self.kernel)
            }
        };
        let block = [&self.plan.decode, &self.plan.prefill].into_iter().find_map(|schedule| {
            schedule.blocks().iter().position(|steps| steps.iter().any(|s| std::ptr::eq(s, self.step)))
        });
        let layers = self.plan.layers.iter().enumerate().filter(|(_, layer)| Some(layer.block) == block);
        layers.map(|(layer, _)| layer).filter(|&layer| self.step.choices().any(|choice| runs(choice, layer))).collect()
    }
}

/// Segments are in the order of their stages, so that a project runs them as they are planned, and the layers' has every block.
fn segments(plan: &Plan, schedule: &Schedule) -> Result<(), PlanError> {
    let mut before: Option<Stage> = None;
    for segment in &schedule.segments {
        let Segment { stage, steps } = segment;
        let fits = match steps {
            Steps::Once(_) => *stage != Stage::Layers,
            Steps::Layers(blocks) => *stage == Stage::Layers && blocks.len() == plan.blocks.len(),
        };
        if !fits || before >= Some(*stage) {
            let kernel = segment.steps().flat_map(|step| step.kernels(&plan.tables)).next();
            let what = if fits { "it comes twice or too late" } else { "it is not what its stage is made of" };
            return Err(match kernel {
                Some(id) => invalid(&plan.kernels[id], format!("its segment is {stage:?}: {what}")),
                None => PlanError::Invalid { kernel: "none".into(), what: format!("a segment is {stage:?}: {what}") },
            });
        }
        before = Some(*stage);
    }
    Ok(())
}

/// Nothing is read that no step before it wrote: walks the schedule as it runs, once for each of its two ways.
fn order(plan: &Plan, schedule: &Schedule) -> Result<(), PlanError> {
    for second in [false, true] {
        let mut written = Written::default();
        let runs = |visit: &Visit<'_>| visit.step.when.runs(second);
        for Visit { step, layer, .. } in schedule.visits(&plan.order()).filter(runs) {
            written.step(plan, step, layer.map_or(&[], |layer| &plan.layers[layer].states))?;
        }
    }
    Ok(())
}

/// What the steps so far wrote.
#[derive(Default)]
struct Written {
    places: BTreeSet<Place>,
    keys: BTreeSet<usize>,
    values: BTreeSet<usize>,
    latents: BTreeSet<usize>,
    logits: bool,
}

impl Written {
    fn step(&mut self, plan: &Plan, step: &Step, states: &[usize]) -> Result<(), PlanError> {
        let ids: Vec<KernelId> = step.kernels(&plan.tables).take(1).collect();
        let kernel = &plan.kernels[ids[0]];
        let has = |written: &Self, arg: Arg| match arg {
            Arg::Buffer(place) | Arg::LayerPart { place, .. } => written.places.contains(&place),
            Arg::Keys(slot) => written.keys.contains(&states[slot]),
            Arg::Values(slot) => written.values.contains(&states[slot]),
            Arg::Latents(slot) => written.latents.contains(&states[slot]),
            Arg::Logits => written.logits,
            // The host or an earlier command buffer wrote these; the sampler's steps follow one another; a sequence's first
            // step does not read its recurrent state.
            Arg::State(_)
            | Arg::Layer(_)
            | Arg::Model(_)
            | Arg::NextGamma
            | Arg::Params
            | Arg::Sampler(_)
            | Arg::Chosen => true,
        };
        if let Some(Counts { place, .. }) = step.counts
            && !self.places.contains(&place)
        {
            return Err(invalid(kernel, format!("its grid: {place:?} is read before anything is written")));
        }
        let args = || kernel.bindings.iter().map(|binding| (binding, step.args[&binding.role]));
        if let Some((binding, arg)) = args().find(|(binding, arg)| binding.access.reads() && !has(self, *arg)) {
            return Err(invalid(
                kernel,
                format!("{}: {arg:?} is read before anything is written", binding.role.name()),
            ));
        }
        for (_, arg) in args().filter(|(binding, _)| binding.access != Access::Read) {
            match arg {
                Arg::Buffer(place) | Arg::LayerPart { place, .. } => _ = self.places.insert(place),
                Arg::Keys(slot) => _ = self.keys.insert(states[slot]),
                Arg::Values(slot) => _ = self.values.insert(states[slot]),
                Arg::Latents(slot) => _ = self.latents.insert(states[slot]),
                Arg::Logits => self.logits = true,
                Arg::State(_)
                | Arg::Layer(_)
                | Arg::Model(_)
                | Arg::NextGamma
                | Arg::Params
                | Arg::Sampler(_)
                | Arg::Chosen => {}
            }
        }
        Ok(())
    }
}
