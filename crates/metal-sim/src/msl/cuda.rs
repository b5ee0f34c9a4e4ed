//! The rewritten file as CUDA C++ for the headers in `cpp/cuda`: what clang's vector extension and single-precision
//! constants are to the host's C++ is spelled out here.

use super::lex::{Token, TokenKind, directives, lex};
use super::rewrite::blanked;
use super::{KernelSource, MslError, MslErrorKind, Rewritten};

/// The headers that the text of [`Rewritten::cuda`] includes, by name.
pub const CUDA_HEADERS: [(&str, &str); 5] = [
    ("msl_cuda.h", include_str!("../../cpp/cuda/msl_cuda.h")),
    ("msl_cuda_math.h", include_str!("../../cpp/cuda/msl_cuda_math.h")),
    ("msl_cuda_matrix.h", include_str!("../../cpp/cuda/msl_cuda_matrix.h")),
    ("msl_cuda_simd.h", include_str!("../../cpp/cuda/msl_cuda_simd.h")),
    ("msl_cuda_types.h", include_str!("../../cpp/cuda/msl_cuda_types.h")),
];

impl Rewritten {
    /// The whole CUDA C++ file: the body, line by line where it was, and for each kernel a `__global__` function
    /// `msl_kernel_NAME` with a pointer to the counts of an indirect grid and one for each buffer, in the order of the
    /// kernel's parameters. `file` is the name for messages.
    ///
    /// # Errors
    /// What depends on the order of lanes in a matrix, with file and line.
    pub fn cuda(&self, file: &str) -> Result<String, MslError> {
        let body = body(&self.body, file)?;
        let mut text = format!(
            "#include \"msl_cuda.h\"\nnamespace metal {{ namespace kernels {{\n#line 1 \"{}\"\n{body}",
            file.escape_default()
        );
        text.push_str("\n#line 1 \"entries\"\n");
        text.extend(self.kernels.iter().map(KernelSource::cuda_entry));
        text.push_str("} }\n");
        Ok(text)
    }
}

/// A floating literal without a suffix is a float in MSL.
fn float_literal(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let hexadecimal = lower.starts_with("0x");
    let floating = if hexadecimal { lower.contains('p') } else { lower.contains(['.', 'e']) };
    (floating && !lower.ends_with(['f', 'l'])).then(|| format!("{text}f"))
}

/// The numbers of a swizzle's components: `xzy` and `rbg` are 0, 2, 1.
fn swizzle(word: &str) -> Option<Vec<usize>> {
    let components = |names: &str| word.chars().map(|c| names.find(c)).collect::<Option<Vec<_>>>();
    if !(2..=4).contains(&word.len()) {
        return None;
    }
    components("xyzw").or_else(|| components("rgba"))
}

/// clang's pragmas for loops as nvcc's.
fn pragma(words: &[&str]) -> Option<String> {
    let ["#", "pragma", "clang", "loop", what, "(", argument, ")"] = words else { return None };
    match (*what, *argument) {
        ("unroll", "full" | "enable") => Some("#pragma unroll".to_owned()),
        ("unroll", "disable") => Some("#pragma unroll 1".to_owned()),
        ("unroll_count", count) => Some(format!("#pragma unroll {count}")),
        _ => None,
    }
}

/// Replaces a directive: `numbers` are its significant tokens.
fn rewrite_directive(tokens: &[Token<'_>], numbers: &[usize], out: &mut [String]) {
    let words: Vec<&str> = numbers.iter().map(|at| tokens[*at].text).collect();
    let include = matches!(words.as_slice(), ["#", "include", ..]);
    let Some(text) = pragma(&words).or_else(|| include.then(String::new)) else { return };
    for text in &mut out[numbers[0]..=numbers[numbers.len() - 1]] {
        *text = blanked(text);
    }
    out[numbers[0]] = text;
}

fn body(text: &str, file: &str) -> Result<String, MslError> {
    let tokens = lex(text);
    let inside = directives(&tokens);
    let mut out: Vec<String> = tokens.iter().map(|token| token.text.to_owned()).collect();
    let significant: Vec<usize> = (0..tokens.len()).filter(|at| tokens[*at].is_significant()).collect();
    let at = |index: usize| significant.get(index).map_or("", |place| tokens[*place].text);
    let mut directive: Vec<usize> = Vec::new();
    for (index, &place) in significant.iter().enumerate() {
        let token = &tokens[place];
        if inside[place] {
            // a macro's text is rewritten too
            if token.text == "#" {
                rewrite_directive(&tokens, &std::mem::take(&mut directive), &mut out);
            }
            directive.push(place);
        }
        match token.kind {
            TokenKind::Number => {
                if let Some(number) = float_literal(token.text) {
                    out[place] = number;
                }
            }
            TokenKind::Identifier if token.text == "thread_elements" => {
                let kind = MslErrorKind::LaneOrder { word: token.text.to_owned() };
                return Err(MslError { file: file.to_owned(), line: token.line, kind });
            }
            TokenKind::Identifier if index > 0 && matches!(at(index - 1), "." | "->") && at(index + 1) != "(" => {
                if let Some(components) = swizzle(token.text) {
                    let (next, after) = (at(index + 1), at(index + 2));
                    let compound = matches!(next, "+" | "-" | "*" | "/" | "&" | "|" | "^") && after == "=";
                    let assigned = compound || (next == "=" && after != "=");
                    let numbers: Vec<_> = components.iter().map(ToString::to_string).collect();
                    let name = if assigned { "swizzle_of" } else { "swizzle" };
                    out[place] = format!("template {name}<{}>()", numbers.join(", "));
                }
            }
            TokenKind::Text if token.text.contains("clang loop unroll") => {
                out[place] = token.text.replace("clang loop unroll(full)", "unroll");
            }
            _ => {}
        }
    }
    if !directive.is_empty() {
        rewrite_directive(&tokens, &directive, &mut out);
    }
    Ok(out.concat())
}

#[cfg(test)]
mod tests {
    use super::super::rewrite;
    use super::*;

    fn translated(text: &str) -> String {
        body(text, "t.metal").expect("is handled")
    }

    #[test]
    fn literals_swizzles_and_pragmas() {
        assert_eq!(translated("1.0 + .5e-3 + 2e3 + 0x1p4"), "1.0f + .5e-3f + 2e3f + 0x1p4f");
        assert_eq!(translated("1.0f + 7 + 0xE5 + 3u + 0x1p4f"), "1.0f + 7 + 0xE5 + 3u + 0x1p4f");
        assert_eq!(
            translated("v.xy = w->zyx; v.xy == w.rg; v.xy += 1; v.x"),
            "v.template swizzle_of<0, 1>() = w->template swizzle<2, 1, 0>(); \
             v.template swizzle<0, 1>() == w.template swizzle<0, 1>(); v.template swizzle_of<0, 1>() += 1; v.x"
        );
        assert_eq!(translated("s.xyzzy + s.wxyzw + s.zw(1)"), "s.xyzzy + s.wxyzw + s.zw(1)");
        let lines = "#include <metal_stdlib>\n#define A 1.5\n  #pragma clang loop unroll(disable)\n#pragma clang loop unroll(full)\nfor";
        let words: Vec<_> = translated(lines).lines().map(|line| line.trim().to_owned()).collect();
        assert_eq!(words, ["", "#define A 1.5f", "#pragma unroll 1", "#pragma unroll", "for"]);
    }

    #[test]
    fn the_order_of_lanes_is_refused_with_its_line() {
        let text = "#include <metal_stdlib>\nkernel void k(device float* o [[buffer(0)]]) {\n  m.thread_elements()[0] = 1;\n}\n";
        let error = rewrite(text, "k.metal").expect("is MSL").cuda("k.metal").expect_err("is refused");
        assert!(error.to_string().starts_with("k.metal:3: thread_elements depends on"), "{error}");
    }

    #[test]
    fn an_entry_has_a_pointer_for_each_buffer() {
        let text = "[[max_total_threads_per_threadgroup(64)]] kernel void k(constant uint& n [[buffer(3)]], \
                    device const float* x [[buffer(0)]], uint2 at [[thread_position_in_grid]], \
                    ushort lane [[thread_index_in_simdgroup]]) {}";
        let cuda = rewrite(text, "k.metal").expect("is MSL").cuda("k.metal").expect("is handled");
        let entry = cuda.split("#line 1 \"entries\"\n").nth(1).expect("has entries");
        assert_eq!(
            entry,
            "extern \"C\" __global__ void __launch_bounds__(64) msl_kernel_k(const unsigned* counts, void* b3, void* b0) {\n  \
             if (msl::is_beyond(counts)) return;\n  k(*(const uint*)b3, \
             (const float *)b0, uint2(msl::thread_position_in_grid().x, msl::thread_position_in_grid().y), \
             (ushort)msl::thread_index_in_simdgroup());\n}\n} }\n"
        );
    }
}
