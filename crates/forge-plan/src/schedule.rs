//! The steps of one path: a list of segments that run one after another, each once or for every layer.

use crate::plan::Step;

/// Steps of one path.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Schedule {
    /// In the order in which they run; at most one of a stage.
    pub segments: Vec<Segment>,
    /// Where the layers end, if that is before the last one's last step.
    pub end: Option<End>,
}

/// Where in the layers a pass ends that leaves some of them out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The last layer that runs.
    pub layer: usize,
    /// How many of its steps run.
    pub steps: usize,
}

/// Steps that run together.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// What it is for.
    pub stage: Stage,
    /// What it runs, and how often.
    pub steps: Steps,
}

/// Where in a pass a segment is. The emitted project has a place for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Before the layers.
    Embed,
    /// The layers.
    Layers,
    /// After the layers.
    Head,
    /// The choice of the next token.
    Sample,
}

/// The steps of a segment.
#[derive(Debug, Clone, PartialEq)]
pub enum Steps {
    /// These, once.
    Once(Vec<Step>),
    /// For each layer those of its block; a list for each block.
    Layers(Vec<Vec<Step>>),
}

/// A step where a schedule runs it.
#[derive(Debug, Clone, Copy)]
pub struct Visit<'a> {
    /// Its number among [`Schedule::steps`].
    pub number: usize,
    /// The step.
    pub step: &'a Step,
    /// The segment that it is of.
    pub stage: Stage,
    /// The layer that runs it.
    pub layer: Option<usize>,
}

impl Segment {
    /// Steps that run once.
    pub fn once(stage: Stage, steps: Vec<Step>) -> Self {
        Self { stage, steps: Steps::Once(steps) }
    }

    /// The steps of every layer, by block.
    pub fn layers(blocks: Vec<Vec<Step>>) -> Self {
        Self { stage: Stage::Layers, steps: Steps::Layers(blocks) }
    }

    /// Every step, each block's once.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.lists().iter().flatten()
    }
}

impl Steps {
    /// A list for each block, or the only one.
    fn lists(&self) -> &[Vec<Step>] {
        match self {
            Self::Once(steps) => std::slice::from_ref(steps),
            Self::Layers(blocks) => blocks,
        }
    }

    fn lists_mut(&mut self) -> &mut [Vec<Step>] {
        match self {
            Self::Once(steps) => std::slice::from_mut(steps),
            Self::Layers(blocks) => blocks,
        }
    }
}

impl Schedule {
    /// Every step, each block's once.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.segments.iter().flat_map(Segment::steps)
    }

    /// The same, to be changed.
    pub fn steps_mut(&mut self) -> impl Iterator<Item = &mut Step> {
        self.segments.iter_mut().flat_map(|segment| segment.steps.lists_mut().iter_mut().flatten())
    }

    /// Every step as often as it runs, in order; layers run the blocks in `order`.
    pub fn visits(&self, order: &[usize]) -> impl Iterator<Item = Visit<'_>> {
        let mut visits = Vec::new();
        let mut count = 0;
        for segment in &self.segments {
            let lists = segment.steps.lists();
            let numbered = lists.iter().map(|steps| {
                count += steps.len();
                (count - steps.len(), steps)
            });
            let numbered: Vec<(usize, &Vec<Step>)> = numbered.collect();
            let mut visit = |list: usize, layer, most: usize| {
                let (first, steps) = numbered[list];
                let visit = |(number, step)| Visit { number, step, stage: segment.stage, layer };
                visits.extend((first..).zip(steps).take(most).map(visit));
            };
            match &segment.steps {
                Steps::Once(_) => visit(0, None, usize::MAX),
                Steps::Layers(_) => {
                    let layers = self.end.map_or(order.len(), |end| end.layer + 1);
                    for (layer, &block) in order.iter().enumerate().take(layers) {
                        let end = self.end.filter(|end| end.layer == layer);
                        visit(block, Some(layer), end.map_or(usize::MAX, |end| end.steps));
                    }
                }
            }
        }
        visits.into_iter()
    }

    /// The segment of a stage.
    pub fn segment(&self, stage: Stage) -> Option<&Segment> {
        self.segments.iter().find(|segment| segment.stage == stage)
    }

    /// The same without a stage.
    pub fn without(&self, stage: Stage) -> Self {
        let segments = self.segments.iter().filter(|segment| segment.stage != stage).cloned().collect();
        Self { segments, end: self.end }
    }

    /// Steps before the layers.
    pub fn embed(&self) -> &[Step] {
        self.once(Stage::Embed)
    }

    /// Steps of the layers, by block.
    pub fn blocks(&self) -> &[Vec<Step>] {
        match self.segment(Stage::Layers).map(|segment| &segment.steps) {
            Some(Steps::Layers(blocks)) => blocks,
            Some(Steps::Once(_)) | None => &[],
        }
    }

    /// Steps after the layers.
    pub fn head(&self) -> &[Step] {
        self.once(Stage::Head)
    }

    /// Steps that choose the next token.
    pub fn sample(&self) -> &[Step] {
        self.once(Stage::Sample)
    }

    fn once(&self, stage: Stage) -> &[Step] {
        match self.segment(stage).map(|segment| &segment.steps) {
            Some(Steps::Once(steps)) => steps,
            Some(Steps::Layers(_)) | None => &[],
        }
    }
}
