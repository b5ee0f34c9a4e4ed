//! Finding the kernels of a file, their parameters and attributes, and the thunk that calls each.

use super::rewrite::Source;
use super::{MslErrorKind, TokenKind};

/// A buffer parameter of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// The `[[...]]` attribute's name; `buffer` where a pointer has none.
    pub attribute: String,
    /// The attribute's argument, if any.
    pub argument: Option<String>,
    /// The parameter's name.
    pub name: String,
    /// The words of its type, address space and qualifiers included.
    pub words: Vec<String>,
    /// The line it stands on.
    pub line: u32,
}

impl Parameter {
    fn has(&self, word: &str) -> bool {
        self.words.iter().any(|have| have == word)
    }

    /// The type without address space, qualifiers, `*` and `&`.
    pub fn core_type(&self) -> String {
        const DROPPED: [&str; 11] = [
            "device",
            "constant",
            "threadgroup",
            "thread",
            "const",
            "volatile",
            "*",
            "&",
            "__restrict",
            "restrict",
            "coherent",
        ];
        self.words.iter().filter(|word| !DROPPED.contains(&word.as_str())).map(String::as_str).collect()
    }

    /// Whether it is a pointer or a reference.
    pub fn is_indirect(&self) -> bool {
        self.has("*") || self.has("&")
    }

    /// Whether the kernel may write through it.
    pub fn is_writable(&self) -> bool {
        let pointee_ends = self.words.iter().position(|word| word == "*").unwrap_or(self.words.len());
        !self.has("constant") && !self.words[..pointee_ends].iter().any(|word| word == "const")
    }
}

/// A kernel as declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelSource {
    /// Its name.
    pub name: String,
    /// The line of the word `kernel`.
    pub line: u32,
    /// Its parameters, in order.
    pub parameters: Vec<Parameter>,
    /// The text in `[[max_total_threads_per_threadgroup(...)]]`, if it is there.
    pub max_threads: Option<String>,
    /// Whether a barrier or a simd operation is within reach of its calls.
    pub uses_sync: bool,
}

/// Position attributes, with the shim's expression for their three components.
const POSITIONS: [(&str, &str); 7] = [
    ("thread_position_in_grid", "msl::position_in_grid(w, tid)"),
    ("thread_position_in_threadgroup", "msl::position_in_group(w, tid)"),
    ("threadgroup_position_in_grid", "w->group"),
    ("threads_per_threadgroup", "w->threads"),
    ("dispatch_threads_per_threadgroup", "w->threads"),
    ("threads_per_grid", "msl::threads_per_grid(w)"),
    ("threadgroups_per_grid", "w->groups"),
];

const INDICES: [(&str, &str); 7] = [
    ("thread_index_in_threadgroup", "tid"),
    ("thread_index_in_simdgroup", "(tid & 31)"),
    ("simdgroup_index_in_threadgroup", "(tid >> 5)"),
    ("simdgroups_per_threadgroup", "w->simdgroup_count"),
    ("dispatch_simdgroups_per_threadgroup", "w->simdgroup_count"),
    ("threads_per_simdgroup", "32u"),
    ("thread_execution_width", "32u"),
];

fn lookup<'a>(table: &[(&str, &'a str)], name: &str) -> Option<&'a str> {
    table.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
}

/// Whether an attribute means something here, or nothing that changes what a kernel does.
pub(super) fn is_known_attribute(name: &str) -> bool {
    const OTHERS: [&str; 4] = ["buffer", "kernel", "max_total_threads_per_threadgroup", "maybe_unused"];
    OTHERS.contains(&name) || lookup(&POSITIONS, name).or(lookup(&INDICES, name)).is_some()
}

/// A kernel's place in the significant tokens: `(` and `)` of its parameters.
pub(super) struct KernelPlace {
    pub name: String,
    pub line: u32,
    open: usize,
    close: usize,
    max_threads: Option<String>,
}

impl Source<'_> {
    fn attribute_argument(&self, begin: usize, end: usize, name: &str) -> Option<String> {
        let at = (begin..end).find(|at| self.at(*at) == name && self.at(at + 1) == "(")?;
        let close = self.matching(at + 1, "(", ")").ok()?;
        Some((at + 2..close).map(|at| self.at(at)).collect::<Vec<_>>().join(" "))
    }

    /// The kernel whose word `kernel` is at `at`.
    pub(super) fn kernel_at(&self, at: usize) -> Result<KernelPlace, super::MslError> {
        let line = self.line(at);
        let mut begin = at;
        while begin > 0 && !matches!(self.at(begin - 1), ";" | "}") {
            begin -= 1;
        }
        if (begin..at).any(|at| self.at(at) == "template") {
            return Err(self.error(line, MslErrorKind::TemplateKernel));
        }
        let mut open = at;
        while self.at(open) != "(" {
            if matches!(self.at(open), "" | ";" | "{" | "}") {
                return Err(self.error(line, MslErrorKind::KernelDeclaration));
            }
            open = if self.is_attribute(open) { self.attribute_end(open)? + 1 } else { open + 1 };
        }
        if self.kind(open - 1) != Some(TokenKind::Identifier) {
            return Err(self.error(line, MslErrorKind::KernelDeclaration));
        }
        let close = self.matching(open, "(", ")")?;
        let body = (close..self.len()).find(|at| self.at(*at) == "{").unwrap_or(close);
        let attribute = "max_total_threads_per_threadgroup";
        let max_threads =
            self.attribute_argument(begin, open, attribute).or_else(|| self.attribute_argument(close, body, attribute));
        Ok(KernelPlace { name: self.at(open - 1).to_owned(), line, open, close, max_threads })
    }

    fn parameter(&self, tokens: &[usize]) -> Result<Parameter, super::MslError> {
        let (mut attribute, mut argument, mut words) = (String::new(), None, Vec::new());
        let mut index = 0;
        while let Some(&at) = tokens.get(index) {
            if self.is_attribute(at) {
                let end = self.attribute_end(at)?;
                self.at(at + 2).clone_into(&mut attribute);
                argument = (self.at(at + 3) == "(")
                    .then(|| (at + 4..end - 2).map(|at| self.at(at)).collect::<Vec<_>>().join(" "));
                while tokens.get(index).is_some_and(|at| *at <= end) {
                    index += 1;
                }
            } else {
                words.push(self.at(at).to_owned());
                index += 1;
            }
        }
        let name = words.pop().unwrap_or_default();
        let line = tokens.first().map_or(0, |at| self.line(*at));
        Ok(Parameter { attribute, argument, name, words, line })
    }

    fn parameters(&self, place: &KernelPlace) -> Result<Vec<Parameter>, super::MslError> {
        let (mut groups, mut current, mut depth) = (Vec::new(), Vec::new(), 0);
        for at in place.open + 1..place.close {
            match self.at(at) {
                "(" | "[" | "{" | "<" => depth += 1,
                ")" | "]" | "}" | ">" => depth -= 1,
                "," if depth == 0 => {
                    groups.push(std::mem::take(&mut current));
                    continue;
                }
                _ => {}
            }
            current.push(at);
        }
        if !current.is_empty() {
            groups.push(current);
        }
        groups.iter().map(|tokens| self.parameter(tokens)).collect()
    }

    pub(super) fn kernel_source(&self, place: &KernelPlace, uses_sync: bool) -> Result<KernelSource, super::MslError> {
        let mut parameters = self.parameters(place)?;
        let mut next_index = 0;
        let mut used = Vec::new();
        for parameter in &mut parameters {
            let kernel = place.name.clone();
            let threadgroup = parameter.words.iter().any(|word| word == "threadgroup");
            if parameter.attribute == "threadgroup" || threadgroup {
                let parameter = parameter.name.clone();
                return Err(self.error(place.line, MslErrorKind::ThreadgroupParameter { kernel, parameter }));
            }
            if parameter.attribute.is_empty() && parameter.is_indirect() {
                parameter.attribute = "buffer".to_owned();
                parameter.argument = Some(next_index.to_string());
            }
            if parameter.attribute == "buffer" {
                let text = parameter.argument.clone().unwrap_or_default();
                let Some(index) = text.parse::<u32>().ok().filter(|index| *index <= 30) else {
                    return Err(self.error(parameter.line, MslErrorKind::BufferIndex { kernel, index: text }));
                };
                if used.contains(&index) {
                    return Err(self.error(parameter.line, MslErrorKind::DuplicateBuffer { kernel, index }));
                }
                used.push(index);
                next_index = index + 1;
            } else if lookup(&POSITIONS, &parameter.attribute).or(lookup(&INDICES, &parameter.attribute)).is_none() {
                let (line, attribute) = (parameter.line, parameter.attribute.clone());
                let parameter = parameter.name.clone();
                let kind = if attribute.is_empty() {
                    MslErrorKind::NoAttribute { kernel, parameter }
                } else {
                    MslErrorKind::Attribute { kernel, parameter, attribute }
                };
                return Err(self.error(line, kind));
            }
        }
        Ok(KernelSource {
            name: place.name.clone(),
            line: place.line,
            parameters,
            max_threads: place.max_threads.clone(),
            uses_sync,
        })
    }

    pub(super) fn parameters_end(place: &KernelPlace) -> usize {
        place.close
    }
}

impl KernelSource {
    /// What the kernel is given for a parameter: `buffer` is the pointer bound to an index, `attribute` the expression of a
    /// position or an index.
    fn argument(parameter: &Parameter, buffer: impl Fn(&str) -> String, attribute: impl Fn(&str) -> String) -> String {
        let core = parameter.core_type();
        if parameter.attribute == "buffer" {
            let pointer = buffer(parameter.argument.as_deref().unwrap_or_default());
            let kept = |word: &&String| {
                !matches!(word.as_str(), "device" | "constant" | "&" | "__restrict" | "restrict" | "coherent")
            };
            let words: Vec<_> = parameter.words.iter().filter(kept).map(String::as_str).collect();
            let constant = if parameter.words.iter().any(|word| word == "constant") { "const " } else { "" };
            let words = words.join(" ");
            return if parameter.words.iter().any(|word| word == "&") {
                format!("*({constant}{words}*){pointer}")
            } else {
                format!("({constant}{words}){pointer}")
            };
        }
        let expression = attribute(&parameter.attribute);
        if lookup(&INDICES, &parameter.attribute).is_some() {
            return format!("({core}){expression}");
        }
        match core.as_bytes().last() {
            Some(b'2') if !core.starts_with("uint32") => format!("{core}({expression}.x, {expression}.y)"),
            Some(b'3') => format!("{core}({expression}.x, {expression}.y, {expression}.z)"),
            _ => format!("({core}){expression}.x"),
        }
    }

    /// The C++ function that calls the kernel for one thread.
    pub(super) fn thunk(&self) -> String {
        let buffer = |index: &str| format!("buf[{index}]");
        let attribute = |name: &str| lookup(&POSITIONS, name).or(lookup(&INDICES, name)).unwrap_or_default().to_owned();
        let arguments: Vec<_> =
            self.parameters.iter().map(|parameter| Self::argument(parameter, buffer, attribute)).collect();
        format!(
            "static MSL_THUNK void msl_thunk_{0}(void* const* buf, const msl::Worker* w, unsigned tid) {{\n  (void)buf, (void)w, (void)tid;\n  {0}({1});\n}}\n",
            self.name,
            arguments.join(", ")
        )
    }

    /// The CUDA kernel `msl_kernel_NAME` that calls the kernel for one thread: a pointer to the counts of an indirect grid,
    /// null for another; then one for each buffer, in the order of the parameters.
    ///
    /// CUDA has no dispatch whose grid is in a buffer. The largest grid is launched and the threadgroups beyond the counts
    /// return at once: the command buffer stays one graph, with no wait of the host in its middle.
    pub(super) fn cuda_entry(&self) -> String {
        let buffer = |index: &str| format!("b{index}");
        let attribute = |name: &str| match name {
            "threadgroups_per_grid" | "threads_per_grid" => format!("msl::{name}(counts)"),
            _ => format!("msl::{name}()"),
        };
        let arguments: Vec<_> =
            self.parameters.iter().map(|parameter| Self::argument(parameter, buffer, attribute)).collect();
        let bounds =
            self.max_threads.as_ref().map_or_else(String::new, |threads| format!("__launch_bounds__({threads}) "));
        let pointers: Vec<_> = self
            .buffers()
            .map(|parameter| format!(", void* b{}", parameter.argument.as_deref().unwrap_or_default()))
            .collect();
        format!(
            "extern \"C\" __global__ void {bounds}msl_kernel_{0}(const unsigned* counts{1}) {{\n  if (msl::is_beyond(counts)) return;\n  {0}({2});\n}}\n",
            self.name,
            pointers.concat(),
            arguments.join(", ")
        )
    }

    /// Its buffer parameters, in order.
    pub fn buffers(&self) -> impl Iterator<Item = &Parameter> {
        self.parameters.iter().filter(|parameter| parameter.attribute == "buffer")
    }

    /// The kernel's row in the table of the library.
    pub(super) fn row(&self) -> String {
        let arguments: Vec<_> = self
            .buffers()
            .map(|parameter| {
                let index = parameter.argument.as_deref().unwrap_or_default();
                let kind = if parameter.words.iter().any(|word| word == "&") { "reference" } else { "pointer" };
                let access = if parameter.is_writable() { "write" } else { "read" };
                // the type comes last: it may hold `::`
                format!("{index}:{}:{kind}:{access}:{}", parameter.name, parameter.core_type())
            })
            .collect();
        format!(
            "  {{\"{0}\", msl_thunk_{0}, \"{1}\", {2}, (unsigned)({3}), {4}}},\n",
            self.name,
            arguments.join(" "),
            self.line,
            self.max_threads.as_deref().unwrap_or("0"),
            u32::from(self.uses_sync)
        )
    }
}
