//! The argument of `--quantize`: a format, formats by role, or a size that errors are measured for.

use std::num::NonZero;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use forge_formats::Format;
use forge_frontend::Checkpoint;
use forge_frontend::graph::WeightId;
use forge_pack::relative_errors;
use forge_plan::quantize::{Candidate, Recipe, around, choose, convertible, counts, stored_bits};

use crate::imatrix::Imatrix;
use crate::{Error, interrupt, progress};

/// What `auto` chooses among, of which a matrix takes those that its width has blocks of.
const CHOICES: [Format; 17] = [
    Format::Q8_0,
    Format::Q6K,
    Format::Q5K,
    Format::Q4K,
    Format::Q4_0,
    Format::Nvfp4,
    Format::Mxfp4,
    Format::Affine { bits: 6, group: 32 },
    Format::Affine { bits: 6, group: 64 },
    Format::Affine { bits: 5, group: 32 },
    Format::Affine { bits: 5, group: 64 },
    Format::Affine { bits: 5, group: 128 },
    Format::Affine { bits: 4, group: 32 },
    Format::Affine { bits: 4, group: 64 },
    Format::Affine { bits: 4, group: 128 },
    Format::Affine { bits: 3, group: 64 },
    Format::Affine { bits: 3, group: 128 },
];

/// How matrices are to be quantised.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantize {
    /// As it was given, in lower case.
    text: String,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Recipe(Recipe),
    /// Bits a weight, of all matrices.
    Auto(f64),
}

impl Quantize {
    /// As it was given, in lower case.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the report calls it: a single format by its name.
    pub fn name(&self) -> String {
        match &self.kind {
            Kind::Recipe(recipe) if recipe.roles.is_empty() => recipe.format.to_string(),
            Kind::Recipe(_) | Kind::Auto(_) => self.text.clone(),
        }
    }

    /// The recipe for a checkpoint. Of a size it is found by quantising some rows of every matrix to every format that it can
    /// have.
    ///
    /// # Errors
    /// No recipe is that small; a weight that a format cannot hold; an importance matrix that is none.
    pub fn recipe(&self, checkpoint: &Checkpoint, imatrix: Option<&Path>, quiet: bool) -> Result<Recipe, Error> {
        let bits = match &self.kind {
            Kind::Recipe(recipe) => return Ok(recipe.clone()),
            Kind::Auto(bits) => *bits,
        };
        let imatrix = imatrix.map(Imatrix::read).transpose()?;
        let graph = &checkpoint.graph;
        let matrices = convertible(graph, &CHOICES);
        let (others, elements) = around(graph, &matrices);
        let bar = progress::measuring(matrices.len(), quiet);
        let candidates_of = |(id, formats): &(WeightId, Vec<Format>)| -> Result<Vec<Candidate>, Error> {
            interrupt::check()?;
            let weight = &graph.weights[*id];
            let importance = imatrix.as_ref().and_then(|imatrix| imatrix.of(weight));
            let errors = relative_errors(graph, checkpoint, *id, formats, importance)?;
            bar.inc(1);
            let candidate = |format, error| {
                let error = counts(graph, *id) * error;
                Candidate { matrix: *id, format, bits: stored_bits(weight, format), error }
            };
            let known = formats.iter().zip(errors).filter_map(|(format, error)| Some(candidate(*format, error?)));
            Ok([candidate(weight.format, 0.0)].into_iter().chain(known).collect())
        };
        let candidates = in_parallel(&matrices, candidates_of)?.concat();
        bar.finish_and_clear();
        let chosen = choose(&candidates, others, (bits * elements as f64) as u64);
        let matrices =
            chosen.map_err(|least| Error::TooSmall { bits, least: least as f64 / elements.max(1) as f64 })?;
        Ok(Recipe { matrices, ..Recipe::all(Format::Q8_0) })
    }
}

/// What `work` makes of each item, in the items' order, on as many threads as there are processors. The error is that of the first item
/// that has one.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> Result<R, Error> + Sync) -> Result<Vec<R>, Error> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return done };
            let result = work(item);
            let failed = result.is_err();
            done.push((index, result));
            if failed {
                // Nobody begins another; those before it are begun already.
                next.store(items.len(), Ordering::Relaxed);
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(items.len().max(1));
    let mut results: Vec<(usize, Result<R, Error>)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let join = |worker: thread::ScopedJoinHandle<'_, _>| {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        workers.into_iter().flat_map(join).collect()
    });
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

impl FromStr for Quantize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.to_ascii_lowercase();
        if let Some(bits) = text.strip_prefix("auto:") {
            let bits = bits.parse::<f64>().ok().filter(|bits| (1.0..=32.0).contains(bits));
            let bits = bits.ok_or("expected bits a weight from 1 to 32 after auto:")?;
            return Ok(Self { kind: Kind::Auto(bits), text });
        }
        let mut parts = text.split(',');
        let mut recipe = Recipe::all(format(parts.next().unwrap_or_default())?);
        for part in parts {
            let (role, name) = part.split_once('=').ok_or_else(|| format!("expected ROLE=FORMAT, found {part:?}"))?;
            if recipe.roles.iter().any(|(known, _)| known == role) {
                return Err(format!("{role} is given twice"));
            }
            recipe.roles.push((role.to_owned(), format(name)?));
        }
        Ok(Self { kind: Kind::Recipe(recipe), text })
    }
}

/// A format that has a quantiser.
fn format(name: &str) -> Result<Format, String> {
    let refused = || format!("{name:?} is none of {}, mlx4, affine<BITS>_g<GROUP>", Format::quantisers());
    let format: Format = name.parse().map_err(|_| refused())?;
    if format.has_quantiser() { Ok(format) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Quantize, String> {
        text.parse()
    }

    #[test]
    fn recipes_are_read() {
        let q4_k = parse("Q4_K").expect("a recipe");
        assert_eq!((q4_k.text(), q4_k.name().as_str()), ("q4_k", "Q4_K"));
        assert_eq!(q4_k.kind, Kind::Recipe(Recipe::all(Format::Q4K)));
        let mixed = parse("q4_k,ffn_down=q6_k,token_embd=affine8_g64").expect("a recipe");
        let roles = vec![
            ("ffn_down".to_owned(), Format::Q6K),
            ("token_embd".to_owned(), Format::Affine { bits: 8, group: 64 }),
        ];
        assert_eq!(mixed.kind, Kind::Recipe(Recipe { roles, ..Recipe::all(Format::Q4K) }));
        assert_eq!(mixed.name(), "q4_k,ffn_down=q6_k,token_embd=affine8_g64");
        assert_eq!(parse("auto:4.6").map(|auto| auto.kind), Ok(Kind::Auto(4.6)));
        assert_eq!(parse("mlx4").map(|mlx| mlx.name()), Ok("affine4_g64".to_owned()));
    }

    #[test]
    fn work_in_parallel_is_that_of_one_after_another() {
        let items: Vec<usize> = (0..1000).collect();
        let squares = in_parallel(&items, |n| Ok(n * n)).expect("no item fails");
        assert_eq!(squares, items.iter().map(|n| n * n).collect::<Vec<_>>());
        assert_eq!(in_parallel(&[] as &[usize], |n| Ok(*n)).expect("no item"), Vec::<usize>::new());
        let failing =
            |n: &usize| if n % 300 == 299 { Err(Error::TooSmall { bits: *n as f64, least: 0.0 }) } else { Ok(()) };
        let error = in_parallel(&items, failing).expect_err("items fail").to_string();
        assert!(error.contains("299"), "{error}");
    }

    #[test]
    fn what_is_no_recipe_is_refused() {
        for (text, expected) in [
            ("q3_k", "\"q3_k\" is none of q8_0"),
            ("f16", "\"f16\" is none of"),
            ("", "\"\" is none of"),
            ("q4_k,ffn_down", "expected ROLE=FORMAT, found \"ffn_down\""),
            ("q4_k,ffn_down=iq2_s", "\"iq2_s\" is none of"),
            ("q4_k,a=q8_0,a=q8_0", "a is given twice"),
            ("auto:", "expected bits a weight"),
            ("auto:0.5", "expected bits a weight"),
            ("auto:nan", "expected bits a weight"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
