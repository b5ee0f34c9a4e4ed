//! Lists of weight formats in the documentation: each names all that there are.

use forge_formats::Format;

/// A line for each format that a list leaves out.
pub(super) fn check(files: &[(String, String)]) -> Vec<String> {
    let stored = || Format::all().filter(|format| format.ggml_id().is_some());
    let names: Vec<String> = stored().map(|format| format.to_string()).collect();
    let quantisers: Vec<String> =
        stored().filter(|format| format.has_quantiser()).map(|format| format.to_string()).collect();
    let modes: Vec<String> = Format::mlx_modes().split(", ").map(str::to_owned).collect();
    let lists = [
        ("README.md", "| tensor formats |", "\n", &names),
        ("docs/models.md", "| format | matrix | embedding |", "\n\n", &names),
        ("docs/models.md", "### Folders of other toolchains", "\n#", &modes),
        ("docs/models.md", "`forge gen --quantize` writes", ":", &quantisers),
    ];
    let mut problems = Vec::new();
    for (file, start, end, names) in lists {
        let text = files.iter().find(|(name, _)| name == file).map_or("", |(_, text)| text);
        let Some(list) = text.split_once(start).map(|(_, rest)| rest.split(end).next().unwrap_or_default()) else {
            problems.push(format!("{file}: no list of formats behind {start:?}"));
            continue;
        };
        let words: Vec<&str> = list.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        let missing = names.iter().filter(|name| !words.contains(&name.as_str()));
        problems.extend(missing.map(|name| format!("{file}: {name} is missing from the list behind {start:?}")));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_that_a_list_leaves_out_is_named() {
        let all: Vec<String> = Format::all().map(|format| format.to_string()).collect();
        let readme =
            |names: &[String]| ("README.md".to_owned(), format!("| tensor formats | {} |\n", names.join(", ")));
        let of_readme = |names: &[String]| check(&[readme(names)]).into_iter().filter(|line| line.contains("README"));
        assert_eq!(of_readme(&all).count(), 0);
        let without: Vec<String> = all.into_iter().filter(|name| name != "Q6_K").collect();
        let problems: Vec<String> = of_readme(&without).collect();
        assert_eq!(problems, ["README.md: Q6_K is missing from the list behind \"| tensor formats |\""]);
    }
}
